"""Faults at system calls: recorded once, then one at a time into a host that goes on after each recovery."""

from __future__ import annotations

import os
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate, zip_longest

import msgspec
from msgspec.structs import replace

from bulletproof.errors import BulletproofError, UsageError
from bulletproof.prove import oracle, scenarios, strace
from bulletproof.prove.host import Ended, Host
from bulletproof.prove.hostile import Case, Stage
from bulletproof.prove.load import Load
from bulletproof.prove.scenarios import SCENARIOS, Scenario

RECOVERY_SECONDS = 10.0
"""A killed deployer's host is whole again within this time, without a command: a promise."""
_LONGEST_SECONDS = 30.0
"""So long it is watched beyond that, to learn how late it is."""
OVERLOAD = 3.0
"""A load average of the last minute per processor at which the machine is overloaded, which nobody promised for: the
hosts of a proof keep it at one or two. What is late then is counted, and breaks no promise."""
_LONGEST_TRACE_SECONDS = 120.0
_POLL_SECONDS = 0.05
_CHAIN = (0, 1, 3, 5)
"""How many faults may follow one, in the recoveries after it: each takes a fifth of what a deployment takes."""
_UNDERSTOOD = {0, 1, 2, 3, 4, 130, 141}
"""Exit codes that say how a deployment ended."""


class Point(msgspec.Struct, frozen=True):
    """A fault at a system call of a scenario."""

    scenario: str
    step: str
    injection: strace.Injection
    then: tuple[strace.Injection, ...] = ()
    """Faults for the recoveries that follow, one for each."""

    def __str__(self) -> str:
        return f"{self.scenario}/{self.step}/{'+'.join(map(str, (self.injection, *self.then)))}"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a fault."""

    name: str
    """By which it can be injected again, alone."""
    scenario: str
    step: str
    """In which it came, by the trace of this very run."""
    fault: str
    has_fired: bool
    outcome: str
    """`old` or `new`."""
    problems: tuple[str, ...]
    recovery_seconds: float
    """From the deployer's end until all is whole."""
    seconds: float
    failed_requests: int
    """-1 when the load could not tell."""
    is_seen: bool = False
    """Whether users may have seen the fault, since it was none of the deployer's alone."""
    has_recovered: bool = False
    """Whether the deployer had left anything to recover."""
    load: float = 0.0
    """The load average of the last minute per processor, when it was whole."""

    @property
    def is_late(self) -> bool:
        """Whether it was whole later than promised."""
        return self.recovery_seconds > RECOVERY_SECONDS

    @property
    def is_good(self) -> bool:
        """Whether all promises were kept."""
        return not self.problems

    def blamed(self, words: str) -> Verdict:
        """The same, with what showed only in what came after it."""
        return replace(self, problems=(*self.problems, f"afterwards {words}"))


def record(host: Host, scenario: Scenario) -> tuple[strace.Call, ...]:
    """The calls of a scenario in which nothing is injected."""
    scenario.prepare(host)
    if not scenario.killed_in:
        ended = host.run(*scenario.command(host), is_traced=True)
        if ended.status != scenario.status:
            context = tuple(ended.error.get("context", ()))
            raise BulletproofError("scenario-odd", f"{scenario.name} ended with {ended.words}", context=context)
        return strace.read(host.trace, "begin", tells=True).calls
    host.meet_recoveries([None])
    host.run_and_kill(*scenario.command(host), step=scenario.killed_in)
    if not _has_recovered(host):
        raise BulletproofError("recovery-missing", f"nothing recovered after {scenario.name} was killed")
    return strace.read(host.recovery_traces()[0], scenario.killed_in).calls


def points(scenario: str, calls: Iterable[strace.Call], kinds: Iterable[str] = strace.FAULTS) -> list[Point]:
    """Every fault that can meet these calls."""
    wanted = set(kinds)
    return [
        Point(scenario, call.step, strace.Injection(call.name, call.index, fault))
        for call in calls
        for fault in call.faults()
        if fault in wanted
    ]


def sample(found: list[Point], count: int, seed: int) -> list[Point]:
    """So many of them, evenly over steps, calls and faults: each kind gets its turn before any gets its second."""
    chance = random.Random(seed)  # noqa: S311  chosen, not secret
    strata: dict[tuple[str, str, str, str], list[Point]] = defaultdict(list)
    for point in found:
        strata[point.scenario, point.step, point.injection.call, point.injection.fault].append(point)
    for stratum in strata.values():
        chance.shuffle(stratum)
    order = list(strata.values())
    chance.shuffle(order)
    turns = (point for turn in zip_longest(*order) for point in turn if point is not None)
    return [point for point, _ in zip(turns, range(count), strict=False)]


