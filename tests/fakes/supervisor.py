"""A supervisor in memory: no processes, but the same answers, and crashes on demand."""

from __future__ import annotations

import itertools

from msgspec.structs import replace

from bulletproof.domain.process import Phase, ProcessSpec, ProcessState
from bulletproof.errors import StepFailed


class FakeSupervisor:
    """Keeps what it was asked to run; `crash` is what happens to a process, `unstartable` what can never begin."""

    def __init__(self, *, crashes: int = 8) -> None:
        self.unstartable: set[str] = set()
        """Names of processes that cannot be started, as if their program were missing."""
        self.history: list[str] = []
        """Every order that changed something, such as `start web-3`, in order."""
        self._crashes = crashes
        self._is_running = False
        self._pids = itertools.count(1001)
        self._specs: dict[str, ProcessSpec] = {}
        self._states: dict[str, ProcessState] = {}

    def ensure_running(self) -> None:
        """It runs from now on."""
        if not self._is_running:
            self._is_running = True
            self.history.append("ensure-running")

    def shutdown(self) -> None:
        """Nothing runs from now on."""
        if self._is_running:
            self._is_running = False
            self._specs.clear()
            self._states.clear()
            self.history.append("shutdown")

    def is_running(self) -> bool:
        """Whether it was started and not ended."""
        return self._is_running

    def start(self, process: ProcessSpec) -> None:
        """Note that it runs. Raises StepFailed for an unstartable one, and for another one under the same name."""
        self.ensure_running()
        known = self._specs.get(process.name)
        if known is not None and known != process:
            raise StepFailed("process-differs", f"{process.name} runs already, as something else; stop it first")
        if known is not None and self._states[process.name].phase not in {Phase.FAILED, Phase.STOPPING}:
            return
        if process.name in self.unstartable:
            raise StepFailed("process-not-started", f"{process.name}: could not be started: No such file or directory")
        self._specs[process.name] = process
        waits = bool(process.schedule)
        phase, pid = (Phase.WAITING, None) if waits else (Phase.RUNNING, next(self._pids))
        self._states[process.name] = ProcessState(name=process.name, phase=phase, pid=pid)
        self.history.append(f"start {process.name}")

    def stop(self, name: str) -> None:
        """Note that it does not run."""
        if self._specs.pop(name, None) is not None:
            del self._states[name]
            self.history.append(f"stop {name}")

    def ask_to_stop(self, name: str) -> None:
        """Note that it is about to end."""
        if name in self._specs:
            self._states[name] = replace(self._states[name], phase=Phase.STOPPING)

    def state(self, name: str) -> ProcessState:
        """What was noted of it."""
        return self._states.get(name, ProcessState(name=name, phase=Phase.ABSENT))

    def names(self) -> tuple[str, ...]:
        """What was started and not stopped, in order."""
        return tuple(self._specs)

    def process(self, name: str) -> ProcessSpec:
        """What exactly was asked for under that name."""
        return self._specs[name]

    def crash(self, name: str, words: str = "killed by SIGKILL") -> None:
        """The process ends without being asked; it runs again, until it has crashed too often."""
        before = self._states[name]
        restarts = before.restarts + 1
        if restarts >= self._crashes:
            words = f"gave up after {restarts} crashes in 0 s; last: {words}"
            after = replace(before, phase=Phase.FAILED, pid=None, restarts=restarts, words=words)
        else:
            after = replace(before, pid=next(self._pids), restarts=restarts, words=words)
        self._states[name] = after
