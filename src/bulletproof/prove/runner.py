"""Many faults: several hosts side by side, each laid once, and laid again after a fault that broke it."""

from __future__ import annotations

import functools
import itertools
import math
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from bulletproof.errors import BulletproofError
from bulletproof.prove import sweep
from bulletproof.prove.host import Host
from bulletproof.prove.hostile import Case
from bulletproof.prove.scenarios import SCENARIOS
from bulletproof.prove.subject import TINY, Subject

HOSTS = 7
"""On two processors: a deployment waits for two thirds of its time, for an app to boot or requests to end."""
_RECORDING_HOSTS = 3
_MOST_LEFT_AGAIN = 20
_LONGEST_LIFE = 200
"""Faults that one host meets before a fresh one is laid: its journal is no longer than that of an app."""

Watch = Callable[[sweep.Verdict], None]
Verdicts = Sequence[sweep.Verdict]
Work = Callable[[sweep.Sweep], Verdicts]
"""One fault and what follows it, on whatever host is free."""


def record_all(base: Path, names: Sequence[str], subject: Subject = TINY) -> list[sweep.Point]:
    """Every fault of these scenarios, recorded on a few hosts side by side."""
    shares = [share for number in range(_RECORDING_HOSTS) if (share := names[number::_RECORDING_HOSTS])]
    with ThreadPoolExecutor(max(1, len(shares))) as pool:
        places = (base.with_name(f"{base.name}-{number}") for number in itertools.count())
        found = list(pool.map(lambda place, share: _record(place, share, subject), places, shares))
    return [point for name in names for points in found for point in points if point.scenario == name]


def _record(base: Path, names: Sequence[str], subject: Subject) -> list[sweep.Point]:
    host = Host.lay(base, subject)
    try:
        return [point for name in names for point in sweep.points(name, sweep.record(host, SCENARIOS[name]))]
    finally:
        host.end()


def works(points: Sequence[sweep.Point], cases: Sequence[Case], seed: int) -> list[Work]:
    """Every point once, and every case as often as it wants, in an order of chance."""
    chance = random.Random(seed)  # noqa: S311  chosen, not secret
    found: list[Work] = [functools.partial(_meet, point) for point in points]
    found += [
        functools.partial(_play, case, random.Random(chance.random()))  # noqa: S311
        for case in cases
        for _ in range(case.times)
    ]
    chance.shuffle(found)
    return found


def _meet(point: sweep.Point, faults: sweep.Sweep) -> Sequence[sweep.Verdict]:
    return faults.meet(point)


def _play(case: Case, chance: random.Random, faults: sweep.Sweep) -> Sequence[sweep.Verdict]:
    return [faults.play(case, chance)]


def prove(
    base: Path,
    works: Sequence[Work],
    watch: Watch,
    *,
    hosts: int,
    subject: Subject = TINY,
    until: float = math.inf,
) -> list[sweep.Verdict]:
    """Do all of it; the verdicts in the order in which they were reached. Nothing is begun after `until`, monotonic."""
    crew = _Crew(watch, until)
    for one in works:
        crew.left.put(one)
    places = [base / f"h{number}" for number in range(min(hosts, len(works)))]
    threads = [threading.Thread(target=crew.live, args=(place, subject)) for place in places]
    for thread in threads:
        thread.start()
    try:
        _wait(threads)
    except BaseException as ended:  # by a signal: what runs comes to its end, and its hosts are taken down
        crew.broken.append(ended)
        _wait(threads)
        raise
    if crew.broken:
        raise crew.broken[0]
    return crew.verdicts


def _wait(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.join()


class _Crew:
    """Hosts that share what is left to do, each in a thread of its own."""

    def __init__(self, watch: Watch, until: float) -> None:
        self.left: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self.verdicts: list[sweep.Verdict] = []
        self.broken: list[BaseException] = []
        self._left_again = 0
        self._watch = watch
        self._until = until

    def live(self, place: Path, subject: Subject) -> None:
        """One host after the other, until there is nothing left; what breaks us ends all."""
        try:
            for life in itertools.count():
                if self._is_over():
                    return
                self._live_once(Host.lay(place.with_name(f"{place.name}-{life}"), subject))
        except BaseException as error:  # noqa: BLE001  raised by the thread that waits
            self.broken.append(error)

    def _live_once(self, host: Host) -> None:
        """One host's life: it ends with the work, with its years, or with a fault that broke it."""
        try:
            with host.load() as load:
                faults = sweep.Sweep(host, load)
                if last := self._meet(faults):
                    self._look_back(faults, last)
        except BulletproofError as error:
            if not error.reference.startswith("traffic-"):  # the load's own end; its work was left to another host
                raise
        finally:
            host.end()

    def _meet(self, faults: sweep.Sweep) -> Verdicts:
        """One fault after the other; what came of the last, nothing when it broke the host."""
        before: Verdicts = ()
        with suppress(queue.Empty):
            for _ in range(_LONGEST_LIFE):
                if self._is_over():
                    break
                done = self._do_or_leave(self.left.get_nowait(), faults, before)
                if done is None or not all(verdict.is_good for verdict in done):
                    return ()
                before = done
        return before

    def _look_back(self, faults: sweep.Sweep, last: Verdicts) -> None:
        """A deployment without a fault ends well, and nothing is left of any before it."""
        try:
            found = faults.rest()
        except BulletproofError as error:
            if error.reference != "host-not-prepared":
                raise
            found = [error.message]
        if found:
            self._blame(last[0], "; ".join(found))

    def _do_or_leave(self, work: Work, faults: sweep.Sweep, before: Verdicts) -> Verdicts | None:
        """Do it, and tell what came of it; None where another host is to do it instead.

        That is where the load on this host broke, so that nothing could be seen, or where the host could not even be
        prepared, which is what came of the fault before.
        """
        try:
            return self._do(work, faults)
        except BulletproofError as error:
            if error.reference != "host-not-prepared" and not error.reference.startswith("traffic-"):
                raise
            if error.reference == "host-not-prepared" and before:
                self._blame(before[0], error.message)
            self._leave(work, error)
            return None

    def _blame(self, verdict: sweep.Verdict, words: str) -> None:
        broken = verdict.blamed(words)
        self.verdicts[self.verdicts.index(verdict)] = broken
        self._watch(broken)

    def _leave(self, work: Work, error: BulletproofError) -> None:
        self._left_again += 1
        if self._left_again > _MOST_LEFT_AGAIN:
            raise BulletproofError("load-broken", f"{self._left_again} were left again: {error}") from error
        self.left.put(work)

    def _do(self, work: Work, faults: sweep.Sweep) -> Verdicts:
        verdicts = work(faults)
        for verdict in verdicts:
            self.verdicts.append(verdict)
            self._watch(verdict)
        return verdicts

    def _is_over(self) -> bool:
        return self.left.empty() or bool(self.broken) or time.monotonic() > self._until
