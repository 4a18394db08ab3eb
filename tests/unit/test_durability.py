"""A sentence says what a power cut may cost, never worse and never better than SQLite's documentation does."""

from __future__ import annotations

import itertools

import pytest
from msgspec.structs import replace

from bulletproof.domain.durability import Connection, Durability, Seen, connections_of, durability, has_reset_bug
from bulletproof.domain.report import Report, summary

NOTHING = "a power cut costs nothing that was acknowledged"
LAST_COMMITS = "a power cut may cost the last commits; the database stays whole"
LAST_COMMIT = "a power cut right after a commit may take that one back; the database stays whole"
OLD_DISK = "a power cut may take the last commit back and, very rarely and on an old file system, damage the database"
DAMAGE = "a power cut may damage the database"
CRASH = "a crash of the app in the middle of a write, like a power cut, may damage the database"
NOT_KNOWN = "what a power cut may cost is not known, since no connection of the app's told its `synchronous`"

OFF, NORMAL, FULL, EXTRA = range(4)
COST = {
    "WAL": (DAMAGE, LAST_COMMITS, NOTHING, NOTHING),
    "DELETE": (DAMAGE, OLD_DISK, LAST_COMMIT, NOTHING),
    "TRUNCATE": (DAMAGE, OLD_DISK, NOTHING, NOTHING),
    "PERSIST": (DAMAGE, OLD_DISK, NOTHING, NOTHING),
    "MEMORY": (CRASH, CRASH, CRASH, CRASH),
    "OFF": (CRASH, CRASH, CRASH, CRASH),
}
GOOD = "3.51.3"


def found(mode: str, *connections: Connection, workers: int = 1) -> Durability:
    """What follows for a database whose connections have that mode."""
    header = "WAL" if mode == "WAL" else "DELETE"
    made = durability(Seen(journal=header, connections=connections), workers=workers)
    assert made is not None
    return made


def one(mode: str, level: int | None, sqlite: str = GOOD, mmap_size: int = 0) -> Connection:
    """A connection."""
    return Connection(sqlite=sqlite, synchronous=level, journal=mode, mmap_size=mmap_size)


@pytest.mark.parametrize(("mode", "level"), itertools.product(COST, range(4)))
def test_each_mode_with_each_level(mode: str, level: int) -> None:
    """Every combination has its sentence, and only what deserves it a warning."""
    told = found(mode, one(mode, level))

    assert (told.mode, told.synchronous) == (mode, ("OFF", "NORMAL", "FULL", "EXTRA")[level])
    assert told.sentence == COST[mode][level]
    assert bool(told.warnings) == (level == OFF or mode in {"MEMORY", "OFF"})
    assert told.advice == ()


@pytest.mark.parametrize("mode", COST)
def test_what_nobody_heard_is_unknown(mode: str) -> None:
    """Without a level there is no promise; a journal in memory is dangerous with any."""
    told = found(mode, one(mode, None))

    assert told.synchronous == "unknown"
    assert told.sentence == (CRASH if mode in {"MEMORY", "OFF"} else NOT_KNOWN)
    assert found("WAL").words == f"WAL journal, synchronous unknown, SQLite unknown: {NOT_KNOWN}"


@pytest.mark.parametrize(
    ("levels", "weakest"),
    [
        ((FULL, NORMAL), "NORMAL"),
        ((NORMAL, FULL, EXTRA), "NORMAL"),
        ((FULL, OFF), "OFF"),
        ((FULL, None), "unknown"),
        ((OFF, None), "OFF"),
    ],
)
def test_the_weakest_connection_counts(levels: tuple[int | None, ...], weakest: str) -> None:
    """One connection that syncs less is enough to lose by; one that was not heard may be that one."""
    assert found("WAL", *(one("WAL", level) for level in levels)).synchronous == weakest


def test_the_weakest_journal_counts() -> None:
    """Each connection has its own without WAL, which the file alone decides on."""
    assert found("DELETE", one("TRUNCATE", FULL), one("DELETE", FULL)).mode == "DELETE"
    assert found("DELETE", one("TRUNCATE", FULL), one("MEMORY", FULL)).mode == "MEMORY"
    assert found("DELETE", one("WAL", FULL)).mode == "DELETE"
    assert found("WAL", one("DELETE", FULL)).mode == "WAL"


def test_no_database_has_no_durability() -> None:
    """Nothing is told of an app that keeps its data elsewhere."""
    assert durability(Seen(), workers=3) is None


