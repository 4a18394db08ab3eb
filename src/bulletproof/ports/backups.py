"""Backups, and what is sent off while the app writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from bulletproof.domain.backup import Backup, Damaged, Proof, Reason
from bulletproof.domain.process import ProcessSpec


class Taking(msgspec.Struct, frozen=True, kw_only=True):
    """A backup to be made."""

    reason: Reason
    release: str
    """What is live, or was when these data were."""
    revision: str
    settings: int
    """The deployment whose settings it runs with."""
    taken_by: str
    folders: Mapping[str, Path]
    """The persistent folders that go into it, by their names."""
    deployment: int | None = None
    """The deployment that changed or replaced these data."""
    begun_at: str = ""
    """When that began: its number alone may be another machine's as well."""
    database: Path | None = None
    """A database file that nobody writes to any more, instead of a copy of the live one."""
    taken_at: str = ""
    """When the data were so, if that is not now."""
    may_be_damaged: bool = False
    has_database: bool = True
    """Whether there is one that can be copied."""
    compress: bool = False


class Backups(Protocol):
    """Backups of the data on this host, each sealed by digests, and there as a whole or not at all."""

    def take(self, wish: Taking) -> Backup:
        """Make one; it holds all that was committed before. Raises StepFailed, Refused for a damaged database."""

    def all(self) -> tuple[Backup | Damaged, ...]:
        """What there is, oldest first."""

    def get(self, name: str) -> Backup:
        """That one. Raises UsageError when there is none, Refused when it is not what was written."""

    def make_place(self, file: Path) -> None:
        """The folder that the file is to be laid in is there, and private."""

    def check(self, backup: Backup) -> None:
        """Read every byte of it. Raises Refused when one is not what was written."""

    def lay_database(self, backup: Backup, target: Path) -> str:
        """Lay its database as a new file and read that through; says what it holds. Raises Refused."""

    def lay_folders(self, backup: Backup, target: Path, links: tuple[str, ...] = ()) -> int:
        """Lay its persistent folders in a new folder; says how many files. Raises Refused.

        Those of `links` that lie in them lead to the live database.
        """

    def note_proof(self, backup: Backup, proof: Proof) -> None:
        """Write down what a trial found."""

    def discard(self, name: str) -> None:
        """Make it so that the backup is not; idempotent."""

    def free_bytes(self) -> int:
        """What the disk has left for backups."""

    def refuse_unmovable(self, names: tuple[str, ...]) -> None:
        """Raise StepFailed for a persistent folder that cannot be exchanged in one step."""

    def exchange(self, number: int, names: tuple[str, ...]) -> None:
        """Put the folders that were laid for deployment `number` where today's are, which stay beside; idempotent."""

    def exchange_back(self, number: int) -> None:
        """Today's folders are where they were; idempotent."""

    def replaced(self, number: int) -> Mapping[str, Path]:
        """The folders that deployment `number` took out of the data, by their names."""

    def discard_replaced(self, number: int) -> None:
        """Make it so that nothing of them is left; idempotent."""


class Replica(Protocol):
    """Sends every change of the live database away as it is made, to where a point in time can be got from."""

    def process(self) -> ProcessSpec | None:
        """The process that does it, its configuration written durably; None, and none left, when nobody wishes it.

        Its name changes with what it does. Raises Refused `litestream-not-installed`, NeedsPerson and OSError.
        """
