"""What a migration costs by the size of the database: rehearsal, hold and put-back, beside `cp` and `fsync`.

`python -m bench.database [--mebibytes 10 100 1024]` deploys DataCharted's v3, fills its database, deploys v4-expand,
which adds one column and fills it for each user, and prints a row for each size.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bench.ours import Ours, complaint, step_seconds
from bulletproof.adapters.swap import SqliteSwap
from bulletproof.demo.playground import Playground
from bulletproof.effects import durable
from bulletproof.errors import BulletproofError
from bulletproof.wiring import layout_of

_MIB = 1 << 20
_NUMBERS = json.dumps(list(range(20_000)))
"""A chart of some 127 KB."""
_HELD = ("hold", "snapshot", "migrate", "swap", "start", "gate", "cutover")
_HOLD = "\n[hold]\nseconds = 600\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One size, in seconds."""

    mebibytes: float
    copied: float
    """`cp` and `fsync` of the file."""
    rehearsed: float
    held: dict[str, float]
    put_back: float
    """Set aside what is there and put the snapshot back."""


def measure(mebibytes: int) -> Row:
    """Deploy a migration over a database of this size. Raises BulletproofError when it does not go live."""
    folder = Path(tempfile.mkdtemp(prefix="bulletproof-bench-", dir="/var/tmp"))  # a disk, not memory
    try:
        playground = Playground.make(folder / "project")
        config = playground.folder / "bulletproof.toml"
        durable.write_file(config, config.read_text().partition("[hold]")[0] + _HOLD)
        ours = Ours(folder, playground.folder)
        try:
            return _measured(ours, folder, mebibytes)
        finally:
            ours.close()
    finally:
        shutil.rmtree(folder)


def _measured(ours: Ours, folder: Path, mebibytes: int) -> Row:
    first = ours.deploy("v3")
    _fill(ours.database, mebibytes)
    copied = _copy(ours.database, folder / "copy.db")
    migrated = ours.deploy("v4-expand")
    if first.status or migrated.status:
        raise BulletproofError("bench-not-deployed", complaint(first if first.status else migrated))
    seconds = step_seconds(migrated)
    ours.close()
    layout = layout_of(folder / "root", "datacharted")
    swap = SqliteSwap(layout, ours.database)
    begun = time.monotonic()
    swap.put_back(swap.numbers()[-1])
    return Row(
        mebibytes=ours.database.stat().st_size / _MIB,
        copied=copied,
        rehearsed=seconds["rehearse"],
        held={step: seconds[step] for step in _HELD},
        put_back=time.monotonic() - begun,
    )


def _fill(database: Path, mebibytes: int) -> None:
    """Charts until the file has that size."""
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        user = connection.execute("INSERT INTO user (username, password_hash) VALUES ('archive', 'none')").lastrowid
        for begin in range(0, mebibytes * _MIB // len(_NUMBERS), 100):
            connection.executemany(
                "INSERT INTO chart (owner_id, title, numbers, created) VALUES (?, ?, ?, '2026-01-01 00:00:00')",
                ((user, f"archived-{number}", _NUMBERS) for number in range(begin, begin + 100)),
            )
            connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _copy(database: Path, copy: Path) -> float:
    begun = time.monotonic()
    shutil.copyfile(database, copy)
    with copy.open("rb") as file:
        os.fsync(file.fileno())
    seconds = time.monotonic() - begun
    copy.unlink()
    return seconds


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, nargs="+", default=[10, 100, 1024])
    print("  MiB  cp+fsync  rehearsal   held  of that: " + "  ".join(_HELD) + "  put back")
    for size in parser.parse_args().mebibytes:
        row = measure(size)
        parts = "  ".join(f"{row.held[step]:{len(step)}.2f}" for step in _HELD)
        print(
            f"{row.mebibytes:5.0f} {row.copied:9.2f} {row.rehearsed:10.2f} {sum(row.held.values()):6.2f}"
            f"           {parts} {row.put_back:9.2f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
