"""What a backup costs by the size of the database, beside `cp` and `fsync` and SQLite's own `.backup`, under a writer.

`python -m bench.backup [--mebibytes 10 100 1024]` fills a database, lets a writer commit to it at a steady pace, and
makes copies of it in each way in turn. Ratios are to `cp` and `fsync` of the same file in the same run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bulletproof.adapters.backups import FolderBackups
from bulletproof.domain.backup import Reason
from bulletproof.domain.layout import Layout
from bulletproof.engine.journal import utc_now
from bulletproof.ports import Taking

_MIB = 1 << 20
_ROUNDS = 3
_QUIET_SECONDS = 5.0
_WRITER = """
import os, sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
connection.execute("PRAGMA synchronous = FULL")
number = 0
while True:
    number += 1
    begun = time.monotonic()
    connection.execute("INSERT INTO written (words) VALUES (?)", ("w" * 200,))
    os.write(1, b"%.6f %.6f\\n" % (begun, time.monotonic() - begun))
    time.sleep(0.005)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way at one size: the median of the rounds."""

    way: str
    seconds: float
    p99: float
    """Of the writer's commits meanwhile, in seconds."""


def measure(mebibytes: int, folder: Path) -> tuple[float, list[Row]]:
    """The writer's p99 in seconds while nobody copies, and a row for each way."""
    layout = Layout(root=folder / "root", app="bench", runtime=folder / "run")
    file = layout.data / "app.db"
    file.parent.mkdir(parents=True)
    _fill(file, mebibytes)
    with _writer(file) as commits:
        time.sleep(_QUIET_SECONDS)
        quiet = _p99(commits(), 0.0)
        return quiet, [_row(name, act, commits) for name, act in _ways(layout, file, folder).items()]


def _ways(layout: Layout, file: Path, folder: Path) -> dict[str, Callable[[], None]]:
    plain, packed = (FolderBackups(layout, file, utc_now) for _ in range(2))
    return {
        "cp + fsync": lambda: _copy(file, folder / "copy.db"),
        ".backup": lambda: _sqlite_backup(file, folder / "copy.db"),
        "backup create": lambda: _take(plain, compress=False),
        "the same, packed": lambda: _take(packed, compress=True),
    }


def _row(way: str, act: Callable[[], None], commits: Callable[[], list[tuple[float, float]]]) -> Row:
    seconds, slow = [], []
    for _ in range(_ROUNDS):
        os.sync()
        begun = time.monotonic()
        act()
        seconds.append(time.monotonic() - begun)
        slow.append(_p99(commits(), begun))
    return Row(way=way, seconds=statistics.median(seconds), p99=statistics.median(slow))


def _copy(file: Path, copy: Path) -> None:
    copy.unlink(missing_ok=True)
    shutil.copyfile(file, copy)
    _sync(copy)


def _sqlite_backup(file: Path, copy: Path) -> None:
    copy.unlink(missing_ok=True)
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    _sync(copy)


def _take(backups: FolderBackups, *, compress: bool) -> None:
    backup = backups.take(
        Taking(
            reason=Reason.ASKED, release="", revision="", settings=1, taken_by="bench", folders={}, compress=compress
        )
    )
    for other in backups.all():
        if other.name != backup.name:
            backups.discard(other.name)


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _fill(file: Path, mebibytes: int) -> None:
    with closing(sqlite3.connect(file)) as made:
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("CREATE TABLE chart (id INTEGER PRIMARY KEY, words BLOB)")
        made.execute("CREATE TABLE written (id INTEGER PRIMARY KEY, words TEXT)")
        for _ in range(mebibytes):
            made.executemany("INSERT INTO chart (words) VALUES (?)", [(os.urandom(4000),)] * 256)
            made.commit()


@contextmanager
def _writer(file: Path) -> Iterator[Callable[[], list[tuple[float, float]]]]:
    """A writer at a steady pace; tells when each commit began and how long it took, in seconds."""
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen([sys.executable, "-c", _WRITER, str(file)], stdout=told)
        try:
            yield lambda: _read(told.fileno())
        finally:
            process.kill()
            process.wait()


def _read(descriptor: int) -> list[tuple[float, float]]:
    lines = os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode().splitlines()[:-1]
    return [(float(begun), float(took)) for begun, took in (line.split() for line in lines)]


def _p99(commits: list[tuple[float, float]], since: float) -> float:
    took = sorted(took for begun, took in commits if begun >= since)
    return took[int(len(took) * 0.99)] if took else float("nan")


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mebibytes", type=int, nargs="+", default=[10, 100, 1024])
    print("| MiB | way | seconds | of cp + fsync | writer's p99, ms | of a quiet one |")
    print("|---|---|---|---|---|---|")
    for mebibytes in parser.parse_args().mebibytes:
        folder = Path(tempfile.mkdtemp(prefix="bulletproof-bench-", dir="/var/tmp"))
        try:
            quiet, rows = measure(mebibytes, folder)
        finally:
            shutil.rmtree(folder)
        for row in rows:
            ratio, slower = row.seconds / rows[0].seconds, row.p99 / quiet
            cells = (f"{row.seconds:.2f}", f"{ratio:.2f}", f"{row.p99 * 1000:.1f}", f"{slower:.2f}")
            print(f"| {mebibytes} | {row.way} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
