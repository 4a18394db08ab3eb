"""GitHub Actions: whether we run in it, and what its log and its summaries make of what is printed."""

from __future__ import annotations

import os


def is_in_actions() -> bool:
    """Whether this process is part of a workflow's run. A terminal says nothing: some runners give one."""
    return os.environ.get("GITHUB_ACTIONS") == "true"
