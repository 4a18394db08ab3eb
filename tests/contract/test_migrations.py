"""Migrations as they are run on a copy: all of it or nothing, nothing lost on the way, there and back."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace

from bulletproof.adapters.inside import __file__ as inside
from bulletproof.adapters.migrators.compare import Graph, Models, Revision, misfits
from bulletproof.domain.config import AppConfig, Migrations
from bulletproof.domain.schema import Column, Schema, Table
from bulletproof.effects.process import Completed, run
from bulletproof.effects.sqlite_census import census
from bulletproof.errors import StepFailed
from bulletproof.ports import Command, Manifest
from migrating import PLAIN_ENV, House, app_source, lay_alembic, lay_flask_migrate, line, model, revision

MIGRATE, ANSWER = Path(inside).with_name("migrate.py"), Path(inside).with_name("answer.py")
USERS = """
CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY);
INSERT INTO alembic_version VALUES ('c3');
CREATE TABLE user (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
INSERT INTO user VALUES (1, 'Ada'), (2, 'Ada'), (3, 'Grace');
"""
FAMILY = f"""
{USERS}
CREATE TABLE post (id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE);
INSERT INTO post VALUES (1, 1), (2, 1), (3, 3);
"""
FOREIGN_KEYS_ON = """
from sqlalchemy import event
from sqlalchemy.engine import Engine

@event.listens_for(Engine, "connect")
def turn_foreign_keys_on(connection, _):
    connection.execute("PRAGMA foreign_keys = ON")
"""
STEPS = (
    'op.add_column("user", sa.Column("nick", sa.String(80)))',
    'op.create_table("tag", sa.Column("id", sa.Integer, primary_key=True))',
    'op.execute("UPDATE user SET nick = lower(name)")',
)
FAILS = 'op.create_index("one_name", "user", ["name"], unique=True)'
REBUILDS = """with op.batch_alter_table("user") as batch:
        batch.alter_column("name", existing_type=sa.Text(), type_=sa.String(80))"""


def needed(command: Command | None) -> Command:
    """Give the command that there must be."""
    assert command is not None
    return command


def done(command: Command | None, **environment: str) -> Completed:
    """Run what a migrator gave, as it would be run where the live path leads to a copy."""
    command = needed(command)
    return run(
        command.argv, folder=command.folder, environment={**command.environment, **environment}, timeout_seconds=60
    )


def plainly(command: Command | None, shell: str) -> Completed:
    """Do the same as a person would, in a shell."""
    command = needed(command)
    return run(("/bin/sh", "-c", shell), folder=command.folder, environment=command.environment, timeout_seconds=60)


def upgrading(house: House, *steps: str, app: str = "", before: str = USERS) -> tuple[Manifest, Command]:
    """Lay users and a release whose one pending migration takes these steps, and give what runs it."""
    house.sql(before)
    second = revision("a1", "second", "c3", upgrade="\n    ".join(steps))
    manifest = house.migrating("1", {"c3": revision("c3", "first"), "a1": second}, app=app_source(models=app))
    return manifest, needed(house.migrator.upgrade(manifest, house.settings))


def rows(house: House, query: str) -> list[tuple[object, ...]]:
    """Ask the live database."""
    with contextlib.closing(sqlite3.connect(house.file)) as connection:
        return connection.execute(query).fetchall()


def noted(house: House) -> list[tuple[object, ...]]:
    """Give the revisions that Alembic noted."""
    return rows(house, "SELECT version_num FROM alembic_version")


class TestUpgrade:
    """What brings a database to where a release needs it."""

    @pytest.mark.parametrize("lay", [lay_flask_migrate, lay_alembic])
    def test_rows_stay(self, house: House, lay: type) -> None:
        """A database with rows is at the head afterwards, and its rows are where they were."""
        house.migrator.create(lay(house, 1), house.settings)
        house.sql("INSERT INTO table_0 VALUES (7)")
        newest = lay(house, 3)
        command = needed(house.migrator.upgrade(newest, house.settings))

        assert done(command).status == 0
        assert house.state(newest).fits
        assert rows(house, "SELECT * FROM table_0") == [(7,)]
        assert command.words in {"flask db upgrade", "alembic -c alembic.ini upgrade head"}
        assert command.reads == (MIGRATE,)
        assert command.environment["DATABASE_URL"] == f"sqlite:///{house.file}"

    def test_the_database_is_in_the_environment_alone(self, house: House, tmp_path: Path) -> None:
        """Told of another file, the command changes that one and not the live one."""
        _, command = upgrading(house, *STEPS)
        before, copy = house.dump(), tmp_path / "copy.db"
        copy.write_bytes(house.file.read_bytes())

        assert done(command, DATABASE_URL=f"sqlite:///{copy}").status == 0
        assert house.dump() == before
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("SELECT nick FROM user").fetchall() == [("ada",), ("ada",), ("grace",)]

    @pytest.mark.parametrize("at", range(4))
    def test_a_failure_leaves_nothing(self, house: House, at: int) -> None:
        """Whichever operation fails, schema, rows and note are as they were, and the error is told."""
        _, command = upgrading(house, *STEPS[:at], FAILS, *STEPS[at:])
        before = house.dump()
        completed = done(command)

        assert completed.status != 0
        assert "UNIQUE constraint failed: user.name" in completed.errors
        assert house.dump() == before

    def test_what_plain_alembic_leaves(self, house: House) -> None:
        """The same by `flask db upgrade` leaves half of it, which no second run can finish."""
        _, command = upgrading(house, *STEPS, FAILS)
        assert plainly(command, "flask db upgrade").status != 0

        assert noted(house) == [("c3",)]
        assert [name for _, name, *_ in rows(house, "PRAGMA table_info(user)")] == ["id", "name", "nick"]
        house.sql("UPDATE user SET name = name || id")
        assert "duplicate column name: nick" in plainly(command, "flask db upgrade").errors

    def test_a_failure_of_a_later_migration(self, house: House) -> None:
        """Migrations that went well before one that fails leave nothing either; mended, all of them run."""
        manifest, command = upgrading(house, *STEPS)
        third = house.layout.source("1") / "migrations" / "versions" / "b2.py"
        third.write_text(revision("b2", "third", "a1", upgrade=FAILS))
        command = needed(house.migrator.upgrade(manifest, house.settings))
        before = house.dump()

        assert done(command).status != 0
        assert house.dump() == before
        house.sql("UPDATE user SET name = name || id")
        assert done(command).status == 0
        assert noted(house) == [("b2",)]

    def test_the_way_of_the_guide(self, house: House) -> None:
        """`upgrade || (stamp head && upgrade)` reports success over a broken schema; here nothing is ever stamped."""
        manifest, command = upgrading(house, *STEPS, FAILS)
        before = house.dump()
        assert done(command).status != 0
        assert house.dump() == before

        naive = "flask db upgrade || (flask db stamp head && flask db upgrade)"
        assert plainly(command, naive).status == 0
        assert house.state(manifest).fits
        assert rows(house, "SELECT nick FROM user") == [(None,), (None,), (None,)]
        assert not rows(house, "SELECT * FROM sqlite_master WHERE name = 'one_name'")

    def test_an_app_that_never_ends(self, house: House) -> None:
        """Threads that an app starts and never ends do not keep the migration from ending."""
        app = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()"
        completed = done(upgrading(house, *STEPS, app=app)[1])

        assert completed.status == 0
        assert "the app prints what it likes" in completed.output
        assert noted(house) == [("a1",)]

    def test_another_connection(self, house: House) -> None:
        """A migration that writes by a connection of its own fails, and is told what to do instead."""
        other = f"__import__('sqlite3').connect({str(house.file)!r}, timeout=0.1).execute('DELETE FROM user')"
        completed = done(upgrading(house, other)[1])

        assert completed.status == 1
        assert "op.get_bind()" in completed.errors
        assert len(rows(house, "SELECT * FROM user")) == 3

    def test_an_exit(self, house: House) -> None:
        """A migration that ends the process keeps its exit status or its words, and nothing is left of it."""
        manifest, command = upgrading(house, STEPS[0], "raise SystemExit(7)")
        before = house.dump()
        assert done(command).status == 7
        script = house.layout.source("1") / "migrations" / "versions" / "a1.py"
        script.write_text(revision("a1", "second", "c3", upgrade=f"{STEPS[0]}; raise SystemExit('not today')"))
        completed = done(house.migrator.upgrade(manifest, house.settings))

        assert (completed.status, "not today" in completed.errors) == (1, True)
        assert house.dump() == before


class TestForeignKeys:
    """Rebuilding a table deletes nothing that refers to it, and nothing is left that refers to nothing."""

    def test_children_stay(self, house: House) -> None:
        """A table is rebuilt below its children, which plain Alembic deletes where the app has foreign keys on."""
        _, command = upgrading(house, REBUILDS, app=FOREIGN_KEYS_ON, before=FAMILY)
        copy = house.file.read_bytes()

        assert done(command).status == 0
        assert len(rows(house, "SELECT * FROM post")) == 3
        assert rows(house, "SELECT type FROM pragma_table_info('user') WHERE name = 'name'") == [("VARCHAR(80)",)]
        house.file.write_bytes(copy)
        assert plainly(command, "flask db upgrade").status == 0
        assert rows(house, "SELECT * FROM post") == []

    def test_new_orphans(self, house: House) -> None:
        """A migration after which rows refer to nothing fails and says which, and leaves nothing."""
        _, command = upgrading(house, STEPS[0], 'op.execute("DELETE FROM user WHERE id = 1")', before=FAMILY)
        before = house.dump()
        completed = done(command)

        assert completed.status != 0
        assert "2 rows more: post refers to what is not in user" in completed.errors
        assert house.dump() == before

    def test_old_orphans(self, house: House) -> None:
        """Rows that referred to nothing before do not hinder a migration that makes no more of them."""
        orphans = (
            f"{FAMILY} INSERT INTO post VALUES (4, 77); CREATE TABLE odd (name TEXT REFERENCES user (name));"
            "INSERT INTO odd VALUES ('Ada')"
        )
        _, command = upgrading(house, REBUILDS, before=orphans)
        assert done(command).status == 0

    def test_more_orphans(self, house: House) -> None:
        """Where some referred to nothing before, one more is one too many."""
        orphans = f"{FAMILY} INSERT INTO post VALUES (4, 77)"
        _, command = upgrading(house, 'op.execute("DELETE FROM user WHERE id = 3")', before=orphans)
        assert "1 rows more: post" in done(command).errors
        assert noted(house) == [("c3",)]


BLOCK = "with op.get_context().autocommit_block():\n        {}"


class TestLeaving:
    """Migrations that leave the transaction by themselves: it is said, and goes on."""

    def test_autocommit_block(self, house: House) -> None:
        """What needs to be outside a transaction runs outside, and that is said."""
        _, command = upgrading(house, STEPS[0], BLOCK.format('op.execute("VACUUM")'), *STEPS[1:])
        completed = done(command)

        assert completed.status == 0
        assert "leaves the transaction (autocommit_block)" in completed.errors
        assert "ends the transaction" not in completed.errors
        assert noted(house) == [("a1",)]
        assert rows(house, "SELECT nick FROM user WHERE id = 3") == [("grace",)]

    def test_a_failure_after_a_block(self, house: House) -> None:
        """What comes after the block is a transaction again."""
        _, command = upgrading(house, STEPS[0], BLOCK.format('op.execute("VACUUM")'), STEPS[1], FAILS)
        assert done(command).status != 0
        assert [name for _, name, *_ in rows(house, "PRAGMA table_info(user)")] == ["id", "name", "nick"]
        assert not rows(house, "SELECT * FROM sqlite_master WHERE name = 'tag'")

    @pytest.mark.parametrize(
        ("way", "operation"),
        [
            ('op.execute("COMMIT"); op.execute("BEGIN")', "COMMIT"),
            ('op.execute("end"); op.execute("BEGIN")', "COMMIT"),
            ('op.get_bind().connection.dbapi_connection.executescript("CREATE TABLE extra (id)")', "COMMIT"),
            ('op.execute("ROLLBACK")', "ROLLBACK"),
        ],
    )
    def test_a_commit(self, house: House, way: str, operation: str) -> None:
        """A migration that commits or rolls back by itself is told of."""
        completed = done(upgrading(house, way, *STEPS)[1])

        assert completed.status == 0
        assert f"ends the transaction ({operation})" in completed.errors
        assert noted(house) == [("a1",)]

    def test_a_savepoint(self, house: House) -> None:
        """A savepoint is no end of the transaction, and neither is its failure."""
        steps = (
            "bind = op.get_bind()",
            "with bind.begin_nested():\n        bind.execute(sa.text('DELETE FROM user WHERE id = 3'))",
            "kept = bind.begin_nested(); bind.execute(sa.text('DELETE FROM user')); kept.rollback()",
        )
        completed = done(upgrading(house, *steps)[1])

        assert (completed.status, "ends the transaction" in completed.errors) == (0, False)
        assert rows(house, "SELECT id FROM user") == [(1,), (2,)]


ENV = """
import os
from alembic import context
from sqlalchemy import create_engine, event, text
engine = create_engine(os.environ["DATABASE_URL"])
"""
RUN = """
with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
ENVIRONMENTS = {
    "asks for one transaction each": RUN.replace("(connection=", "(transaction_per_migration=True, connection="),
    "asks for none": RUN.replace("(connection=", "(transactional_ddl=False, connection="),
    "begins by itself": """
with engine.begin() as connection:
    context.configure(connection=connection)
    context.run_migrations()
""",
    "begins nothing": """
with engine.connect() as connection:
    context.configure(connection=connection)
    context.run_migrations()
""",
    "begins when SQLAlchemy does": f"""
@event.listens_for(engine, "connect")
def connect(connection, _):
    connection.isolation_level = None

@event.listens_for(engine, "begin")
def begin(connection):
    connection.exec_driver_sql("BEGIN")
{RUN}""",
    "is asynchronous": """
import asyncio
from sqlalchemy.ext.asyncio import create_async_engine

def migrate(connection):
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()

async def connect():
    engine = create_async_engine(os.environ["DATABASE_URL"].replace("sqlite:", "sqlite+aiosqlite:"))
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()

asyncio.run(connect())
""",
    "commits by itself": """
with engine.connect() as connection:
    connection.execute(text("SELECT 1"))
    context.configure(connection=connection)
    context.run_migrations()
    connection.commit()
""",
    "knows another table": RUN.replace("(connection=", "(version_table='shop_version', connection="),
}


def lay_environment(house: House, env: str, *steps: str) -> Command:
    """Lay an app that knows Alembic alone, whose two migrations need what is in env.py to run."""
    files = {
        "alembic.ini": "[alembic]\nscript_location = %(here)s/db\n",
        "db/env.py": ENV + env,
        "db/versions/c3.py": revision("c3", "first", upgrade=STEPS[1]),
        "db/versions/a1.py": revision("a1", "second", "c3", upgrade="\n    ".join(steps) or "pass"),
    }
    manifest = house.release("1", files, entry="wsgi:app")
    house.sql("CREATE TABLE user (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO user VALUES (1, 'Ada'), (2, 'Ada')")
    return needed(house.migrator.upgrade(manifest, house.settings))


class TestEnvironments:
    """Whatever env.py does about transactions."""

    @pytest.mark.parametrize("env", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
    def test_all_or_nothing(self, house: House, env: str) -> None:
        """All migrations are one transaction; nothing is left when a later one fails, and all is when none does."""
        command = lay_environment(house, env, STEPS[0], FAILS)
        before = house.dump()
        completed = done(command)

        assert completed.status != 0
        assert "UNIQUE constraint failed" in completed.errors
        assert house.dump() == before
        house.sql("UPDATE user SET name = id")
        assert done(command).status == 0
        table = "shop_version" if "shop_version" in env else "alembic_version"
        assert rows(house, f"SELECT version_num FROM {table}") == [("a1",)]

    def test_nobody_commits(self, house: House) -> None:
        """An env.py that begins and never commits leaves nothing and does not pass for a success."""
        env = ENVIRONMENTS["commits by itself"].replace("    connection.commit()\n", "")
        command = lay_environment(house, env, STEPS[0])
        before = house.dump()
        completed = done(command)

        assert completed.status == 1
        assert "notes nothing (no such table: alembic_version), not a1" in completed.errors
        assert house.dump() == before

    def test_an_app_that_looks_at_its_revision(self, house: House) -> None:
        """Another connection of the same engine, which reads and is never closed, does not hinder the migration."""
        looks = """
from alembic.runtime.migration import MigrationContext
looking = engine.connect()
MigrationContext.configure(looking).get_current_revision()
"""
        assert done(lay_environment(house, looks + RUN, STEPS[0])).status == 0
        assert noted(house) == [("a1",)]

    def test_another_connection_that_reads(self, house: House) -> None:
        """What another connection of the engine begins and ends leaves the migrations' transaction alone."""
        reads = "with op.get_bind().engine.connect() as other: other.execute(sa.text('SELECT 1')); other.commit()"
        command = lay_environment(house, RUN, STEPS[0], reads, FAILS)
        before = house.dump()

        assert "UNIQUE constraint failed" in done(command).errors
        assert house.dump() == before

    def test_modules(self, house: House) -> None:
        """env.py finds the app's own modules in the source, and none of ours."""
        finds = "import importlib.util as found\nassert found.find_spec('wsgi') and not found.find_spec('answer')\n"
        command = lay_environment(house, finds + RUN, STEPS[0])
        (command.folder / "wsgi.py").touch()

        assert done(command).status == 0


class TestLayouts:
    """Where migrations may lie."""

    def test_pyproject(self, house: House) -> None:
        """Alembic that is configured in pyproject.toml alone, with two places for versions."""
        files = {
            "pyproject.toml": "[tool.alembic]\nscript_location = '%(here)s/db'\n"
            "version_locations = ['%(here)s/core', '%(here)s/billing']\n",
            "db/env.py": PLAIN_ENV,
            "core/c3.py": line(1)["c3"],
            "billing/a1.py": line(2)["a1"],
        }
        manifest = house.release("1", files, entry="wsgi:app")
        house.sql("CREATE TABLE alembic_version (version_num TEXT)")
        completed = done(house.migrator.upgrade(manifest, house.settings))

        assert completed.status == 0
        assert house.state(manifest).fits
        assert noted(house) == [("a1",)]

    def test_version_locations(self, house: House) -> None:
        """Flask-Migrate with two places for versions, in a folder of another name."""
        manifest = lay_flask_migrate(house, 2)
        migrations = house.layout.source("2") / "migrations"
        ini = (migrations / "alembic.ini").read_text()
        places = "[alembic]\nversion_locations = %(here)s/versions %(here)s/billing\npath_separator = space\n"
        (migrations / "alembic.ini").write_text(ini.replace("[alembic]\n", places))
        (migrations / "billing").mkdir()
        (migrations / "versions" / "a1.py").rename(migrations / "billing" / "a1.py")
        (house.layout.source("2") / "web").mkdir()
        migrations.rename(house.layout.source("2") / "web" / "schema")
        house.sql("CREATE TABLE alembic_version (version_num TEXT)")
        command = needed(house.migrator.upgrade(manifest, house.settings))

        assert command.words == "flask db upgrade --directory web/schema"
        assert done(command).status == 0
        assert house.state(manifest).fits

    def test_several_heads(self, house: House) -> None:
        """Two newest migrations are refused with their names before anything runs."""
        heads = {"b1": revision("b1", "left", "c3"), "b2": revision("b2", "right", "c3")}
        manifest = house.migrating("1", line(1) | heads)
        with pytest.raises(StepFailed, match="b1 left") as caught:
            house.migrator.upgrade(manifest, house.settings)

        assert caught.value.reference == "several-heads"
        assert "b2 right" in caught.value.message


MAKES = """
import os, flask_migrate, sqlite3
sqlite3.connect(os.environ["DATABASE_URL"].removeprefix("sqlite:///")).execute("CREATE TABLE t (a)")
"""


class TestCommand:
    """A command of the app's own."""

    def configured(self, house: House, command: str, name: str = "1") -> Manifest:
        """Lay a release whose configuration names the command, beside migrations that do not count then."""
        files = {"make.py": MAKES, "wsgi.py": app_source(), "alembic.ini": "[alembic]", "migrations/env.py": ""}
        config = AppConfig(name="shop", migrations=Migrations(command=command))
        return replace(house.release(name, files), config=config)

    def test_it(self, house: House) -> None:
        """It is always pending, runs in the source with the release's packages first, and its status counts."""
        own = "test -f make.py && python make.py && exit 3"
        manifest = self.configured(house, own)
        command = needed(house.migrator.upgrade(manifest, house.settings))

        assert (house.state(manifest).tool, house.state(manifest).pending) == ("command", (own,))
        assert (command.words, command.argv, command.reads) == (own, ("/bin/sh", "-c", own), ())
        house.file.parent.mkdir(parents=True)
        assert done(command).status == 3
        assert rows(house, "SELECT name FROM sqlite_master") == [("t",)]
        assert house.migrator.downgrade(manifest, house.settings, manifest) is None

    def test_create(self, house: House) -> None:
        """It makes the first database too, if it has one to make; that it fails is a failure."""
        idle = self.configured(house, "true")
        assert house.migrator.create(idle, house.settings) == "true ended well, and made no database"
        assert house.failure(self.configured(house, "echo no luck >&2; exit 4", "2")).context == ("no luck",)
        own = "python make.py"
        assert house.migrator.create(self.configured(house, own, "3"), house.settings) == f"{own} made 1 tables"


class TestCreateAll:
    """Models alone."""

    def test_it(self, house: House) -> None:
        """Tables that are missing are made beside those that are there."""
        house.sql("CREATE TABLE user (id INTEGER PRIMARY KEY); INSERT INTO user VALUES (1)")
        models = f"{model('user')}\n{model('note')}"
        manifest = house.release("1", {"wsgi.py": app_source(models=models)})
        command = needed(house.migrator.upgrade(manifest, house.settings))

        assert (command.words, command.reads) == ("db.create_all()", (ANSWER,))
        assert done(command).status == 0
        assert house.state(manifest).fits
        assert rows(house, "SELECT * FROM user") == [(1,)]

    def test_an_app_that_does_not_listen(self, house: House) -> None:
        """An app that uses another database than it is told of fails, and says which."""
        app = app_source(models=model("user"), url='"sqlite:////nowhere/else.db"')
        completed = done(house.migrator.upgrade(house.release("1", {"wsgi.py": app}), house.settings))

        assert (completed.status, completed.errors.strip()) == (1, "sqlite:////nowhere/else.db")

    def test_nothing(self, house: House) -> None:
        """A release that has neither migrations nor models has nothing that could be run."""
        manifest = house.release("1", {"wsgi.py": ""}, venv="bare")
        assert house.migrator.upgrade(manifest, house.settings) is None
        assert house.migrator.downgrade(manifest, house.settings, manifest) is None

    def test_another_kind_of_database(self, house: House) -> None:
        """An app whose database is not SQLite's gets no command."""
        manifest = house.release("1", {"wsgi.py": ""})
        with pytest.raises(StepFailed) as caught:
            house.migrator.upgrade(manifest, {"DATABASE_URL": "postgresql://db/shop"})
        assert caught.value.reference == "database-not-supported"


ADDS, DROPS = STEPS[0], 'op.drop_column("user", "nick")'


class TestDowngrade:
    """The way back, by the newer release's own migrations."""

    def back(self, house: House, newer: dict[str, str], older: dict[str, str] | None = None) -> Command | None:
        """Lay an older and a newer release, and ask for the way from one to the other."""
        first = {"c3": revision("c3", "first", upgrade=STEPS[1])}
        old = house.migrating("old", first if older is None else older)
        return house.migrator.downgrade(house.migrating("new", first | newer), house.settings, old)

    @pytest.mark.parametrize("kind", ["flask-migrate", "alembic"])
    def test_there_and_back(self, house: House, kind: str) -> None:
        """After an upgrade and a downgrade everything is as it was, rows and note included."""
        house.sql(USERS)
        migrations = {
            "c3": revision("c3", "first"),
            "a1": revision("a1", "second", "c3", upgrade=ADDS, downgrade=DROPS),
        }
        if kind == "flask-migrate":
            old, new = house.migrating("old", {"c3": migrations["c3"]}), house.migrating("new", migrations)
        else:
            old, new = (self.alembic(house, name, migrations, count) for name, count in (("old", 1), ("new", 2)))
        before = house.dump()

        assert done(house.migrator.upgrade(new, house.settings)).status == 0
        assert house.dump() != before
        command = needed(house.migrator.downgrade(new, house.settings, old))
        assert command.words in {"flask db downgrade c3", "alembic -c alembic.ini downgrade c3"}
        assert done(command).status == 0
        assert house.dump() == before
        assert house.state(old).fits

    def alembic(self, house: House, name: str, migrations: dict[str, str], count: int) -> Manifest:
        """Lay an app that knows Alembic alone."""
        files = {f"db/versions/{one}.py": text for one, text in list(migrations.items())[:count]}
        ini = "[alembic]\nscript_location = %(here)s/db\n"
        return house.release(name, {"alembic.ini": ini, "db/env.py": PLAIN_ENV, **files}, entry="wsgi:app")

    def test_a_failure_leaves_nothing(self, house: House) -> None:
        """A downgrade that fails half-way leaves everything as it was."""
        house.sql(USERS.replace("c3", "a1"))
        command = self.back(house, {"a1": revision("a1", "second", "c3", downgrade=f"{ADDS}; {FAILS}")})
        before = house.dump()

        assert done(command).status != 0
        assert house.dump() == before

    def test_no_downgrade(self, house: House) -> None:
        """A migration that does something and cannot be taken back bars the way, wherever on the way it is."""
        newer = {
            "a1": revision("a1", "second", "c3", upgrade=ADDS),
            "b2": revision("b2", "third", "a1", upgrade=ADDS, downgrade=DROPS),
        }
        assert self.back(house, newer) is None

    def test_what_is_none(self, house: House) -> None:
        """A body that does nothing is no downgrade, and neither is one that raises, whatever it does before."""
        bodies = {
            DROPS: True,
            "pass": False,
            '"""Nothing can bring it back."""': False,
            "...": False,
            "return": False,
            "return None": False,
            "return op.execute('DELETE FROM user')": True,
            "raise NotImplementedError": False,
            f"{DROPS}; raise RuntimeError('no way back')": False,
            "if op.get_bind(): raise RuntimeError('not now')": True,
        }
        revisions = {
            f"r{place}": revision(f"r{place}", "", *([f"r{place - 1}"] if place else ()), upgrade=ADDS, downgrade=body)
            for place, body in enumerate(bodies)
        }
        assert self.reversible(house, revisions) == list(bodies.values())

    def test_nothing_to_take_back(self, house: House) -> None:
        """A migration that does nothing needs no downgrade, but one that raises stays in the way."""
        revisions = {
            "r0": revision("r0", "", upgrade='"""Joins two branches."""', downgrade="pass"),
            "r1": revision("r1", "", "r0", downgrade="raise NotImplementedError"),
        }
        assert self.reversible(house, revisions) == [True, False]

    def reversible(self, house: House, revisions: dict[str, str]) -> list[bool]:
        """Tell of each migration whether it can be taken back."""
        migrator, manifest = house.migrator, house.migrating("1", revisions)
        found = migrator._migrations(migrator._inside(manifest, house.settings))
        assert found is not None
        return [one.is_reversible for one in found.graph.revisions]

    def test_what_is_not_on_the_way(self, house: House) -> None:
        """A migration that the older release has as well is not taken back, so it needs no downgrade."""
        first = {"c3": revision("c3", "first", upgrade=STEPS[1]), "a1": revision("a1", "second", "c3", upgrade=ADDS)}
        assert self.back(house, first, first) is not None

    def test_merged_branches(self, house: House) -> None:
        """A merge does nothing, so nothing must be taken back; to one of its branches there is no way, though."""
        merged = {
            one: revision(one, one, *parents, upgrade=upgrade, downgrade=downgrade)
            for one, parents, upgrade, downgrade in (
                ("a1", ("c3",), ADDS, DROPS),
                ("b2", ("c3",), ADDS, DROPS),
                ("d4", ("a1", "b2"), "pass", "pass"),
            )
        }
        assert self.back(house, merged) is not None
        branch = house.migrating("branch", {"c3": revision("c3", "first"), "a1": merged["a1"]})
        newer = replace(branch, release="new")
        assert house.migrator.downgrade(newer, house.settings, branch) is None

    @pytest.mark.parametrize("older", [{}, {"z9": revision("z9", "of another app")}])
    def test_another_graph(self, house: House, older: dict[str, str]) -> None:
        """There is no way to a release that has no migrations, or none of these."""
        assert self.back(house, {}, older) is None


class TestWayBack:
    """What a downgrade takes back, in a graph."""

    def test_it(self) -> None:
        """Everything after the target, in order, when everything else comes before it."""
        graph = Graph(
            heads=("d",),
            revisions=(
                Revision(revision="a"),
                Revision(revision="b", parents=("a",)),
                Revision(revision="c", parents=("b",)),
                Revision(revision="d", parents=("c", "a")),
            ),
        )
        assert {one: [str(way) for way in graph.way_back(one) or ()] for one in "abcd"} == {
            "a": ["b", "c", "d"],
            "b": ["c", "d"],
            "c": ["d"],
            "d": [],
        }
        assert graph.way_back("d") == ()
        assert graph.way_back("e") is None


KEY = Column(type="INTEGER", is_required=True, is_key=True)
TEXT = Column(type="TEXT", is_required=True)


class TestMisfits:
    """Why an app's models cannot work with a database."""

    @pytest.mark.parametrize(
        ("columns", "words"),
        [
            ({"ID": KEY, "Name": TEXT}, ()),
            ({"id": KEY, "name": TEXT, "age": Column(type="INTEGER")}, ()),
            ({"id": KEY, "name": TEXT, "age": Column(type="INTEGER", is_required=True, default="1")}, ()),
            ({"code": KEY, "id": Column(type="INTEGER"), "name": TEXT}, ()),
            ({"id": KEY}, ("table user lacks column name",)),
            (
                {"id": KEY, "name": TEXT, "age": TEXT},
                ("table user requires column age, which the model does not know",),
            ),
            (
                {
                    "id": Column(type="INTEGER"),
                    "name": TEXT,
                    "code": Column(type="TEXT", is_required=True, is_key=True),
                },
                ("table user requires column code, which the model does not know",),
            ),
            (
                {"id": KEY, "name": TEXT, "part": KEY},
                ("table user requires column part, which the model does not know",),
            ),
        ],
    )
    def test_columns(self, columns: dict[str, Column], words: tuple[str, ...]) -> None:
        """Names have no case; what has a default, or is the row's id, need not be known."""
        models = Models(is_used=True, tables=(("user", ("ID", "name")),))
        schema = Schema(tables={"User": Table(columns=columns), "other": Table(columns={"a": TEXT})})

        assert misfits(models, schema) == words

    def test_tables(self) -> None:
        """A missing table is told; a view may stand for one."""
        models = Models(is_used=True, tables=(("user", ("id",)), ("Recent", ("id",))))
        schema = Schema(tables={}, others={"view recent": "create view", "index user": "create index"})
        assert misfits(models, schema) == ("table user is missing",)

    def test_the_rows_id(self) -> None:
        """A model may name what every table has, as those of full-text searches do."""
        models = Models(is_used=True, tables=(("entry_fts", ("rowid", "title")),))
        assert misfits(models, Schema(tables={"entry_fts": Table(columns={"title": TEXT})})) == ()

    def test_an_app(self, house: House) -> None:
        """A real app is asked; it finds the tables when it boots, and can put rows into them."""
        house.sql(f'{USERS} CREATE TABLE pair (a TEXT, b TEXT, PRIMARY KEY (a, b)); CREATE TABLE "a ""b""" (c);')
        boots = "db.session.add(User(name='admin')); db.session.commit(); assert db.session.query(User).one().id == 1"
        fits = house.release("1", {"wsgi.py": app_source(models=model("user", "name"), at_boot=boots)})
        lacks = house.release("2", {"wsgi.py": app_source(models=f"{model('user')}\n{model('note')}")})
        schema = census(house.file)

        assert house.migrator.misfits(fits, house.settings, schema) == ()
        assert house.migrator.misfits(lacks, house.settings, schema) == (
            "table note is missing",
            "table user requires column name, which the model does not know",
        )

    def test_no_models(self, house: House) -> None:
        """An app without models that can be asked is not loaded, and fits anything."""
        bare = house.release("1", {"wsgi.py": "raise SystemExit(9)"}, venv="bare")
        unused = house.release("2", {"wsgi.py": "from flask import Flask\napp = Flask('x')"}, entry="wsgi:app")
        for manifest in (bare, unused):
            assert house.migrator.misfits(manifest, house.settings, Schema(tables={})) == ()


class TestMemory:
    """The same migrations are not read twice, and nothing else is taken for them."""

    def known(self, house: House) -> Manifest:
        """Lay a release that is known, its python gone, so that nothing can be asked any more."""
        locked = replace(lay_flask_migrate(house, 2), lock="of packages")
        assert house.migrator.state(locked, house.settings).pending == ("c3 step 0", "a1 step 1")
        python = house.layout.venv("2")
        packages = python.resolve()
        python.unlink()
        python.mkdir()
        (python / "lib").symlink_to(packages / "lib")
        return locked

    def test_the_same(self, house: House) -> None:
        """The same migrations with the same packages are known without the release's python."""
        manifest = self.known(house)
        assert house.state(manifest).pending == ("c3 step 0", "a1 step 1")
        (house.layout.source("2") / "migrations" / "versions" / "__pycache__").mkdir()
        (house.layout.source("2") / "migrations" / "versions" / "__pycache__" / "a1.pyc").touch()
        (house.layout.source("2") / "wsgi.py").write_text("changed = True")
        assert house.state(manifest).pending == ("c3 step 0", "a1 step 1")

    @pytest.mark.parametrize("name", ["versions/a1.py", "versions/b9.py", "alembic.ini", "../pyproject.toml"])
    def test_a_change(self, house: House, name: str) -> None:
        """A change of any file that tells of them has them read again."""
        manifest = self.known(house)
        with (house.layout.source("2") / "migrations" / name).open("a") as file:
            file.write("\n")
        assert house.refusal(manifest).reference == "program-not-started"

    def test_other_packages(self, house: House) -> None:
        """Other packages have them read again; of another database than SQLite's nothing is read at all."""
        manifest = self.known(house)
        for other in (replace(manifest, lock="of others"), replace(manifest, python="3.99")):
            assert house.refusal(other).reference == "program-not-started"
        assert house.migrator.state(manifest, {"DATABASE_URL": "mysql://db/shop"}).elsewhere == "MySQL"

    @pytest.mark.parametrize("content", [None, b"", b"{", b'{"folders": [], "digest": "", "graph": 1}'])
    def test_damage(self, house: House, content: bytes | None) -> None:
        """What was noted and cannot be read is as if nothing had been."""
        manifest = self.known(house)
        noted = house.layout.cache / "migrations" / "shop.json"
        noted.unlink()
        if content is not None:
            noted.write_bytes(content)
        assert house.refusal(manifest).reference == "program-not-started"

    def test_elsewhere(self, house: House, tmp_path: Path) -> None:
        """Nothing is noted of migrations outside the source, nor of those that are read from bytecode alone."""
        manifest = replace(lay_flask_migrate(house, 2), lock="of packages")
        ini = house.layout.source("2") / "migrations" / "alembic.ini"
        text = ini.read_text()
        for option in (f"version_locations = {tmp_path}", "sourceless = true"):
            ini.write_text(text.replace("[alembic]\n", f"[alembic]\n{option}\n"))
            house.state(manifest)
        assert not (house.layout.cache / "migrations").exists()
