"""What systemd is about to do with a unit, asked from within that unit."""

from __future__ import annotations

from pathlib import Path

from bulletproof.effects.process import run

_SECONDS = 30.0


def job_of(unit: str) -> str:
    """`start`, `stop`, `restart`, or whatever is queued for a unit; empty when it moves by itself."""
    lines = (line.split() for line in _told("list-jobs", "--no-legend", "--plain").splitlines())
    return next((words[2] for words in lines if len(words) > 2 and words[1] == unit), "")  # noqa: PLR2004  ID, UNIT, TYPE


def machine_state() -> str:
    """`starting`, `running`, `degraded`, `stopping` … (systemctl(1), is-system-running)."""
    return _told("is-system-running").strip()


def start_soon(unit: str) -> None:
    """Let a unit be started, and do not wait; nothing happens to one that runs."""
    run(("systemctl", "--no-block", "start", unit), folder=Path("/"), timeout_seconds=_SECONDS)


def _told(*words: str) -> str:
    return run(("systemctl", "--no-pager", *words), folder=Path("/"), timeout_seconds=_SECONDS).output
