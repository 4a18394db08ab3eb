"""What the kernel says of running processes."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path

import msgspec
import psutil


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """A process and all its descendants."""

    count: int
    memory: int
    """Bytes of resident memory, shared pages counted once per process."""
    largest: int
    """Of these, the bytes of the process that has the most."""
    pids: tuple[int, ...]
    started_at: float
    """Seconds since the epoch."""


def family_of(pid: int) -> Family | None:
    """The process and its descendants; None when it is gone."""
    try:
        parent = psutil.Process(pid)
        members = [parent, *parent.children(recursive=True)]
        started_at = parent.create_time()
    except psutil.NoSuchProcess:
        return None
    sizes = list(map(_resident, members))
    return Family(
        count=len(members),
        memory=sum(sizes),
        largest=max(sizes),
        pids=tuple(member.pid for member in members),
        started_at=started_at,
    )


def opened_files(pid: int) -> tuple[Path, ...]:
    """The files that a process has open; none when it is gone, or not ours to look at."""
    found = []
    with contextlib.suppress(OSError):
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(handle.readlink())
    return tuple(path for path in found if path.is_absolute() and path.is_file())


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


class Asked:
    """A running process that can be asked to end; by a handle, so that it is never another one of the same number."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError when it does not run any more."""
        self._handle = os.pidfd_open(pid)

    def ask_to_end(self) -> None:
        """SIGTERM. Raises ProcessLookupError when it has ended, PermissionError when it is another user's."""
        signal.pidfd_send_signal(self._handle, signal.SIGTERM)

    def has_ended(self, within_seconds: float) -> bool:
        """Whether it ends within so long."""
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        return bool(poll.poll(within_seconds * 1000))

    def close(self) -> None:
        """Let go of the handle."""
        os.close(self._handle)
