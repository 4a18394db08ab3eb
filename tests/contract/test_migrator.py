"""The port Migrator, over real Alembic, Flask-Migrate and Flask-SQLAlchemy and in memory."""

from __future__ import annotations

import ast
import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from bulletproof.adapters.migrators import Migrators
from bulletproof.adapters.migrators.compare import Graph, Models, Revision, compare_models, compare_revisions
from bulletproof.adapters.migrators.scripts import find_packaged_scripts, find_scripts
from bulletproof.adapters.sqlite import SqliteDatabase
from bulletproof.domain.layout import Layout
from bulletproof.domain.schema import Schema
from bulletproof.domain.settings import NOT_YET_OURS
from bulletproof.effects.sqlite_file import Reading
from bulletproof.errors import StepFailed
from bulletproof.ports import Database, Manifest, Migrator, SchemaState
from fakes.database import FakeDatabase
from fakes.migrator import FakeMigrator
from migrating import (
    CONFIG,
    PLAIN_ENV,
    House,
    app_source,
    lay_alembic,
    lay_create_all,
    lay_flask_migrate,
    line,
    model,
    models,
    revision,
)


def _is_over(pid: int) -> bool:
    """Tell whether a process has ended within a few seconds, be it that nobody has reaped it yet."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for _ in range(100):
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
            time.sleep(0.05)
    return not psutil.pid_exists(pid)


LAY = {"flask-migrate": lay_flask_migrate, "alembic": lay_alembic, "create-all": lay_create_all}


@dataclass(frozen=True)
class Life:
    """What a migrator said while a database was made and releases came and went; release `n` needs `n` steps."""

    kind: str
    nothing: SchemaState
    nothing_made: str
    nothing_exists: bool
    before: SchemaState
    exists_before: bool
    made: str
    checked: str
    after: SchemaState
    newer: SchemaState
    older: SchemaState
    again: StepFailed


@pytest.fixture(scope="module", params=[*LAY, "memory"])
def life(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, venvs: Path, skeleton: Path) -> Life:
    """Live through one with each implementation."""
    kind = str(request.param)
    if kind == "memory":
        database = FakeDatabase()
        known = {str(steps): tuple(f"000{number}" for number in range(1, steps + 1)) for steps in range(4)}
        manifests = [Manifest(release=name, revision="", title="", config=CONFIG, entry="a:b") for name in known]
        return _live(kind, FakeMigrator(database, known), database, manifests, {})
    layout = Layout(root=tmp_path_factory.mktemp(kind), app="shop", runtime=Path("/nowhere"))
    house = House(layout, venvs, skeleton)
    manifests = [LAY[kind](house, steps) for steps in range(4)]
    return _live(kind, house.migrator, SqliteDatabase(house.file), manifests, house.settings)


def _live(
    kind: str, migrator: Migrator, database: Database, manifests: list[Manifest], settings: dict[str, str]
) -> Life:
    def again() -> StepFailed:
        with pytest.raises(StepFailed) as caught:
            migrator.create(manifests[3], settings)
        return caught.value

    return Life(
        kind=kind,
        nothing=migrator.state(manifests[0], settings),
        nothing_made=migrator.create(manifests[0], settings),
        nothing_exists=database.exists(),
        before=migrator.state(manifests[2], settings),
        exists_before=database.exists(),
        made=migrator.create(manifests[2], settings),
        checked=database.check(),
        after=migrator.state(manifests[2], settings),
        newer=migrator.state(manifests[3], settings),
        older=migrator.state(manifests[1], settings),
        again=again(),
    )


@pytest.mark.xdist_group("migrator-life")
class TestContract:
    """What every migrator says while releases come and go."""

    def test_without_a_schema(self, life: Life) -> None:
        """A release that needs no database fits, and none is made for it."""
        assert life.nothing.fits
        assert life.nothing_made == "no database"
        assert not life.nothing_exists

    def test_before(self, life: Life) -> None:
        """Without a database all of the release is pending, in order, and asking makes none."""
        first, second = life.before.pending
        assert first in {"c3 step 0", "table table_0 is missing", "0001"}
        assert second in {"a1 step 1", "table table_1 is missing", "0002"}
        assert not life.exists_before

    def test_create(self, life: Life) -> None:
        """The database that is made is whole and has the tables, and what made it is told."""
        assert "tables" in life.made
        assert f"{2 if life.kind in {'create-all', 'memory'} else 3} tables" in life.checked

    def test_after(self, life: Life) -> None:
        """What was made fits the release that made it."""
        assert life.after.fits
        assert life.after.tool == ("flask-migrate" if life.kind == "memory" else life.kind)

    def test_newer(self, life: Life) -> None:
        """A newer release has exactly its new steps pending."""
        assert life.newer.pending in {("b2 step 2",), ("table table_2 is missing",), ("0003",)}
        assert not life.newer.unknown

    def test_older(self, life: Life) -> None:
        """An older release does not know what the database has, where revisions tell; more tables do not hinder it."""
        assert life.older.unknown == {"create-all": (), "memory": ("0002",)}.get(life.kind, ("a1",))
        assert not life.older.pending

    def test_again(self, life: Life) -> None:
        """No database that exists is ever made again."""
        assert life.again.reference == "database-exists"


class TestRevisions:
    """What is read of Alembic's migrations, without running the app or env.py."""

    def test_env_and_app_are_not_run(self, house: House) -> None:
        """The state is told although neither env.py nor the app could be run."""
        manifest = house.migrating("1", line(2), app="raise SystemExit(9)")
        (house.layout.source("1") / "migrations" / "env.py").write_text("raise SystemExit(9)")

        assert house.state(manifest).pending == ("c3 step 0", "a1 step 1")

    def test_several_heads(self, house: House) -> None:
        """Two newest migrations are named, with the command that joins them."""
        heads = {"b1": revision("b1", "left", "c3"), "b2": revision("b2", "right", "c3")}
        error = house.refusal(house.migrating("1", line(1) | heads))

        assert error.reference == "several-heads"
        assert "b1 left" in error.message
        assert "b2 right" in error.message
        assert error.hint == "flask db merge heads"

    def test_merged_branches(self, house: House) -> None:
        """Of two branches that were merged only what is not yet in the database is pending, and the merge."""
        merged = {
            "b1": revision("b1", "left", "c3"),
            "b2": revision("b2", "right", "c3"),
            "d4": revision("d4", "merge", "b1", "b2"),
        }
        house.sql("CREATE TABLE alembic_version (version_num TEXT); INSERT INTO alembic_version VALUES ('b1')")
        state = house.state(house.migrating("1", line(1) | merged))

        assert (state.current, state.pending) == (("b1",), ("b2 right", "d4 merge"))

    def test_version_locations(self, house: House) -> None:
        """Migrations that lie in several folders are all read, each after what it needs."""
        manifest = house.migrating("1", {})
        folder = house.layout.source("1") / "migrations"
        ini = (folder / "alembic.ini").read_text()
        places = "version_locations = %(here)s/core %(here)s/billing\npath_separator = space"
        (folder / "alembic.ini").write_text(ini.replace("[alembic]\n", f"[alembic]\n{places}\n"))
        for place, name, parents in (("core", "z1", ()), ("billing", "a2", ("z1",))):
            (folder / place).mkdir()
            (folder / place / f"{name}.py").write_text(revision(name, place, *parents))

        assert house.state(manifest).pending == ("z1 core", "a2 billing")

    def test_a_dependency(self, house: House) -> None:
        """What a migration depends on from another branch comes before it, and is done when it is noted."""
        needing = revision("d4", "needing", "c3").replace("down_revision", "depends_on = 'b1'\ndown_revision")
        branches = {"b1": revision("b1", "other root"), "d4": needing}
        house.sql("CREATE TABLE alembic_version (version_num TEXT); INSERT INTO alembic_version VALUES ('d4')")

        assert house.refusal(house.migrating("1", line(1) | branches)).reference == "several-heads"
        merged = branches | {"e5": revision("e5", "merge", "d4", "b1")}
        assert house.state(house.migrating("2", line(1) | merged)).pending == ("e5 merge",)

    def test_tables_without_a_note(self, house: House) -> None:
        """A database whose tables nobody noted a migration for is told so, and not taken for empty."""
        house.sql("CREATE TABLE user (id INTEGER)")
        state = house.state(house.migrating("1", line(1)))

        assert (state.is_unnoted, state.current, state.fits) == (True, (), False)

    def test_an_unreadable_line(self, house: House) -> None:
        """A migration whose forerunner is missing is an error that names it, not an empty answer."""
        error = house.refusal(house.migrating("1", {"b1": revision("b1", "lost", "0000")}))

        assert error.reference == "migrations-not-readable"
        assert "0000" in error.message

    def test_without_alembic(self, house: House) -> None:
        """Migrations in a release that lacks Alembic are told as a missing requirement."""
        manifest = house.release("1", {"migrations/env.py": "", "migrations/alembic.ini": "[alembic]"}, venv="bare")

        assert house.refusal(manifest).reference == "migration-tool-missing"

    def test_a_database_that_cannot_be_read(self, house: House) -> None:
        """A damaged file stops the comparison with the words of its reading."""
        manifest = house.migrating("1", line(1))
        house.file.parent.mkdir(parents=True)
        house.file.write_bytes(b"no database at all")

        assert house.refusal(manifest).reference == "database-not-sqlite"

    def test_another_kind_of_database(self, house: House) -> None:
        """An app whose database is not SQLite's: nothing of it is run, nothing is made, and that is said."""
        manifest = house.migrating("1", line(1), app="raise SystemExit(9)")
        settings = {"DATABASE_URL": "postgresql+psycopg://shop:s3cret@db/shop"}
        state = house.migrator.state(manifest, settings)
        assert (state.tool, state.pending, state.elsewhere) == ("none", (), "PostgreSQL")
        assert house.migrator.create(manifest, settings) == f"PostgreSQL: {NOT_YET_OURS}"
        assert not house.file.exists()


