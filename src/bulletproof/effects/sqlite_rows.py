"""Tell which rows of one database another one has not, table by table. Stand-alone.

`python -I -S sqlite_rows.py TODAY BACKUP` prints one line of JSON; nobody may write to either file. A row is known by
its primary key; in a table that has none, by all of its columns.
"""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from contextlib import closing
from typing import Any

_TABLES = (
    "SELECT name FROM {}.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    " AND name NOT LIKE '\\_litestream\\_%' ESCAPE '\\' AND sql NOT LIKE 'CREATE VIRTUAL%'"
)


def compare(today: str, backup: str) -> list[dict[str, Any]]:
    """What a restore would take, change and bring back, in the tables that differ. Raises sqlite3.Error."""
    with closing(_opened(today)) as connection:
        for name in _collations(today) | _collations(backup):
            # The app's own; nothing here depends on its order, and SQLite asks for it before it reads the table.
            connection.create_collation(name, lambda one, other: (one > other) - (one < other))
        connection.execute("ATTACH ? AS backup", (_address(backup),))
        here, there = (_tables(connection, schema) for schema in ("main", "backup"))
        names = sorted(here | there)
        found = [_table(connection, name, is_here=name in here, is_there=name in there) for name in names]
    return [one for one in found if one["missing"] or one["changed"] or one["returning"]]


def _opened(path: str) -> sqlite3.Connection:
    return sqlite3.connect(_address(path), uri=True)


def _address(path: str) -> str:
    return f"file:{_quoted_path(path)}?immutable=1"


def _collations(path: str) -> set[str]:
    """The names of all collations that a schema speaks of."""
    with closing(_opened(path)) as connection:
        rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    found = {name for (sql,) in rows for name in re.findall(r"\bCOLLATE\s+[\"`\[]?(\w+)", sql, re.IGNORECASE)}
    return {name for name in found if name.upper() not in {"BINARY", "NOCASE", "RTRIM"}}


def _tables(connection: sqlite3.Connection, schema: str) -> set[str]:
    return {str(row[0]) for row in connection.execute(_TABLES.format(schema))}


def _table(connection: sqlite3.Connection, name: str, *, is_here: bool, is_there: bool) -> dict[str, Any]:
    if not (is_here and is_there):
        count = _count(connection, f"SELECT 1 FROM {'main' if is_here else 'backup'}.{_quoted(name)}")  # noqa: S608
        return _found(name, missing=count if is_here else 0, changed=0, returning=0 if is_here else count)
    columns, keys = _columns(connection, "main", name)
    others, _ = _columns(connection, "backup", name)
    shared = [column for column in columns if column in others]
    known_by = keys if keys and set(keys) <= set(shared) else shared
    missing = _surplus(connection, "main", "backup", name, known_by)
    differing = missing if known_by is shared else _surplus(connection, "main", "backup", name, shared)
    return _found(
        name,
        missing=missing,
        changed=max(0, differing - missing),
        returning=_surplus(connection, "backup", "main", name, known_by),
    )


def _surplus(connection: sqlite3.Connection, one: str, other: str, name: str, columns: list[str]) -> int:
    """How many rows more one has than the other, of each content: byte by byte, whatever a collation calls equal."""
    told = " || ',' || ".join(f"quote({_quoted(column)})" for column in columns) or "''"
    table = _quoted(name)
    query = (
        f"WITH a AS (SELECT {told} AS told, count(*) AS n FROM {one}.{table} GROUP BY 1),"  # noqa: S608
        f" b AS (SELECT {told} AS told, count(*) AS n FROM {other}.{table} GROUP BY 1)"
        " SELECT total(max(a.n - ifnull(b.n, 0), 0)) FROM a LEFT JOIN b ON a.told = b.told"
    )
    return int(connection.execute(query).fetchone()[0])


def _found(name: str, *, missing: int, changed: int, returning: int) -> dict[str, Any]:
    return {"table": name, "missing": missing, "changed": changed, "returning": returning}


def _columns(connection: sqlite3.Connection, schema: str, name: str) -> tuple[list[str], list[str]]:
    """All columns, and those of the primary key."""
    rows = connection.execute(f"PRAGMA {schema}.table_info({_quoted(name)})").fetchall()
    return [str(row[1]) for row in rows], [str(row[1]) for row in rows if row[5]]


def _count(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM ({query})").fetchone()[0])  # noqa: S608


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _quoted_path(path: str) -> str:
    """The path as an SQLite URI wants it."""
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


if __name__ == "__main__":
    print(json.dumps(compare(*sys.argv[1:])))  # noqa: T201
