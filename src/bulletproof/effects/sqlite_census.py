"""Looks through a copy of a database: its schema, its rows, and how many values each column has."""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from bulletproof.domain.schema import Column, Schema, Table, normal

_CHECK = re.compile(r"\bCHECK\s*(?=\()", re.IGNORECASE)
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/", re.DOTALL)
_NO_ACTION = "NO ACTION"


def census(file: Path) -> Schema:
    """Everything that a comparison needs to know; no schema when there is no file.

    Only for a copy that nobody writes to: it reads every row. Raises sqlite3.Error.
    """
    if not file.exists():
        return Schema(tables={})
    with closing(sqlite3.connect(file)) as connection:
        return _census(connection)


def census_of(statements: Iterable[str]) -> Schema:
    """The same of a database that these statements would make; what cannot be made here is left out."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in statements:
            with suppress(sqlite3.Error):  # a virtual table's module may not be here, its own tables are made with it
                connection.execute(statement)
        return _census(connection)


def _census(connection: sqlite3.Connection) -> Schema:
    # The schema is trusted, as it is by default: otherwise SQLite 3.40 refuses a table with the JSON_VALID that Django
    # checks a JSONField with. What could do harm (SQLITE_DIRECTONLY) no schema may call in any case.
    entries = connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        " AND name NOT LIKE '\\_litestream\\_%' ESCAPE '\\' ORDER BY name"
    ).fetchall()
    tables = {name: _table(connection, name, sql) for kind, name, sql in entries if kind == "table"}
    return Schema(
        tables=tables,
        others={f"{kind} {name}": normal(sql) for kind, name, sql in entries if kind != "table" and sql},
    )


def _table(connection: sqlite3.Connection, name: str, sql: str) -> Table:
    columns = {
        column: Column(type=str(kind).upper(), is_required=bool(required), default=default, is_key=bool(key))
        for _, column, kind, required, default, key in connection.execute(f"PRAGMA table_info({_quoted(name)})")
    }
    counts = ", ".join(f"count({_quoted(column)})" for column in columns)
    rows, *values = connection.execute(f"SELECT count(*), {counts} FROM {_quoted(name)}").fetchone()  # noqa: S608
    return Table(
        columns=columns,
        constraints=frozenset(_constraints(connection, name, sql)),
        rows=rows,
        values=dict(zip(columns, values, strict=True)),
    )


def _constraints(connection: sqlite3.Connection, table: str, sql: str) -> Iterator[str]:
    """What the table's rows must keep to, the same whether it was written at a column or at the table."""
    keys = connection.execute("SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", (table,)).fetchall()
    if len(keys) > 1:
        yield f"primary key {_listed(keys)}"
    unique = connection.execute("SELECT name FROM pragma_index_list(?) WHERE origin = 'u'", (table,)).fetchall()
    for index in unique:
        found = connection.execute("SELECT name FROM pragma_index_info(?) ORDER BY seqno", index)
        yield f"unique {_listed(found.fetchall())}"
    yield from _foreign_keys(connection, table)
    yield from _checks(sql)


def _foreign_keys(connection: sqlite3.Connection, table: str) -> Iterator[str]:
    query = 'SELECT id, "table", "from", "to", on_update, on_delete FROM pragma_foreign_key_list(?) ORDER BY id, seq'
    for _, parts in itertools.groupby(connection.execute(query, (table,)).fetchall(), key=lambda row: row[0]):
        columns = list(parts)
        _, parent, _, target, on_update, on_delete = columns[0]
        yield (
            f"foreign key {_listed([row[2:3] for row in columns])} references {parent}"
            f"{' ' + _listed([row[3:4] for row in columns]) if target else ''}"
            f"{'' if on_update == _NO_ACTION else ' on update ' + on_update}"
            f"{'' if on_delete == _NO_ACTION else ' on delete ' + on_delete}"
        ).lower()


def _listed(names: list[tuple[str]]) -> str:
    return f"({', '.join(str(name) for (name,) in names)})".lower()


def _checks(sql: str) -> Iterator[str]:
    """SQLite tells of check constraints only by the SQL that made the table."""
    # Same length, so that a place in it is a place in the SQL: no quoted word is taken for a keyword or parenthesis.
    bare = _QUOTED.sub(lambda found: "_" * len(found[0]), sql)
    for found in _CHECK.finditer(bare):
        yield normal(f"check {sql[found.end() : _closing(bare, found.end())]}")


def _closing(text: str, opening: int) -> int:
    """Where the parenthesis ends that opens there."""
    depth = 0
    for place in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place + 1
    return len(text)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
