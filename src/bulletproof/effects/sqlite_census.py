"""Looks through a copy of a database: its schema, its rows, and how many values each column has."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from bulletproof.domain.schema import Column, Schema, Table, normal

_CONSTRAINT = re.compile(r"\b(?:CHECK|UNIQUE|FOREIGN KEY|REFERENCES)\b.*", re.IGNORECASE)


def census(file: Path) -> Schema:
    """Everything that a comparison needs to know; no schema when there is no file.

    Only for a copy that nobody writes to: it reads every row. Raises sqlite3.Error.
    """
    if not file.exists():
        return Schema(tables={})
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA trusted_schema = OFF")
        entries = connection.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
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
        constraints=frozenset(_constraints(sql)),
        rows=rows,
        values=dict(zip(columns, values, strict=True)),
    )


def _constraints(sql: str) -> list[str]:
    """The parts of a table's SQL that say what its rows must keep to."""
    found = (_CONSTRAINT.search(part) for part in _parts(sql[sql.find("(") + 1 : sql.rfind(")")]))
    return [normal(match.group(0)) for match in found if match]


def _parts(text: str) -> list[str]:
    """Split at the commas that stand in no parenthesis and no quotes."""
    parts, depth, quote, begun = [], 0, "", 0
    for index, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"`":
            quote = letter
        elif letter in "()":
            depth += 1 if letter == "(" else -1
        elif letter == "," and not depth:
            parts.append(text[begun:index])
            begun = index + 1
    return [*parts, text[begun:]]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
