"""Room that is put by on a disk: what must come to its end does so although the disk became full meanwhile."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from bulletproof.effects import durable

_FEW_BYTES = 1 << 20
"""For the journal's records, links and notes of a way back."""
_TIGHT_BYTES = 4 << 20
_FILES = 8
"""Names that a way back makes at the same time: a copy set aside, what SQLite writes beside a database, a link."""


def is_tight(folder: Path) -> bool:
    """Whether there is too little on its disk to put anything by."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize < _TIGHT_BYTES


def put_by(folder: Path) -> None:
    """Put a little by, as much as there is: on a full disk a way back may yet have enough."""
    with contextlib.suppress(OSError):
        durable.make_folder(folder, mode=0o700)
        for number in range(_FILES):
            (folder / f"file-{number}").touch(mode=0o600)
        _allocate(folder / "file-0", _FEW_BYTES)


def put_more_by(folder: Path, size: int) -> None:
    """Put by that many bytes besides, as one file; what was put by like this before is replaced. Raises OSError."""
    durable.make_folder(folder, mode=0o700)
    more = folder / "more"
    more.unlink(missing_ok=True)
    try:
        _allocate(more, size)
    except OSError:
        more.unlink()
        raise


def free(*folders: Path) -> bool:
    """Give it back, so that it can be used when this returns; False when none was put by.

    What cannot be removed stays: for the want of room nothing that needs none may fail.
    """
    found = [folder for folder in folders if folder.exists()]
    for folder in found:
        with contextlib.suppress(OSError):
            for file in folder.iterdir():
                with contextlib.suppress(OSError):
                    file.unlink()
            folder.rmdir()
            durable.sync_folder(folder.parent)  # a block of an ext4 is free when its removal is in the log
    return bool(found)


def keep_spare(place: Path, size: int) -> None:
    """Keep so many bytes in a file until they are spent; on a full disk there will be more room another time."""
    if not place.exists():
        with contextlib.suppress(OSError):
            durable.write_file(place, b"\1" * size, mode=0o600)


def spend_spare(place: Path) -> bool:
    """Give it free, so that it can be used when this returns; False when there was none."""
    is_there = place.exists()
    durable.remove(place)
    return is_there


def _allocate(place: Path, size: int) -> None:
    """Blocks without content, which takes no time; nothing is synced, since after a cut of the power none is owed."""
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)
