"""Schedules for systemd: its own judge says when each is due, and that is when the crontab is."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime

import pytest

from bulletproof.domain.calendar import calendar_events
from bulletproof.domain.cron import next_after

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = 12

SCHEDULES = (
    "* * * * *",
    "*/15 * * * *",
    "30 2 * * *",
    "0 9-17/2 * * mon-fri",
    "0 0 1,15 * *",
    "0 0 13 * fri",
    "*/20 3 */2 * 1",
    "0 0 L * *",
    "15 12 LW * *",
    "0 0 * * 5#2",
    "0 0 * * 5L",
    "0 0 31 * *",
    "0 0 29 2 *",
    "0 6 * 1,7 sun",
    "0 6 * * 7",
    "@hourly",
    "@daily",
    "@weekly",
    "@monthly",
    "@yearly",
)


def due_by_systemd(events: tuple[str, ...]) -> list[datetime]:
    """The first times after the begin at which any of the events is due, as `systemd-analyze calendar` says."""
    found: set[datetime] = set()
    for event in events:
        argv = ("systemd-analyze", "calendar", f"--iterations={TIMES}", f"--base-time={BEGIN:%Y-%m-%d %H:%M:%S}", event)
        told = subprocess.run(argv, check=True, capture_output=True, text=True, env={"TZ": "UTC", "LANG": "C.UTF-8"})
        lines = [line.partition(":")[2].strip() for line in told.stdout.splitlines() if _tells_a_time(line)]
        found.update(datetime.strptime(line, "%a %Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC) for line in lines)
    return sorted(found)[:TIMES]


def _tells_a_time(line: str) -> bool:
    return line.strip().startswith(("Next elapse", "Iter. #", "Iteration #"))


def due_by_crontab(schedule: str, times: int) -> list[datetime]:
    """The first times after the begin at which the crontab is due."""
    found, moment = [], BEGIN
    for _ in range(times):
        moment = next_after(schedule, moment)
        found.append(moment)
    return found


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_systemd_is_due_when_the_crontab_is(schedule: str) -> None:
    """Through a dozen times, whichever fields are restricted."""
    told = due_by_systemd(calendar_events(schedule))
    assert len(told) >= 2
    assert told == due_by_crontab(schedule, len(told))


def test_what_no_calendar_event_can_say() -> None:
    """Every second day that is also the last Friday: systemd counts from one end of a month or from the other."""
    assert calendar_events("0 0 */2 * 5L") == ()
