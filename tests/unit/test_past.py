"""Which migration a database is at, told by its schema: exactly one match, several, or none and what is apart."""

from __future__ import annotations

from bulletproof.domain.past import Replay, Stage
from bulletproof.domain.schema import Schema
from bulletproof.effects.sqlite_census import census_of

_NOTE = "CREATE TABLE alembic_version (version_num VARCHAR(32))"
_USER = "CREATE TABLE user (id INTEGER PRIMARY KEY, name VARCHAR(80))"
_MAILED = "CREATE TABLE user (id INTEGER PRIMARY KEY, name VARCHAR(80), mail TEXT)"
_INDEX = "CREATE INDEX ix_user_name ON user (name)"


def _schema(*statements: str) -> Schema:
    return census_of(statements)


def _replay(*schemas: Schema) -> Replay:
    stages = (
        Stage(revision=f"000{number}", heads=(f"000{number}",), schema=one) for number, one in enumerate(schemas, 1)
    )
    return Replay(stages=tuple(stages))


MIGRATED = _replay(_schema(_NOTE, _USER), _schema(_NOTE, _USER, _INDEX), _schema(_NOTE, _MAILED, _INDEX))


def test_one_stage_equals_the_database() -> None:
    """Columns in any order, rows and the migrations' own notes do not matter; all else does."""
    (stage,) = MIGRATED.matches(
        _schema(
            "CREATE TABLE user (name varchar(80), id INTEGER PRIMARY KEY, mail TEXT)",
            "INSERT INTO user (name) VALUES ('ada')",
            _INDEX,
        )
    )
    assert stage.heads == ("0003",)
    assert MIGRATED.done_at(stage) == {"0001", "0002", "0003"}


def test_a_migration_of_data_leaves_two_that_are_alike() -> None:
    """Nobody can tell by the schema whether it was done."""
    alike = _replay(_schema(_USER), _schema(_USER))
    assert [stage.revision for stage in alike.matches(_schema(_USER))] == ["0001", "0002"]


def test_the_nearest_is_told_with_what_is_apart() -> None:
    """An index that is missing is a mismatch, and the stage with the fewest differences is the nearest."""
    live = _schema(_MAILED)
    nearest = MIGRATED.nearest(live)
    assert MIGRATED.matches(live) == ()
    assert nearest is not None
    assert nearest.revision == "0003"
    assert [change.words for change in MIGRATED.apart(nearest, live)] == ["drops index ix_user_name"]
    assert Replay(stages=()).nearest(live) is None


def test_what_is_noted_is_looked_up_by_all_its_heads() -> None:
    """A database of two branches notes two."""
    merged = Replay(stages=(Stage(revision="b", heads=("a", "b"), schema=_schema()),))
    assert merged.noted_as(("b", "a")) is merged.stages[0]
    assert merged.noted_as(("a",)) is None


def test_a_virtual_table_that_cannot_be_made_here_is_left_out() -> None:
    """What a release's SQLite knows, ours need not."""
    assert set(_schema("CREATE VIRTUAL TABLE found USING nothing_known(x)", _USER).tables) == {"user"}
