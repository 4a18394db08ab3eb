"""Data that nobody uses any more, moved to where nobody deletes them, and never copied: they may be large."""

from __future__ import annotations

import errno
from pathlib import Path

from bulletproof.effects import durable

_OF_THE_DISK = "lost+found"


def set_aside(folder: Path, place: Path, prefix: str, name: str) -> Path | None:
    """Move a folder to `place`; the content of one that is a disk of its own moves within it, to a folder that is told.

    That is called `prefix` and `name`; other folders that begin so are there from earlier, and stay as they are.

    Called again after it was killed it goes on. Raises OSError.
    """
    within = folder / f"{prefix}{name}"
    if not folder.exists() or (place.exists() and not within.exists()):
        return None
    if not within.exists():
        try:
            durable.rename(folder, place)
        except OSError as error:
            if error.errno not in {errno.EXDEV, errno.EBUSY}:
                raise
        else:
            return None
    durable.make_folder(within, mode=0o700)
    for one in sorted(folder.iterdir()):
        if one.name != _OF_THE_DISK and not one.name.startswith(prefix):
            durable.rename(one, within / one.name)
    return within
