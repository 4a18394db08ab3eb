"""A rehearsal in memory: a copy is laid, an instance boots on it, and it is gone when it is discarded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bulletproof.domain.health import Answer
from bulletproof.domain.process import Phase, ProcessSpec, ProcessState
from bulletproof.domain.schema import Change


@dataclass
class FakeRehearsal:
    """ports.Rehearsal: `copies` are laid and not discarded, `answers` what the instance of a deployment says."""

    copies: set[int] = field(default_factory=set)
    running: set[int] = field(default_factory=set)
    answers: dict[int, int] = field(default_factory=dict)
    found: tuple[Change, ...] = ()
    reason: str = ""

    def why_not(self) -> str:
        """As the test says."""
        return self.reason

    def prepare(self, number: int) -> int:
        """Lay a copy."""
        self.copies.add(number)
        return 4096

    def boot(self, number: int, process: ProcessSpec, settings: Mapping[str, str]) -> None:  # noqa: ARG002  the port's
        """Run on it."""
        self.running.add(number)

    def ask(self, number: int, path: str, timeout_seconds: float) -> Answer:  # noqa: ARG002  the port's
        """Answer as the test says, well if it says nothing."""
        return Answer(status=self.answers.get(number, 200) if number in self.running else 0, seconds=0.0)

    def state(self, number: int) -> ProcessState:
        """Whether it runs."""
        return ProcessState(name="rehearsal", phase=Phase.RUNNING if number in self.running else Phase.FAILED)

    def log_tail(self, number: int, lines: int) -> tuple[str, ...]:  # noqa: ARG002  the port's
        """It printed nothing."""
        return ()

    def changes(self, number: int) -> tuple[Change, ...]:
        """End it; as the test says."""
        self.running.discard(number)
        return self.found

    def discard(self, number: int) -> None:
        """Forget it."""
        self.copies.discard(number)
        self.running.discard(number)
