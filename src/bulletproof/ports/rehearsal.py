"""A release on a copy of the live data, where nothing live can be reached."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from bulletproof.domain.durability import Seen
from bulletproof.domain.health import Answer
from bulletproof.domain.past import Replay
from bulletproof.domain.process import ProcessSpec, ProcessState
from bulletproof.domain.restore import RowChange
from bulletproof.domain.schema import Schema
from bulletproof.ports.data import Command
from bulletproof.ports.releases import Manifest


class Rehearsal(Protocol):
    """A release on a copy of the live data, kept from everything live.

    The copy lies where the live database lies, for whatever runs on it. There is one at a time for each deployment.
    """

    def why_not(self) -> str:
        """Why nothing can be kept from the live data on this machine; empty when it can."""

    def proof(self) -> str:
        """What keeps a rehearsed release from the live data, in words."""

    def prepare(self, number: int) -> int:
        """Lay a consistent copy of the live data; returns its bytes, 0 when there is none. Raises StepFailed."""

    def rewind(self, number: int, timeout_seconds: float) -> None:
        """Make the copy equal to deployment `number`'s snapshot again. Raises StepFailed."""

    def run(self, number: int, manifest: Manifest, command: Command, timeout_seconds: float) -> None:
        """Run a command on the copy to its end. Raises StepFailed `migration-failed` or `migration-too-slow`."""

    def make(self, number: int, manifest: Manifest, command: Command, timeout_seconds: float) -> Schema:
        """What a command makes where no database is, beside the copy; the copy is not touched. Raises StepFailed."""

    def replay(self, number: int, manifest: Manifest, command: Command, timeout_seconds: float) -> Replay:
        """Run a migrator's replay where no database is, beside the copy; the copy is not touched. Raises StepFailed."""

    def boot(self, number: int, manifest: Manifest, process: ProcessSpec, settings: Mapping[str, str]) -> None:
        """Start the process on the copy. It reaches nothing else, and dies with us. Raises StepFailed."""

    def ask(self, number: int, path: str, timeout_seconds: float) -> Answer:
        """GET a path of it as the proxy would: (number, path, time-out in seconds)."""

    def state(self, number: int) -> ProcessState:
        """Whether it runs, or how it ended."""

    def log_tail(self, number: int, lines: int) -> tuple[str, ...]:
        """The last lines that it printed."""

    def end(self, number: int) -> None:
        """End what runs on the copy. Raises StepFailed `rehearsal-not-isolated` when it reached for anything else."""

    def would_write(self, number: int) -> tuple[str, ...]:
        """The places in its own source that the release would have written when it ran, where that can be told."""

    def seen(self, number: int) -> Seen:
        """How what ran last used the copy, as far as that can be told; nothing runs on it."""

    def use_wal(self, number: int) -> None:
        """The copy, on which nothing runs, is in WAL mode; idempotent. Raises StepFailed `database-not-wal`."""

    def lay(self, number: int, file: Path) -> None:
        """Make the copy equal to a database file that nobody uses. Raises StepFailed."""

    def compare(self, number: int, file: Path) -> tuple[RowChange, ...]:
        """What a restore of that file would do to the rows of the live data, as they were copied. Raises StepFailed."""

    def look(self, number: int) -> Schema:
        """What the copy holds; nothing runs on it."""

    def is_changed(self, number: int) -> bool:
        """Whether the copy holds anything else than when it was laid; nothing runs on it."""

    def copy(self, number: int) -> Path:
        """The copy's file; nothing runs on it any more."""

    def discard(self, number: int) -> None:
        """Make it so that nothing of it is left; idempotent, and able to run in another process."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where an app had its data before it was deployed: the files of the folder that it was developed in."""

    file: Path | None = None
    """The database that the app opens there; None when there is none with tables."""
    words: str = ""
    """What it holds."""
    size: int = 0
    """Its bytes."""
    users: tuple[str, ...] = ()
    """Who has it open, each with how to end it."""
    opens: str = ""
    """What the app opens there, whether it is there or not; empty when nobody knows."""
    others: tuple[str, ...] = ()
    """Databases beside it that the app does not open, each with what it holds."""
    folders: tuple[str, ...] = ()
    """Folders of the source that its configuration says users fill."""
    trouble: str = ""
    """Why the app could not be asked."""


class Adoption(Protocol):
    """Takes over what an app's users made before its first deployment; the originals stay as they are."""

    def find(self, number: int, manifest: Manifest, folder: Path, settings: Mapping[str, str]) -> Origin:
        """Ask a built release, kept from everything, what it opens with these settings where `folder` is its source."""

    def describe(self, file: Path) -> Origin:
        """The same of a database that a person named. Raises StepFailed `database-not-found`."""

    def take(self, number: int, file: Path) -> str:
        """Copy that database, as it is at one instant, to where the live one lies; says what came. Raises StepFailed.

        Nothing may lie there. It is whole or not at all.
        """

    def discard(self, number: int) -> None:
        """Make it so that nothing is left of a copy that deployment `number` did not finish; idempotent."""

    def fill(self, folder: Path, names: tuple[str, ...]) -> int:
        """Copy what lies in these folders of `folder` into the persistent ones, over nothing; says how many files."""