class TestMigrate:
    """Making a database by migrations, and that no exit status is believed."""

    def test_the_environment(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        """The app sees its settings and what it is served with, and nothing of ours."""
        monkeypatch.setenv("OF_OUR_OWN", "1")
        seen = house.layout.root / "seen"
        upgrade = f"__import__('pathlib').Path({str(seen)!r}).write_text(repr(dict(__import__('os').environ)))"
        manifest = house.migrating("1", {"c3": revision("c3", "look", upgrade=upgrade)})
        house.migrator.create(manifest, house.settings)
        environment = ast.literal_eval(seen.read_text())

        assert environment["SECRET"] == "s3cret"
        assert environment["DATABASE_URL"] == f"sqlite:///{house.file}"
        assert environment["PATH"].startswith(f"{house.layout.venv('1')}/bin:")
        assert (environment["HOME"], environment["PYTHONDONTWRITEBYTECODE"]) == (str(house.layout.data), "1")
        assert "OF_OUR_OWN" not in environment
        assert not list(house.layout.source("1").rglob("__pycache__"))

    def test_a_failing_migration(self, house: House) -> None:
        """A migration that fails is told with its last lines, and what it left can be removed."""
        upgrade = 'op.create_table("half", sa.Column("id", sa.Integer)); op.execute("SELECT * FROM nowhere")'
        error = house.failure(house.migrating("1", line(1) | {"a1": revision("a1", "bad", "c3", upgrade=upgrade)}))
        database = SqliteDatabase(house.file)

        assert error.reference == "migration-failed"
        assert any("no such table: nowhere" in line for line in error.context)
        assert not database.exists()
        database.remove()
        assert list(house.layout.data.iterdir()) == []

    def test_an_app_that_does_not_listen(self, house: House) -> None:
        """An app that hard-codes its database is found out before a migration runs, and nothing is made anywhere."""
        elsewhere = house.layout.root / "elsewhere.db"
        app = app_source(models=model("user"), url=f'"sqlite:///{elsewhere}"')
        migrating, plain = house.migrating("1", line(2), app=app), house.release("2", {"wsgi.py": app})
        for error in (house.failure(migrating), house.failure(plain), house.refusal(plain)):
            assert error.reference == "setting-ignored"
            assert "DATABASE_URL" in error.message
            assert str(elsewhere) in error.message
        assert not elsewhere.exists()
        assert not house.file.exists()

    def test_a_migration_that_does_nothing(self, house: House) -> None:
        """An upgrade that ends well and made no database is a failure."""
        manifest = lay_alembic(house, 2)
        (house.layout.source("2") / "db" / "env.py").write_text("print('all is well')")
        error = house.failure(manifest)

        assert error.reference == "migration-failed"
        assert "nothing (unable to open database file), not a1" in error.context[-1]
        assert not house.file.exists()

    def test_a_migration_that_stops_short(self, house: House) -> None:
        """An upgrade that ends well and did a part is a failure that names the rest."""
        manifest = lay_alembic(house, 2)
        only_the_first = "connection=connection, fn=lambda rev, _: context.script._upgrade_revs('c3', rev)"
        env = PLAIN_ENV.replace("connection=connection", only_the_first)
        (house.layout.source("2") / "db" / "env.py").write_text(env)
        error = house.failure(manifest)

        assert error.reference == "migration-failed"
        assert "notes c3, not a1" in error.context[-1]

    def test_an_app_that_makes_tables_at_boot(self, house: House) -> None:
        """An app that calls `create_all` itself, beside its migrations, fails in the words of its own error."""
        app = app_source(models=models(1), at_boot="db.create_all()")
        error = house.failure(house.migrating("1", line(1), app=app))

        assert error.reference == "migration-failed"
        assert any("table_0 already exists" in line for line in error.context)


class TestModels:
    """What is read of an app's models, and made of them."""

    def test_what_is_lacking(self, house: House) -> None:
        """A missing table is told in words; the app was given the live tables without rows."""
        house.sql("CREATE TABLE user (id INTEGER, Name TEXT); INSERT INTO user VALUES (1, 'Ada');")
        app = app_source(
            models=f"{model('note')}\n{model('user', 'NAME')}",
            at_boot="assert db.session.execute(db.text('SELECT count(*) FROM user')).scalar() == 0",
        )
        state = house.state(house.release("1", {"wsgi.py": app}))

        assert state.tool == "create-all"
        assert state.pending == ("table note is missing",)

    def test_what_create_all_would_not_mend(self, house: House) -> None:
        """A table that is not as its model says is refused with every difference, not listed as pending."""
        house.sql(
            "CREATE TABLE user (id INTEGER NOT NULL, name TEXT NOT NULL, age INTEGER NOT NULL DEFAULT 1,"
            " code INTEGER PRIMARY KEY NOT NULL)"
        )
        app = app_source(models=f"{model('note')}\n{model('user', 'nickname')}")
        error = house.refusal(house.release("1", {"wsgi.py": app}))

        assert error.reference == "schema-differs"
        assert error.context == (
            "table user lacks column nickname",
            "table user requires column name, which the model does not know",
        )

    def test_a_computed_column(self, house: House) -> None:
        """A column that the database computes is nothing that could be missing."""
        computed = '    twice = db.Column(db.Integer, db.Computed("id * 2"))'
        manifest = house.release("1", {"wsgi.py": app_source(models=f"{model('user')}\n{computed}")})

        assert house.migrator.create(manifest, house.settings) == "db.create_all() made 1 tables"
        assert house.state(manifest).fits

    def test_the_live_database_is_not_given_to_the_app(self, house: House) -> None:
        """An app that alters its database at boot alters only the scratch one when it is looked at."""
        house.sql("CREATE TABLE user (id INTEGER PRIMARY KEY)")
        app = app_source(
            models=model("user"),
            at_boot="db.create_all(); db.session.execute(db.text('DROP TABLE user')); db.session.commit()",
        )

        assert house.state(house.release("1", {"wsgi.py": app})).fits

    @pytest.mark.parametrize(
        ("app", "words"),
        [
            ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
            ("import sys; sys.exit(3)", "sys.exit(3)"),
            ("import os; os._exit(4)", "status 4"),
            ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "status -11"),
            ("import nowhere_at_all", "No module named 'nowhere_at_all'"),
            ("def other(): pass", "create_app"),
        ],
    )
    def test_an_app_that_cannot_be_loaded(self, house: House, app: str, words: str) -> None:
        """However an app ends while it is loaded, the failure says how."""
        error = house.refusal(house.release("1", {"wsgi.py": app}))

        assert error.reference == "app-not-loaded"
        assert words in error.message

    def test_its_traceback_is_the_apps(self, house: House) -> None:
        """It leads through the app alone, and to what was raised first: no word of how it came to be loaded."""
        files = {
            "wsgi.py": "import shop\n",
            "shop.py": "try:\n    open('/none')\nexcept OSError as gone:\n    raise ValueError('no file') from gone\n",
        }
        manifest = house.release("1", files)
        with pytest.raises(StepFailed) as caught:
            house.migrator.state(manifest, house.settings)

        told = "\n".join(caught.value.context)
        assert "FileNotFoundError" in told
        assert "ValueError: no file" in told
        assert "open('/none')" in told
        assert 'wsgi.py", line 1' in told
        assert 'shop.py", line 4' in told
        assert "frozen" not in told
        assert "answer.py" not in told

    def test_an_app_that_hangs(self, house: House) -> None:
        """An app that never ends loading is killed when time is up, and that is said."""
        manifest = house.release("1", {"wsgi.py": "import time; time.sleep(600)"})
        with pytest.raises(StepFailed, match="did not end within 1 seconds") as caught:
            Migrators(house.layout, house.file, timeout_seconds=1).state(manifest, house.settings)

        assert caught.value.reference == "app-not-loaded"

    def test_an_app_that_disturbs(self, house: House) -> None:
        """Threads and programs that never end, closed and replaced streams, another folder: the answer comes."""
        pid = house.layout.root / "pid"
        disturbing = (
            "import threading, time, subprocess, sys, os, pathlib\n"
            "threading.Thread(target=time.sleep, args=(600,)).start()\n"
            f"pathlib.Path({str(pid)!r}).write_text(str(subprocess.Popen(['sleep', '600']).pid))\n"
            "os.chdir('/'); os.close(1); sys.stdout = sys.stderr = None\n"
        )
        manifest = house.release("1", {"wsgi.py": app_source(models=disturbing + model("user"))})

        assert house.migrator.state(manifest, house.settings).pending == ("table user is missing",)
        assert _is_over(int(pid.read_text()))

    @pytest.mark.parametrize("entry", ["shop.web:app", "shop.web:make('x', debug=True)", "shop.web:inner.app"])
    def test_entries(self, house: House, entry: str) -> None:
        """An object, a factory with arguments and an attribute of an object are found as the app's server does."""
        made = (
            "\napp = create_app()\n\nclass inner:\n    app = app\n\n"
            "def make(name, debug):\n    assert (name, debug) == ('x', True)\n    return app\n"
        )
        files = {"shop/__init__.py": "", "shop/web.py": app_source(models=model("user")) + made}

        assert house.state(house.release("1", files, entry=entry)).pending == ("table user is missing",)

    def test_an_app_without_it(self, house: House) -> None:
        """An app that has Flask-SQLAlchemy installed and does not use it has no schema."""
        manifest = house.release("1", {"wsgi.py": "from flask import Flask\napp = Flask('x')"}, entry="wsgi:app")

        assert house.state(manifest) == SchemaState(tool="none")
        assert house.migrator.create(manifest, house.settings) == "no database"

    def test_nothing_is_run_without_need(self, house: House) -> None:
        """A release without migrations and Flask-SQLAlchemy is not even loaded."""
        manifest = house.release("1", {"wsgi.py": "raise SystemExit(9)"}, venv="")

        assert house.state(manifest) == SchemaState(tool="none")
        assert house.migrator.create(manifest, house.settings) == "no database"


