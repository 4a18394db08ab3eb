"""Has a database alone for its parent, and gives it another content when it is told to. Stand-alone.

`python -I -S sqlite_keeper.py PARENT FILE PATIENCE` says `ok` once it has FILE alone. Then it does what each line says,
and answers `ok`, or `error CODE WORDS`, CODE being SQLite's:

    put MODE SOURCE  the content and journal mode of SOURCE; each `more` on the way waits for a line that allows it
    take LOG         the pages in LOG (see sqlite_wal.py); it ends then, with the lock
    close            an orderly end

A path is given as JSON. It is a process of its own because only the end of a process drops the lock without a close of
the connection, which would delete the log; and because closing any descriptor of a file drops the locks that the same
process holds on it. It ends with its parent, as if killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

_PAGES = 2048
"""So many are copied between two questions to the parent: some 10 ms."""
_CHUNK = 1 << 20
_PR_SET_PDEATHSIG = 1


def seize(path: str, patience_seconds: float) -> sqlite3.Connection:
    """Get the file alone, and everything that was committed into the file itself. Raises sqlite3.Error.

    `locking_mode=EXCLUSIVE` and not `journal_mode=DELETE`, which proves the same but rewrites the header: an undo
    would leave the old release without WAL. Where there is no file an empty one is made, which is no database yet.
    """
    address = f"file:{_quoted(path)}?mode=rwc"
    connection = sqlite3.connect(address, uri=True, isolation_level=None, timeout=patience_seconds)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN EXCLUSIVE")
    connection.execute("ROLLBACK")  # the lock stays; a COMMIT would write the first page of an empty file
    _checkpoint(connection)
    return connection


def put(connection: sqlite3.Connection, mode: str, source: str) -> None:
    """All pages of the source, in one transaction; on disk when this returns. Raises sqlite3.Error."""

    def progress(_status: int, remaining: int, _total: int) -> None:
        if remaining:  # the call after the last page comes when all is committed: too late to say no
            _say("more")
            _hear()

    with closing(sqlite3.connect(f"file:{_quoted(source)}?immutable=1", uri=True)) as migrated:
        if _page_size(migrated) != _page_size(connection):  # in WAL mode a database keeps the one that it has
            connection.execute("PRAGMA journal_mode = DELETE")
        migrated.backup(connection, pages=_PAGES, progress=progress)
    _checkpoint(connection)
    connection.execute(f"PRAGMA journal_mode = {mode}")


def _page_size(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA page_size").fetchone()[0])


def take(path: str, log: str) -> None:
    """Make the file's own -wal, which is empty, what the log is, on disk; or leave it empty. Raises OSError."""
    wal = os.open(f"{path}-wal", os.O_WRONLY | os.O_CLOEXEC)  # SQLite made it, for the owner of the database
    if os.fstat(wal).st_size:
        raise OSError(0, "its -wal is not empty")
    try:
        _copy(os.open(log, os.O_RDONLY | os.O_CLOEXEC), wal)
        os.fsync(wal)
        os.fsync(os.open(Path(path).parent, os.O_RDONLY))
    except OSError:
        os.ftruncate(wal, 0)
        os.fsync(wal)
        raise


def _copy(source: int, target: int) -> None:
    while content := os.read(source, _CHUNK):
        while content:
            content = content[os.write(target, content) :]


def _checkpoint(connection: sqlite3.Connection) -> None:
    """Everything committed is in the file, and its -wal is empty; nothing happens without WAL."""
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:  # the pragma raises nothing, it only says so
        raise sqlite3.OperationalError("a reader keeps its -wal from being emptied")


def _quoted(path: str) -> str:
    """The path as an SQLite URI wants it."""
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _say(line: str) -> None:
    os.write(1, f"{line}\n".encode(errors="replace"))


def _say_failed(error: sqlite3.Error | OSError) -> None:
    words = (error.strerror if isinstance(error, OSError) else None) or str(error)
    # One that Python's module raises itself has no code.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_BUSY)
    _say(f"error {code} {' '.join(words.split())}")


def _hear() -> str:
    line = sys.stdin.readline()
    if not line:
        os._exit(0)  # nobody is there any more
    return line.rstrip("\n")


def _end_with(parent: int) -> None:
    """Be killed when the parent ends, and by no signal that is meant for it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)  # it ended before we would have been told


def main(parent: str, path: str, patience_seconds: str) -> None:
    """Do what is said until the end is said."""
    _end_with(int(parent))
    try:
        connection = seize(path, float(patience_seconds))
    except sqlite3.Error as error:
        return _say_failed(error)
    _say("ok")
    is_over = False
    while not is_over:
        try:
            is_over = _do(_hear(), connection, path)
        except (sqlite3.Error, OSError) as error:
            _say_failed(error)
        else:
            _say("ok")
    os._exit(0)  # after a `take` the connection must not be closed


def _do(line: str, connection: sqlite3.Connection, path: str) -> bool:
    """Whether that was the last thing to do."""
    what, _, rest = line.partition(" ")
    if what == "put":
        mode, _, source = rest.partition(" ")
        put(connection, mode, json.loads(source))
    elif what == "take":
        take(path, json.loads(rest))
    else:
        connection.close()
    return what != "put"


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError:
        os._exit(1)  # there is nobody to whom anything could be said
