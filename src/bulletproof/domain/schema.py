"""What a migration does to a database: its schema before and after, its rows, and what is lost, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import msgspec

NOTES = {"alembic_version", "django_migrations"}
"""Tables that migrations are noted in: their rows come and go with those, and nobody else made them."""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A column as SQLite tells it."""

    type: str
    is_required: bool = False
    default: str | None = None
    is_key: bool = False

    def __str__(self) -> str:
        default = f" DEFAULT {self.default}" if self.default is not None else ""
        key = " PRIMARY KEY" if self.is_key else ""
        return f"{self.type or 'no type'}{' NOT NULL' if self.is_required else ''}{default}{key}"


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table, and what a look through its rows found."""

    columns: Mapping[str, Column]
    constraints: frozenset[str] = frozenset()
    """Foreign keys, unique and check constraints, and primary keys of several columns, in normal form."""
    rows: int = 0
    values: Mapping[str, int] = msgspec.field(default_factory=dict)
    """How many rows have a value in the column that is not NULL."""

    def nulls(self, column: str) -> int:
        """How many rows have none."""
        return self.rows - self.values.get(column, 0)


class Schema(msgspec.Struct, frozen=True, kw_only=True):
    """A database's tables, and the SQL of its indexes, views and triggers in normal form."""

    tables: Mapping[str, Table]
    others: Mapping[str, str] = msgspec.field(default_factory=dict)
    """`index user_name`, `view active`, `trigger stamp` to their SQL."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference; `lost` counts values or rows that are not there afterwards."""

    words: str
    lost: int = 0
    is_data: bool = False
    """Whether only rows and values differ, and the schema does not."""

    @property
    def is_destructive(self) -> bool:
        """Whether something that users made is gone."""
        return self.lost > 0


def normal(sql: str) -> str:
    """SQL without what does not matter: space, case of keywords as written, quotes around plain names."""
    return re.sub(r"\s*([(),=])\s*", r"\1", re.sub(r"\s+", " ", re.sub(r'["`\[\]]', "", sql))).strip().lower()


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """How many there were and are: rows of a table, or NULLs of a column; None where it did or does not exist."""

    name: str
    before: int | None
    after: int | None


def row_counts(before: Schema, after: Schema) -> tuple[Count, ...]:
    """The rows of every table, by its name."""
    return tuple(
        Count(name=name, before=_rows_of(before, name), after=_rows_of(after, name))
        for name in sorted(before.tables.keys() | after.tables.keys())
    )


def null_counts(before: Schema, after: Schema) -> tuple[Count, ...]:
    """The NULLs of every column that stays and has another number of them, by table and column."""
    both = [(name, before.tables[name], after.tables[name]) for name in sorted(before.tables.keys() & after.tables)]
    counts = (
        Count(name=f"{name}.{column}", before=old.nulls(column), after=new.nulls(column))
        for name, old, new in both
        for column in old.columns
        if column in new.columns
    )
    return tuple(count for count in counts if count.before != count.after)


def _rows_of(schema: Schema, table: str) -> int | None:
    found = schema.tables.get(table)
    return None if found is None else found.rows


def differences(before: Schema, after: Schema) -> tuple[Change, ...]:
    """Every difference between two looks at a database, tables first, in the order of their names."""
    return (*_tables(before, after), *_others(before, after))


def _tables(before: Schema, after: Schema) -> Iterator[Change]:
    for name in sorted(before.tables.keys() | after.tables.keys()):
        old, new = before.tables.get(name), after.tables.get(name)
        if old is None and new is not None:
            yield Change(words=f"adds table {name} ({', '.join(new.columns)}){_rows(new.rows)}")
        elif new is None and old is not None:
            yield Change(words=f"drops table {name}: {old.rows:,} rows", lost=old.rows)
        elif old is not None and new is not None:
            yield from _columns(name, old, new)
            yield from _contents(name, old, new)


def _columns(table: str, old: Table, new: Table) -> Iterator[Change]:
    for name in [*old.columns, *(column for column in new.columns if column not in old.columns)]:
        was, now = old.columns.get(name), new.columns.get(name)
        if was is None:
            yield Change(words=f"adds column {table}.{name} {now}")
        elif now is None:
            lost = old.values.get(name, 0)
            yield Change(words=f"drops column {table}.{name}: {lost:,} non-null values", lost=lost)
        elif was != now:
            yield Change(words=f"changes column {table}.{name}: {was} becomes {now}")
    for constraint in sorted(old.constraints - new.constraints):
        yield Change(words=f"drops constraint of {table}: {constraint}")
    for constraint in sorted(new.constraints - old.constraints):
        yield Change(words=f"adds constraint to {table}: {constraint}")


def _contents(table: str, old: Table, new: Table) -> Iterator[Change]:
    if table in NOTES:
        return
    if new.rows < old.rows:
        gone = old.rows - new.rows
        yield Change(words=f"removes {gone:,} of {old.rows:,} rows of {table}", lost=gone, is_data=True)
    elif new.rows > old.rows:
        yield Change(words=f"adds {new.rows - old.rows:,} rows to {table}", is_data=True)
    for name in [column for column in old.columns if column in new.columns]:
        # Rows that are gone are counted as rows; here only values that vanished from rows that stayed.
        gone = old.values.get(name, 0) - new.values.get(name, 0) - max(0, old.rows - new.rows)
        if gone > 0:
            yield Change(words=f"empties {gone:,} values of {table}.{name}", lost=gone, is_data=True)


def _others(before: Schema, after: Schema) -> Iterator[Change]:
    for name in sorted(before.others.keys() | after.others.keys()):
        old, new = before.others.get(name), after.others.get(name)
        if new is None:
            yield Change(words=f"drops {name}")
        elif old is None:
            yield Change(words=f"adds {_described(name, new)}")
        elif old != new:
            yield Change(words=f"changes {_described(name, new)}")


def _described(name: str, sql: str) -> str:
    """An index or trigger with what it is on; a view's SQL would be too long to read."""
    kind = name.partition(" ")[0]
    found = re.match(rf"create (unique )?{kind} (?:if not exists )?\S+ (?:.*?)\bon ([^(\s]+(?:\([^)]*\))?)", sql)
    if found is None or kind == "view":
        return name
    return f"{found[1] or ''}{name} on {found[2]}"


def _rows(count: int) -> str:
    return f" with {count:,} rows" if count else ""
