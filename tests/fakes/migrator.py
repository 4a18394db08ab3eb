"""A migrator in memory: each release knows a line of revisions, each of which makes one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bulletproof.errors import StepFailed
from bulletproof.ports import Manifest, SchemaState
from fakes.database import FakeDatabase


@dataclass
class FakeMigrator:
    """`known` tells each release's revisions; one without revisions has no schema."""

    database: FakeDatabase
    known: dict[str, tuple[str, ...]] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    """Revisions that fail after half of their work."""

    def state(self, manifest: Manifest, settings: Mapping[str, str]) -> SchemaState:  # noqa: ARG002  the port's
        """Compare the release's revisions with those noted in the database."""
        known = self.known.get(manifest.release, ())
        if not known:
            return SchemaState(tool="none")
        noted = self.database.revisions
        unknown = tuple(revision for revision in noted if revision not in known)
        pending = () if unknown else tuple(revision for revision in known if revision not in noted)
        return SchemaState(tool="flask-migrate", current=noted, pending=pending, unknown=unknown)

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
