"""Uptime and incidents: what the runs of the checks say of the time between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, tzinfo
from enum import StrEnum
from itertools import groupby, pairwise

import msgspec

from bulletproof.domain.check import State
from bulletproof.domain.runs import Run

ANSWERS = "response"
"""The check that decides whether the app is up."""


class Kind(StrEnum):
    """How the app was in a stretch of time."""

    UP = "up"
    DOWN = "down"
    STOPPED = "stopped"
    """By a person, who wanted it so."""
    UNKNOWN = "unknown"
    """Nobody looked, or it could not be seen."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of time, in seconds since the epoch; its end is not in it."""

    begin: float
    end: float
    kind: Kind


class Uptime(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of each kind in the time that was asked for; together they are that time."""

    up: float
    down: float
    stopped: float
    unknown: float

    @property
    def share(self) -> float | None:
        """Of the time of which it is known, 0 to 1; None when nothing is known."""
        known = self.up + self.down
        return self.up / known if known else None

    @property
    def percent(self) -> str:
        """The same for people, never rounded up: 100 % means that it was never seen down."""
        share = self.share
        if share is None:
            return "-"
        return "100 %" if self.down == 0 else f"{math.floor(share * 10000) / 100:.2f} %"


def spans(runs: Iterable[Run], now: float) -> tuple[Span, ...]:
    """What each run says of the time after it: until the next one, or until it speaks no more. In order, no overlap.

    A clock that was set back gives times twice; the record is read in the order of its times, and of two runs of the
    same second the later one counts.
    """
    at = {run.at: run for run in runs if run.at <= now}
    ordered = [at[moment] for moment in sorted(at)]
    ends = [*(following.at for _, following in pairwise(ordered)), now]
    return tuple(
        Span(begin=run.at, end=min(end, run.until), kind=_kind(run))
        for run, end in zip(ordered, ends, strict=False)
        if min(end, run.until) > run.at
    )


def uptime(runs: Iterable[Run], stops: Iterable[tuple[float, float]], *, now: float, seconds: float) -> Uptime:
    """How the app was in the last `seconds`; `stops` are the times in which a person had it stopped, by the journal."""
    begin = now - seconds
    halts = _merged((max(begin, first), min(now, last)) for first, last in stops)
    known = [Span(begin=max(begin, one.begin), end=one.end, kind=one.kind) for one in spans(runs, now)]
    halted = sum(last - first for first, last in halts)
    took = dict.fromkeys(Kind, 0.0)
    for span in known:
        if span.end > span.begin:
            inside = sum(max(0.0, min(last, span.end) - max(first, span.begin)) for first, last in halts)
            took[span.kind] += span.end - span.begin - inside
    stopped = took[Kind.STOPPED] + halted
    return Uptime(
        up=took[Kind.UP],
        down=took[Kind.DOWN],
        stopped=stopped,
        unknown=max(0.0, seconds - took[Kind.UP] - took[Kind.DOWN] - stopped),
    )


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which each run found something."""

    state: State
    """CRITICAL; or WARNING, UNKNOWN counting as such, for what is beside that."""
    begin: int
    """The first run that found it, in seconds since the epoch."""
    end: int | None
    """The first one that did not; None while it lasts."""
    runs: int
    words: dict[str, str]
    """What each check said first."""


def incidents(runs: Sequence[Run]) -> tuple[Incident, ...]:
    """All incidents, oldest first: what is critical, and apart from that what should be better looked after."""
    critical = _incidents(runs, State.CRITICAL, lambda state: state is State.CRITICAL)
    lesser = _incidents(runs, State.WARNING, lambda state: state in {State.WARNING, State.UNKNOWN})
    return tuple(sorted((*critical, *lesser), key=lambda one: (one.begin, -one.state)))


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """What one day was like."""

    day: date
    runs: int
    latency_ms: tuple[float, float, float] | None
    """Of the answers to the health checks: the median, the 95th percentile and the slowest."""
    requests: int
    errors: int
    """Of the requests, those answered with 500 to 599."""

    @property
    def error_share(self) -> float:
        """Of the requests, 0 to 1."""
        return self.errors / self.requests if self.requests else 0.0


def days(runs: Iterable[Run], zone: tzinfo) -> tuple[Day, ...]:
    """Each day that has a run, oldest first, by the calendar of `zone`."""

    def day_of(run: Run) -> date:
        return datetime.fromtimestamp(run.at, zone).date()

    ordered = sorted(runs, key=lambda run: run.at)
    return tuple(_day(day, tuple(some)) for day, some in groupby(ordered, key=day_of))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that so many of them do not exceed. Raises ValueError when there are none."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _kind(run: Run) -> Kind:
    if run.is_stopped:
        return Kind.STOPPED
    answers = run.checks.get(ANSWERS, State.UNKNOWN)
    if answers == State.CRITICAL:
        return Kind.DOWN
    return Kind.UNKNOWN if answers == State.UNKNOWN else Kind.UP


def _merged(stretches: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same time without overlaps; what is empty or turned round is left out."""
    merged: list[tuple[float, float]] = []
    for begin, end in sorted(one for one in stretches if one[0] < one[1]):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def _incidents(runs: Sequence[Run], state: State, counts: Callable[[State], bool]) -> list[Incident]:
    ordered = sorted(runs, key=lambda run: run.at)
    found = [[name for name, one in run.checks.items() if counts(State(one))] for run in ordered]
    incidents: list[Incident] = []
    begin: int | None = None
    for index in range(len(ordered) + 1):
        is_bad = index < len(ordered) and bool(found[index])
        if is_bad and begin is None:
            begin = index
        if not is_bad and begin is not None:
            some = range(begin, index)
            words: dict[str, str] = {}
            for number in some:
                for name in found[number]:
                    words.setdefault(name, ordered[number].words.get(name, ""))
            end = ordered[index].at if index < len(ordered) else None
            incidents.append(Incident(state=state, begin=ordered[begin].at, end=end, runs=len(some), words=words))
            begin = None
    return incidents


def _day(day: date, runs: tuple[Run, ...]) -> Day:
    latencies = [run.latency_ms for run in runs if run.latency_ms is not None]
    told = (percentile(latencies, 0.5), percentile(latencies, 0.95), max(latencies)) if latencies else None
    return Day(
        day=day,
        runs=len(runs),
        latency_ms=told,
        requests=sum(run.logged.requests for run in runs),
        errors=sum(run.logged.errors for run in runs),
    )
