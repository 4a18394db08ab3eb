"""What users have made: its database, and the migrations that change it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from bulletproof.domain.schema import Schema
from bulletproof.ports.releases import Manifest

REPLAY = "replay.json"
"""The file beside the database that a migrator's replay writes."""


class Database(Protocol):
    """The app's single database."""

    def exists(self) -> bool:
        """Whether there is one; a file of zero bytes is none."""

    def size(self) -> int:
        """Its bytes, with what is not yet in its file; 0 when there is none."""

    def check(self) -> str:
        """Read it through and say what it is in a few words. Raises Refused when it is not reachable or not whole."""

    def use_wal(self) -> bool:
        """Put it into WAL mode, which stays with it; idempotent. False when there is none.

        Raises StepFailed `database-not-wal`.
        """

    def empty_wal(self, longer_than: int) -> int:
        """Give back the disk that a -wal of more bytes than this takes; returns how many, 0 when it is still read.

        No content changes: SQLite does the same whenever the last one closes the database.
        """

    def remove(self) -> None:
        """Make it so that it is not, with what belongs to it; only for one that never served."""


class SchemaState(msgspec.Struct, frozen=True, kw_only=True):
    """How a release's schema stands to the database."""

    tool: str
    """`flask-migrate`, `alembic`, `django`, `command`, `create-all` or `none`."""
    current: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    """What the release would do to the database, in order, in its tool's words; empty when they fit."""
    unknown: tuple[str, ...] = ()
    """Revisions that the database has and the release does not know: it is older than the data."""
    known: tuple[str, ...] = ()
    """All revisions of the release that can be replayed on an empty database, in order, in its tool's words."""
    is_unnoted: bool = False
    """Whether the database has tables and no note of the migrations that made them."""
    elsewhere: str = ""
    """The kind of the app's database when that is not SQLite's, such as `PostgreSQL`: nobody looks into it."""
    others: tuple[str, ...] = ()
    """Databases besides the app's one, in words: they are left where they are, and nobody migrates them."""
    stamp: tuple[str, ...] = ()
    """What the database has to note before anything else, since its schema is exactly that of these revisions."""

    @property
    def fits(self) -> bool:
        """Whether the release can serve this database as it is."""
        return not (self.pending or self.unknown or self.stamp)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program of a release that changes a database; it is run where the live paths lead to a copy."""

    words: str
    """What a person would type."""
    argv: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = field(repr=False)
    """All of it, the settings and the database's address at its live path included."""
    reads: tuple[Path, ...] = ()
    """Files and folders besides the release that it needs."""


class Migrator(Protocol):
    """What brings a database to the schema that a release needs."""

    def state(self, manifest: Manifest, settings: Mapping[str, str]) -> SchemaState:
        """Compare the release with the live database, touching nothing. Raises StepFailed when it cannot tell."""

    def upgrade(self, manifest: Manifest, settings: Mapping[str, str], stamp: tuple[str, ...] = ()) -> Command | None:
        """What brings the database at the live path to what the release needs; None when it has no such tool.

        With `stamp` the database notes these revisions first.
        """

    def make_all(self, manifest: Manifest, settings: Mapping[str, str]) -> Command | None:
        """What makes all tables of the release's models at once, without migrations; None where that cannot be."""

    def replay(self, manifest: Manifest, settings: Mapping[str, str]) -> Command | None:
        """What runs each migration on an empty database at the live path, for `Rehearsal.replay`; None without such."""

    def downgrade(self, manifest: Manifest, settings: Mapping[str, str], older: Manifest) -> Command | None:
        """What brings it, with this release's scripts, to where `older` ends; None when that cannot be.

        Not to be tried when a revision on the way has no downgrade of its own.
        """

    def misfits(self, manifest: Manifest, settings: Mapping[str, str], schema: Schema) -> tuple[str, ...]:
        """In words, why the release's models cannot work with a database of this schema; empty when they can.

        A table or column of the models that is missing, and a column that the database requires, gives no default
        for, and the models do not know. Empty as well when the app has no models that can be asked.
        """

    def create(self, manifest: Manifest, settings: Mapping[str, str]) -> str:
        """Make the schema in a database that does not exist yet and say what was done. Raises StepFailed."""


class Swap(Protocol):
    """Puts a migrated copy in the live database's place, and puts what was there back."""

    def openers(self, besides: frozenset[int]) -> tuple[str, ...]:
        """Who has the database open, in words; not we, nor the processes `besides` and what they started."""

    def seize(self, patience_seconds: float) -> None:
        """Have the database alone until `release`, or until we die; an empty one is made where there is none.

        Raises StepFailed `database-in-use`, with who has it open as context, or `database-not-reachable`.
        """

    def snapshot(self, number: int, timeout_seconds: float) -> int:
        """Copy the seized database as deployment `number`'s snapshot; returns its bytes. Raises StepFailed."""

    def put(self, copy: Path, check: Callable[[], None]) -> None:
        """Give the seized database the content of `copy`, whole or not at all.

        `check` is called all the while and may raise. Raises StepFailed.
        """

    def release(self) -> None:
        """Let others have it; idempotent."""

    def put_back(self, number: int, used: Path | None = None) -> str:
        """Give the database the content of the snapshot again; what it holds otherwise is set aside, never deleted.

        Returns where it was set aside, empty when there was nothing to. It takes the place on the disk of `used`, the
        copy that was put and is of no more use. Idempotent. Raises StepFailed.
        """

    def discard(self, number: int) -> None:
        """Make it so that deployment `number` has no snapshot."""

    def set_aside(self, number: int) -> Path:
        """Move the snapshot to where nothing deletes it; says where. Idempotent."""

    def numbers(self) -> tuple[int, ...]:
        """The deployments that have a snapshot, oldest first."""
