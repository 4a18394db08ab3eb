"""A migrator in memory: each release knows a line of revisions, each of which makes one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bulletproof.domain.schema import Schema
from bulletproof.errors import StepFailed
from bulletproof.ports import Command, Manifest, SchemaState
from fakes.database import FakeDatabase


@dataclass
class FakeMigrator:
    """`known` tells each release's revisions; one without revisions has no schema."""

    database: FakeDatabase
    known: dict[str, tuple[str, ...]] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    """Revisions that fail after half of their work."""
    goes_down: bool = True
    """Whether every revision can be taken back."""
    is_strict: bool = False
    """Whether a release cannot work with a table that it does not know."""

    def state(self, manifest: Manifest, settings: Mapping[str, str]) -> SchemaState:  # noqa: ARG002  the port's
        """Compare the release's revisions with those noted in the database."""
        known = self.known.get(manifest.release, ())
        if not known:
            return SchemaState(tool="none")
        noted = self.database.revisions
        unknown = tuple(revision for revision in noted if revision not in known)
        pending = () if unknown else tuple(revision for revision in known if revision not in noted)
        return SchemaState(tool="flask-migrate", current=noted, pending=pending, unknown=unknown)

    def make_all(self, manifest: Manifest, settings: Mapping[str, str]) -> Command | None:  # noqa: ARG002  the port's
        """It has no models."""
        return None

    def replay(self, manifest: Manifest, settings: Mapping[str, str]) -> Command | None:  # noqa: ARG002  the port's
        """It cannot: its notes are never wrong."""
        return None

    def upgrade(
        self,
        manifest: Manifest,
        settings: Mapping[str, str],  # noqa: ARG002  the port's
        stamp: tuple[str, ...] = (),  # noqa: ARG002  the port's
    ) -> Command | None:
        """Say what would make the tables of the release's revisions."""
        return _command(manifest, "upgrade") if self.known.get(manifest.release) else None

    def downgrade(
        self,
        manifest: Manifest,
        settings: Mapping[str, str],  # noqa: ARG002  the port's
        older: Manifest,
    ) -> Command | None:
        """Say what would remove the tables that `older` does not know, when its revisions begin this release's."""
        known, before = self.known.get(manifest.release, ()), self.known.get(older.release, ())
        is_older = before and known[: len(before)] == before
        return _command(manifest, f"downgrade {older.release}") if is_older and self.goes_down else None

    def misfits(
        self,
        manifest: Manifest,
        settings: Mapping[str, str],  # noqa: ARG002  the port's
        schema: Schema,
    ) -> tuple[str, ...]:
        """Tell the revisions whose table is missing, and for a strict one the tables that it does not know."""
        mine = {f"table_{one}" for one in self.known.get(manifest.release, ())}
        missing = [f"table {name} is missing" for name in sorted(mine - set(schema.tables))]
        unknown = [f"table {name} is not known" for name in sorted(set(schema.tables) - mine) if self.is_strict]
        return (*missing, *unknown)

    def create(self, manifest: Manifest, settings: Mapping[str, str]) -> str:  # noqa: ARG002  the port's
        """Make a table for each revision, noting each as it is done."""
        if self.database.exists():
            raise StepFailed("database-exists", "only a new database is made this way")
        for revision in self.known.get(manifest.release, ()):
            self.database.tables = (*(self.database.tables or ()), f"table_{revision}")
            if revision in self.failing:
                raise StepFailed("migration-failed", f"{revision} failed")
            self.database.revisions = (*self.database.revisions, revision)
        made = len(self.database.tables or ())
        return f"made {made} tables" if made else "no database"


def _command(manifest: Manifest, direction: str) -> Command:
    words = f"fake-migrate {manifest.release} {direction}"
    return Command(words=words, argv=tuple(words.split()), folder=Path("/"), environment={})