def choose(known: Sequence[Point], only: str, count: int, seed: int) -> list[Point]:
    """About so many faults, evenly, those in recoveries among them.

    `only` is the left part of a name, or all of it, with its scenario or without. Raises UsageError `fault-unknown`
    where none of those that are known is called so: a proof of nothing would break no promise.
    """
    first, *then = only.split("+")
    found = [point for point in known if is_meant(str(point), first)]
    if known and not found:
        raise UsageError(
            "fault-unknown", f"the name of no fault begins with `{only}`; there are these steps", context=_steps(known)
        )
    if then:
        return [replace(point, then=tuple(map(strace.Injection.parse, then))) for point in found if str(point) == first]
    chained = chain(sample(found, count, seed), known, seed)
    sizes = accumulate(1 + len(point.then) for point in chained)
    return [point for point, size in zip(chained, sizes, strict=True) if size <= count + len(point.then)]


def _steps(points: Iterable[Point]) -> tuple[str, ...]:
    """A line for each scenario, its steps in their order."""
    steps: dict[str, dict[str, None]] = defaultdict(dict)
    for point in points:
        steps[point.scenario][point.step] = None
    return tuple(f"{scenario}: {', '.join(names)}" for scenario, names in steps.items())


def is_meant(name: str, only: str) -> bool:
    """Whether this is the left part of that name, which may be without its scenario."""
    return name.startswith(only) or name.partition("/")[2].startswith(only)


def chain(points: Iterable[Point], known: Iterable[Point], seed: int) -> list[Point]:
    """Let faults after which a recovery comes be followed by some more, each in the recovery after the one before.

    All but the last are kills, after which another recovery is sure to come, at calls that every recovery makes which
    is known; the last is one of any recovery. Every name of a call comes as often, and of each the early ones more.
    """
    chance = random.Random(seed)  # noqa: S311  chosen, not secret
    of_recoveries = [point for point in known if SCENARIOS[point.scenario].killed_in]
    every = _by_call(point.injection for point in of_recoveries)
    kills = _by_call(one for one in _common(of_recoveries) if one.fault == strace.KILL)

    def early(among: Sequence[Sequence[strace.Injection]]) -> strace.Injection:
        of_one_call = chance.choice(among)
        return of_one_call[int(len(of_one_call) * chance.random() ** 2)]

    found = []
    for point in points:
        is_followed = kills and (point.injection.fault == strace.KILL or SCENARIOS[point.scenario].killed_in)
        count = chance.choice(_CHAIN) if is_followed else 0
        last = [early(every)] if count else []
        found.append(replace(point, then=(*(early(kills) for _ in last * (count - 1)), *last)))
    return found


def _by_call(injections: Iterable[strace.Injection]) -> list[list[strace.Injection]]:
    """Those of one call together, each kind once, in their order."""
    calls: dict[str, list[strace.Injection]] = defaultdict(list)
    for one in sorted(set(injections), key=lambda one: (one.call, one.index, one.fault)):
        calls[one.call].append(one)
    return list(calls.values())


def _common(points: Iterable[Point]) -> set[strace.Injection]:
    """Those that are in each of their scenarios."""
    sets: dict[str, set[strace.Injection]] = defaultdict(set)
    for point in points:
        sets[point.scenario].add(point.injection)
    return set.intersection(*sets.values()) if sets else set()


