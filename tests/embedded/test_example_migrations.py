"""The example's releases migrate a database with rows in it, there and back, with the tools that a person types."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bulletproof.demo.traffic import Load
from bulletproof.demo.users import paced_questions
from bulletproof.domain.source import Source
from bulletproof.effects.source import lay_source
from workshop import git

pytestmark = pytest.mark.xdist_group("example")

HEADS = {"v2": "0001", "v3": "0002", "v4-expand": "0003", "v4-contract": "0004", "destructive": "0005"}
"""Where each good release's migrations end."""
TIMEOUT_SECONDS = 60
CHARTS = (
    ("Tea", "[1, 2.5, -3]", "2026-01-02 03:04:05.000006"),
    ("Cups of coffee, Monday to Sunday", "[3, 4, 2, 5, 6, 1, 1]", "2026-01-02 03:04:06.000007"),
    ("Milk", "[0]", "2026-01-02 03:04:07.000008"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A database, and the releases that migrate it; they lie in `sources`, where Python keeps what it compiled."""

    project: Path
    sources: Path
    database: Path

    def start(self, tag: str, *words: str) -> subprocess.Popen[str]:
        """`flask db …` with the release's code, as it starts."""
        return subprocess.Popen(
            (sys.executable, "-m", "flask", "--app", "run", "db", *words),
            cwd=self._source(tag),
            env={**os.environ, "SECRET_KEY": "only for tests", "DATABASE_URL": f"sqlite:///{self.database}"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, tag: str, *words: str) -> tuple[int, str]:
        """The same to its end: the exit status and what it said."""
        with self.start(tag, *words) as command:
            try:
                _, said = command.communicate(timeout=TIMEOUT_SECONDS)
            finally:
                command.kill()
        return command.returncode, said

    def must(self, tag: str, *words: str) -> None:
        """The same, and it has to work."""
        status, said = self.run(tag, *words)
        assert status == 0, said

    def sql(self, statement: str, *rows: tuple[object, ...]) -> list[tuple[object, ...]]:
        """Run a statement, once or for each row."""
        with closing(sqlite3.connect(self.database)) as connection, connection:
            return connection.executemany(statement, rows).fetchall() if rows else list(connection.execute(statement))

    def version(self) -> str:
        """The revision that the database says it has."""
        [(version,)] = self.sql("SELECT version_num FROM alembic_version")
        return str(version)

    def schema(self) -> list[tuple[object, ...]]:
        """Every table and index."""
        return self.sql("SELECT name, sql FROM sqlite_master ORDER BY name")

    def users_and_charts(self) -> list[tuple[object, ...]]:
        """What v1 knows of them, in the order in which they were made."""
        users = self.sql('SELECT id, username, password_hash FROM "user" ORDER BY id')
        return users + self.sql("SELECT id, owner_id, title, numbers, created FROM chart ORDER BY id")

    def _source(self, tag: str) -> Path:
        source = self.sources / tag
        if not source.exists():
            lay_source(Source(folder=self.project, revision=git(self.project, "rev-parse", tag)), source)
        return source


@pytest.fixture(scope="module")
def at_v1(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Example:
    """A database as v1 left it, with two users and their charts."""
    folder = tmp_path_factory.mktemp("example")
    made = Example(project=project, sources=folder / "sources", database=folder / "app.db")
    made.sources.mkdir()
    made.must("v1", "upgrade")
    made.sql('INSERT INTO "user" (username, password_hash) VALUES (?, ?)', ("ann", "scrypt:1"), ("bob", "scrypt:2"))
    store_charts(made, CHARTS)
    with closing(sqlite3.connect(made.database)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")  # so that the one file is all of it
    return made


@pytest.fixture
def example(at_v1: Example, tmp_path: Path) -> Example:
    """The same with a database of its own."""
    return replace(at_v1, database=Path(shutil.copy(at_v1.database, tmp_path / "app.db")))


def store_charts(example: Example, charts: tuple[tuple[str, str, str], ...]) -> None:
    """Store charts as v1 and v2 do, in turn for each user."""
    rows = [(1 + number % 2, *chart) for number, chart in enumerate(charts)]
    example.sql("INSERT INTO chart (owner_id, title, numbers, created) VALUES (?, ?, ?, ?)", *rows)


def traffic_charts(name: str) -> Iterator[tuple[str, str, str]]:
    """The charts that one user of the demonstration's traffic stores, for ever."""
    for question in paced_questions(name, write_share=Load().write_share, first=0):
        if question.body:
            sent = json.loads(question.body)
            yield sent["title"], json.dumps(sent["numbers"]), "2026-01-02 03:04:05.000006"


def test_the_line_of_good_releases_keeps_every_row_there_and_back(example: Example) -> None:
    """Each upgrade reaches its release's head, each downgrade the schema before it, and no row is ever altered."""
    line = ("v2", "v3", "v4-expand", "v4-contract")
    schemas, rows = {"v2": example.schema()}, example.users_and_charts()
    for tag in line[1:]:
        example.must(tag, "upgrade")
        assert (example.version(), example.users_and_charts()) == (HEADS[tag], rows)
        schemas[tag] = example.schema()
    assert example.sql("SELECT points FROM chart ORDER BY id") == [(3,), (7,), (1,)]
    assert example.sql('SELECT username, display_name FROM "user" ORDER BY id') == [("ann", "ann"), ("bob", "bob")]
    rows = store_as_the_contract_does(example, rows)

    for tag, older in itertools.pairwise(reversed(line)):
        example.must(tag, "downgrade")
        assert (example.version(), example.users_and_charts()) == (HEADS[older], rows)
        assert columns(example.schema()) == columns(schemas[older])


def store_as_the_contract_does(example: Example, rows: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Store a user without a username, and a chart; returns what v1 has to know of all of them."""
    example.sql('INSERT INTO "user" (display_name, password_hash) VALUES (?, ?)', ("cid", "scrypt:3"))
    chart = (3, "Rain", "[7, 8]", "2026-02-03 04:05:06.000007")
    example.sql("INSERT INTO chart (owner_id, title, numbers, created, points) VALUES (?, ?, ?, ?, ?)", (*chart, 2))
    return [*rows[:2], (3, "cid", "scrypt:3"), *rows[2:], (4, *chart)]


def columns(schema: list[tuple[object, ...]]) -> dict[object, list[str]]:
    """The lines of each table, in any order: a rebuilt table spells the same schema another way."""
    return {name: sorted(" ".join(str(sql).replace('"', "").split()).split(", ")) for name, sql in schema}


def test_destructive_comes_from_v1_at_once_and_has_no_way_back(example: Example) -> None:
    """All five migrations in one go keep the rows but for the dates; the way back refuses and changes nothing."""
    example.must("destructive", "upgrade")
    before = example.schema()
    assert "created" not in str(before)
    charts = example.sql("SELECT title, numbers, points FROM chart ORDER BY id")
    assert charts == [(title, numbers, len(json.loads(numbers))) for title, numbers, _ in CHARTS]
    assert example.sql('SELECT display_name FROM "user" ORDER BY id') == [("ann",), ("bob",)]

    status, said = example.run("destructive", "downgrade")

    assert status == 1
    assert "Only a backup has it." in said
    assert (example.version(), example.schema()) == (HEADS["destructive"], before)


def test_migration_fails_on_the_data_of_the_traffic(example: Example) -> None:
    """Two charts of the demonstration's traffic are enough: the third step fails, the first one stays behind."""
    store_charts(example, tuple(itertools.islice(traffic_charts("3fa9c1-0"), 1)))
    store_charts(example, tuple(itertools.islice(traffic_charts("3fa9c1-1"), 1)))
    before = example.users_and_charts()

    status, said = example.run("migration-fails", "upgrade")

    assert status == 1
    assert "UNIQUE constraint failed: chart.short_name" in said
    assert example.version() == HEADS["v2"]
    assert example.users_and_charts() == before
    assert "short_name" in str(example.sql("SELECT sql FROM sqlite_master WHERE name = 'chart'"))


def test_migration_fails_works_on_a_developers_data(example: Example) -> None:
    """Where no two titles begin alike the same migration works, there and back: only real data shows it."""
    before = example.users_and_charts()

    example.must("migration-fails", "upgrade")

    assert example.sql("SELECT short_name FROM chart ORDER BY id") == [("Tea",), ("Cups of ",), ("Milk",)]
    example.must("migration-fails", "downgrade")
    assert example.users_and_charts() == before


def test_migration_too_slow_takes_longer_than_a_demonstration_waits(example: Example) -> None:
    """It makes its index and then goes on for long, without an error."""
    with example.start("migration-too-slow", "upgrade") as command:
        try:
            eventually(lambda: "ix_chart_created" in str(example.schema()))
            with pytest.raises(subprocess.TimeoutExpired):
                command.wait(5)
        finally:
            command.kill()


def test_boot_migrates_does_it_when_the_app_is_loaded(example: Example) -> None:
    """Whatever loads the app migrates; here a command that only asks."""
    before = example.users_and_charts()

    example.must("boot-migrates", "current")

    assert example.version() == "0002_at_boot"
    assert example.users_and_charts() == before


def eventually(is_true: Callable[[], bool]) -> None:
    """Wait until it is true, and fail when it takes too long."""
    ends = time.monotonic() + TIMEOUT_SECONDS
    while not is_true():
        assert time.monotonic() < ends
        time.sleep(0.1)
