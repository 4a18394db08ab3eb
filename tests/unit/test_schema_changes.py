"""What a migration changed, seen by two looks at real SQLite files: schema, rows and NULLs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bulletproof.domain.schema import Count, Schema, differences, null_counts, row_counts
from bulletproof.effects.sqlite_census import census

PARENT = "CREATE TABLE p (id INTEGER PRIMARY KEY)"


def look(file: Path, *statements: str) -> Schema:
    """The schema of a database that these statements made."""
    with closing(sqlite3.connect(file)) as connection, connection:
        for statement in statements:
            connection.execute(statement)
    return census(file)


def changes(folder: Path, before: tuple[str, ...], after: tuple[str, ...]) -> list[str]:
    """What is different between two databases, in words."""
    return [change.words for change in differences(look(folder / "a.db", *before), look(folder / "b.db", *after))]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("(a INT)", "(a TEXT)", "changes column t.a: INT becomes TEXT"),
        ("(a INT)", "(a INT NOT NULL)", "changes column t.a: INT becomes INT NOT NULL"),
        ("(a INT)", "(a INT DEFAULT 3)", "changes column t.a: INT becomes INT DEFAULT 3"),
        ("(a INT)", "(a INT PRIMARY KEY)", "changes column t.a: INT becomes INT PRIMARY KEY"),
        ("(a INT)", "(a INT UNIQUE)", "adds constraint to t: unique (a)"),
        ("(a INT, b INT, UNIQUE (a, b))", "(a INT, b INT)", "drops constraint of t: unique (a, b)"),
        ("(a INT)", "(a INT CHECK (a > (0)))", "adds constraint to t: check(a >(0))"),
        ("(a INT)", "(a INT, CONSTRAINT big CHECK (a < 9))", "adds constraint to t: check(a < 9)"),
        (
            "(a INT)",
            "(a INT REFERENCES p (id) ON DELETE CASCADE)",
            "adds constraint to t: foreign key (a) references p (id) on delete cascade",
        ),
    ],
)
def test_a_table_is_changed(tmp_path: Path, before: str, after: str, words: str) -> None:
    """Types, nullability, defaults, keys, unique, check and foreign key constraints are all seen."""
    assert changes(tmp_path, (PARENT, f"CREATE TABLE t {before}"), (PARENT, f"CREATE TABLE t {after}")) == [words]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("(a INT UNIQUE)", "(a INT, UNIQUE (a))"),
        ("(a INT REFERENCES p (id))", '("a" INT, FOREIGN KEY (a) REFERENCES p (id))'),
        ("(a TEXT DEFAULT 'CHECK (')", "(\"a\" TEXT DEFAULT 'CHECK (')"),
    ],
)
def test_the_same_written_otherwise_is_no_change(tmp_path: Path, one: str, other: str) -> None:
    """A constraint is the same at the column and at the table, and a word in quotes is none."""
    assert changes(tmp_path, (PARENT, f"CREATE TABLE t {one}"), (PARENT, f"CREATE TABLE t {other}")) == []


def test_the_order_of_a_key_of_several_columns_counts(tmp_path: Path) -> None:
    """(a, b) and (b, a) are two keys."""
    tables = (f"CREATE TABLE t (a INT, b INT, PRIMARY KEY {key})" for key in ("(a, b)", "(b, a)"))

    assert changes(tmp_path, *((table,) for table in tables)) == [
        "drops constraint of t: primary key (a, b)",
        "adds constraint to t: primary key (b, a)",
    ]


def test_indexes_triggers_and_views(tmp_path: Path) -> None:
    """They are told with what they are on; a view by its name."""
    table = "CREATE TABLE t (a INT, b INT)"
    more = (
        'CREATE UNIQUE INDEX ux ON t (a, "b")',
        "CREATE TRIGGER tr AFTER INSERT ON t BEGIN SELECT 1; END",
        "CREATE VIEW v AS SELECT a FROM t",
    )

    assert changes(tmp_path, (table,), (table, *more)) == [
        "adds unique index ux on t(a,b)",
        "adds trigger tr on t",
        "adds view v",
    ]


def test_rows_and_nulls_are_counted(tmp_path: Path) -> None:
    """Each table's rows before and after, and the NULLs of columns that stay where they are others."""
    before = look(
        tmp_path / "a.db", "CREATE TABLE t (a, b)", "INSERT INTO t VALUES (1, 2), (3, 4)", "CREATE TABLE old (a)"
    )
    after = look(tmp_path / "b.db", "CREATE TABLE t (a, c)", "INSERT INTO t VALUES (NULL, 2), (3, NULL), (NULL, 1)")

    assert row_counts(before, after) == (Count(name="old", before=0, after=None), Count(name="t", before=2, after=3))
    assert null_counts(before, after) == (Count(name="t.a", before=0, after=2),)
    assert [(change.words, change.lost) for change in differences(before, after) if change.is_destructive] == [
        ("drops column t.b: 2 non-null values", 2),
        ("empties 1 values of t.a", 1),
    ]


@pytest.mark.parametrize("table", ["django_migrations", "alembic_version"])
def test_the_notes_of_migrations_are_nobodys_data(tmp_path: Path, table: str) -> None:
    """A down migration takes its note back, which is no loss; of any other table a missing row is one."""
    made = f"CREATE TABLE {table} (name TEXT)"
    assert changes(tmp_path, (made, f"INSERT INTO {table} VALUES ('0002')"), (made,)) == []
    other = "CREATE TABLE notes (name TEXT)"
    (tmp_path / "b").mkdir()
    assert changes(tmp_path / "b", (other, "INSERT INTO notes VALUES ('0002')"), (other,)) == [
        "removes 1 of 1 rows of notes"
    ]


def test_a_check_with_a_function(tmp_path: Path) -> None:
    """A JSONField of Django is checked by JSON_VALID, with which its table is read like any other."""
    json = "CREATE TABLE t (a TEXT CHECK (JSON_VALID(a) OR a IS NULL))"
    schema = look(tmp_path / "one.db", json, "INSERT INTO t VALUES ('[]')")
    assert schema.tables["t"].values == {"a": 1}
