"""Whether anybody still reads what we write: a pipe whose other end was closed says so before we write to it."""

from __future__ import annotations

import select


def is_gone(descriptor: int) -> bool:
    """Whether the reader of a pipe, terminal or socket has left; a file always has one."""
    poll = select.poll()
    poll.register(descriptor, 0)  # errors and hang-ups are told without being asked for (poll(2))
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
