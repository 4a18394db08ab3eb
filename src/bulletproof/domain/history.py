"""History: the commits that a source comes after, small enough to travel with it to a host that has no repository."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable

LONGEST = 20_000
"""Commits; of an older history only the newest part is kept, which is where a job that is run again comes from."""
_ID_BYTES = 6
"""Of each commit's id: that one of 20,000 is taken for another happens once in 10^10 deployments."""
_HEX = 2 * _ID_BYTES
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit's full id, and no name for files as they lay."""
    return _COMMIT.fullmatch(revision) is not None


def packed(commits: Iterable[str]) -> str:
    """The beginnings of the commits' ids in base64; empty for none."""
    return base64.b64encode(b"".join(bytes.fromhex(commit[:_HEX]) for commit in commits)).decode()


def comes_after(history: str, commit: str) -> bool:
    """Whether a source of this history comes after the commit. False as well where its history is not known."""
    if not is_commit(commit):
        return False
    try:
        raw = base64.b64decode(history, validate=True)
    except (binascii.Error, ValueError):
        return False
    wanted = bytes.fromhex(commit[:_HEX])
    return any(raw[at : at + _ID_BYTES] == wanted for at in range(0, len(raw), _ID_BYTES))
