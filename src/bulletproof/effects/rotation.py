"""Keeps logs from filling the disk: a long one is copied to `.1` and emptied, so that whoever writes it goes on."""

from __future__ import annotations

import os
from pathlib import Path

_LOG_MODE = 0o640


def rotate(log: Path, *, longest_bytes: int) -> bool:
    """Rotate a log that is longer, whether it was. `.1` gets its last `longest_bytes`. Raises OSError.

    Its writers must append (O_APPEND). Nothing here is fsynced: a log is no state.
    """
    try:
        size = log.stat().st_size
    except FileNotFoundError:
        return False
    if size <= longest_bytes:
        return False
    _copy_end(log, log.with_name(f"{log.name}.1"), start=size - longest_bytes)
    os.truncate(log, 0)
    return True


def _copy_end(source: Path, destination: Path, *, start: int) -> None:
    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        writing = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, _LOG_MODE)
        try:
            while sent := os.sendfile(writing, reading, start, 1 << 20):
                start += sent
        finally:
            os.close(writing)
    finally:
        os.close(reading)