@pytest.mark.parametrize(
    ("version", "has_it"),
    [
        ("3.6.23", False),
        ("3.7.0", True),
        ("3.40.1", True),
        ("3.44.5", True),
        ("3.44.6", False),
        ("3.45.1", True),
        ("3.50.6", True),
        ("3.50.7", False),
        ("3.51.2", True),
        ("3.51.3", False),
        ("3.52.0", False),
        ("4.0.0", False),
        ("unknown", False),
    ],
)
def test_the_wal_reset_bug(version: str, *, has_it: bool) -> None:
    """It is told by the number, as advice, and only where WAL is used."""
    assert has_reset_bug(version) is has_it
    told = found("WAL", one("WAL", FULL, version))
    assert [f"SQLite {version}" in line for line in told.advice] == [True] * has_it
    assert told.warnings == ()
    assert found("DELETE", one("DELETE", FULL, version)).advice == ()


def test_several_workers_without_wal_deserve_a_word() -> None:
    """One worker waits for nobody, and WAL lets several go on."""
    assert found("DELETE", one("DELETE", FULL), workers=1).warnings == ()
    assert found("WAL", one("WAL", FULL), workers=3).warnings == ()
    (warning,) = found("DELETE", one("DELETE", FULL), workers=3).warnings
    assert warning.startswith("3 workers serve from a database that is not in WAL mode")
    assert 'journal = "wal" under [database]' in warning


def test_a_mapped_database_is_told() -> None:
    """The largest map of any connection."""
    told = found("WAL", one("WAL", FULL), one("WAL", FULL, mmap_size=4096))
    assert told.mmap_size == 4096
    assert told.advice == ("mmap_size = 4096: an error of the disk then ends the process (sqlite.org/mmap.html)",)


@pytest.mark.parametrize(
    ("value", "level"),
    [
        ("0", OFF),
        ("off", OFF),
        ("No", OFF),
        ("FALSE", OFF),
        ("1", NORMAL),
        ("normal", NORMAL),
        ("on", NORMAL),
        ("2", FULL),
        ("Full", FULL),
        ("3", EXTRA),
        ("extra", EXTRA),
        ("9", EXTRA),
    ],
)
def test_words_of_synchronous(value: str, level: int) -> None:
    """As SQLite reads them."""
    opened = {"connection": "7.1", "sqlite": GOOD, "synchronous": FULL, "journal_mode": "delete"}
    heard = connections_of([opened, {"connection": "7.1", "pragma": "Synchronous", "value": value}])
    assert [connection.synchronous for connection in heard] == [level]


def test_notes_become_connections() -> None:
    """Each PRAGMA belongs to its connection; the last of a kind holds; what was not heard is a connection too."""
    notes: list[dict[str, object]] = [
        {"connection": "7.1", "sqlite": GOOD, "synchronous": 2, "journal_mode": "delete"},
        {"connection": "7.2", "sqlite": GOOD, "synchronous": 2, "journal_mode": "delete"},
        {"connection": "7.1", "pragma": "journal_mode", "value": "memory"},
        {"connection": "7.1", "pragma": "mmap_size", "value": "100"},
        {"connection": "7.1", "pragma": "mmap_size", "value": "4096"},
        {"connection": "7.1", "pragma": "foreign_keys", "value": "on"},
        {"connection": "8.1"},
    ]
    first, second, third = connections_of(notes)

    assert (first.journal, first.mmap_size, first.synchronous) == ("MEMORY", 4096, FULL)
    assert first.sets == ("journal_mode = MEMORY", "mmap_size = 100", "mmap_size = 4096", "foreign_keys = ON")
    assert second == Connection(sqlite=GOOD, synchronous=FULL, journal="DELETE")
    assert third == Connection()


def test_a_step_says_warnings_and_keeps_advice_for_a_plan() -> None:
    """The note of a rehearsal has a line more only where something deserves it."""
    report = Report(release="1-abc1234", copy_bytes=1 << 20, health="/up healthy")
    healthy = replace(report, durability=found("WAL", one("WAL", FULL, "3.40.1")))
    off = replace(report, durability=found("WAL", one("WAL", OFF)))
    line = f"the app sets synchronous = OFF: {DAMAGE}"

    assert summary(healthy) == summary(report) == "on a copy of 1.0 MiB: /up healthy"
    assert summary(off).splitlines()[1].startswith(line)
    assert line in summary(replace(off, is_migrating=True))
