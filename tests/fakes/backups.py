"""Backups in memory: what each holds, and the folders of users that a restore exchanges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from bulletproof.domain.backup import Backup, BackupManifest, Damaged, Part, Proof
from bulletproof.errors import UsageError
from bulletproof.ports import Taking
from fakes.database import Content, FakeDatabase

_TIME = "2026-01-01T00:00:00.000+00:00"


@dataclass
class FakeBackups:
    """ports.Backups: `contents` and `made` by name; `laid` by the file's path; `files` is what users see."""

    database: FakeDatabase
    snapshot: Callable[[int], Content]
    made: dict[str, Backup] = field(default_factory=dict)
    contents: dict[str, Content] = field(default_factory=dict)
    laid: dict[str, Content] = field(default_factory=dict)
    files: str = "of today"
    new: dict[int, str] = field(default_factory=dict)
    old: dict[int, str] = field(default_factory=dict)

    def take(self, wish: Taking) -> Backup:
        """Keep the content."""
        name = f"b{len(self.made) + 1}"
        self.contents[name] = self.snapshot(int(wish.database.stem)) if wish.database else self.database.content
        part = Part(name="database.db", size=4096, sha256="", unpacked=4096)
        manifest = BackupManifest(
            format=1,
            app="app",
            name=name,
            reason=wish.reason,
            deployment=wish.deployment,
            begun_at=wish.begun_at,
            release=wish.release,
            revision=wish.revision,
            settings=wish.settings,
            taken_at=_TIME,
            taken_by=wish.taken_by,
            database=part,
            tables={},
            migrations=(),
            archive=part if wish.folders else None,
            folders=tuple(wish.folders),
            sqlite="",
            bulletproof="",
        )
        self.made[name] = Backup(manifest=manifest, place=Path("/backups") / name, digest=name)
        return self.made[name]

    def all(self) -> tuple[Backup | Damaged, ...]:
        """In the order in which they were made."""
        return tuple(self.made.values())

    def get(self, name: str) -> Backup:
        """That one."""
        if name not in self.made:
            raise UsageError("backup-unknown", "there is none")
        return self.made[name]

    def make_place(self, file: Path) -> None:
        """Nothing lies there."""
        self.laid.pop(str(file), None)

    def check(self, backup: Backup) -> None:
        """It is whole."""

    def lay_database(self, backup: Backup, target: Path) -> str:
        """Lay its content."""
        self.laid[str(target)] = self.contents[backup.name]
        return "laid"

    def lay_folders(self, backup: Backup, target: Path, links: tuple[str, ...] = ()) -> int:  # noqa: ARG002  one kind
        """Lay the folders for the deployment whose number the path has."""
        if target.name == "new":
            self.new[int(target.parent.name.rpartition("-")[2])] = "of the backup"
        return 1

    def note_proof(self, backup: Backup, proof: Proof) -> None:
        """Note it."""
        self.made[backup.name] = replace(backup, proof=proof)

    def discard(self, name: str) -> None:
        """Forget it."""
        self.made.pop(name, None)

    def free_bytes(self) -> int:
        """Enough."""
        return 1 << 40

    def refuse_unmovable(self, names: tuple[str, ...]) -> None:
        """All can be moved."""

    def exchange(self, number: int, names: tuple[str, ...]) -> None:
        """The backup's files instead of today's."""
        if names and number not in self.old:
            self.old[number], self.files = self.files, self.new.pop(number)

    def exchange_back(self, number: int) -> None:
        """Today's files."""
        if number in self.old:
            self.new[number], self.files = self.files, self.old.pop(number)

    def replaced(self, number: int) -> Mapping[str, Path]:
        """What was taken out."""
        return {"uploads": Path("/old")} if number in self.old else {}

    def discard_replaced(self, number: int) -> None:
        """Forget both."""
        self.old.pop(number, None)
        self.new.pop(number, None)
