"""Whether a person types this, or GitHub Actions or another CI runs it."""

from __future__ import annotations

import os


def is_in_actions() -> bool:
    """Whether this process is part of a workflow's run. A terminal says nothing: some runners give one."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def is_meant(revision: str | None) -> bool:
    """Whether a person named the revision, and so wants it, older or not; what a job names may be a day old."""
    is_job = is_in_actions() or os.environ.get("CI", "").lower() not in {"", "0", "false"}
    return revision is not None and not is_job
