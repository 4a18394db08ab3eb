"""What a power cut may cost an app's SQLite database, by how the app was seen to use it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

UNKNOWN = "unknown"

_SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")
"""By the number that SQLite gives them (sqlite.org/pragma.html#pragma_synchronous)."""
_OFF, _NORMAL, _FULL, _EXTRA = range(4)
_SAID_OTHERWISE = {"OFF": _OFF, "NO": _OFF, "FALSE": _OFF, "FULL": _FULL, "EXTRA": _EXTRA}
"""Any other word is NORMAL to SQLite."""
_WAL = "WAL"
_BY_WEAKNESS = ("OFF", "MEMORY", "DELETE", "TRUNCATE", "PERSIST")
_SYNCED_END = {"TRUNCATE", "PERSIST"}
"""Modes in which FULL has the journal's end on disk as well; the deletion of a file only EXTRA waits for."""
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_RESET_BUG = ((3, 7, 0), (3, 51, 2))
"""The first and the last with the WAL-reset bug (sqlite.org/wal.html#walresetbug)."""
_RESET_REPAIRED = {(3, 44): 6, (3, 50): 7}
"""Older lines that SQLite's authors repaired, from this last number on."""

_NOTHING = "a power cut costs nothing that was acknowledged"
_LAST_COMMITS = "a power cut may cost the last commits; the database stays whole"
_LAST_COMMIT = "a power cut right after a commit may take that one back; the database stays whole"
_OLD_DISK = "a power cut may take the last commit back and, very rarely and on an old file system, damage the database"
_DAMAGE = "a power cut may damage the database"
_CRASH = "a crash of the app in the middle of a write, like a power cut, may damage the database"
_NOT_KNOWN = "what a power cut may cost is not known, since no connection of the app's told its `synchronous`"


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """One connection of the app's to its database, as it was when it was heard last."""

    sqlite: str = ""
    """The library's version; empty when it was not told."""
    synchronous: int | None = None
    """None when it could not be told."""
    journal: str = ""
    """The mode that it was given or gave last, such as `MEMORY`."""
    mmap_size: int = 0
    """Bytes."""
    sets: tuple[str, ...] = ()
    """What the app sets on it, such as `foreign_keys = ON`, in order."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of a database while its app ran."""

    journal: str = ""
    """What the file says afterwards, `WAL` or `DELETE`; empty when there is none."""
    connections: tuple[Connection, ...] = ()


class Durability(msgspec.Struct, frozen=True, kw_only=True):
    """What a power cut may cost, and what follows from it."""

    mode: str = UNKNOWN
    """The journal mode; of several connections' the weakest."""
    synchronous: str = UNKNOWN
    """The weakest of the connections that the app opened."""
    sqlite: str = UNKNOWN
    """The library's version in the app's Python."""
    mmap_size: int = 0
    """Bytes; the most of any connection."""
    sets: tuple[str, ...] = ()
    """The statements of PRAGMA that the app sends and that matter here, each once."""
    sentence: str = ""
    """What a power cut may cost."""
    warnings: tuple[str, ...] = ()
    """What deserves a word in each deployment, each with what helps."""
    advice: tuple[str, ...] = ()
    """What is good to know besides."""

    @property
    def words(self) -> str:
        """The facts and the sentence, in one line."""
        return f"{self.mode} journal, synchronous {self.synchronous}, SQLite {self.sqlite}: {self.sentence}"


def connections_of(notes: Iterable[Mapping[str, object]]) -> tuple[Connection, ...]:
    """The connections that the notes of `effects.connections` tell of, in the order in which they were opened."""
    found: dict[object, Connection] = {}
    for note in notes:
        key = note["connection"]
        found[key] = _heard(found.get(key, Connection()), note)
    return tuple(found.values())


def durability(seen: Seen, *, workers: int) -> Durability | None:
    """What a power cut may cost; None when there is no SQLite database. `workers` serve beside one another."""
    if not seen.journal:
        return None
    mode, level = _mode(seen), _weakest(seen.connections)
    library = next((one.sqlite for one in seen.connections if one.sqlite), UNKNOWN)
    sets = tuple(dict.fromkeys(words for one in seen.connections for words in one.sets))
    mapped = max((one.mmap_size for one in seen.connections), default=0)
    return Durability(
        mode=mode,
        synchronous=UNKNOWN if level is None else _SYNCHRONOUS[level],
        sqlite=library,
        mmap_size=mapped,
        sets=sets,
        sentence=_sentence(mode, level),
        warnings=tuple(_warnings(mode, level, workers)),
        advice=tuple(_advice(mode, library, mapped)),
    )


def has_reset_bug(version: str) -> bool:
    """Whether a version of SQLite has, by its number, the WAL-reset bug; a distribution may have repaired it."""
    found = _VERSION.fullmatch(version)
    if found is None:
        return False
    first, second, third = map(int, found.groups())
    repaired = _RESET_REPAIRED.get((first, second))
    is_repaired = repaired is not None and third >= repaired
    return _RESET_BUG[0] <= (first, second, third) <= _RESET_BUG[1] and not is_repaired


def _heard(connection: Connection, note: Mapping[str, object]) -> Connection:
    """The connection after one more note: how it was opened, that it was not heard, or a PRAGMA that it was sent."""
    if "pragma" not in note:
        level, library, mode = note.get("synchronous"), note.get("sqlite"), note.get("journal_mode")
        return replace(
            connection,
            sqlite=library if isinstance(library, str) else "",
            synchronous=level if isinstance(level, int) else None,
            journal=mode.upper() if isinstance(mode, str) else "",
        )
    name, value = str(note["pragma"]).lower(), str(note["value"]).upper()
    heard = replace(connection, sets=(*connection.sets, f"{name} = {value}"))
    if name == "synchronous":
        return replace(heard, synchronous=_level(value))
    if name == "journal_mode":
        return replace(heard, journal=value)
    if name == "mmap_size" and value.isdecimal():
        return replace(heard, mmap_size=int(value))
    return heard


def _level(value: str) -> int:
    """What SQLite makes of a value of `synchronous`."""
    if value.isdecimal():
        return min(int(value), _EXTRA)
    return _SAID_OTHERWISE.get(value, _NORMAL)


def _mode(seen: Seen) -> str:
    """The file says WAL or not; without it each connection has a mode of its own, and only the app tells it."""
    if seen.journal == _WAL:
        return _WAL
    said = [one.journal if one.journal in _BY_WEAKNESS else seen.journal for one in seen.connections]
    return min(said, key=_BY_WEAKNESS.index, default=seen.journal)


def _weakest(connections: Sequence[Connection]) -> int | None:
    """The weakest `synchronous`; OFF is the weakest whatever the untold ones have."""
    told = [one.synchronous for one in connections if one.synchronous is not None]
    is_told = bool(told) and len(told) == len(connections)
    return min(told) if is_told or _OFF in told else None


def _sentence(mode: str, level: int | None) -> str:
    if mode in {"OFF", "MEMORY"}:
        return _CRASH
    if level is None:
        return _NOT_KNOWN
    if level == _OFF:
        return _DAMAGE
    if mode == _WAL:
        return _LAST_COMMITS if level == _NORMAL else _NOTHING
    if level == _NORMAL:
        return _OLD_DISK
    return _NOTHING if level == _EXTRA or mode in _SYNCED_END else _LAST_COMMIT


def _warnings(mode: str, level: int | None, workers: int) -> Iterable[str]:
    if mode in {"OFF", "MEMORY"}:
        yield f"the app sets journal_mode = {mode}: {_CRASH}; take that PRAGMA out"
    elif level == _OFF:
        yield f"the app sets synchronous = OFF: {_DAMAGE}; NORMAL with WAL is nearly as fast and keeps it whole"
    if mode != _WAL and workers > 1:
        yield (
            f"{workers} workers serve from a database that is not in WAL mode, so that readers and writers wait for one"
            ' another: journal = "wal" under [database] in bulletproof.toml'
        )


def _advice(mode: str, library: str, mapped: int) -> Iterable[str]:
    if mode == _WAL and has_reset_bug(library):
        yield (
            f"SQLite {library} has, by its number, a bug that can damage a database in WAL mode, very rarely: when one"
            " connection writes while others checkpoint, at the same instant; 3.51.3 has it no more"
            " (sqlite.org/wal.html#walresetbug)"
        )
    if mapped:
        yield f"mmap_size = {mapped}: an error of the disk then ends the process (sqlite.org/mmap.html)"
