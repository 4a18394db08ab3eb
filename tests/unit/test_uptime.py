"""What runs of the checks say of the time between them: uptime, incidents, days; whatever the clock did."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.domain.check import State
from bulletproof.domain.runs import Logged, Run
from bulletproof.domain.uptime import Incident, Kind, days, incidents, percentile, spans, uptime

NOW = 1_790_000_000
QUARTER = 900
DAY = 86400


def run(ago: int, state: State = State.OK, *, speaks: int = QUARTER + 120, **checks: State) -> Run:
    """A run of so many seconds ago, and how the app answered."""
    found = {"response": int(state), **{name: int(one) for name, one in checks.items()}}
    words = {name: f"{name} is {State(one).word}" for name, one in found.items() if one}
    return Run(at=NOW - ago, until=NOW - ago + speaks, checks=found, words=words)


def test_each_run_speaks_until_the_next_one_and_no_longer_than_it_may() -> None:
    """Two that follow one another leave no gap; after the last, or before a long pause, the rest is unknown."""
    runs = [run(3000), run(2100, State.CRITICAL), run(1200), run(100)]
    assert [(NOW - one.begin, NOW - one.end, one.kind) for one in spans(runs, NOW)] == [
        (3000, 2100, Kind.UP),
        (2100, 1200, Kind.DOWN),
        (1200, 180, Kind.UP),
        (100, 0, Kind.UP),
    ]


def test_uptime_is_of_the_time_that_is_known() -> None:
    """No run is no uptime; a gap is neither up nor down; a person's stop is apart, whatever the runs say."""
    nothing = uptime([], [], now=NOW, seconds=DAY)
    assert (nothing.share, nothing.percent, nothing.unknown) == (None, "-", DAY)
    runs = [run(ago) for ago in range(DAY, 0, -QUARTER)]
    whole = uptime(runs, [], now=NOW, seconds=DAY)
    assert (whole.up, whole.unknown, whole.share, whole.percent) == (DAY, 0, 1.0, "100 %")
    broken = uptime([*runs[:40], run(DAY - 40 * QUARTER, State.CRITICAL), *runs[41:]], [], now=NOW, seconds=DAY)
    assert (broken.down, broken.up) == (QUARTER, DAY - QUARTER)
    assert broken.percent == "98.95 %"
    gap = uptime([*runs[:40], *runs[44:]], [], now=NOW, seconds=DAY)
    assert (gap.up, gap.down, gap.unknown) == (DAY - 4 * QUARTER + 120, 0, 4 * QUARTER - 120)
    stops = [(NOW - 7200.0, NOW - 3600.0), (NOW - 4000.0, NOW - 3000.0), (NOW - 2 * DAY, NOW - DAY + 10)]
    halted = uptime(runs, stops, now=NOW, seconds=DAY)
    assert (halted.stopped, halted.up, halted.unknown) == (4210, DAY - 4210, 0)
    silent = uptime([], stops, now=NOW, seconds=DAY)
    assert (silent.stopped, silent.unknown) == (4210, DAY - 4210)


def test_a_little_down_is_never_a_hundred_percent() -> None:
    """Percent are never rounded up."""
    runs = [run(ago, speaks=10**9) for ago in range(90 * DAY, 0, -QUARTER)]
    runs[7] = Run(at=runs[7].at, until=runs[7].at + 1, checks={"response": 2})
    found = uptime(runs, [], now=NOW, seconds=90 * DAY)
    assert (found.down, found.percent) == (1, "99.99 %")


@pytest.mark.parametrize(
    ("checks", "is_stopped", "kind"),
    [
        ({"response": 0, "disk": 2}, False, Kind.UP),
        ({"response": 1}, False, Kind.UP),
        ({"response": 2}, False, Kind.DOWN),
        ({"response": 3}, False, Kind.UNKNOWN),
        ({"disk": 0}, False, Kind.UNKNOWN),
        ({"response": 0}, True, Kind.STOPPED),
    ],
)
def test_only_answers_make_it_up(checks: dict[str, int], *, is_stopped: bool, kind: Kind) -> None:
    """A full disk is no outage, and not to have asked is not up."""
    one = Run(at=NOW - 60, until=NOW, checks=checks, is_stopped=is_stopped)
    assert [span.kind for span in spans([one], NOW)] == [kind]


def test_a_clock_that_is_set_counts_no_time_twice() -> None:
    """Set back an hour, or ahead and back: times that come again count once, those to come not at all."""
    back = [run(ago) for ago in range(5400, 1800, -QUARTER)] + [run(ago) for ago in range(4500, 0, -QUARTER)]
    found = uptime(back, [], now=NOW, seconds=5400)
    assert (found.up, found.unknown) == (5400, 0)
    ahead = [run(1800), run(-10 * DAY, State.CRITICAL), run(900)]
    assert uptime(ahead, [], now=NOW, seconds=1800).up == 1800
    assert uptime(ahead, [], now=NOW, seconds=1800).down == 0
    twice = [run(900, State.CRITICAL), run(900)]
    assert uptime(twice, [], now=NOW, seconds=900).up == 900


