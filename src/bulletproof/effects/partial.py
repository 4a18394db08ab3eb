"""Transfers that are gone on with: what has come lies beside its place, under a name that tells of what."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from bulletproof.domain.depot import OURS
from bulletproof.effects import durable

PIECE_BYTES = 8 << 20
_PRIVATE = 0o600
_FULL = {errno.ENOSPC, errno.EDQUOT}


def partial_name(name: str, version: str) -> str:
    """The name of a part of what is called `name`; two versions of that have two, which begin alike."""
    return f"{partial_prefix(name)}{_digest(version, 16)}"


def partial_prefix(name: str) -> str:
    """What the names of all parts of what is called `name` begin with."""
    return f"{OURS}part-{_digest(name, 8)}-"


def open_partial(file: Path, version: str, *, doubted_bytes: int = 0) -> Path:
    """The part of `file` that has come, mode 0600, without its last `doubted_bytes`; empty when there was none.

    Parts of other versions are removed. Raises OSError.
    """
    partial = file.with_name(partial_name(file.name, version))
    for other in file.parent.glob(f"{partial_prefix(file.name)}*"):
        if other != partial:
            durable.remove(other)
    with _appended(partial) as descriptor:
        os.ftruncate(descriptor, max(0, os.fstat(descriptor).st_size - doubted_bytes))
    return partial


def fetch(file: Path, version: str, size: int, read: Callable[[int, int], bytes]) -> None:
    """Make `file` the `size` bytes that `read(offset, length)` gives piece by piece, whole or not at all, and durable.

    It goes on where an earlier call for this version was broken off, but for one that found the disk full. Raises
    OSError, EOFError when `read` gives nothing, and what that raises.
    """
    partial = open_partial(file, version)
    with _appended(partial) as descriptor:
        while (offset := os.fstat(descriptor).st_size) < size:
            piece = read(offset, min(PIECE_BYTES, size - offset))
            if not piece:
                raise EOFError(f"nothing came after {offset} of {size} bytes")
            _add(descriptor, piece, partial)
    durable.rename(partial, file)


def _add(descriptor: int, piece: bytes, partial: Path) -> None:
    rest = memoryview(piece)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError as error:
        error.filename = str(partial)  # or nobody knew which of two disks is full
        if error.errno in _FULL:
            durable.remove(partial)  # or it would be in the way of everybody on that disk
        raise


@contextlib.contextmanager
def _appended(path: Path) -> Iterator[int]:
    """Yield the descriptor of a file that is added to, made if it is not there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, _PRIVATE)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
