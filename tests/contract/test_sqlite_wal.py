"""A log that we write is taken up by SQLite as its own: whole, or not at all."""

from __future__ import annotations

import random
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from bulletproof.effects import sqlite_wal
from bulletproof.effects.process import run

Dump = tuple[list[str], list[tuple[str]]]
CHANGES = (
    "DELETE FROM note WHERE id % 3 = 0",
    "ALTER TABLE note ADD COLUMN points INTEGER NOT NULL DEFAULT 0",
    "INSERT INTO note (text) SELECT randomblob(1500) FROM note LIMIT 300",
    "UPDATE note SET text = randomblob(10) WHERE id % 7 = 1",
    "CREATE INDEX note_text ON note (text)",
    "VACUUM",
    "DELETE FROM note WHERE id > 20; VACUUM",
)


def content(file: Path) -> Dump:
    """All that a database holds, as SQLite reads it, and whether it is whole."""
    with closing(sqlite3.connect(file)) as connection:
        return list(connection.iterdump()), connection.execute("PRAGMA integrity_check").fetchall()


def pair(folder: Path, chance: random.Random) -> tuple[Path, Path]:
    """A database in WAL mode, and a copy of it that was changed."""
    live, migrated = folder / "app.db", folder / "migrated.db"
    with closing(sqlite3.connect(live, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {chance.choice((512, 4096, 65536))}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, text)")
        texts = ((chance.randbytes(chance.randrange(1, 3000)),) for _ in range(chance.randrange(1, 500)))
        connection.executemany("INSERT INTO note (text) VALUES (?)", texts)
    shutil.copy(live, migrated)
    with closing(sqlite3.connect(migrated, isolation_level=None)) as connection:
        for change in chance.sample(CHANGES, chance.randint(1, 4)):
            connection.executescript(change)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return live, migrated


def lay(source: Path, database: Path, most: int = 1_000_000) -> int:
    """Run the script; its exit status."""
    argv = (sys.executable, "-I", "-S", sqlite_wal.__file__, source, database, f"{database}-wal", str(most))
    return run(argv, folder=Path("/")).status


@pytest.mark.parametrize("seed", range(12))
def test_the_database_becomes_its_source(tmp_path: Path, seed: int) -> None:
    """Grown, shrunk or altered, with small pages and large ones: SQLite reads in it what the source holds."""
    live, migrated = pair(tmp_path, random.Random(seed))
    before = live.read_bytes()

    assert lay(migrated, live) == 0
    assert live.read_bytes() == before
    assert content(live) == content(migrated)
    assert content(live)[1] == [("ok",)]


@pytest.mark.parametrize("seed", range(4))
def test_a_log_that_was_not_written_to_its_end_is_nothing(tmp_path: Path, seed: int) -> None:
    """Cut anywhere, as by a power cut, or with one byte wrong: the database holds what it held."""
    chance = random.Random(seed)
    live, migrated = pair(tmp_path, chance)
    old, new = content(live), content(migrated)
    assert old != new
    assert lay(migrated, live) == 0
    log, database = Path(f"{live}-wal").read_bytes(), live.read_bytes()

    for _ in range(25):
        cut = chance.randrange(len(log))
        wrong = bytearray(log)
        wrong[chance.randrange(len(log))] ^= 0x40
        for damaged in (log[:cut], bytes(wrong)):
            tried = tmp_path / "tried.db"
            tried.write_bytes(database)
            Path(f"{tried}-wal").write_bytes(damaged)
            assert content(tried) == old


def test_it_is_not_written_when_too_much_differs(tmp_path: Path) -> None:
    """Beyond the bound another way is better, and nothing is touched."""
    live, migrated = pair(tmp_path, random.Random(2))

    assert lay(migrated, live, most=0) == sqlite_wal.TOO_MANY
    assert not Path(f"{live}-wal").exists()


def test_nobody_else_may_read_the_log(tmp_path: Path) -> None:
    """It holds what the database holds, and lies where others may look."""
    live, migrated = pair(tmp_path, random.Random(3))

    assert lay(migrated, live) == 0
    assert Path(f"{live}-wal").stat().st_mode & 0o777 == 0o600


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    """A log that cannot be written is no log, and the reason is told in words."""
    live, migrated = pair(tmp_path, random.Random(3))
    argv = (sys.executable, "-I", "-S", sqlite_wal.__file__, migrated, live, "/dev/full", "1000000")
    completed = run(argv, folder=tmp_path)

    assert completed.status == 1
    assert completed.errors == "No space left on device\n"


def test_the_page_of_sqlite_s_locks_is_left_out(tmp_path: Path) -> None:
    """The page at 1 GiB is never part of a database; a log that held it would be refused."""
    one, other = tmp_path / "one", tmp_path / "other"
    for file, byte in ((one, b"1"), (other, b"2")):
        with file.open("wb") as stream:
            for offset in (0, sqlite_wal._LOCK_BYTE, sqlite_wal._LOCK_BYTE + 4096):
                stream.seek(offset)
                stream.write(byte * 4096)
    with one.open("rb") as source, other.open("rb") as database:
        found = [number for number, _ in sqlite_wal.differing(source.fileno(), database.fileno(), 4096)]

    assert found == [1, sqlite_wal._LOCK_BYTE // 4096 + 2]
