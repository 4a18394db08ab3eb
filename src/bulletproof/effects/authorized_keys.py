"""The account's authorized_keys: read, and changed durably by one at a time."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

from bulletproof.effects import durable
from bulletproof.effects.process import run_checked
from bulletproof.effects.scratch import scratch_folder
from bulletproof.errors import Refused

_PRIVATE = 0o700


def authorized_keys() -> Path:
    """The file of this account."""
    return Path.home() / ".ssh" / "authorized_keys"


def read_keys() -> str:
    """Its text; empty where there is none. Bytes that are no text are kept as they are."""
    try:
        return authorized_keys().read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return ""


def change_keys(change: Callable[[str], str]) -> bool:
    """Let `change` make a new text of the file's, and put that in its place; whether anything was changed.

    Raises what `change` raises; then nothing was. Raises Refused `keys-open-to-others` where another account could
    write it.
    """
    path = authorized_keys()
    durable.make_folder(path.parent, mode=_PRIVATE)
    _refuse_open(path.parent)
    lock = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = read_keys()
        after = change(before)
        if after == before:
            return False
        content = after.encode("utf-8", errors="surrogateescape")
        durable.write_file(path.resolve(), content, mode=0o600)
        return True
    finally:
        os.close(lock)


def new_pair(comment: str) -> tuple[str, str]:
    """A new key pair, private half first; nothing of it is left on this machine."""
    with scratch_folder("bulletproof-key-") as folder:
        file = folder / "key"
        run_checked(
            ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(file)),
            folder=folder,
            reference="key-not-made",
            failure="ssh-keygen made no key",
        )
        return file.read_text(), file.with_name("key.pub").read_text()


def _refuse_open(folder: Path) -> None:
    """As sshd does, which believes no such file either (sshd_config(5), StrictModes)."""
    if folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Refused("keys-open-to-others", f"other accounts may write in {folder}", hint=f"chmod 700 {folder}")
