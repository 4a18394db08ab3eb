"""The folder for sockets, private to its user: whoever can enter it can give orders to the supervisor."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bulletproof.domain.layout import Layout
from bulletproof.effects import durable
from bulletproof.errors import Refused

_PRIVATE = 0o700
_SHARED_BY_ALL_USERS = Path("/tmp")  # noqa: S108  what lies there is checked before it is used


def make_private_runtime(layout: Layout) -> None:
    """Make the app's folder for sockets, enterable by us alone.

    Raises Refused when the place for it in /tmp is not surely our own: anybody could have made something there first.
    """
    if _is_in_tmp(layout.runtime):
        durable.make_folder(layout.runtime.parent, mode=_PRIVATE)
        require_private(layout.runtime.parent)
    durable.make_folder(layout.sockets, mode=_PRIVATE)
    if layout.sockets.stat().st_mode & 0o777 != _PRIVATE:
        layout.sockets.chmod(_PRIVATE)


def keep_fresh(layout: Layout) -> None:
    """Let a cleaner of old files in /tmp find nothing old in the folder for sockets.

    systemd-tmpfiles takes a symlink, such as the one that the proxy dials, and spares only living sockets and what was
    touched lately (tried with systemd 252). Raises OSError.
    """
    if _is_in_tmp(layout.runtime):
        for entry in (layout.sockets, *layout.sockets.iterdir()):
            os.utime(entry, follow_symlinks=False)


def require_private(folder: Path) -> None:
    """Raises Refused unless it is a real folder that is ours and that nobody else can enter."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        problem = "is not a folder"
    elif found.st_uid != os.geteuid():
        problem = f"belongs to the user with number {found.st_uid}"
    elif stat.S_IMODE(found.st_mode) != _PRIVATE:
        problem = f"can be entered by others (its mode is {stat.S_IMODE(found.st_mode):04o}, not 0700)"
    else:
        return
    raise Refused(
        "runtime-not-private",
        f"{folder}, the place for sockets of this user, {problem}",
        hint=f"remove it after a look at it (rm -r {folder}), or choose a root with a shorter path",
    )


def _is_in_tmp(runtime: Path) -> bool:
    """Whether `domain.layout.runtime_folder` had to leave the root."""
    return runtime.parent.parent == _SHARED_BY_ALL_USERS and runtime.parent.name.startswith("bulletproof-")
