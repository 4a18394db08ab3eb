"""One supervised process from its start to its stop: crashes, pauses, giving up, and nothing left of it at the end."""

from __future__ import annotations

import math
import socket

from bulletproof.adapters.embedded import kernel, listener, running
from bulletproof.adapters.embedded.diary import note
from bulletproof.adapters.embedded.policy import Policy, doubling
from bulletproof.adapters.embedded.running import Running
from bulletproof.adapters.embedded.table import Entry
from bulletproof.domain.process import Phase, ProcessSpec, ProcessState
from bulletproof.effects import durable
from bulletproof.errors import StepFailed

_LOOK_AGAIN_SECONDS = 0.02
_LOOK_SELDOM_SECONDS = 1.0


class Child:
    """A process that is to run until it is told to stop, with all that it starts.

    Nothing in here waits: `tick` does what is due, `due` says when that is next. Times are monotonic seconds.
    """

    def __init__(self, process: ProcessSpec, token: str, policy: Policy) -> None:
        self.process = process
        self.due = math.inf
        self.is_gone = False
        """Whether it was told to stop, and nothing is left of it."""
        self._token = token
        self._policy = policy
        self._phase = Phase.BACKING_OFF
        self._main: Running | None = None
        self._last: kernel.Identity | None = None
        self._listener: socket.socket | None = None
        self._words = ""
        self._restarts = 0
        self._crashes_in_row = 0
        self._row_began = 0.0
        self._started = 0.0
        self._term_at = math.inf
        self._kill_at = math.inf
        self._give_up_at = math.inf

    @classmethod
    def adopted(cls, entry: Entry, policy: Policy, now: float) -> Child:
        """What an earlier supervisor left: watched on if it runs, stopped if it was being stopped, else run again."""
        child = cls(entry.process, entry.token, policy)
        child._words, child._restarts, child._last = entry.words, entry.restarts, entry.main
        child._main = running.adopt(entry.main) if entry.main else None
        child._go_on_from(entry.phase, now)
        note(f"{entry.process.name}: taken over, {child._phase}{f' as {child.pid}' if child.pid else ''}")
        return child

    def begin(self, now: float) -> None:
        """Start it for the first time, or anew after it was given up. Raises StepFailed; it does not run then."""
        kernel.kill_all(self._last, self._token)
        self._restarts = self._crashes_in_row = 0
        try:
            self._run(now)
        except StepFailed as error:
            raise StepFailed(error.reference, f"{self.process.name}: {error.message}") from error

    def stop(self, now: float) -> None:
        """Begin to stop it, or wait longer for one that could not be ended; `is_gone` tells when it is done."""
        if not self.is_stopping:
            note(f"{self.process.name}: stopping")
            self._phase = Phase.STOPPING
            self._end_main_at(now + self.process.drain_seconds)
        self.due = now
        self._give_up_at = max(now, self._kill_at) + self._policy.kill_patience_seconds

    def _end_main_at(self, when: float) -> None:
        """Let the main process go on until then; after that SIGTERM, and SIGKILL when it takes too long."""
        self._term_at, self._kill_at = when, when + self.process.stop_seconds

    def discard(self) -> None:
        """Remove its files and close its socket, once nothing of it runs. Raises OSError."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self.process.listen is not None:
            durable.remove(self.process.listen)
        if self.process.runtime is not None:
            durable.remove_tree(self.process.runtime)

    def tick(self, now: float) -> None:
        """See whether it ended, and do what is due."""
        if self._main is not None and self._main.has_ended():
            self._on_end(self._main, now)
        if now >= self.due:
            self._stop_further(now) if self.is_stopping else self._run_again(now)

    @property
    def is_failed(self) -> bool:
        """Whether it was given up."""
        return self._phase is Phase.FAILED

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._phase is Phase.STOPPING

    @property
    def pid(self) -> int | None:
        """The main process, None while there is none."""
        return self._main.identity.pid if self._main else None

    @property
    def pidfd(self) -> int | None:
        """Readable when the main process has ended, so that `tick` has something to do."""
        return self._main.pidfd if self._main else None

    def stuck(self, now: float) -> str:
        """Why it cannot be stopped, in words; empty while there is hope."""
        if not self.is_stopping or now < self._give_up_at:
            return ""
        patience = self._policy.kill_patience_seconds
        return f"{self.process.name} is not gone {patience:.0f} s after SIGKILL; last: {self._words or 'it runs'}"

    def state(self) -> ProcessState:
        """What is known of it."""
        return ProcessState(
            name=self.process.name, phase=self._phase, pid=self.pid, restarts=self._restarts, words=self._words
        )

    def entry(self) -> Entry:
        """What another supervisor needs to take it over."""
        return Entry(
            process=self.process,
            token=self._token,
            main=self._last,
            phase=self._phase,
            restarts=self._restarts,
            words=self._words,
        )

    def _go_on_from(self, phase: Phase, now: float) -> None:
        self._phase, self._started, self.due = phase, now, math.inf
        if phase is Phase.STOPPING:
            self._phase = Phase.RUNNING
            self.stop(now)
        elif self._main is not None:
            self._phase = Phase.RUNNING
            if self.process.listen is not None:
                self._listener = listener.kept_by(self._main.pidfd, self.process.listen)
        elif phase is not Phase.FAILED:
            self._phase, self.due = Phase.BACKING_OFF, now
            if phase is Phase.RUNNING and self._last is not None:
                self._restarts, self._words = self._restarts + 1, "ended while no supervisor watched it"

    def _run(self, now: float) -> None:
        if self.process.listen is not None and self._listener is None:
            self._listener = listener.bind(self.process.listen)
        self._main = running.start(self.process, self._token, self._listener)
        self._last = self._main.identity
        self._phase, self._started, self.due = Phase.RUNNING, now, math.inf
        note(f"{self.process.name}: started as {self._last.pid}")

    def _run_again(self, now: float) -> None:
        if kernel.kill_all(self._last, self._token):
            self.due = now + _LOOK_AGAIN_SECONDS  # two of them must never run at once
            return
        try:
            self._run(now)
        except StepFailed as error:
            self._started = now
            self._on_crash(error.message, now)

    def _on_end(self, main: Running, now: float) -> None:
        words = main.end_in_words()
        main.close()
        self._main = None
        if self.is_stopping:
            self._words, self.due = words, now
        else:
            self._on_crash(words, now)

    def _on_crash(self, words: str, now: float) -> None:
        kernel.kill_all(self._last, self._token)
        if self._crashes_in_row == 0 or now - self._started > self._policy.steady_seconds:
            self._crashes_in_row, self._row_began = 0, self._started
        self._crashes_in_row += 1
        self._restarts += 1
        if self._crashes_in_row >= self._policy.crashes:
            took = f"{self._crashes_in_row} crashes in {now - self._row_began:.0f} s"
            self._phase, self._words, self.due = Phase.FAILED, f"gave up after {took}; last: {words}", math.inf
        else:
            pause = doubling(self._policy.first_pause_seconds, self._policy.longest_pause_seconds, self._crashes_in_row)
            self._phase, self._words, self.due = Phase.BACKING_OFF, words, now + pause
        note(f"{self.process.name}: {words}; {self._phase}, crash {self._crashes_in_row} in a row")

    def _stop_further(self, now: float) -> None:
        """Kill what is left: all when its time is up, and what outlived the main process at once."""
        self.due = now + (_LOOK_AGAIN_SECONDS if now < self._give_up_at else _LOOK_SELDOM_SECONDS)
        if self._main is not None and now < self._kill_at:
            self._ask_to_end_in_time(self._main, now)
        elif kernel.kill_all(self._last, self._token) == 0 and self._main is None:
            self._finish()

    def _ask_to_end_in_time(self, main: Running, now: float) -> None:
        """SIGTERM once, when it is time for it; tells when to look again."""
        if now < self._term_at:
            self.due = self._term_at
            return
        if self._term_at > -math.inf:
            main.ask_to_end(self.process)
            self._term_at = -math.inf
        self.due = self._kill_at

    def _finish(self) -> None:
        try:
            self.discard()
        except OSError as error:  # tried again until `stuck` says it aloud
            self._words = f"its files could not be removed: {error}"
            return
        self.is_gone, self.due = True, math.inf
        note(f"{self.process.name}: stopped, {self._words}")
