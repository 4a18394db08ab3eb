"""When timers are due, also where the clocks change; and how wrong schedules are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.domain.cron import fault, next_after
from bulletproof.effects.local_time import local_zone

BERLIN = ZoneInfo("Europe/Berlin")
"""Goes forward at 02:00 on 29 March 2026, and back at 03:00 on 25 October."""


def at(month: int, day: int, hour: int, minute: int = 0, *, fold: int = 0) -> datetime:
    """A time of 2026 in Berlin; `fold` 1 is the second of two that have the same face."""
    return datetime(2026, month, day, hour, minute, tzinfo=BERLIN, fold=fold)


@pytest.mark.parametrize(
    ("schedule", "moment", "following"),
    [
        ("* * * * *", at(6, 1, 12, 0), at(6, 1, 12, 1)),
        ("*/15 9-17 * * mon-fri", at(6, 5, 17, 50), at(6, 8, 9, 0)),
        ("0 0 1,15 * *", at(6, 1, 0, 0), at(6, 15, 0, 0)),
        ("0 6 13 * fri", at(6, 1, 0, 0), at(6, 5, 6, 0)),
        ("30 4 29 2 *", at(6, 1, 0, 0), datetime(2028, 2, 29, 4, 30, tzinfo=BERLIN)),
        ("@hourly", at(6, 1, 12, 59), at(6, 1, 13, 0)),
        ("@Daily", at(6, 1, 12, 0), at(6, 2, 0, 0)),
        ("@weekly", at(6, 1, 12, 0), at(6, 7, 0, 0)),
        # The hour from 2 to 3 does not exist: what is due in it is due at the change, and the pace of others stays.
        ("30 2 * * *", at(3, 29, 1, 0), at(3, 29, 3, 0)),
        ("*/30 * * * *", at(3, 29, 1, 30), at(3, 29, 3, 0)),
        # The hour from 2 to 3 comes twice: what is due in it is due once, and the pace of others stays.
        ("30 2 * * *", at(10, 25, 1, 0), at(10, 25, 2, 30)),
        ("30 2 * * *", at(10, 25, 2, 30), at(10, 26, 2, 30)),
        ("30 2 * * *", at(10, 25, 2, 10, fold=1), at(10, 26, 2, 30)),
        ("*/30 * * * *", at(10, 25, 2, 30), at(10, 25, 2, 0, fold=1)),
        ("*/30 * * * *", at(10, 25, 2, 30, fold=1), at(10, 25, 3, 0)),
    ],
)
def test_the_next_time_is_that_of_a_crontab(schedule: str, moment: datetime, following: datetime) -> None:
    """Fields, ranges, steps, names and nicknames; days of month and week as cron joins them; both clock changes."""
    assert not fault(schedule)
    assert next_after(schedule, moment).astimezone(UTC) == following.astimezone(UTC)


@given(
    schedule=st.sampled_from(
        ["* * * * *", "*/7 * * * *", "30 2 * * *", "0 */3 * * *", "59 23 * * sun", "15 2,3 * * *"]
    ),
    minutes=st.integers(0, 366 * 24 * 60),
    seconds=st.integers(0, 59),
)
def test_time_never_stands_still(schedule: str, minutes: int, seconds: int) -> None:
    """The next time is later than now, whatever the clocks do, and within a week and a day for these."""
    moment = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes, seconds=seconds)).astimezone(BERLIN)
    following = next_after(schedule, moment)
    assert timedelta() < following.astimezone(UTC) - moment.astimezone(UTC) <= timedelta(days=8)


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("", "it has 0 fields, not five"),
        ("* * * *", "it has 4 fields, not five: minute, hour, day of month, month, day of week"),
        ("* * * * * *", "it has 6 fields, not five"),
        ("60 * * * *", "its minute cannot be 60"),
        ("* 24 * * *", "its hour cannot be 24"),
        ("* * 0 * *", "its day of month cannot be 0"),
        ("* * * 13 *", "its month cannot be 13"),
        ("* * * * 8", "its day of week cannot be 8"),
        ("*/0 * * * *", "its minute cannot be */0"),
        ("5-1 * * * *", "its minute cannot be 5-1"),
        ("a * * * *", "its minute cannot be a"),
        ("0 0 30 2 *", "there is no such day"),
        ("@reboot", "@reboot is none of @yearly"),
        ("every minute", "it has 2 fields"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_said(schedule: str, words: str) -> None:
    """Which field, and what stands there."""
    assert fault(schedule).startswith(words)


@given(st.text(alphabet="0123456789*/,-@#L adefghijmnoprstuvy", max_size=30))
def test_no_schedule_surprises(schedule: str) -> None:
    """Any text is told to be wrong, or has a next time."""
    if not fault(schedule):
        assert next_after(schedule, datetime(2026, 1, 1, tzinfo=UTC)) > datetime(2026, 1, 1, tzinfo=UTC)


def test_the_zone_is_that_of_the_machine_or_of_tz(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`TZ` by name or path, else /etc/localtime, and UTC where neither can be read; with its changes of the clocks."""
    for name in ("Europe/Berlin", ":Europe/Berlin"):
        monkeypatch.setenv("TZ", name)
        summer, winter = (datetime(2026, month, 1, tzinfo=local_zone()).utcoffset() for month in (7, 1))
        assert (summer, winter) == (timedelta(hours=2), timedelta(hours=1))
    for name in ("No/Where", str(tmp_path / "none")):
        monkeypatch.setenv("TZ", name)
        assert local_zone() is UTC
    monkeypatch.delenv("TZ")
    assert datetime.now(local_zone()).utcoffset() == datetime.now().astimezone().utcoffset()
