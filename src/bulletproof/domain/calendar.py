"""A crontab's schedule in the words of systemd's timers (systemd.time(7), calendar events)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from cronsim import CronSim

from bulletproof.domain.cron import parsed

_NAMES = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_WEEK = frozenset(range(7))
_MONTH = frozenset(range(1, 32))
_WORKDAYS = frozenset(range(1, 6))
_FRIDAY = frozenset({5})
_YEAR = frozenset(range(1, 13))


class _Days(msgspec.Struct, frozen=True):
    """Days of a month that are also certain days of the week."""

    weekdays: frozenset[int] = _WEEK
    days: frozenset[int] = _MONTH
    is_from_the_end: bool = False
    """Whether the days are counted from the last one of the month, which is 1."""

    def both(self, other: _Days) -> _Days | None:
        """The days that are of both kinds; None when a calendar event cannot say so."""
        bounded = [one for one in (self, other) if one.days != _MONTH]
        if len({one.is_from_the_end for one in bounded}) > 1:
            return None
        is_from_the_end = any(one.is_from_the_end for one in bounded)
        return _Days(self.weekdays & other.weekdays, self.days & other.days, is_from_the_end)

    def event(self, months: str, time: str) -> str:
        """The calendar event; empty when there is no such day."""
        if not (self.weekdays and self.days):
            return ""
        week = "" if self.weekdays == _WEEK else f"{','.join(_NAMES[day] for day in sorted(self.weekdays))} "
        return f"{week}*-{months}{'~' if self.is_from_the_end else '-'}{_listed(self.days, _MONTH)} {time}"


def calendar_events(schedule: str) -> tuple[str, ...]:
    """Calendar events that are due when this good schedule is; several when one cannot say it.

    None when systemd cannot say it at all: days by their number from the month's end, and at once from its begin.
    """
    due = parsed(schedule)
    time = f"{_listed(due.hours)}:{_listed(due.minutes)}:00"
    by_date, by_week = _by_date(due.days), _by_week(due.weekdays)
    # A crontab that names days of the month and of the week means either; with a star in one of them, both.
    days = [one.both(other) for one in by_date for other in by_week] if due.day_and else [*by_date, *by_week]
    if None in days:
        return ()
    events = (one.event(_listed(due.months, _YEAR), time) for one in days if one is not None)
    return tuple(event for event in events if event)


def _by_date(days: Iterable[int]) -> list[_Days]:
    found = frozenset(day for day in days if day > 0)
    last = [_Days(days=frozenset({1}), is_from_the_end=True)] if CronSim.LAST in days else []
    return [*([_Days(days=found)] if found else []), *last, *(_last_workday() if CronSim.LAST_WEEKDAY in days else [])]


def _last_workday() -> list[_Days]:
    """The last day of the month if that is no weekend, otherwise the Friday before."""
    friday = _Days(weekdays=_FRIDAY, days=frozenset({2, 3}), is_from_the_end=True)
    return [_Days(weekdays=_WORKDAYS, days=frozenset({1}), is_from_the_end=True), friday]


def _by_week(weekdays: Iterable[int | tuple[int, int]]) -> list[_Days]:
    plain = frozenset(day % len(_WEEK) for day in weekdays if isinstance(day, int))
    counted = (day for day in weekdays if not isinstance(day, int))
    return [*([_Days(weekdays=plain)] if plain else []), *(_counted(*day) for day in counted)]


def _counted(day: int, which: int) -> _Days:
    """The second Friday is the one from the 8th to the 14th; the last one is among the last seven days."""
    is_last = which < 0
    first = 1 if is_last else (which - 1) * len(_WEEK) + 1
    days = frozenset(range(first, first + len(_WEEK))) & _MONTH
    return _Days(weekdays=frozenset({day % len(_WEEK)}), days=days, is_from_the_end=is_last)


def _listed(numbers: Iterable[int], everything: frozenset[int] = frozenset()) -> str:
    found = frozenset(numbers)
    return "*" if found == everything else ",".join(f"{number:02}" for number in sorted(found))
