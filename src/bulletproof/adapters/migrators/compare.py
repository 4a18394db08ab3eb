"""What a release's schema would still do to a database, told from what is known of both."""

from __future__ import annotations

import msgspec

from bulletproof.effects.sqlite_file import Reading
from bulletproof.errors import StepFailed
from bulletproof.ports import SchemaState


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One migration."""

    revision: str
    parents: tuple[str, ...] = ()
    title: str | None = None

    def __str__(self) -> str:
        return f"{self.revision} {self.title or ''}".strip()


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """All migrations of a release, each after those that it needs."""

    heads: tuple[str, ...]
    revisions: tuple[Revision, ...]


class Models(msgspec.Struct, frozen=True, kw_only=True):
    """The tables that an app's models describe, each with its columns and after those that it refers to."""

    is_used: bool
    """Whether the app has Flask-SQLAlchemy at all."""
    tables: tuple[tuple[str, tuple[str, ...]], ...] = ()


def compare_revisions(tool: str, graph: Graph, live: Reading | None) -> SchemaState:
    """Which migrations the database lacks, in order, and which it has had that the release does not know.

    Raises StepFailed when the database has tables and no note of any migration.
    """
    current = _noted(tool, live) if live else ()
    parents = {one.revision: one.parents for one in graph.revisions}
    unknown = tuple(name for name in current if name not in parents)
    done: set[str] = set()
    left = [name for name in current if name in parents]
    while left:
        name = left.pop()
        done.add(name)
        left += [parent for parent in parents[name] if parent not in done]
    pending = () if unknown else tuple(str(one) for one in graph.revisions if one.revision not in done)
    return SchemaState(tool=tool, current=current, pending=pending, unknown=unknown)


def compare_models(models: Models, live: Reading | None) -> SchemaState:
    """Which tables and columns of the models the database lacks."""
    if not models.is_used:
        return SchemaState(tool="none")
    have: dict[str, set[str]] = {}
    if live:
        have |= {view.lower(): set() for view in live.views}
        have |= {table.lower(): {column.lower() for column in columns} for table, columns in live.tables.items()}
    pending = tuple(line for table, columns in models.tables for line in _lacking(table, columns, have))
    return SchemaState(tool="create-all", pending=pending)


def _lacking(table: str, columns: tuple[str, ...], have: dict[str, set[str]]) -> list[str]:
    """What the database lacks of one table; names have no case in SQLite."""
    known = have.get(table.lower())
    if known is None:
        return [f"table {table} is missing"]
    if not known:  # a view, or a virtual table, whose columns nobody asked for
        return []
    return [f"table {table} lacks column {column}" for column in columns if column.lower() not in known]


def _noted(tool: str, live: Reading) -> tuple[str, ...]:
    """The revisions that Alembic noted, in its usual table or in the only one that is like it."""
    only = next(iter(live.versions)) if len(live.versions) == 1 else "alembic_version"
    noted = live.versions.get(only, ())
    tables = [name for name in live.tables if name not in live.versions]
    if tables and not noted:
        program = "flask db" if tool == "flask-migrate" else "alembic"
        raise StepFailed(
            "schema-unknown",
            f"the database has tables ({', '.join(tables[:3])}) and no note of which migrations made them",
            hint=f"{program} stamp REVISION, once you are sure which migration its tables are of",
        )
    return noted
