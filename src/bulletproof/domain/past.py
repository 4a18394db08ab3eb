"""Which migration a database is at, told by its schema alone: the one whose schema equals it, found by replaying."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from bulletproof.domain.schema import Change, Schema, differences

_NOTES = frozenset({"alembic_version"})


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """A database after one more migration, made from nothing."""

    revision: str
    heads: tuple[str, ...]
    """What is noted then."""
    schema: Schema


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """All migrations of a release, one after the other, on an empty database."""

    stages: tuple[Stage, ...]
    table: str = "alembic_version"
    """Where Alembic notes them."""
    trouble: str = ""
    """Why the next one failed; empty when all were done."""

    def matches(self, live: Schema) -> tuple[Stage, ...]:
        """The stages whose schema is exactly the live one."""
        return tuple(stage for stage in self.stages if not self.apart(stage, live))

    def apart(self, stage: Stage, live: Schema) -> tuple[Change, ...]:
        """What the live schema has otherwise than the stage, rows and the migrations' own notes aside."""
        return apart(stage.schema, live, self.table)

    def nearest(self, live: Schema) -> Stage | None:
        """The stage with the fewest differences, the latest of several; None when nothing could be replayed."""
        return min(reversed(self.stages), key=lambda stage: len(self.apart(stage, live)), default=None)

    def noted_as(self, heads: Iterable[str]) -> Stage | None:
        """The stage at which exactly these revisions are noted."""
        return next((stage for stage in self.stages if set(stage.heads) == set(heads)), None)

    def done_at(self, stage: Stage) -> frozenset[str]:
        """The revisions that are done at a stage."""
        return frozenset(one.revision for one in self.stages[: self.stages.index(stage) + 1])


def apart(schema: Schema, live: Schema, table: str = "") -> tuple[Change, ...]:
    """What the live schema has otherwise, rows and the notes of migrations (also those in `table`) aside."""
    notes = _NOTES | {table}
    found = differences(_without(schema, notes), _without(live, notes))
    return tuple(change for change in found if not change.is_data)


def _without(schema: Schema, tables: frozenset[str]) -> Schema:
    return replace(schema, tables={name: table for name, table in schema.tables.items() if name not in tables})
