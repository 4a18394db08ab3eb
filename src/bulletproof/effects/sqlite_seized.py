"""A database that we have alone: locked against everybody, read raw, and given another content in one transaction."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from bulletproof.effects import durable
from bulletproof.errors import StepFailed

_PAGES = 2048
"""So many are copied between two looks at the deadline and at signals: some 10 ms."""

_FRAMES = 1.05
"""A page in the -wal has a header of 24 bytes (sqlite.org/fileformat2.html, 4.1), and at least 512 of its own."""
_SPARE_BYTES = 1 << 16
"""For a -shm, without which nobody reads a database in WAL mode."""
_MIB = 1 << 20


class Seized:
    """One connection that holds the file exclusively; nobody else has it open, or can open it, until it is released.

    The process must not open the file otherwise meanwhile: closing any descriptor of it would drop the lock (POSIX).
    """

    def __init__(self, connection: sqlite3.Connection, file: Path) -> None:
        self._connection = connection
        self._file = file

    @classmethod
    def seize(cls, file: Path, *, patience_seconds: float) -> Seized:
        """Get it alone, and everything that was committed into the file itself.

        `locking_mode=EXCLUSIVE` and not `journal_mode=DELETE`, which proves the same but rewrites the header: an undo
        would leave the old release without WAL. Where there is no file an empty one is made, which is no database yet.
        Raises StepFailed: `database-in-use` when somebody else keeps it open, otherwise `database-not-reachable`.
        """
        real = Path(os.path.realpath(file))
        address = f"file:{_quoted(str(real))}?mode=rwc"
        try:
            connection = sqlite3.connect(address, uri=True, isolation_level=None, timeout=patience_seconds)
        except sqlite3.Error as error:
            raise _not_seized(file, error) from error
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("ROLLBACK")  # the lock stays; a COMMIT would write the first page of an empty file
            _checkpoint(connection)
        except sqlite3.Error as error:
            connection.close()
            raise _not_seized(file, error) from error
        return cls(connection, real)

    def put(self, source: Path, check: Callable[[], None]) -> None:
        """Give the file the content of `source`, in one transaction of the same inode; on disk when this returns.

        Whoever waits for the lock finds the new content, and loses no write as after a rename (decision 7). The journal
        mode becomes that of `source` too. `check` is called all the while and may raise: the old content stays then.
        Raises StepFailed `database-not-replaced`.
        """

        def progress(_status: int, remaining: int, _total: int) -> None:
            if remaining:  # the call after the last page comes when all is committed: too late to say no
                check()

        check()
        self._require_space(source)
        try:
            with closing(sqlite3.connect(f"file:{_quoted(str(source))}?immutable=1", uri=True)) as migrated:
                migrated.backup(self._connection, pages=_PAGES, progress=progress)
            _checkpoint(self._connection)
            self._take_over_journal_mode(source)
        except sqlite3.Error as error:
            raise StepFailed("database-not-replaced", f"the database could not be replaced: {error}") from error

    def _require_space(self, source: Path) -> None:
        """Refuse a disk that would be full between the commit in the -wal and its checkpoint: nobody could read."""
        size, before = source.stat().st_size, self._file.stat().st_size
        needed = int(size * _FRAMES) + max(0, size - before) + _SPARE_BYTES
        free = shutil.disk_usage(self._file.parent).free
        if free < needed:
            raise StepFailed(
                "database-not-replaced",
                f"the disk is full: to replace the database takes {needed / _MIB:.1f} MiB, {free / _MIB:.1f} are free",
            )

    def _take_over_journal_mode(self, source: Path) -> None:
        mode = _journal_mode(source)
        self._connection.execute(f"PRAGMA journal_mode = {mode}")
        if mode == "WAL":  # if it was none until now, SQLite forgets the old journal, which is spent
            durable.remove(self._file.with_name(f"{self._file.name}-journal"))

    def release(self) -> None:
        """Let others have it; idempotent."""
        with contextlib.suppress(sqlite3.ProgrammingError):
            self._connection.close()


def _not_seized(file: Path, error: sqlite3.Error) -> StepFailed:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_BUSY) & 0xFF  # the rest of an extended code says where
    is_in_use = code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
    reference = "database-in-use" if is_in_use else "database-not-reachable"
    return StepFailed(reference, f"{file} could not be had alone: {error}")


def _journal_mode(file: Path) -> str:
    """As the header says it (sqlite.org/fileformat2.html, 1.3.3); a connection that is `immutable` cannot tell."""
    with file.open("rb") as opened:
        return "WAL" if opened.read(19)[18:] == b"\2" else "DELETE"


def _checkpoint(connection: sqlite3.Connection) -> None:
    """Everything committed is in the file, and its -wal is empty; nothing happens without WAL."""
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:  # the pragma raises nothing, it only says so
        raise sqlite3.OperationalError("a reader keeps its -wal from being emptied")


def _quoted(path: str) -> str:
    """The path as an SQLite URI wants it."""
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
