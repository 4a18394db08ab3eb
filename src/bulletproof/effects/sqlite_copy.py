"""Consistent copies of SQLite files, each made by a process of its own so that it can be ended at any moment."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from bulletproof.effects import sqlite_pages, sqlite_rows, sqlite_wal
from bulletproof.effects.process import Completed, last_lines, run, run_checked
from bulletproof.effects.sqlite_file import copy_whole
from bulletproof.errors import Refused, StepFailed

_SECONDS = 3600.0
_PATIENCE_SECONDS = 30.0
"""How long another program may keep a database locked that is to be copied."""
_DIFFERS = 1
_SETTLE = """
import sqlite3, sys
try:
    copy = sqlite3.connect(sys.argv[1], timeout=5)
    busy, _, _ = copy.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    copy.close()
except sqlite3.Error as error:
    sys.exit(str(error))
sys.exit("somebody still uses it" if busy else 0)
"""


def copy_database(source: Path, copy: Path) -> int:
    """Copy a database that others may be writing to, changing nothing beside it; returns the copy's size in bytes.

    It holds everything that was committed before it began. Raises StepFailed (`database-not-copied`).
    """
    try:
        copy_whole(source, copy, timeout_seconds=_SECONDS, patience_seconds=_PATIENCE_SECONDS)
    except Refused as error:
        words = f"the database {source} could not be copied: {error.message}"
        raise StepFailed("database-not-copied", words, context=error.context, hint=error.hint) from error
    return copy.stat().st_size


def settle_copy(copy: Path) -> None:
    """Bring what lies in the -wal of a copy, which nobody uses any more, into its file. Raises StepFailed."""
    run_checked(
        (sys.executable, "-I", "-S", "-c", _SETTLE, copy),
        folder=copy.parent,
        reference="database-not-copied",
        failure=f"the copy {copy} of the database could not be closed",
        timeout_seconds=_SECONDS,
    )


def refresh_copy(source: Path, copy: Path, *, timeout_seconds: float = _SECONDS) -> int:
    """Make `copy` byte for byte what `source` is, writing only what differs; returns its size in bytes.

    Nobody may write to either; the source's -wal must be empty. The copy is on disk when this returns. Raises
    StepFailed (`database-not-copied`).
    """
    completed = _pages("refresh", source, copy, timeout_seconds)
    if completed.status != 0:
        raise _not_copied(source, completed)
    return copy.stat().st_size


def write_log(source: Path, database: Path, log: Path, *, most_pages: int, check: Callable[[], None]) -> bool:
    """Write what `source` has otherwise than `database`, both in WAL mode, as a log that SQLite can take up.

    False when more than `most_pages` differ, and then nothing is written. Nobody may write to either. `check` is called
    all the while and may raise to end it. Raises StepFailed (`database-not-copied`).
    """
    argv = (sys.executable, "-I", "-S", sqlite_wal.__file__, source, database, log, str(most_pages))
    completed = run(argv, folder=log.parent, timeout_seconds=_SECONDS, check=check)
    if completed.status not in {0, sqlite_wal.TOO_MANY}:
        raise _not_copied(source, completed)
    return completed.status == 0


def is_same_database(one: Path, other: Path) -> bool:
    """Whether two database files, which nobody writes to, hold the same, counters in their headers aside."""
    completed = _pages("compare", one, other, _SECONDS)
    if completed.status not in {0, _DIFFERS} or completed.errors:
        raise _not_copied(one, completed)
    return completed.status == 0


def compare_rows(today: Path, backup: Path) -> bytes:
    """As JSON, the rows that a restore of `backup` would take from `today`, change and bring back (sqlite_rows.py).

    Nobody may write to either. Raises StepFailed (`rows-not-compared`).
    """
    done = run_checked(
        (sys.executable, "-I", "-S", sqlite_rows.__file__, today, backup),
        folder=today.parent,
        reference="rows-not-compared",
        failure="today's database could not be compared with the backup",
        timeout_seconds=_SECONDS,
    )
    return done.output.encode()


def _pages(what: str, source: Path, copy: Path, timeout_seconds: float) -> Completed:
    argv = (sys.executable, "-I", "-S", sqlite_pages.__file__, what, source, copy)
    return run(argv, folder=copy.parent, timeout_seconds=timeout_seconds)


def _not_copied(source: Path, completed: Completed) -> StepFailed:
    *context, reason = last_lines(completed.errors) or (f"its process ended with status {completed.status}",)
    words = f"the database {source} could not be copied: {reason}"
    return StepFailed("database-not-copied", words, context=tuple(context))
