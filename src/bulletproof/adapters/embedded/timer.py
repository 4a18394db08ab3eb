"""A supervised process with a schedule: run when it is due, one run at a time, and nothing is caught up."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from bulletproof.adapters.embedded import kernel
from bulletproof.adapters.embedded.child import Child
from bulletproof.adapters.embedded.diary import note
from bulletproof.adapters.embedded.running import Running
from bulletproof.domain.cron import next_after
from bulletproof.domain.process import Phase
from bulletproof.effects.local_time import local_now
from bulletproof.errors import StepFailed

_LOOK_AGAIN_SECONDS = 0.02
_LOOK_AT_CLOCK_SECONDS = 20.0
"""How long we trust that the machine's clock goes as our own: it is set, and a machine sleeps."""
_SET_BACK = timedelta(minutes=1)
"""A clock that was set back by less lets nothing be due a second time."""


class Timer(Child):
    """A process that runs now and then. Its phase is WAITING between two runs, and a run that fails is only told."""

    _next: datetime | None = None
    """When it is due, in UTC: two times in one zone are compared by their clock faces, which come twice in autumn."""
    _is_late = False
    _last_words = ""

    def begin(self, now: float) -> None:
        """Wait for the first time that it is due."""
        kernel.kill_all(self._last, self._token)
        self._wait(now)

    def _go_on_from(self, phase: Phase, now: float) -> None:
        _, semicolon, last = self._words.partition("; ")
        self._last_words = semicolon + last
        super()._go_on_from(phase, now)
        if self._phase is Phase.RUNNING:
            self._limit(now)
        elif not self.is_stopping:
            self._restarts = 0
            self._wait(now)

    def _run_again(self, now: float) -> None:
        """What is due: the next run, or SIGTERM and then SIGKILL to one that takes too long."""
        if self._main is not None:
            self._end_late(self._main, now)
        elif self._left_seconds() > 0:
            self._look_at_clock(now)
        elif kernel.kill_all(self._last, self._token):
            self.due = now + _LOOK_AGAIN_SECONDS  # two of them must never run at once
        else:
            self._run_once(now)

    def _run_once(self, now: float) -> None:
        try:
            self._run(now)
        except StepFailed as error:
            self._on_crash(error.message, now)
        else:
            self._words, self._is_late = f"runs since {local_now():%H:%M:%S}", False
            self._limit(now)

    def _limit(self, now: float) -> None:
        self._end_main_at(now + (self.process.timeout_seconds or math.inf))
        self.due = self._term_at

    def _end_late(self, main: Running, now: float) -> None:
        self._is_late = True
        if now < self._kill_at:
            self._ask_to_end_in_time(main, now)
        else:
            kernel.kill_all(self._last, self._token)
            self.due = now + _LOOK_AGAIN_SECONDS

    def _on_crash(self, words: str, now: float) -> None:
        """A run is over, well or not: there is nothing to be started again before it is due."""
        kernel.kill_all(self._last, self._token)
        late = f" after {self.process.timeout_seconds:.0f} s, which is its longest" if self._is_late else ""
        how = "well" if words == "ended by itself" else f"{words}{late}"
        self._restarts = 0 if words.startswith("ended") and not self._is_late else self._restarts + 1
        self._wait(now, f"; last run ended at {local_now():%Y-%m-%d %H:%M:%S}: {how}")
        note(f"{self.process.name}: {words}{late}")

    def _wait(self, now: float, words: str = "") -> None:
        moment = local_now()
        if self._next is not None and moment < self._next < moment + _SET_BACK:
            moment = self._next.astimezone(moment.tzinfo)
        following = next_after(self.process.schedule, moment)
        self._next = following.astimezone(UTC)
        self._last_words = words or self._last_words
        self._phase, self._words = Phase.WAITING, f"next at {following:%Y-%m-%d %H:%M}{self._last_words}"
        self._look_at_clock(now)

    def _look_at_clock(self, now: float) -> None:
        self.due = now + min(max(self._left_seconds(), 0.0), _LOOK_AT_CLOCK_SECONDS)

    def _left_seconds(self) -> float:
        return (self._next - datetime.now(UTC)).total_seconds() if self._next is not None else math.inf
