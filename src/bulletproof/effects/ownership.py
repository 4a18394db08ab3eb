"""Owners and modes, looked at and set without following a link: root acts here where a service user may write."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import grp
import os
import pwd
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from bulletproof.domain.account import Account
from bulletproof.domain.ownership import Owned
from bulletproof.effects import durable
from bulletproof.errors import Refused

_PLACE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_ROOT = "it may not be root, nor be in its group"


def has_account(name: str) -> bool:
    """Whether there is a user of that name."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def find_account(name: str) -> Account:
    """The user of that name. Raises Refused `user-missing`, and `user-is-root` for one that is root in all but name."""
    try:
        found = pwd.getpwnam(name)
    except KeyError as error:
        raise Refused(
            "user-missing",
            f"the user {name}, as whom the app is to run, does not exist on this machine",
            hint="bulletproof setup --local",
        ) from error
    if found.pw_uid == 0 or found.pw_gid == 0:
        raise Refused("user-is-root", f"{name} cannot run the app: {_NO_ROOT}", hint="another `user` under [app]")
    return Account(name=name, user=found.pw_uid, group=found.pw_gid)


def user_of_group(place: Path) -> str | None:
    """The user whose own group a file or folder belongs to; None when it is not there, or it is root's."""
    try:
        group = os.lstat(place).st_gid
    except FileNotFoundError:
        return None
    return next((one.pw_name for one in pwd.getpwall() if one.pw_gid == group and 0 not in {one.pw_uid, group}), None)


def group_name(account: Account) -> str:
    """The name of an account's group."""
    return grp.getgrgid(account.group).gr_name


def make_missing(table: Iterable[Owned]) -> None:
    """Everything that is to be made is there, with its owner and mode from its first instant on; the rest is left.

    Raises Refused `place-not-plain` where a link or a file stands in the place of a folder.
    """
    for owned in table:
        if not os.path.lexists(owned.path) and owned.is_made:
            _make(owned)


def claim(table: Iterable[Owned]) -> None:
    """Whatever is there of these has the owner and the mode that it is to have.

    Raises Refused `place-not-plain` for what is a link or has another name, unless it gives way or is the app's alone.
    """
    for owned in table:
        if owned.gives_way:
            _make_way(owned.path)
        if _difference(owned):
            _set(owned)


def differences(table: Iterable[Owned]) -> tuple[tuple[Owned, str], ...]:
    """What is not as it is to be, each with how it is now. Raises Refused `place-not-plain`."""
    return tuple((owned, found) for owned in table if (found := _difference(owned)))


def give(place: Path, account: Account | None) -> None:
    """Let an account write to a file or folder of ours, which it cannot exchange for another; nothing without one."""
    if account is None:
        return
    opened = os.open(place, _PLACE)
    try:
        is_folder = stat.S_ISDIR(os.fstat(opened).st_mode)
        os.chown(f"/proc/self/fd/{opened}", 0, account.group)
        Path(f"/proc/self/fd/{opened}").chmod(0o1770 if is_folder else 0o660)
    finally:
        os.close(opened)


def close_to_others(folder: Path, account: Account | None) -> None:
    """Let an account read a sealed folder of ours, and nobody else; nothing without one."""
    if account is not None:
        os.chown(folder, 0, account.group, follow_symlinks=False)
        folder.chmod(0o550)


def hand_tree(folder: Path, account: Account) -> None:
    """Make all of a tree an account's. Nobody but us may write to it meanwhile; links are changed, not followed."""
    for parent, folders, files in os.walk(folder):
        for name in (".", *folders, *files):
            os.chown(Path(parent, name), account.user, account.group, follow_symlinks=False)


def take_over(file: Path, place: Path) -> None:
    """Let a file that another account may have made be ours alone, at `place` on the same disk, where only we may look.

    Nothing happens when there is none or it lies on another disk; a link of either kind is removed.
    """
    try:
        file.rename(place)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.EXDEV}:
            raise
        return
    found = place.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        place.unlink()
        return
    os.chown(place, os.geteuid(), os.getegid())
    place.chmod(0o600)


