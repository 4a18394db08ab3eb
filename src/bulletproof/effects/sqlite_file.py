"""What a SQLite file holds and whether it is whole: told by a process of its own that changes nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from bulletproof.effects.process import last_lines, run
from bulletproof.errors import Refused, StepFailed

READER = Path(__file__).with_name("sqlite_reader.py")
PATIENCE_SECONDS = 5.0
"""How long another program may keep the file locked."""
_WHOLE_SECONDS = 1800.0
"""quick_check reads 500 MB/s here, and ten times less from a slow disk: enough for 80 GB."""
_SCHEMA_SECONDS = 60.0
_ROWS_SECONDS = 10.0
"""Counting reads a whole index of each table; a person waits for it, and can do without."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in a database file."""

    mode: str
    """`WAL`, or the journal mode that SQLite gives it: `DELETE`."""
    tables: dict[str, tuple[str, ...]]
    """Each table's columns, in order; a virtual table's are not asked for."""
    views: tuple[str, ...] = ()
    versions: dict[str, tuple[str, ...]]
    """What Alembic noted, by table: one that has the single column `version_num`."""
    statements: tuple[str, ...]
    """The statements that make the tables and views."""
    is_read_through: bool = False
    problems: tuple[str, ...] = ()
    """What `quick_check` found, when it was asked to read everything."""
    rows: int | None = None
    """Of all tables together, when it was asked to count them."""
    counts: dict[str, int] = {}
    """Of each table, when everything was to be told."""
    migrations: tuple[str, ...] = ()
    """What the database notes of its migrations, whichever tool made them, when everything was to be told."""


class _Trouble(msgspec.Struct, frozen=True, kw_only=True):
    words: str


class _Outcome(msgspec.Struct, frozen=True, kw_only=True):
    outcome: str


def read_schema(file: Path, *, patience_seconds: float = PATIENCE_SECONDS) -> Reading:
    """What the database holds. Raises Refused when the file cannot be read as one."""
    return _read(file, "schema", patience_seconds, timeout_seconds=_SCHEMA_SECONDS)


def read_rows(file: Path, *, patience_seconds: float = PATIENCE_SECONDS) -> Reading:
    """What the database holds, its rows counted. Raises Refused when the file cannot be read as one."""
    return _read(file, "rows", patience_seconds, timeout_seconds=_ROWS_SECONDS)


def read_whole(file: Path, *, patience_seconds: float = PATIENCE_SECONDS) -> Reading:
    """The same, and every page was read. Raises Refused when the file cannot be read, or is not whole."""
    reading = _read(file, "whole", patience_seconds, timeout_seconds=_WHOLE_SECONDS)
    if reading.problems:
        raise _not_whole(file, *reading.problems)
    return reading


def read_everything(file: Path) -> Reading:
    """All that a database holds which nobody writes to, every page read and the rows of each table counted.

    Raises Refused when it cannot be read, or is not whole.
    """
    reading = _read(file, "everything", PATIENCE_SECONDS, timeout_seconds=_WHOLE_SECONDS)
    if reading.problems:
        raise _not_whole(file, *reading.problems)
    return reading


def copy_whole(file: Path, copy: Path, *, timeout_seconds: float, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Copy all that is committed into `copy`. Raises Refused when the file cannot be read as a database."""
    _ask(file, "copy", patience_seconds, timeout_seconds, str(copy.absolute()))


def _read(file: Path, depth: str, patience_seconds: float, *, timeout_seconds: float) -> Reading:
    return msgspec.json.decode(_ask(file, depth, patience_seconds, timeout_seconds), type=Reading)


def _ask(file: Path, depth: str, patience_seconds: float, timeout_seconds: float, *words: str) -> str:
    """What the reader prints when it could read. Raises Refused when it could not."""
    real = Path(os.path.realpath(file))
    argv: tuple[str | Path, ...] = (sys.executable, "-I", "-S", READER, real, str(patience_seconds), depth, *words)
    try:
        completed = run(argv, folder=Path("/"), timeout_seconds=timeout_seconds + patience_seconds)
    except StepFailed as error:
        raise Refused(
            "database-not-reachable", f"{file} could not be read: {error.message}", hint=f"ls -l {file.parent}"
        ) from error
    if completed.status != 0:
        raise Refused(
            "database-not-reachable",
            f"{file} could not be read: the reader ended with status {completed.status}",
            context=last_lines(completed.errors),
            hint=f"sqlite3 -readonly {file} 'PRAGMA quick_check'",
        )
    outcome = msgspec.json.decode(completed.output, type=_Outcome).outcome
    if outcome == "read":
        return completed.output
    raise _refusal(file, outcome, msgspec.json.decode(completed.output, type=_Trouble).words, patience_seconds)


def _refusal(file: Path, outcome: str, words: str, patience_seconds: float) -> Refused:
    if outcome == "damaged":
        return _not_whole(file, words)
    if outcome == "not-sqlite":
        return Refused("database-not-sqlite", f"{file} is no SQLite database", hint=f"file {file}")
    if outcome == "locked":
        return Refused(
            "database-locked",
            f"{file} was locked by another program for {patience_seconds:.0f} seconds",
            hint=f"fuser -v {file}",
        )
    if outcome == "interrupted":
        return Refused(
            "database-interrupted",
            f"a program was ended in the middle of writing to {file}, and what it began must be rolled back first",
            hint=f"sqlite3 {file} 'PRAGMA quick_check'",
        )
    return Refused("database-not-reachable", f"{file} cannot be read: {words}", hint=f"ls -l {file.parent}")


def _not_whole(file: Path, *findings: str) -> Refused:
    return Refused(
        "database-not-whole",
        f"{file} is damaged",
        context=findings,
        hint=f"keep a copy of it, then: sqlite3 {file} .recover",
    )
