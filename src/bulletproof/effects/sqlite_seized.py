"""A database that we have alone: locked against everybody, read raw, and given another content in one transaction."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from bulletproof.errors import StepFailed

_PAGES = 2048
"""So many are copied between two looks at the deadline and at signals: some 10 ms."""


class Seized:
    """One connection that holds the file exclusively; nobody else has it open, or can open it, until it is released.

    The process must not open the file otherwise meanwhile: closing any descriptor of it would drop the lock (POSIX).
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    def seize(cls, file: Path, *, patience_seconds: float) -> Seized:
        """Get it alone, and everything that was committed into the file itself.

        `locking_mode=EXCLUSIVE` and not `journal_mode=DELETE`, which proves the same but rewrites the header: an undo
        would leave the old release without WAL. Raises StepFailed `database-in-use` when somebody else keeps it open.
        """
        address = f"file:{_quoted(os.path.realpath(file))}?mode=rw"
        connection = sqlite3.connect(address, uri=True, isolation_level=None, timeout=patience_seconds)
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
            _checkpoint(connection)
        except sqlite3.Error as error:
            connection.close()
            raise StepFailed("database-in-use", f"{file} could not be had alone: {error}") from error
        return cls(connection)

    def put(self, source: Path, check: Callable[[], None]) -> None:
        """Give the file the content of `source`, in one transaction of the same inode; on disk when this returns.

        Whoever waits for the lock finds the new content, and loses no write as after a rename (decision 7). `check` is
        called all the while and may raise: the old content stays then. Raises StepFailed `database-not-replaced`.
        """

        def progress(_status: int, _remaining: int, _total: int) -> None:
            check()

        try:
            with closing(sqlite3.connect(f"file:{_quoted(str(source))}?immutable=1", uri=True)) as migrated:
                migrated.backup(self._connection, pages=_PAGES, progress=progress)
            _checkpoint(self._connection)
        except sqlite3.Error as error:
            raise StepFailed("database-not-replaced", f"the database could not be replaced: {error}") from error

    def release(self) -> None:
        """Let others have it; idempotent."""
        with contextlib.suppress(sqlite3.ProgrammingError):
            self._connection.close()


def _checkpoint(connection: sqlite3.Connection) -> None:
    """Everything committed is in the file, and its -wal is empty; nothing happens without WAL."""
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:  # the pragma raises nothing, it only says so
        raise sqlite3.OperationalError("a reader keeps its -wal from being emptied")


def _quoted(path: str) -> str:
    """The path as an SQLite URI wants it."""
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