class TestFindScripts:
    """Where migrations are looked for."""

    @pytest.mark.parametrize(
        ("names", "has_flask_migrate", "found"),
        [
            ("", True, None),
            ("migrations/0001_initial.py", True, None),
            ("migrations/env.py migrations/alembic.ini", True, "flask db upgrade"),
            ("migrations/env.py migrations/versions/x.py", True, "flask db upgrade"),
            ("alembic.ini migrations/env.py migrations/versions/x.py", True, "alembic -c alembic.ini upgrade head"),
            ("alembic.ini db/env.py", False, "alembic -c alembic.ini upgrade head"),
            ("a/b/env.py a/b/alembic.ini", True, "flask db upgrade --directory a/b"),
            ("a/b/env.py a/b/alembic.ini", False, "alembic -c a/b/alembic.ini upgrade head"),
            (".tox/m/env.py .tox/m/alembic.ini node_modules/m/env.py node_modules/m/alembic.ini", True, None),
            ("a/b/c/d/env.py a/b/c/d/alembic.ini", True, None),
        ],
    )
    def test_places(
        self,
        tmp_path: Path,
        names: str,
        has_flask_migrate: bool,  # noqa: FBT001  pytest gives it
        found: str | None,
    ) -> None:
        """The usual places come first, then any folder that looks like one."""
        for name in names.split():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        scripts = find_scripts(tmp_path, has_flask_migrate=has_flask_migrate)

        assert (None if scripts is None else " ".join(scripts.upgrade)) == found
        if scripts:
            back = [
                word for word in " ".join(scripts.upgrade).replace("upgrade", "downgrade").split() if word != "head"
            ]
            assert scripts.downgrade("c3") == (*back, "c3")

    @pytest.mark.parametrize(
        ("wsgi", "entry", "is_found"),
        [
            ("from money.run import create_app\napp = create_app()\n", "wsgi:app", True),
            (None, "money.wsgi:app", True),
            ("from other import app\n", "wsgi:app", False),
            ("import money, bank\napp = money.App(bank)\n", "wsgi:app", False),
        ],
    )
    def test_in_a_package(self, tmp_path: Path, wsgi: str | None, entry: str, is_found: bool) -> None:  # noqa: FBT001
        """Those of the package that the entry's file has its app from are the app's, if only one has any."""
        site = tmp_path / "venv" / "lib" / "python3.11" / "site-packages"
        for package in ("money", "bank"):
            (site / package / "migrations" / "versions").mkdir(parents=True)
            (site / package / "migrations" / "env.py").touch()
        source = tmp_path / "source"
        source.mkdir()
        if wsgi is not None:
            (source / "wsgi.py").write_text(wsgi)
        found = find_packaged_scripts(source, entry, tmp_path / "venv")

        place = "../venv/lib/python3.11/site-packages/money/migrations"
        assert (found.upgrade if found else None) == (
            ("flask", "db", "upgrade", "--directory", place) if is_found else None
        )

    def test_pyproject(self, tmp_path: Path) -> None:
        """Alembic may be configured in pyproject.toml alone."""
        (tmp_path / "pyproject.toml").write_text("[tool.alembic]\nscript_location = 'db'\n")
        scripts = find_scripts(tmp_path, has_flask_migrate=True)

        assert scripts is not None
        assert scripts.tool == "alembic"

    def test_several(self, tmp_path: Path) -> None:
        """Two folders that could be meant are both named."""
        for name in ("one", "two"):
            (tmp_path / name / "versions").mkdir(parents=True)
            (tmp_path / name / "env.py").touch()
        with pytest.raises(StepFailed, match="one and in two") as caught:
            find_scripts(tmp_path, has_flask_migrate=True)

        assert caught.value.reference == "several-migration-folders"


