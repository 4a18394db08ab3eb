"""What the checks by the clock find is noted: a line of the record for each run, and what the logs tell besides."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from bulletproof.domain.check import Finding
from bulletproof.domain.cron import NEVER, next_after
from bulletproof.domain.runs import LONGEST_SECONDS, Position, Run, run_of
from bulletproof.effects.health_record import append_run
from bulletproof.effects.log_reading import read_on
from bulletproof.operations.checks import Ground
from bulletproof.operations.checks.serving import last_run


def note_run(ground: Ground, findings: Sequence[Finding], moment: datetime) -> Run:
    """Write down what was found at `moment`, in local time; it is on disk then. Only under `alone`. Raises OSError."""
    at, layout = int(moment.timestamp()), ground.host.layout
    run = run_of(
        findings,
        at=at,
        next_at=_next(ground, moment),
        is_stopped=not ground.status.wants_running,
        logged=read_on(layout.access_log, layout.web_log(ground.number), _positions(ground)),
    )
    append_run(layout.health, run, now=at)
    return run


def _positions(ground: Ground) -> dict[str, Position]:
    last = last_run(ground)
    return last.logged.positions if last else {}


def _next(ground: Ground, moment: datetime) -> int:
    schedule = ground.config.check.schedule
    if schedule == NEVER:
        return int(moment.timestamp()) + LONGEST_SECONDS
    return int(next_after(schedule, moment).timestamp())
