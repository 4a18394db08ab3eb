"""A rehearsal in memory: a copy is laid, commands and instances run on it, and it is gone when it is discarded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bulletproof.domain.durability import Seen
from bulletproof.domain.health import Answer
from bulletproof.domain.past import Replay
from bulletproof.domain.process import Phase, ProcessSpec, ProcessState
from bulletproof.domain.restore import RowChange
from bulletproof.domain.schema import Schema, Table
from bulletproof.errors import StepFailed
from bulletproof.ports import Command, Manifest
from fakes.database import Content, FakeDatabase
from fakes.migrator import FakeMigrator
from fakes.swap import FakeSwap


def nowhere(file: Path) -> Content:
    """No file holds anything."""
    raise AssertionError(file)


@dataclass
class FakeRehearsal:
    """ports.Rehearsal: `copies` are laid and not discarded, `answers` what the instance of a deployment says."""

    database: FakeDatabase
    migrator: FakeMigrator
    swap: FakeSwap
    copies: dict[int, Content] = field(default_factory=dict)
    running: set[int] = field(default_factory=set)
    answers: dict[int, int] = field(default_factory=dict)
    at_boot: tuple[str, ...] = ()
    """Revisions that a release makes only by booting."""
    reason: str = ""
    at: Callable[[Path], Content] = nowhere
    """What a file holds that is no copy."""

    def why_not(self) -> str:
        """As the test says."""
        return self.reason

    def proof(self) -> str:
        """What keeps it from the live data."""
        return "in memory"

    def prepare(self, number: int) -> int:
        """Lay a copy, twice."""
        self.copies[number] = self.swap.snapshots[number] = self.database.content
        return 4096 if self.database.exists() else 0

    def rewind(self, number: int, timeout_seconds: float) -> None:  # noqa: ARG002  the port's
        """Lay the snapshot's content again."""
        self.copies[number] = self.swap.snapshots[number]

    def run(self, number: int, manifest: Manifest, command: Command, timeout_seconds: float) -> None:  # noqa: ARG002
        """Make or remove tables as the fake migrator's command says."""
        _, release, _, *older = command.argv
        if failing := self.migrator.failing.intersection(self.migrator.known[release]):
            raise StepFailed("migration-failed", f"{', '.join(failing)} failed")
        self._have(number, self.migrator.known[older[0] if older else release])

    def make(self, number: int, manifest: Manifest, command: Command, timeout_seconds: float) -> Schema:  # noqa: ARG002
        """No fake migrator asks for it."""
        return Schema(tables={})

    def replay(self, number: int, manifest: Manifest, command: Command, timeout_seconds: float) -> Replay:  # noqa: ARG002
        """No fake migrator asks for it."""
        return Replay(stages=())

    def boot(self, number: int, manifest: Manifest, process: ProcessSpec, settings: Mapping[str, str]) -> None:  # noqa: ARG002
        """Run on it."""
        self.running.add(number)
        if self.at_boot:
            self._have(number, tuple(dict.fromkeys((*self.copies[number].revisions, *self.at_boot))))

    def ask(self, number: int, path: str, timeout_seconds: float) -> Answer:  # noqa: ARG002  the port's
        """Answer as the test says, well if it says nothing."""
        return Answer(status=self.answers.get(number, 200) if number in self.running else 0, seconds=0.0)

    def state(self, number: int) -> ProcessState:
        """Whether it runs."""
        return ProcessState(name="rehearsal", phase=Phase.RUNNING if number in self.running else Phase.FAILED)

    def log_tail(self, number: int, lines: int) -> tuple[str, ...]:  # noqa: ARG002  the port's
        """It printed nothing."""
        return ()

    def end(self, number: int) -> None:
        """It does not run."""
        self.running.discard(number)

    def would_write(self, number: int) -> tuple[str, ...]:  # noqa: ARG002  the port's
        """It writes nothing."""
        return ()

    def seen(self, number: int) -> Seen:  # noqa: ARG002  the port's
        """Nobody listens to it."""
        return Seen()

    def use_wal(self, number: int) -> None:
        """It has no journal."""

    def lay(self, number: int, file: Path) -> None:
        """As the test says what lies there."""
        self.copies[number] = self.at(file)

    def compare(self, number: int, file: Path) -> tuple[RowChange, ...]:
        """The bits of today that the file lacks."""
        missing = (self.swap.snapshots[number].rows & ~self.at(file).rows).bit_count()
        return (RowChange(table="rows", missing=missing, changed=0, returning=0),) if missing else ()

    def look(self, number: int) -> Schema:
        """A table for each that the copy has."""
        return Schema(tables={name: Table(columns={}) for name in self.copies[number].tables or ()})

    def is_changed(self, number: int) -> bool:
        """Whether the copy is another than the snapshot."""
        return self.copies[number] != self.swap.snapshots[number]

    def copy(self, number: int) -> Path:
        """Its name tells the number."""
        return Path(f"/copy/{number}")

    def discard(self, number: int) -> None:
        """Forget it."""
        self.copies.pop(number, None)
        self.running.discard(number)

    def _have(self, number: int, revisions: tuple[str, ...]) -> None:
        tables = tuple(f"table_{revision}" for revision in revisions)
        self.copies[number] = self.copies[number]._replace(tables=tables, revisions=revisions)
