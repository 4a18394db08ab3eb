"""When a timer is due: a crontab's five fields, judged in words, and the next time after a given one."""

from __future__ import annotations

from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

_FIELDS = ("minute", "hour", "day of month", "month", "day of week")
_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
NEVER = "never"
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def fault(schedule: str) -> str:
    """What is wrong with a schedule, in words; empty when it is good."""
    text = schedule.strip()
    if text.startswith("@"):
        known = ", ".join(_NICKNAMES)
        return "" if text.lower() in _NICKNAMES else f"{text} is none of {known}"
    fields = text.split()
    if len(fields) != len(_FIELDS):
        return f"it has {len(fields)} fields, not five: {', '.join(_FIELDS)}"
    for index, (name, field) in enumerate(zip(_FIELDS, fields, strict=True)):
        alone = ["*"] * len(_FIELDS)
        alone[index] = field
        if not _is_good(" ".join(alone)):
            return f"its {name} cannot be {field}"
    return "" if _is_good(text) else "there is no such day"


def fault_unless_never(schedule: str) -> str:
    """The same of a schedule that may say that nothing is ever due."""
    return "" if schedule == NEVER else fault(schedule)


def next_after(schedule: str, moment: datetime) -> datetime:
    """The first time after `moment` at which a good schedule is due, in the time zone of `moment`.

    As Debian's cron has it: what is due at a time that the change to summer time leaves out is due at the change, and
    what is due at a time that comes twice in autumn is due once; a schedule whose minute or hour begins with a star
    goes by the time that really passes.
    """
    ticks = CronSim(_plain(schedule), moment)
    found = next(ticks)
    while found.astimezone(UTC) <= moment.astimezone(UTC):  # in an hour that comes twice it tells the first one's again
        found = next(ticks)
    return found


def parsed(schedule: str) -> CronSim:
    """A good schedule, taken apart."""
    return CronSim(_plain(schedule), _BEGIN)


def _plain(schedule: str) -> str:
    return _NICKNAMES.get(schedule.strip().lower(), schedule)


def _is_good(text: str) -> bool:
    try:
        next(CronSim(text, _BEGIN))
    except (CronSimError, StopIteration, RuntimeError, ValueError):
        return False
    return True
