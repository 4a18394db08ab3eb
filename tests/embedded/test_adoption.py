"""An app with a life before its first deployment: its users' data comes along, and nothing of the old place changes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from pathlib import Path

import pytest

import workshop
from embedded.conftest import LayApp
from live_app import LiveApp

pytestmark = [pytest.mark.xdist_group("adoption"), pytest.mark.timeout(600)]

APP = """\
import os

from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ.get("DATABASE_URL", "sqlite:///app_dev.db")
db = SQLAlchemy(app)
Migrate(app, db)


class Note(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    text = db.Column(db.String(80), nullable=False)
    {column}


@app.get("/up")
def up():
    return "up"


@app.get("/notes")
def notes():
    return {{"notes": [note.text for note in Note.query.order_by(Note.id)]}}
"""
STAR = "star = db.Column(db.Integer)"
ENV = """\
from alembic import context
from flask import current_app

with current_app.extensions["migrate"].db.engine.connect() as connection:
    context.configure(connection=connection, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
"""
REVISION = """\
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = {before!r}


def upgrade():
    {up}


def downgrade():
    {down}
"""
MAKE = (
    'op.create_table("note", sa.Column("id", sa.Integer, primary_key=True),'
    ' sa.Column("text", sa.String(80), nullable=False))'
)
SHINE = 'op.add_column("note", sa.Column("star", sa.Integer))'


def revision(name: str, before: str | None, up: str, down: str = "pass") -> dict[str, str]:
    """One migration's file."""
    return {f"migrations/versions/{name}.py": REVISION.format(revision=name, before=before, up=up, down=down)}


def files(column: str = "", *, shines: bool = False) -> dict[str, str]:
    """The app, with one migration or two."""
    return {
        "app.py": APP.format(column=column or "pass"),
        ".gitignore": "*.db\n*.sqlite3\n*.db-*\n",
        "requirements.txt": "flask-sqlalchemy\nflask-migrate\n",
        "migrations/alembic.ini": "[alembic]\n",
        "migrations/env.py": ENV,
        **revision("0001", None, MAKE, 'op.drop_table("note")'),
        **(revision("0002", "0001", SHINE, 'op.drop_column("note", "star")') if shines else {}),
    }


def database(file: Path, *texts: str, noted: str | None = "0001", table: str = "") -> None:
    """A database as migration 0001 made it, with these notes in it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for statement in (table or OLD).split("; "):
            connection.execute(statement)
        connection.executemany("INSERT INTO note (text) VALUES (?)", [(text,) for text in texts])
        if noted is not None:
            connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
            connection.execute("INSERT INTO alembic_version VALUES (?)", (noted,))


def everything(folder: Path) -> dict[str, tuple[str, int]]:
    """Each file of the folder with its content and time, git's own left out."""
    found = [path for path in folder.rglob("*") if path.is_file() and ".git" not in path.relative_to(folder).parts]
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in found
    }


def rows(file: Path, query: str) -> list[tuple[object, ...]]:
    """What a query finds."""
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


PLAIN = """\
import os
import sqlite3

from flask import Flask

app = Flask(__name__)
FILE = os.environ.get("DATABASE_URL", "").partition(":///")[2]


@app.get("/up")
def up():
    return "up"


@app.get("/notes")
def notes():
    connection = sqlite3.connect(FILE)
    return {"notes": [row[0] for row in connection.execute("SELECT text FROM note ORDER BY id")]}
"""
ASKS = PLAIN.replace('return "up"', "return notes()")


def initialise(app: LiveApp) -> str:
    """Run `init` and commit what it wrote; returns what it said."""
    said = app.run("init", "--name", app.name, status=0).err
    workshop.commit(app.folder, {}, "Configure it")
    return said


def note_of(app: LiveApp, *words: str, step: str = "data") -> str:
    """Deploy, and what the step said."""
    done = app.deploy(*words)
    (note,) = [str(event["note"]) for event in done.events if event["event"] == "step-done" and event["step"] == step]
    return note


def test_the_database_that_the_app_opens_comes_along(lay_app: LayApp) -> None:
    """Of three databases the app's own is adopted, rehearsed on and migrated; the checkout is as it was to the byte."""
    app = lay_app("adopts", files(STAR, shines=True))
    database(app.folder / "instance" / "app_dev.db", "one", "two")
    database(app.folder / "app_dev.db", "wrong")
    database(app.folder / "old" / "backup.sqlite3", "older", "oldest", "eldest")
    workshop.git(app.folder, "add", "-f", "app_dev.db")
    said = " ".join(initialise(app).split())
    assert "instance/app_dev.db" in said
    assert "app_dev.db is tracked by git" in said
    before = everything(app.folder)

    with contextlib.closing(sqlite3.connect(app.folder / "instance" / "app_dev.db")) as old_service:
        old_service.execute("SELECT * FROM note").fetchall()
        beside = everything(app.folder)
        planned = app.run("plan", status=0).out
        assert "with the data that are here" in planned
        assert everything(app.folder) == beside
        assert not app.layout.data.exists()
        for step in ("data", "swap"):
            app.kill_at("step-done", step, "deploy")
            app.wait_until_whole()
            assert not app.database.exists()
            assert not app.leftovers()
            assert everything(app.folder) == beside
        note = note_of(app)
    assert f"{app.folder}/instance/app_dev.db copied (3 rows in 2 tables" in note
    assert "still open there, and what it writes from now on is not here: " in note
    assert f"(process {os.getpid()}): " in note
    assert "not used: app_dev.db: 2 rows" in note
    assert "not used: old/backup.sqlite3: 4 rows" in note

    assert app.ask("/notes")[2].strip() == '{"notes":["one","two"]}'
    assert rows(app.database, "SELECT id, text, star FROM note") == [(1, "one", None), (2, "two", None)]
    assert rows(app.database, "SELECT version_num FROM alembic_version") == [("0002",)]
    assert everything(app.folder) == before


def test_an_app_that_asks_its_database_itself(lay_app: LayApp) -> None:
    """Where nothing tells which database is the app's, a person decides; what it opens when it is asked is enough."""
    app = lay_app("asks", {"app.py": PLAIN, "requirements.txt": "flask\n", ".gitignore": "*.db\n.env\n"})
    elsewhere = app.folder.parent / "elsewhere" / "notes.db"
    database(elsewhere, "one", "two", noted=None)
    database(app.folder / "old.db", "old", noted=None)
    (app.folder / ".env").write_text(f"DATABASE_URL=sqlite:///{elsewhere}\n")
    initialise(app)
    before = everything(app.folder.parent)

    refused = app.change("deploy").must(3, "undone")
    assert refused.reference == "origin-unknown"
    assert "old.db: 1 row in 1 table" in str(refused.last["error"])
    assert not app.database.exists()
    assert everything(app.folder.parent) == before

    workshop.commit(app.folder, {"app.py": ASKS.replace("import os", "import os, missing")}, "Break it")
    broken = app.change("deploy", "--database", str(app.folder / "old.db"))
    assert broken.reference != "origin-unknown"
    assert not app.database.exists()

    workshop.commit(app.folder, {"app.py": ASKS}, "Ask the database")
    before = everything(app.folder.parent)
    note = note_of(app)
    assert f"{elsewhere} copied (2 rows in 1 table" in note
    assert app.ask("/notes")[2].strip() == '{"notes":["one","two"]}'
    assert everything(app.folder.parent) == before


def test_a_person_may_begin_without_data(lay_app: LayApp) -> None:
    """--new-database leaves what lies there alone; a later deployment never looks at it."""
    app = lay_app("anew", files())
    database(app.folder / "instance" / "app_dev.db", "one")
    initialise(app)
    app.deploy("--new-database")
    assert rows(app.database, "SELECT * FROM note") == []
    workshop.commit(app.folder, files(STAR, shines=True), "Shine")
    app.deploy()
    assert rows(app.database, "SELECT * FROM note") == []


PAST = {
    **files(STAR, shines=True),
    **revision("0003", "0002", 'op.execute("UPDATE note SET star = 0")'),
    **revision("0004", "0003", 'op.create_index("ix_note_star", "note", ["star"])', 'op.drop_index("ix_note_star")'),
}
OLD = "CREATE TABLE note (id INTEGER NOT NULL, text VARCHAR(80) NOT NULL, PRIMARY KEY (id))"
STARRED = OLD.replace(", PRIMARY", ", star INTEGER, PRIMARY")


def test_which_migration_a_database_is_at_is_told_by_its_schema(lay_app: LayApp) -> None:
    """A missing, an unknown and a false note are put right on exactly one match; otherwise it is said what differs."""
    app = lay_app("past", PAST)
    workshop.write(app.folder, {".gitignore": "*"})
    initialise(app)
    for name, table, noted in (
        ("none", STARRED.replace("star", "mark"), None),
        ("several", STARRED, None),
        ("unknown", f"{STARRED}; CREATE INDEX ix_note_star ON note (star)", "feedbeef"),
        ("lie", OLD, "0004"),
        ("drift", f"{STARRED}; CREATE INDEX ix_note_star ON note (star); CREATE INDEX mine ON note (text)", "0004"),
        ("unnoted", OLD, None),
    ):
        database(app.folder / f"{name}.db", "one", noted=noted, table=table)
    before = everything(app.folder)

    def planned(name: str, status: int) -> str:
        done = app.run("plan", "--database", f"{name}.db", status=status)
        return " ".join(f"{done.out} {done.err}".split())

    said = planned("none", 1)
    assert "schema-unknown" in said
    assert "adds column note.mark INTEGER" in said
    assert "flask db stamp --purge" in said
    assert "that of several migrations: 0002 and 0003" in planned("several", 1)
    assert "notes feedbeef, which no migration of the release is called; the schema is exactly that of 0004" in (
        planned("unknown", 0)
    )
    assert "notes 0004, and is not as that makes it; the schema is exactly that of 0001" in planned("lie", 0)
    assert "schema is exactly" not in planned("drift", 0)

    app.deploy("--database", "unnoted.db")
    assert rows(app.database, "SELECT text, star FROM note") == [("one", 0)]
    assert rows(app.database, "SELECT version_num FROM alembic_version") == [("0004",)]
    assert everything(app.folder) == before


def test_a_note_that_turned_false_later_is_put_right(lay_app: LayApp) -> None:
    """Somebody changed the live database by hand: a migration that fails over that is explained, or not due at all."""
    app = lay_app("lies", files())
    initialise(app)
    app.deploy()
    with contextlib.closing(sqlite3.connect(app.database)) as connection, connection:
        connection.execute("INSERT INTO note (text) VALUES ('one')")
        connection.execute("ALTER TABLE note ADD COLUMN star INTEGER")
        connection.execute("ALTER TABLE note ADD COLUMN mine INTEGER")
    workshop.commit(app.folder, files(STAR, shines=True), "Shine")

    failed = app.change("deploy").must(3, "undone")
    assert failed.reference == "migration-failed"
    assert "adds column note.mine INTEGER" in str(failed.last["error"])

    with contextlib.closing(sqlite3.connect(app.database)) as connection, connection:
        connection.execute("ALTER TABLE note DROP COLUMN mine")
    assert "the schema is exactly that of 0002" in note_of(app, step="rehearse")
    assert rows(app.database, "SELECT text, star FROM note") == [("one", None)]
    assert rows(app.database, "SELECT version_num FROM alembic_version") == [("0002",)]


def test_a_first_migration_that_is_not_the_initial_one(lay_app: LayApp) -> None:
    """Tables of create_all(), and migrations from then on: the one beginning that leads to the models is taken."""
    later = {
        **files(STAR),
        **revision("0001", None, SHINE, 'op.drop_column("note", "star")'),
        **revision("0002", "0001", 'op.create_index("ix_note_star", "note", ["star"])'),
        "app.py": APP.format(column="star = db.Column(db.Integer, index=True)"),
    }
    app = lay_app("later", later)
    initialise(app)
    database(app.folder / "starred.db", "one", noted=None, table=STARRED)
    assert "only after 0001 leads exactly" in " ".join(
        app.run("plan", "--database", "starred.db", status=0).out.split()
    )
    database(app.folder / "odd.db", "one", noted=None, table=STARRED.replace("star", "mark"))
    refused = app.run("plan", "--database", "odd.db", status=1)
    assert "so it is not the one that made the tables" in " ".join(refused.err.split())

    database(app.folder / "instance" / "app_dev.db", "one", noted=None)
    assert "only before 0001 leads exactly" in note_of(app, step="rehearse")
    assert rows(app.database, "SELECT text, star FROM note") == [("one", None)]
    assert rows(app.database, "SELECT version_num FROM alembic_version") == [("0002",)]
