"""A swap in memory: who has the database alone, the snapshots, and what was set aside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bulletproof.errors import StepFailed
from fakes.database import Content, FakeDatabase


def nobody() -> tuple[str, ...]:
    """Nobody uses the database."""
    return ()


@dataclass
class FakeSwap:
    """ports.Swap over a fake database; `users` tells who has it open, `copies` what lies at a path."""

    database: FakeDatabase
    copies: Callable[[Path], Content]
    users: Callable[[], tuple[str, ...]] = nobody
    strangers: tuple[str, ...] = ()
    is_seized: bool = False
    snapshots: dict[int, Content] = field(default_factory=dict)
    aside: list[Content] = field(default_factory=list)

    def openers(self, besides: frozenset[int]) -> tuple[str, ...]:  # noqa: ARG002  the port's
        """Those who are not the app."""
        return self.strangers

    def seize(self, patience_seconds: float) -> None:  # noqa: ARG002  the port's
        """Have it alone, unless somebody uses it."""
        if users := (*self.users(), *self.strangers):
            raise StepFailed("database-in-use", "the database is in use", context=users)
        self.is_seized = True

    def snapshot(self, number: int, timeout_seconds: float) -> int:  # noqa: ARG002  the port's
        """Keep what it holds."""
        self.snapshots[number] = self.database.content
        return 4096

    def put(self, copy: Path, check: Callable[[], None]) -> None:
        """Give it the copy's content."""
        check()
        if not self.is_seized:
            raise StepFailed("database-not-held", "the database was not had alone")
        self.database.content = self.copies(copy)

    def release(self) -> None:
        """Let others have it."""
        self.is_seized = False

    def put_back(self, number: int, used: Path | None = None) -> str:  # noqa: ARG002  the port's
        """Give it the snapshot's content, and set aside what it holds otherwise."""
        if number not in self.snapshots:
            raise StepFailed("snapshot-missing", "there is no snapshot")
        self.release()
        self.seize(0.0)
        before, self.is_seized = self.database.content, False
        if before == self.snapshots[number]:
            return ""
        self.aside.append(before)
        self.database.content = self.snapshots[number]
        return "aside"

    def discard(self, number: int) -> None:
        """Forget the snapshot."""
        self.snapshots.pop(number, None)

    def set_aside(self, number: int) -> Path:
        """Keep it where nothing deletes it."""
        if number in self.snapshots:
            self.aside.append(self.snapshots.pop(number))
        return Path(f"/aside/{number}")

    def numbers(self) -> tuple[int, ...]:
        """The deployments that have one."""
        return tuple(sorted(self.snapshots))
