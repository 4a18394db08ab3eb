"""What git does with a file: whether it tracks it, and whether it ignores it."""

from __future__ import annotations

import os
from pathlib import Path

from bulletproof.effects.process import last_lines, run
from bulletproof.errors import StepFailed

_GIT = ("git", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false")  # nothing of the repository is run
_NO = 1


def is_tracked(folder: Path, name: str) -> bool:
    """Whether git keeps the file of the folder; raises StepFailed `git-failed` when it cannot tell."""
    return _says_yes(folder, "ls-files", "--error-unmatch", "--", name)


def is_ignored(folder: Path, name: str) -> bool:
    """Whether `git add` would pass the file over; raises StepFailed `git-failed` when it cannot tell."""
    return _says_yes(folder, "check-ignore", "--quiet", "--", name)


def _says_yes(folder: Path, *question: str) -> bool:
    # Inside a git hook GIT_DIR and its kin name another repository than the folder's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    answer = run((*_GIT, *question), folder=folder, environment=environment)
    if answer.status not in {0, _NO}:
        context = last_lines(answer.errors)
        raise StepFailed("git-failed", f"git could not read {folder}", context=context, hint="git status")
    return answer.status == 0
