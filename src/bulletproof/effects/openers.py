"""Who has a file open: every process whose descriptors this user may look at."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

_COMMAND_LETTERS = 60


class Opener(msgspec.Struct, frozen=True, kw_only=True):
    """A process that has one of the files open."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"{self.command} (process {self.pid})"


def openers_of(files: Iterable[Path], *, besides: frozenset[int] = frozenset()) -> tuple[Opener, ...]:
    """The processes that have any of the files open, but for us, those of `besides` and what they started.

    Files are told apart by device and inode, so another name of the same file is found as well.
    """
    wanted = {identity for file in files if (identity := _identity(file)) is not None}
    spared = besides | {os.getpid()}
    found = (pid for pid in _processes() if wanted & _opened_by(pid) and not spared & set(_lineage(pid)))
    commands = ((pid, _command(pid)) for pid in found)
    return tuple(Opener(pid=pid, command=command) for pid, command in commands if command is not None)


def _processes() -> list[int]:
    return sorted(int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal())


def _opened_by(pid: int) -> set[tuple[int, int]]:
    """What the process has open; nothing for one that is gone by now, or that we may not look at."""
    folder = Path(f"/proc/{pid}/fd")
    try:
        return {identity for file in folder.iterdir() if (identity := _identity(file)) is not None}
    except OSError:
        return set()


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _lineage(pid: int) -> Iterator[int]:
    """The process, its parent, and so on."""
    while pid > 1:
        yield pid
        try:
            # The name in parentheses may hold anything; what follows the last one is numbers.
            pid = int(
                Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]
            )
        except OSError:
            return


def _command(pid: int) -> str | None:
    """Its command in one line; None when the process is gone by now."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").split()
    except OSError:
        return None
    return " ".join(words)[:_COMMAND_LETTERS] or "a process"
