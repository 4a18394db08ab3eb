"""A small SQLite file of ours as it is now, read without leaving a trace beside it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

_TRIES = 5
_FORMATS = slice(18, 20)
"""Of the header: how it is written and read, 1 without and 2 with WAL (sqlite.org/fileformat2.html)."""
_SECONDS = 10.0


def glance(path: Path) -> sqlite3.Connection:
    """A connection that sees what is committed now, for reading. Raises OSError and sqlite3.Error.

    SQLite lays a -wal and a -shm beside a WAL database that nobody has open, and leaves them there: such a one is
    copied into memory. Closing the file drops no lock of ours, since one that we have open has a -wal.
    """
    for _ in range(_TRIES):
        content = _still(path)
        if content is not None:
            connection = sqlite3.connect(":memory:", isolation_level=None)
            if content:  # otherwise its maker was killed before there was a first table, and it is as good as empty
                connection.deserialize(content)
            return connection
    try:
        return _opened(path, "mode=ro&readonly_shm=1")
    except sqlite3.OperationalError:
        return _opened(path, "mode=ro")  # its -shm is missing, or has no mark left


def _still(path: Path) -> bytes | None:
    """All of it, where nobody has it open while it is read."""
    wal = path.with_name(f"{path.name}-wal")
    if wal.exists():
        return None
    before, content, after = path.stat(), bytearray(path.read_bytes()), path.stat()
    if wal.exists() or before.st_mtime_ns != after.st_mtime_ns or len(content) != after.st_size:
        return None
    if content:
        content[_FORMATS] = b"\1\1"
    return bytes(content)


def _opened(path: Path, way: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{way}", uri=True, isolation_level=None, timeout=_SECONDS)
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return connection
