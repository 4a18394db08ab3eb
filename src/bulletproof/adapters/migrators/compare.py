"""What a release's schema would still do to a database, told from what is known of both."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from bulletproof.domain.schema import Column, Schema, Table
from bulletproof.effects.sqlite_file import Reading
from bulletproof.errors import StepFailed
from bulletproof.ports import SchemaState

_ROWID = frozenset({"rowid", "oid", "_rowid_"})
"""Columns that every table has though none is told, full-text ones too (sqlite.org/lang_createtable.html#rowid)."""


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One migration."""

    revision: str
    parents: tuple[str, ...] = ()
    title: str | None = None
    is_reversible: bool = False
    """Whether it has a downgrade of its own, or nothing to take back."""

    def __str__(self) -> str:
        return f"{self.revision} {self.title or ''}".strip()


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """All migrations of a release, each after those that it needs."""

    heads: tuple[str, ...]
    revisions: tuple[Revision, ...]
    folders: tuple[str, ...] = ()
    """Where they were found; empty when that does not tell all of them."""

    def way_back(self, to: str) -> tuple[Revision, ...] | None:
        """What a downgrade to the revision `to` takes back; None when it would not leave exactly that one noted."""
        before, after = {to}, {to}
        for one in reversed(self.revisions):
            before.update(one.parents if one.revision in before else ())
        for one in self.revisions:
            after.update((one.revision,) if after.intersection(one.parents) else ())
        if {one.revision for one in self.revisions} != before | after:
            return None
        return tuple(one for one in self.revisions if one.revision in after - {to})


class Models(msgspec.Struct, frozen=True, kw_only=True):
    """The tables that an app's models describe, each with its columns and after those that it refers to."""

    is_used: bool
    """Whether the app has Flask-SQLAlchemy at all."""
    tables: tuple[tuple[str, tuple[str, ...]], ...] = ()


def compare_revisions(tool: str, graph: Graph, live: Reading | None) -> SchemaState:
    """Which migrations the database lacks, in order, and which it has had that the release does not know.

    A database with tables and no note of any migration is told so, as if it had none of them.
    """
    current = _noted(live) if live else ()
    is_unnoted = live is not None and not current and any(name not in live.versions for name in live.tables)
    parents = {one.revision: one.parents for one in graph.revisions}
    unknown = tuple(name for name in current if name not in parents)
    done: set[str] = set()
    left = [name for name in current if name in parents]
    while left:
        name = left.pop()
        done.add(name)
        left += [parent for parent in parents[name] if parent not in done]
    pending = () if unknown else tuple(str(one) for one in graph.revisions if one.revision not in done)
    known = tuple(map(str, graph.revisions))
    return SchemaState(tool=tool, current=current, pending=pending, unknown=unknown, known=known, is_unnoted=is_unnoted)


def compare_models(models: Models, live: Reading | None, schema: Schema) -> SchemaState:
    """Which tables `db.create_all()` would make in the database, of which `schema` tells the columns.

    Raises StepFailed `schema-differs` when a table is not as its model says, which create_all would leave so.
    """
    if not models.is_used:
        return SchemaState(tool="none")
    # A virtual table's columns are not asked for, since its module may not be here.
    virtual = {table.lower() for table, columns in live.tables.items() if not columns} if live else set()
    asked = Models(is_used=True, tables=tuple(one for one in models.tables if one[0].lower() not in virtual))
    if differing := tuple(_differing(asked, schema)):
        raise StepFailed(
            "schema-differs",
            "the app's models do not fit the tables of the database, and db.create_all() alters no table",
            hint="flask db init, and a migration for each change of a model from then on",
            context=differing,
        )
    return SchemaState(tool="create-all", pending=tuple(_missing(asked, schema)))


def misfits(models: Models, schema: Schema) -> tuple[str, ...]:
    """Why the models cannot work with a database of this schema: tables, columns and values that are missing."""
    return (*_missing(models, schema), *_differing(models, schema))


def statements(schema: Schema) -> tuple[str, ...]:
    """What makes tables with the same names, columns and keys, and nothing else of them."""
    return tuple(
        f"CREATE TABLE {_quoted(name)} ({', '.join((*_columns(table), *_key(table)))})"
        for name, table in schema.tables.items()
    )


def _columns(table: Table) -> Iterator[str]:
    return (f"{_quoted(name)} {column.type}" for name, column in table.columns.items())


def _key(table: Table) -> tuple[str, ...]:
    keys = ", ".join(_quoted(name) for name, column in table.columns.items() if column.is_key)
    return (f"PRIMARY KEY ({keys})",) if keys else ()


def _missing(models: Models, schema: Schema) -> Iterator[str]:
    """The tables that are not there; names have no case in SQLite."""
    have = {table.lower() for table in schema.tables}
    have |= {words.removeprefix("view ").lower() for words in schema.others if words.startswith("view ")}
    return (f"table {table} is missing" for table, _ in models.tables if table.lower() not in have)


def _differing(models: Models, schema: Schema) -> Iterator[str]:
    """Of the tables that are there, what their models need and what they need of the models."""
    have = {name.lower(): table for name, table in schema.tables.items()}
    for name, columns in models.tables:
        if table := have.get(name.lower()):
            yield from _differing_columns(name, columns, table)


def _differing_columns(name: str, columns: tuple[str, ...], table: Table) -> Iterator[str]:
    known, wanted = {one.lower() for one in table.columns} | _ROWID, {one.lower() for one in columns}
    yield from (f"table {name} lacks column {one}" for one in columns if one.lower() not in known)
    keys = [column for column in table.columns.values() if column.is_key]
    for one, column in table.columns.items():
        if one.lower() not in wanted and column.is_required and not _has_default(column, keys):
            yield f"table {name} requires column {one}, which the model does not know"


def _has_default(column: Column, keys: list[Column]) -> bool:
    """A lone INTEGER PRIMARY KEY is the row's id, which SQLite gives (sqlite.org/lang_createtable.html#rowid)."""
    return column.default is not None or (keys == [column] and column.type.upper() == "INTEGER")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _noted(live: Reading) -> tuple[str, ...]:
    """The revisions that Alembic noted, in its usual table or in the only one that is like it."""
    only = next(iter(live.versions)) if len(live.versions) == 1 else "alembic_version"
    return live.versions.get(only, ())