class Sweep:
    """A host, its load, and one fault after the other."""

    def __init__(self, host: Host, load: Load) -> None:
        self._host = host
        self._load = load

    def meet(self, point: Point) -> list[Verdict]:
        """Inject a fault into a scenario, and those that follow; tell what came of it, one verdict for each that fired.

        What is broken stands in the first of them, which is there in any case.
        """
        host, scenario = self._host, SCENARIOS[point.scenario]
        orders = (*([point.injection] if scenario.killed_in else []), *point.then)
        if orders:
            host.supervise()
        scenario.prepare(host)
        before, since = oracle.World.of(host), time.monotonic()
        host.meet_recoveries(orders)
        ended, hit = self._inject(scenario, point)
        verdict = self.judge(before, since, hit=hit, is_timed=not point.then)
        host.forget_recoveries()
        while oracle.is_recovering(host) and time.monotonic() < since + _LONGEST_TRACE_SECONDS:
            time.sleep(_POLL_SECONDS)  # all is whole, and strace has its last line to write
        traces = [strace.read(file, scenario.killed_in or "recovery") for file in host.recovery_traces()]
        found = _said(ended, is_new=verdict.outcome == "new")
        if not scenario.killed_in:
            trace = strace.read(host.trace, point.step or "begin", tells=True)
            if not trace.has_fired and ended.status != scenario.status:
                found.append(f"nothing was injected, and it ended with {ended.words}")
        elif traces:
            trace, *traces = traces
        else:
            trace = strace.Trace((), scenario.killed_in, has_fired=False, last="")
            if ended.status < 0:  # otherwise it was quicker than the kill, and there was nothing to recover
                found.append("nothing recovered by itself after a killed deployer")
        first = replace(
            verdict,
            name=str(point),
            scenario=point.scenario,
            step=trace.step,
            fault=point.injection.fault,
            has_fired=trace.has_fired,
            problems=(*verdict.problems, *found),
        )
        return [first, *(self._following(first, met, one) for met, one in zip(point.then, traces, strict=False))]

    def _following(self, first: Verdict, met: strace.Injection, trace: strace.Trace) -> Verdict:
        """What came of a fault in a recovery: what came of the one before it as well, and is told there."""
        return replace(
            first,
            scenario=f"recovery of {first.scenario}",
            step=trace.step,
            fault=met.fault,
            has_fired=trace.has_fired,
            problems=(),
            failed_requests=0,
            has_recovered=False,
        )

    def play(self, case: Case, chance: random.Random) -> Verdict:
        """Play one hostile case, and tell what came of it."""
        (scenarios.make_ill if case.is_ill else scenarios.make_well)(self._host)
        before, since = oracle.World.of(self._host), time.monotonic()
        commands = case.play(Stage(self._host, chance))
        verdict = self.judge(before, since, is_seen=case.is_seen)
        odd = [f"it ended with {one.words}" for one in commands if one.status not in case.statuses]
        traces = [word for one in commands for word in _tracebacks(one)]
        single = _said(commands[0], is_new=verdict.outcome == "new") if len(commands) == 1 and not odd else []
        problems = dict.fromkeys((*verdict.problems, *odd, *traces, *single))
        return replace(verdict, name=f"hostile/{case.name}", step=case.name, problems=tuple(problems))

    def rest(self) -> list[str]:
        """What is wrong with a last deployment in which no fault comes. Raises BulletproofError when it fails."""
        scenarios.make_well(self._host)
        self._host.must(*self._host.subject.again)
        return oracle.unswept(self._host.layout)

    def judge(
        self,
        before: oracle.World,
        since: float,
        *,
        hit: float | None = None,
        is_seen: bool = False,
        is_timed: bool = True,
    ) -> Verdict:
        """What is still wrong when the host has had its time to recover, which began at `hit`, else now.

        Only where nothing is to meet the recovery it must be quick.
        """
        has_recovered = is_timed and (hit is not None or not oracle.is_quiet(self._host.layout))
        hit = time.monotonic() if hit is None else hit
        found = self._settle(before, hit)
        settled = time.monotonic()
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
        if not found and is_timed and settled - hit > RECOVERY_SECONDS and load < OVERLOAD:
            found.append(f"whole after {settled - hit:.1f} s, not within {RECOVERY_SECONDS:.0f} s")
        found += oracle.secrets_told(self._host)
        failed = self._load.failed(since)
        if failed > 0 and not is_seen:
            found.append(f"{failed} requests failed")
        return Verdict(
            name="",
            scenario="hostile",
            step="",
            fault="other",
            has_fired=True,
            outcome="new" if len(oracle.commits(self._host.layout)) > len(before.committed) else "old",
            problems=tuple(found),
            recovery_seconds=settled - hit,
            seconds=time.monotonic() - since,
            failed_requests=failed,
            is_seen=is_seen,
            has_recovered=has_recovered,
            load=load,
        )

    def _inject(self, scenario: Scenario, point: Point) -> tuple[Ended, float | None]:
        """How it ended; and when what is to be recovered was killed, where the recovery is what the fault meets."""
        host = self._host
        if not scenario.killed_in:
            return host.run(*scenario.command(host), injection=point.injection, step=point.step), None
        ended = host.run_and_kill(*scenario.command(host), step=scenario.killed_in)
        hit = time.monotonic()
        if ended.status < 0:
            _has_recovered(host)
        return ended, hit

    def _settle(self, before: oracle.World, hit: float) -> list[str]:
        """What is still wrong when the time for a recovery is over."""
        until = hit + _LONGEST_SECONDS
        while not oracle.is_quiet(self._host.layout) and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
        while found := oracle.problems(self._host, before, self._load):
            if time.monotonic() > until:
                return found
            time.sleep(_POLL_SECONDS)
        return []


def _said(ended: Ended, *, is_new: bool) -> list[str]:
    """What a command that was not killed said, against what is."""
    found = _tracebacks(ended)
    if ended.status < 0:
        return found
    if ended.status not in _UNDERSTOOD:
        found.append(f"it ended with {ended.words}")
    if ended.status == 0 and not is_new:
        found.append("it said that it is done, and the old release serves")
    if ended.status in {1, 2, 3} and is_new:
        found.append(f"it ended with {ended.status}, and the new release serves")
    return found


def _tracebacks(ended: Ended) -> list[str]:
    shown = "Traceback (most recent call last)" in ended.err + ended.out
    return [f"a traceback was shown: {ended.err[-200:]}"] if shown else []


def _has_recovered(host: Host) -> bool:
    """Whether a recovery that was to meet a fault came, and has ended by now, well or not."""
    until = time.monotonic() + _LONGEST_SECONDS
    while not host.recovery_traces() or oracle.is_recovering(host):
        if time.monotonic() > until:
            return bool(host.recovery_traces())
        time.sleep(_POLL_SECONDS)
    return True
