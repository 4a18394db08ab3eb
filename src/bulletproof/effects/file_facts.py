"""What the system says of files and file systems, read without opening them."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path


def others_may(file: Path) -> bool:
    """Whether somebody besides owner and group can read or write it where it lies; False when it is not there."""
    try:
        is_open = file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH)
        return bool(is_open) and all(folder.stat().st_mode & stat.S_IXOTH for folder in file.resolve().parents)
    except FileNotFoundError:
        return False


def is_private(file: Path) -> bool:
    """Whether its mode lets nobody but its owner read or write it; True when it is not there."""
    try:
        return not file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    except FileNotFoundError:
        return True


def mode_of(file: Path) -> str:
    """Its permissions as `ls` and `chmod` have them, such as 0640."""
    return f"{stat.S_IMODE(file.stat().st_mode):04o}"


def size_of(file: Path) -> int:
    """Its bytes; 0 when it is not there."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def bytes_below(folder: Path) -> int:
    """What all in it takes of the disk; 0 when it is not there."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # somebody else is at work there
                total += Path(parent, name).lstat().st_blocks * 512
    return total


def free_inodes(folder: Path) -> int:
    """How many files more the file system can hold; 0 where it counts none, as btrfs does."""
    return os.statvfs(folder).f_favail
