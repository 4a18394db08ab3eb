"""Changes of owners, modes and files of ours: how each is now, and how it is made so."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from bulletproof.domain.account import Account
from bulletproof.domain.ownership import Owned
from bulletproof.domain.repair import Change, Permission, Text
from bulletproof.effects import durable
from bulletproof.effects.ownership import claim


def found(changes: tuple[Change, ...]) -> Iterator[Change]:
    """How each of these is now; what is gone by now is none of them. Raises OSError."""
    for change in changes:
        try:
            yield _found(change)
        except FileNotFoundError:
            continue


def make(change: Change) -> None:
    """Make it so, following no link; idempotent. Raises OSError, and Refused `place-not-plain`."""
    match change:
        case Text(path=path, text=text):
            durable.write_file(Path(path), text)
        case Permission():
            claim((_owned(change),))


def permission(path: Path, mode: int) -> Permission:
    """The same owner and group with another mode. Raises OSError."""
    now = path.lstat()
    is_folder = stat.S_ISDIR(now.st_mode)
    return Permission(path=str(path), owner=now.st_uid, group=now.st_gid, mode=mode, is_folder=is_folder)


def as_change(owned: Owned) -> Permission:
    """The same, as it is written down."""
    return Permission(
        path=str(owned.path),
        owner=owned.owner.user,
        group=owned.group.group,
        mode=owned.mode,
        is_folder=owned.is_folder,
    )


def _found(change: Change) -> Change:
    path = Path(change.path)
    if isinstance(change, Text):
        return Text(path=change.path, text=path.read_text(encoding="utf-8"))
    return permission(path, stat.S_IMODE(path.lstat().st_mode))


def _owned(change: Permission) -> Owned:
    account = Account(name=str(change.owner), user=change.owner, group=change.group)
    return Owned(path=Path(change.path), owner=account, group=account, mode=change.mode, is_folder=change.is_folder)