class TestCompare:
    """What follows from what is known of release and database."""

    GRAPH = Graph(heads=("b",), revisions=(Revision(revision="a"), Revision(revision="b", parents=("a",))))

    def _noted(self, *tables: str, **versions: tuple[str, ...]) -> SchemaState:
        columns: dict[str, tuple[str, ...]] = dict.fromkeys(tables, ("id",))
        columns |= dict.fromkeys(versions, ("version_num",))
        live = Reading(mode="WAL", tables=columns, versions=versions, statements=())
        return compare_revisions("alembic", self.GRAPH, live)

    def test_a_note_of_another_name(self) -> None:
        """The only table that is like Alembic's own is taken for it, whatever it is called."""
        assert self._noted("user", shop_version=("a",)).pending == ("b",)

    def test_two_notes(self) -> None:
        """Of two the usual name counts; without that nobody knows which is the app's."""
        assert self._noted("user", alembic_version=("a",), other=("b",)).pending == ("b",)
        assert self._noted("user", one=("a",), other=("b",)).is_unnoted

    def test_an_empty_note(self) -> None:
        """Tables beside an empty note, as a first migration leaves that failed half-way, are not taken for new."""
        assert self._noted(alembic_version=()).pending == ("a", "b")
        assert not self._noted(alembic_version=()).is_unnoted
        assert self._noted("user", alembic_version=()).is_unnoted

    def test_an_unknown_note(self) -> None:
        """A release that does not know the database's revision has nothing to add to it."""
        state = self._noted("user", alembic_version=("z",))

        assert (state.unknown, state.pending, state.fits) == (("z",), (), False)

    def test_views_and_virtual_tables(self) -> None:
        """A model of a view or of a virtual table, whose columns are not known, lacks nothing."""
        found = Models(is_used=True, tables=(("Names", ("id",)), ("pages", ("id", "text"))))
        live = Reading(mode="WAL", tables={"pages": ()}, views=("names",), versions={}, statements=())
        schema = Schema(tables={}, others={"view names": "create view names as select 1 as id"})

        assert compare_models(found, live, schema).fits
