"""A unix socket that outlives the process that serves it: whoever connects meanwhile waits."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from bulletproof.adapters.embedded import kernel
from bulletproof.effects import durable
from bulletproof.errors import StepFailed

DESCRIPTOR = 3
"""Where the process finds its listening socket, as with sd_listen_fds(3)."""

_BACKLOG = 4096  # a unix socket with a full backlog refuses at once: 15,896 of 18,114 requests failed with 16
_MODE = 0o666  # within a folder that only we can enter


def bind(path: Path) -> socket.socket:
    """A new listening socket at `path`, whatever lay there before. Raises StepFailed in words."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        durable.remove(path)
        listener.bind(str(path))
        path.chmod(_MODE)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise StepFailed("socket-not-bound", f"the socket {path} could not be bound: {error}") from error
    return listener


def kept_by(process: int, path: Path) -> socket.socket | None:
    """The very socket at `path` that a living process, named by a pidfd, was started with.

    None when it cannot be had: the kernel may forbid it, or the process has closed it. Then the process goes on with
    its own, and only its next crash needs a new one.
    """
    try:
        descriptor = kernel.descriptor_of(process, DESCRIPTOR)
    except OSError:
        return None
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    listener = socket.socket(fileno=descriptor)
    if _listens_at(listener, path):
        return listener
    listener.close()
    return None


def _listens_at(listener: socket.socket, path: Path) -> bool:
    is_listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    return listener.family == socket.AF_UNIX and is_listening and os.fsencode(str(path)) == _name(listener)


def _name(listener: socket.socket) -> bytes:
    name: str | bytes = listener.getsockname()
    return name if isinstance(name, bytes) else os.fsencode(name)
