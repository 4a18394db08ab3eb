"""What the kernel says of running processes."""

from __future__ import annotations

from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A process and all its descendants."""

    count: int
    memory: int
    """Bytes of resident memory, shared pages counted once per process."""
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
    return Family(count=len(members), memory=sum(map(_resident, members)), started_at=started_at)


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
