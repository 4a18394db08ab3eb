"""Source: what is to be deployed, and where it is taken from."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be deployed: a folder and, when it is a git repository, the commit to take from it."""

    folder: Path
    revision: str
    """A full commit id, or `worktree` (tracked and untracked files as they are), or `files` (a folder without git)."""
    title: str = ""
    """The commit's subject."""
    history: str = ""
    """The commits that it comes after, by `domain.history`; empty when that is not known."""
    is_laid: bool = False
    """Whether the folder holds exactly what is to be deployed, as a bundle does, and no history."""

    @property
    def is_commit(self) -> bool:
        """Whether a commit is taken, and not the files as they lie there."""
        return not self.is_laid and self.revision not in {"worktree", "files"}
