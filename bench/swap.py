"""Two ways to put a migrated database in the live one's place, with writers that wait for the lock: what each loses.

`python -m bench.swap [--trials 50] [--mebibytes 0 200]` prints, for each way and size, the trials in which a write that
was acknowledged is not in the database afterwards, and the seconds of the swap alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

_WRITERS = 3
_PATIENCE_SECONDS = 30
_MIB = 1 << 20
_FRESH = multiprocessing.get_context("spawn")
"""Not fork: a child would inherit what SQLite noted of our locks, and wait for them for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one trial saw."""

    acknowledged: int
    lost: int
    refused: int
    """Writes that failed, which a client was told."""
    seconds: float
    is_whole: bool


def by_backup(live: sqlite3.Connection, work: Path, path: Path) -> None:
    """Copy the migrated pages into the live file through the backup API, over the connection that holds the lock."""
    del path
    with closing(sqlite3.connect(work)) as migrated:
        migrated.backup(live, pages=-1)


def by_rename(live: sqlite3.Connection, work: Path, path: Path) -> None:
    """Rename the migrated file over the live one while the lock on the old one is held."""
    del live
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    work.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


WAYS: dict[str, Callable[[sqlite3.Connection, Path, Path], None]] = {"backup": by_backup, "rename": by_rename}


def trial(folder: Path, way: Callable[[sqlite3.Connection, Path, Path], None], mebibytes: int) -> Trial:
    """One swap: the lock is got while nobody writes; writers come and wait for it; swap; the lock is let go."""
    path, work = folder / "app.db", folder / "app.db.next"
    _make(path, mebibytes)
    live = sqlite3.connect(path, isolation_level=None, timeout=_PATIENCE_SECONDS)
    live.execute("PRAGMA locking_mode=EXCLUSIVE")
    live.execute("BEGIN IMMEDIATE")
    live.execute("COMMIT")
    stop = _FRESH.Event()
    writers = [_FRESH.Process(target=_write, args=(path, folder / f"acks{n}", n, stop)) for n in range(_WRITERS)]
    for writer in writers:
        writer.start()
    while len(list(folder.glob("acks*"))) < _WRITERS:
        time.sleep(0.01)
    time.sleep(0.1)  # they wait in their busy time-out now
    _migrate_copy(live, work)
    begun = time.monotonic()
    way(live, work, path)
    seconds = time.monotonic() - begun
    live.close()
    time.sleep(0.25)
    stop.set()
    for writer in writers:
        writer.join()
    return _look(folder, path, seconds)


def _make(path: Path, mebibytes: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE note (token TEXT)")
        connection.execute("CREATE TABLE bulk (content BLOB)")
        connection.executemany("INSERT INTO bulk VALUES (?)", ((os.urandom(_MIB),) for _ in range(mebibytes)))
        connection.commit()


def _migrate_copy(live: sqlite3.Connection, work: Path) -> None:
    with closing(sqlite3.connect(work)) as copy:
        live.backup(copy, pages=-1)
        copy.execute("PRAGMA journal_mode=DELETE")
        copy.execute("ALTER TABLE note ADD COLUMN migrated TEXT")
        copy.commit()
        copy.execute("PRAGMA journal_mode=WAL")
    for suffix in ("-wal", "-shm"):
        Path(f"{work}{suffix}").unlink(missing_ok=True)


def _write(path: Path, acks: Path, number: int, stop: Event) -> None:
    """Insert and note each acknowledged token; every other one over a connection of its own."""
    kept = sqlite3.connect(path, isolation_level=None, timeout=_PATIENCE_SECONDS)
    count = 0
    with acks.open("w", encoding="ascii") as log:
        while not stop.is_set():
            token = f"{number}-{count}"
            count += 1
            connection = kept if count % 2 else sqlite3.connect(path, isolation_level=None, timeout=_PATIENCE_SECONDS)
            try:
                connection.execute("INSERT INTO note (token) VALUES (?)", (token,))
                log.write(f"ok {token}\n")
            except sqlite3.Error:
                log.write(f"no {token}\n")
            if connection is not kept:
                connection.close()


def _look(folder: Path, path: Path, seconds: float) -> Trial:
    lines = [line.split() for acks in folder.glob("acks*") for line in acks.read_text("ascii").splitlines()]
    acknowledged = {token for word, token in lines if word == "ok"}
    with closing(sqlite3.connect(path)) as connection:
        found = {token for (token,) in connection.execute("SELECT token FROM note WHERE migrated IS NULL")}
        is_whole = connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return Trial(
        acknowledged=len(acknowledged),
        lost=len(acknowledged - found),
        refused=sum(word == "no" for word, _ in lines),
        seconds=seconds,
        is_whole=is_whole,
    )


def main() -> int:
    """Run the trials and print a row for each way and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--mebibytes", type=int, nargs="+", default=[0, 200])
    asked = parser.parse_args()
    print("way     MiB  trials  with losses  lost / acknowledged  refused  not whole  seconds (median, max)")
    for mebibytes in asked.mebibytes:
        for name, way in WAYS.items():
            trials = [_alone(way, mebibytes) for _ in range(asked.trials)]
            seconds = [one.seconds for one in trials]
            print(
                f"{name:6} {mebibytes:4} {len(trials):7} {sum(one.lost > 0 for one in trials):12}"
                f" {sum(one.lost for one in trials):9} / {sum(one.acknowledged for one in trials):<9}"
                f" {sum(one.refused for one in trials):7} {sum(not one.is_whole for one in trials):10}"
                f"  {statistics.median(seconds):.2f}, {max(seconds):.2f}",
                flush=True,
            )
    return 0


def _alone(way: Callable[[sqlite3.Connection, Path, Path], None], mebibytes: int) -> Trial:
    folder = Path(tempfile.mkdtemp(prefix="bulletproof-swap-", dir="/var/tmp"))
    try:
        return trial(folder, way, mebibytes)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