STATES = st.sampled_from(State)
RUNS = st.lists(
    st.builds(
        lambda ago, speaks, state, disk: run(ago, state, speaks=speaks, disk=disk),
        st.integers(-2 * DAY, 10 * DAY),
        st.integers(0, 4000),
        STATES,
        STATES,
    ),
    max_size=60,
)
STOPS = st.lists(st.tuples(st.integers(NOW - 10 * DAY, NOW + DAY), st.integers(NOW - 10 * DAY, NOW + DAY)), max_size=5)


@given(runs=RUNS, stops=STOPS, seconds=st.integers(1, 12 * DAY))
def test_all_kinds_together_are_the_time(
    runs: Sequence[Run], stops: Sequence[tuple[float, float]], seconds: int
) -> None:
    """Whatever the clock did: nothing is negative or counted twice, spans do not overlap, and tell what was seen."""
    found = uptime(runs, stops, now=NOW, seconds=seconds)
    parts = (found.up, found.down, found.stopped, found.unknown)
    assert min(parts) >= 0
    assert sum(parts) == seconds
    told = spans(runs, NOW)
    assert all(one.begin < one.end <= NOW for one in told)
    assert all(one.end <= following.begin for one, following in pairwise(told))
    for one in told:
        assert any(run.at == one.begin and run.until >= one.end for run in runs)
    if found.share is not None:
        assert 0 <= found.share <= 1


@given(runs=RUNS, gone=st.integers(0, 59))
def test_a_run_less_never_makes_more_known(runs: Sequence[Run], gone: int) -> None:
    """A check that did not run cannot add to what is known, but by an older one that speaks longer."""
    fewer = [one for index, one in enumerate(runs) if index != gone]
    shorter = {one.at: one for one in runs}
    before = uptime(shorter.values(), [], now=NOW, seconds=10 * DAY).unknown
    after = uptime(fewer, [], now=NOW, seconds=10 * DAY).unknown
    longest = max((one.until - one.at for one in runs), default=0)
    assert after >= before - longest


@given(runs=RUNS)
def test_each_bad_run_is_in_one_incident(runs: Sequence[Run]) -> None:
    """Incidents of a kind do not overlap, and tell of just those runs that found something."""
    found = incidents(runs)
    for state, counted in ((State.CRITICAL, {State.CRITICAL}), (State.WARNING, {State.WARNING, State.UNKNOWN})):
        some = [one for one in found if one.state is state]
        bad = [one for one in runs if counted & {State(value) for value in one.checks.values()}]
        assert sum(one.runs for one in some) == len(bad)
        for one, following in pairwise(some):
            assert one.end is not None
            assert one.end <= following.begin
        assert all(any(one.begin <= seen.at for one in some) for seen in bad)


def test_incidents_begin_and_end_with_words() -> None:
    """What is critical is told apart from a warning that lasts; the first words of each check; open while it lasts."""
    bad, warns = State.CRITICAL, State.WARNING
    runs = [
        run(4500),
        run(3600, backups=warns),
        run(2700, bad, backups=warns, service=bad),
        run(1800, bad, backups=warns),
        run(900, backups=warns),
    ]
    assert incidents(runs) == (
        Incident(state=State.WARNING, begin=NOW - 3600, end=None, runs=4, words={"backups": "backups is warning"}),
        Incident(
            state=State.CRITICAL,
            begin=NOW - 2700,
            end=NOW - 900,
            runs=2,
            words={"response": "response is critical", "service": "service is critical"},
        ),
    )
    changed = run(900, bad, disk=bad)
    changed.words["response"] = "it became worse"
    (one,) = incidents([run(1800, bad), changed])
    assert one.words == {"response": "response is critical", "disk": "disk is critical"}
    assert incidents([]) == ()
    assert incidents([run(900)]) == ()


def test_days_by_the_calendar_of_a_zone() -> None:
    """Percentiles of the answers, and the share of errors, for each day that has a run."""
    runs = [
        Run(at=NOW + index * 3600, until=0, checks={}, latency_ms=float(index), logged=Logged(requests=10, errors=1))
        for index in range(30)
    ]
    found = days(runs, UTC)
    assert sum(one.runs for one in found) == 30
    assert [one.day for one in found] == sorted({one.day for one in found})
    assert found[0].day == date(2026, 9, 21)
    assert found[0].error_share == 0.1
    first = [run.latency_ms or 0.0 for run in runs[: found[0].runs]]
    assert found[0].latency_ms == (percentile(first, 0.5), percentile(first, 0.95), max(first))
    assert len(days(runs, ZoneInfo("Pacific/Kiritimati"))) >= 2
    assert days([Run(at=NOW, until=0, checks={})], UTC)[0].latency_ms is None


def test_percentiles_are_values_that_were_measured() -> None:
    """By the nearest rank."""
    values = [float(one) for one in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 1.0, 0.0)] == [50.0, 95.0, 100.0, 1.0]
    assert percentile([7.0], 0.5) == 7.0
    assert [percentile([3.0, 1.0, 2.0], share) for share in (0.3, 0.5, 0.7)] == [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)
