"""The app's database as a SQLite file: is there one, is it whole, and away with one that never served."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec

from bulletproof.effects import durable
from bulletproof.effects.sqlite_file import PATIENCE_SECONDS, read_whole
from bulletproof.effects.sqlite_journal import empty_wal, use_wal
from bulletproof.errors import Refused

_SUFFIXES = ("-wal", "-shm", "-journal")
_KIB = 1024


class SqliteDatabase(msgspec.Struct, frozen=True):
    """The port Database over one file, or over the file that a symlink leads to."""

    file: Path
    patience_seconds: float = PATIENCE_SECONDS
    """How long `check` waits for a program that keeps the file locked."""

    def exists(self) -> bool:
        """Whether something is there that could hold data: all but nothing and an empty file.

        A symlink that leads nowhere counts (a disk that is not mounted), and so do the remains of a file that is gone
        (`-wal`, `-journal`): SQLite would delete those as soon as a database is made in that place.
        Raises Refused when it cannot tell.
        """
        try:
            return not self._is_nothing() or self._is_dangling() or bool(self._remains())
        except OSError as error:
            raise self._not_reachable(f"cannot be looked at: {error.strerror}") from error

    def size(self) -> int:
        """The bytes of the file and of what is written beside it; 0 when there is none."""
        files = (self._real, *map(self._beside, ("-wal", "-journal")))
        return sum(file.stat().st_size for file in files if file.is_file())

    def check(self) -> str:
        """Read the database through, changing nothing, and tell its tables, size and journal mode.

        Raises Refused: `database-missing`, `database-not-reachable` when it cannot be read and written by this user,
        `database-not-sqlite`, `database-not-whole`, `database-locked`, `database-interrupted`.
        """
        if not self.exists():
            raise Refused("database-missing", f"there is no database at {self.file}")
        self._check_kind()
        self._check_permissions()
        reading = read_whole(self.file, patience_seconds=self.patience_seconds)
        words = ["sqlite", _counted(len(reading.tables), "table"), _in_words(self.file.stat().st_size), reading.mode]
        if not reading.is_read_through:
            words.append("read in part, so that no write waits for long")
        if self.file.is_symlink():
            words.append(f"at {self._real}")
        return ", ".join(words)

    def use_wal(self) -> bool:
        """Put the database into WAL mode, which its header keeps; False when there is none. Idempotent.

        Raises StepFailed `database-not-wal`.
        """
        if self._is_nothing():
            return False
        use_wal(self._real)
        return True

    def empty_wal(self, longer_than: int) -> int:
        """Give back the disk that a -wal of more bytes than this takes; returns how many, 0 when it is still read."""
        wal = self._beside("-wal")
        size = wal.stat().st_size if wal.is_file() else 0
        return size if size > longer_than and empty_wal(self._real) else 0

    def remove(self) -> None:
        """Remove the file and what belongs to it, the file last; where a symlink leads to it, an empty one stays.

        The empty file keeps the symlink whole, so that the next database is made where a person wanted it.
        """
        for suffix in _SUFFIXES:
            durable.remove(self._beside(suffix))
        if not self.file.is_symlink():
            durable.remove(self.file)
        elif self._real.exists():
            durable.write_file(self._real, b"", mode=stat.S_IMODE(self._real.stat().st_mode))

    @property
    def _real(self) -> Path:
        """The file itself; SQLite follows symlinks too, and lays -wal and -shm beside where they lead to."""
        return Path(os.path.realpath(self.file))

    def _beside(self, suffix: str) -> Path:
        return self._real.with_name(self._real.name + suffix)

    def _is_nothing(self) -> bool:
        """Whether there is no file, or an empty one."""
        try:
            found = self.file.stat()
        except FileNotFoundError:
            return True
        return stat.S_ISREG(found.st_mode) and found.st_size == 0

    def _is_dangling(self) -> bool:
        return self.file.is_symlink() and not self.file.exists()

    def _remains(self) -> tuple[Path, ...]:
        """What a database has left whose file is gone or was emptied."""
        if not self._is_nothing():
            return ()
        remains = (self._beside(suffix) for suffix in ("-wal", "-journal"))
        return tuple(path for path in remains if path.is_file() and path.stat().st_size)

    def _check_kind(self) -> None:
        if self._is_dangling():
            raise self._not_reachable(f"is a symlink to {self._real}, where nothing is")
        if remains := self._remains():
            raise Refused(
                "database-not-whole",
                f"{self.file} is empty or gone, but a part of it is still there",
                context=tuple(f"{path} holds {_in_words(path.stat().st_size)}" for path in remains),
                hint=f"put the file back, or: mv {remains[0]} {remains[0]}.old",
            )
        if not self._real.is_file():
            raise self._not_reachable("is a folder" if self._real.is_dir() else "is no regular file")

    def _check_permissions(self) -> None:
        for path in (self._real, *map(self._beside, _SUFFIXES)):
            if _is_forbidden(path):
                raise self._not_reachable(f"cannot be used: no permission to read and write {path}")
        if not os.access(self._real.parent, os.W_OK | os.X_OK):
            raise self._not_reachable(
                f"cannot be used: SQLite writes files beside it, and {self._real.parent} does not permit that"
            )

    def _not_reachable(self, words: str) -> Refused:
        return Refused("database-not-reachable", f"{self.file} {words}", hint=f"ls -ld {self._real.parent} {self.file}")


def _counted(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"{number or 'no'} {noun}s"


def _is_forbidden(path: Path) -> bool:
    """Whether it is there and we may not use it: asked twice, since what SQLite keeps beside a file comes and goes."""
    return all(not os.access(path, os.R_OK | os.W_OK) and path.exists() for _ in range(2))


def _in_words(size: float) -> str:
    units = ["bytes", "KiB", "MiB", "GiB"]
    while size >= _KIB and len(units) > 1:
        size /= _KIB
        units.pop(0)
    return f"{size:.0f} {units[0]}" if units[0] == "bytes" else f"{size:.1f} {units[0]}"
