"""A database that we have alone: locked against everybody, read raw, and given another content in one transaction."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

from bulletproof.effects import durable, sqlite_keeper
from bulletproof.effects.process import Talk, talk
from bulletproof.effects.sqlite_copy import write_log
from bulletproof.errors import StepFailed

LARGE_BYTES = 64 << 20
"""From here on the pages that differ are put, if they are few; all pages of 100 MiB took 1.4 s (decision 9)."""

_KEEPER = sqlite_keeper.__file__
_MOST_PAGES = 4096
"""More than these are put through the backup API: so many checksums, made in Python, took 1.6 s (decision 9)."""
_FRAMES = 1.05
"""A page in the -wal has a header of 24 bytes (sqlite.org/fileformat2.html, 4.1), and at least 512 of its own."""
_SPARE_BYTES = 1 << 16
"""For a -shm, without which nobody reads a database in WAL mode."""
_MIB = 1 << 20
_WAL = b"\2\2"


class Seized:
    """The file held exclusively: nobody else has it open, or can open it, until it is released.

    The lock's holder is a process of its own (sqlite_keeper.py), which ends with us; opening and closing the file here
    does the lock no harm.
    """

    def __init__(self, keeper: Talk, file: Path) -> None:
        self._keeper = keeper
        self._file = file

    @classmethod
    def seize(cls, file: Path, *, patience_seconds: float) -> Seized:
        """Get it alone, and everything that was committed into the file itself.

        Where there is no file an empty one is made, which is no database yet. Raises StepFailed: `database-in-use`
        when somebody else keeps it open, otherwise `database-not-reachable`.
        """
        real = Path(os.path.realpath(file))
        argv = (sys.executable, "-I", "-S", _KEEPER, str(os.getpid()), real, str(patience_seconds))
        keeper = talk(argv, folder=Path("/"))
        answer = ""
        try:
            answer = keeper.hear()
        finally:
            context = () if answer == "ok" else keeper.kill()
        if answer != "ok":
            raise _not_seized(file, answer, context)
        return cls(keeper, real)

    def require_held(self) -> None:
        """Raise StepFailed `database-not-held` when it has not been held all the while since it was seized."""
        if not self._keeper.is_running():
            raise StepFailed("database-not-held", "the process that had the database alone for us was ended")

    def put(self, source: Path, check: Callable[[], None]) -> None:
        """Give the file the content of `source`, in one transaction of the same inode; on disk when this returns.

        Whoever waits for the lock finds the new content, and loses no write as after a rename (decision 7). The journal
        mode becomes that of `source` too. The caller releases it afterwards: of a large database only what differs is
        put, and then nobody holds it any more when this returns (decision 9). `check` is called all the while and may
        raise: the old content stays then, and others may have it. Raises StepFailed `database-not-replaced`, and
        `database-not-held`.
        """
        self.require_held()
        check()
        if not self._put_pages(source, check):
            self._put_all(source, check)

    def release(self) -> None:
        """Let others have it; idempotent."""
        self._keeper.say("close")
        try:
            self._keeper.hear()
        finally:
            self._keeper.kill()

    def _put_pages(self, source: Path, check: Callable[[], None]) -> bool:
        """Put only the pages that differ, as a log that whoever opens the file next takes up; False if that is no way.

        The lock falls by the end of its holder: a connection that is closed empties the log, or deletes it.
        """
        form = _form(source)
        if source.stat().st_size < LARGE_BYTES or form != _form(self._file) or form[2:] != _WAL:
            return False
        self._require_space(source, min(_MOST_PAGES * _page_size(form), source.stat().st_size))
        log = source.with_name(f"{source.name}-log")
        try:
            if not write_log(source, self._file, log, most_pages=_MOST_PAGES, check=check):
                return False
            check()
            self._tell(f"take {json.dumps(str(log))}", check)
        finally:
            durable.remove(log)
        self._keeper.kill()
        return True

    def _put_all(self, source: Path, check: Callable[[], None]) -> None:
        """Put every page, through the backup API."""
        self._require_space(source, source.stat().st_size)
        mode = "WAL" if _form(source)[2:] == _WAL else "DELETE"
        self._tell(f"put {mode} {json.dumps(str(source))}", check)
        if mode == "WAL":  # if it was none until now, SQLite forgets the old journal, which is spent
            durable.remove(self._file.with_name(f"{self._file.name}-journal"))

    def _tell(self, line: str, check: Callable[[], None]) -> None:
        """Have the keeper do something; it asks, as long as it can go back, whether it may go on.

        When it may not, or we are interrupted, it is killed: SQLite undoes what was not committed, for whoever comes
        next. What is committed cannot be refused any more, since it asks no more. Raises StepFailed.
        """
        try:
            self._keeper.say(line)
            while (answer := self._keeper.hear()) == "more":
                check()
                self._keeper.say("on")
        except BaseException:
            self._keeper.kill()
            raise
        if answer != "ok":
            context = () if answer else self._keeper.kill()
            words = f"the database could not be replaced: {_words(answer)}"
            raise StepFailed("database-not-replaced", words, context=context)

    def _require_space(self, source: Path, most_bytes: int) -> None:
        """Refuse a disk that would be full between the commit in the -wal and its checkpoint: nobody could read."""
        needed = _room(most_bytes, source.stat().st_size - self._file.stat().st_size)
        free = shutil.disk_usage(self._file.parent).free
        if free < needed:
            raise StepFailed(
                "database-not-replaced",
                f"the disk is full: to replace the database takes {needed / _MIB:.1f} MiB, {free / _MIB:.1f} are free",
            )


def room_to_put(content: Path, target: Path) -> int:
    """The bytes that it takes at most to give the file `target` that content."""
    return _room(content.stat().st_size, content.stat().st_size - target.stat().st_size)


def _room(pages_bytes: int, growth: int) -> int:
    return int(pages_bytes * _FRAMES) + max(0, growth) + _SPARE_BYTES


def _not_seized(file: Path, answer: str, context: tuple[str, ...]) -> StepFailed:
    # The rest of an extended code says where.
    code = int(answer.split(" ", 2)[1]) & 0xFF if answer else sqlite3.SQLITE_ERROR
    is_in_use = code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
    reference = "database-in-use" if is_in_use else "database-not-reachable"
    return StepFailed(reference, f"{file} could not be had alone: {_words(answer)}", context=context)


def _words(answer: str) -> str:
    """What the keeper says when it does not say `ok`."""
    return answer.split(" ", 2)[2] if answer else "the process that should have it alone for us was ended"


def _form(file: Path) -> bytes:
    """What a header says of the pages' size and, in two bytes, of the journal mode (sqlite.org/fileformat2.html, 1.3).

    A connection that is `immutable` could not tell.
    """
    with file.open("rb") as opened:
        return opened.read(20)[16:]


def _page_size(form: bytes) -> int:
    size = int.from_bytes(form[:2])
    return 65536 if size == 1 else size
