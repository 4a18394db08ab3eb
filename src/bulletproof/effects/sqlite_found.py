"""The SQLite databases that lie in a project's folder: which files, what each holds, and who has one open."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import datetime
from fnmatch import fnmatch
from pathlib import Path

import msgspec

from bulletproof.effects.openers import openers_of
from bulletproof.effects.sqlite_file import Reading, read_rows, read_schema
from bulletproof.errors import Refused

_NAMES = ("*.db", "*.sqlite", "*.sqlite3", "*.db3")
_HEADER = b"SQLite format 3\x00"
"""How every SQLite database begins (sqlite.org/fileformat.html)."""
_NO_PLACES = frozenset({"node_modules", "site-packages", "__pycache__"})
_DEEP = 4
"""How many folders below the project a database may lie."""
_SUFFIXES = ("", "-wal", "-shm", "-journal")
_UNIT = re.compile(r"([^/\s]+\.service)$", re.MULTILINE)
_PATIENCE_SECONDS = 2.0


class DatabaseFile(msgspec.Struct, frozen=True, kw_only=True):
    """A database file, as far as it could be read."""

    path: Path
    size: int
    """Bytes, with what is not yet in the file itself."""
    modified: str
    """When it was written last, in local time, to the minute."""
    tables: int = 0
    rows: int | None = None
    """None when to count them took too long."""
    mode: str = ""
    """`WAL` or another journal mode; empty when it cannot be read."""
    problem: str = ""
    """Why it cannot be read, in words."""

    @property
    def words(self) -> str:
        """What it holds, for a person."""
        rows = "" if self.rows is None else f"{_counted(self.rows, 'row')} in "
        holds = self.problem or f"{rows}{_counted(self.tables, 'table')}"
        return f"{holds}, {_size(self.size)}, written {self.modified}"


def database_files(folder: Path) -> Iterator[Path]:
    """The databases in the folder, those of virtual environments and hidden folders left out; sorted by place."""
    for place, folders, files in os.walk(folder):
        here = Path(place)
        depth = len(here.relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if depth < _DEEP and _is_entered(here / name))
        named = sorted(name for name in files if any(fnmatch(name, pattern) for pattern in _NAMES))
        yield from (here / name for name in named if is_database(here / name))


def is_database(file: Path) -> bool:
    """Whether the file begins as SQLite's do; somebody else's, which may not be read, has a name that has to do."""
    try:
        with file.open("rb") as opened:
            return opened.read(len(_HEADER)) == _HEADER
    except PermissionError:
        return True
    except OSError:
        return False


def describe_database(file: Path) -> DatabaseFile:
    """What the file holds; it is read by a process of its own, which changes nothing."""
    beside = [file.with_name(file.name + suffix) for suffix in ("", "-wal")]
    found = [one.stat() for one in beside if one.is_file()]
    written = datetime.fromtimestamp(max(one.st_mtime for one in found)).astimezone()
    reading, problem = _read(file)
    return DatabaseFile(
        path=file,
        size=sum(one.st_size for one in found),
        modified=written.strftime("%Y-%m-%d %H:%M"),
        tables=len(reading.tables) if reading else 0,
        rows=reading.rows if reading else None,
        mode=reading.mode if reading else "",
        problem=problem,
    )


def users_of(file: Path) -> tuple[str, ...]:
    """Who has the database open, each with how to end it."""
    files = [file.with_name(file.name + suffix) for suffix in _SUFFIXES]
    return tuple(f"{opener}: {_how_to_end(opener.pid)}" for opener in openers_of(files))


def _how_to_end(pid: int) -> str:
    """The unit that systemd would start it again from, or else the process."""
    try:
        unit = _UNIT.search(Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        unit = None
    is_own = unit is not None and not unit[1].startswith("user@")
    return f"sudo systemctl disable --now {unit[1]}" if unit and is_own else f"kill {pid}"


def _read(file: Path) -> tuple[Reading | None, str]:
    try:
        return read_rows(file, patience_seconds=_PATIENCE_SECONDS), ""
    except Refused:
        pass  # to count the rows of a large one may take too long
    try:
        return read_schema(file, patience_seconds=_PATIENCE_SECONDS), ""
    except Refused as error:
        return None, error.message.removeprefix(f"{file} ")


def _is_entered(folder: Path) -> bool:
    is_skipped = folder.name.startswith(".") or folder.name in _NO_PLACES or folder.is_symlink()
    return not is_skipped and not (folder / "pyvenv.cfg").exists()


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _size(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:  # noqa: PLR2004  by definition
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
