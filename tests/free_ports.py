"""Ports for tests: no two processes of any test run are given the same one."""

from __future__ import annotations

import fcntl
import functools
import os
import secrets
import tempfile
from pathlib import Path

from bulletproof.effects.route import may_listen

_PORTS = range(10000, 30000)
"""Below the ephemeral ports, and not where apps that choose for themselves begin."""


def free_port() -> int:
    """A port that nobody listens on and that was given to nobody who still runs."""
    while not (_claim(port := secrets.choice(_PORTS)) and may_listen(port)):
        pass
    return port


def _claim(port: int) -> bool:
    """Claim it until this process ends: a byte of the file is locked for it, and the kernel gives it back."""
    if port in _given:  # one's own lock hinders nobody from taking it again
        return False
    _given.add(port)
    try:
        fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except BlockingIOError:
        return False
    return True


_given: set[int] = set()


@functools.cache
def _claims() -> int:
    return os.open(Path(tempfile.gettempdir()) / f"bp-test-ports-{os.getuid()}", os.O_RDWR | os.O_CREAT, 0o600)