def share(folder: Path, account: Account | None) -> None:
    """Let an account have what is in a folder of users' files; the folder stays ours, so that no link takes its place.

    Only what we made in it is handed over: the account may be at work there meanwhile. Nothing without an account.
    """
    if account is None:
        return
    give(folder, account)
    for _, folders, files, parent in os.fwalk(folder):
        for name in (*folders, *files):
            with contextlib.suppress(FileNotFoundError):
                found = os.lstat(name, dir_fd=parent)
                # A file of several names may be one of ours elsewhere.
                if found.st_uid == 0 and (stat.S_ISDIR(found.st_mode) or found.st_nlink == 1):
                    os.chown(name, account.user, account.group, dir_fd=parent, follow_symlinks=False)


def read_plain(file: Path) -> bytes | None:
    """What is in a file that an app has written in a folder of its own; None when it is not there, or is a link."""
    try:
        opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ELOOP, errno.ENXIO}:
            return None
        raise
    with open(opened, "rb") as content:  # noqa: PTH123  it is open already
        return content.read() if stat.S_ISREG(os.fstat(opened).st_mode) else None


@contextlib.contextmanager
def acting_as(account: Account | None, group: int | None = None) -> Iterator[None]:
    """Let this thread reach only the files that the account can reach, and make what it makes as that account.

    So no link that the account has planted leads us to what is not its own. It does nothing without an account. `group`
    is another than the account's own.
    """
    if account is None:
        yield
        return
    if os.getgroups():
        os.setgroups(())  # root's own, which a login gives, open what is root's group's; root needs none of them
    libc = ctypes.CDLL(None, use_errno=True)
    libc.setfsgid(account.group if group is None else group)
    libc.setfsuid(account.user)  # from 0, which takes every right over files of others with it (capabilities(7))
    try:
        if libc.setfsuid(-1) != account.user:  # it tells of a failure only so (setfsuid(2))
            raise PermissionError(f"this process cannot act as {account.name}")
        yield
    finally:
        libc.setfsuid(os.geteuid())
        libc.setfsgid(os.getegid())


def _make(owned: Owned) -> None:
    if owned.is_folder:
        durable.make_folder(owned.path, mode=0o700)
    else:
        durable.make_folder(owned.path.parent)
        durable.write_file(owned.path, b"", mode=0o600)
    _set(owned)


def _set(owned: Owned) -> None:
    try:
        place = os.open(owned.path, _PLACE)
    except FileNotFoundError:
        return  # SQLite removes what is beside a database when the last one closes it
    try:
        _require_plain(owned, os.fstat(place))
        os.chown(f"/proc/self/fd/{place}", owned.owner.user, owned.group.group)
        Path(f"/proc/self/fd/{place}").chmod(owned.mode)
    finally:
        os.close(place)
    durable.sync_folder(owned.path.parent)


def _difference(owned: Owned) -> str:
    """How it is, where that is not as it is to be; empty when it is right, or not there."""
    try:
        found = os.lstat(owned.path)
    except FileNotFoundError:
        return ""
    _require_plain(owned, found)
    if _is_right(owned, found):
        return ""
    return f"{_name(found.st_uid)}:{_group(found.st_gid)} {stat.S_IMODE(found.st_mode):o}"


def _make_way(place: Path) -> None:
    """What is no file there is found beside from now on; otherwise an app could keep us from stopping it by a link."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(place.lstat().st_mode):
            durable.rename(place, place.with_name(f"{place.name}.not-plain-{secrets.token_hex(4)}"))


def _is_plain(owned: Owned, found: os.stat_result) -> bool:
    """Whether it can be set without harm: another name of a file may lead to one that is not the app's at all."""
    if owned.is_folder:
        return stat.S_ISDIR(found.st_mode)
    is_apps = found.st_uid == owned.group.user != 0
    return stat.S_ISREG(found.st_mode) and (found.st_nlink == 1 or is_apps or _is_right(owned, found))


def _is_right(owned: Owned, found: os.stat_result) -> bool:
    wanted = (owned.owner.user, owned.group.group, owned.mode)
    return (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == wanted


def _require_plain(owned: Owned, found: os.stat_result) -> None:
    if not _is_plain(owned, found):
        what = "a folder" if owned.is_folder else "a plain file of one name"
        words = f"{owned.path} is not {what}, and root follows no link where the app may lay one"
        raise Refused("place-not-plain", words, hint=f"ls -l {owned.path}")


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _group(group: int) -> str:
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)
