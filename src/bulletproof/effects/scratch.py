"""A private folder for something large of which nothing may be left; what a killed process left goes with the next."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bulletproof.effects import durable
from bulletproof.errors import Refused, StepFailed

_ON_DISK = "/var/tmp"  # noqa: S108  the folder made in it is private; /tmp often lies in memory, where no database fits

_UNHELD, _HELD, _WORK = "unheld", "held", "work"


@contextlib.contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """A folder in $TMPDIR or /var/tmp that nobody else may enter, and that is gone afterwards.

    Those of the same prefix whose owner was killed are removed first. Raises StepFailed `scratch-not-made`.
    """
    place = Path(os.environ.get("TMPDIR") or _ON_DISK)
    try:
        _remove_left(place, prefix)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    except OSError as error:
        words = f"no temporary folder could be made in {place}: {error.strerror or error}"
        raise StepFailed("scratch-not-made", words, hint="TMPDIR=/another/folder bulletproof plan") from error
    descriptor = os.open(folder / _UNHELD, os.O_RDONLY | os.O_CREAT, 0o600)
    try:
        # The kernel lets go of it when we die, however we do. Not of the folder: `durable` locks those itself.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        durable.rename(folder / _UNHELD, folder / _HELD)  # nobody ever finds it under its name and not locked
        durable.make_folder(folder / _WORK, mode=0o700)
        yield folder / _WORK
    finally:
        try:
            _remove(folder)
        finally:
            os.close(descriptor)


def _remove_left(place: Path, prefix: str) -> None:
    for folder in place.glob(f"{prefix}*"):
        with contextlib.suppress(FileNotFoundError):  # one without the file to hold was made, or is removed, just now
            if _is_ours(folder):
                _remove_if_left(folder)


def _remove_if_left(folder: Path) -> None:
    """Where nobody holds it, hold it until it is gone: of two who find it one removes it."""
    descriptor = os.open(folder / _HELD, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder)
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    """From within, since what others leave beside it is not ours to sweep."""
    durable.remove_tree(folder / _WORK)
    durable.remove(folder / _HELD)
    folder.rmdir()


def _is_ours(folder: Path) -> bool:
    return folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid()


@contextlib.contextmanager
def room_for(what: str) -> Iterator[None]:
    """While something that was sent is kept on disk. Raises Refused `disk-full`, which tells that nothing was begun."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        words = f"the disk is full: {what} could not be kept; nothing was begun, and what serves is what served before"
        raise Refused("disk-full", words, hint="df -h") from error
