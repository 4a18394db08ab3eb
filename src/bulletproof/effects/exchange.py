"""Two folders take each other's place in one instant, so that nobody finds neither there."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from bulletproof.effects import durable

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
"""Of <fcntl.h> and <linux/fs.h>; renameat2(2) is in every glibc since 2.28."""
_LIBC = ctypes.CDLL(None, use_errno=True)


def exchange(one: Path, other: Path) -> None:
    """Both are on disk under each other's name when this returns. Raises OSError.

    Both lie in one folder, since a folder that is read-only cannot be moved into another one by its owner.
    """
    if _LIBC.renameat2(_AT_FDCWD, bytes(one), _AT_FDCWD, bytes(other), _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))
    durable.sync_folder(one.parent)
