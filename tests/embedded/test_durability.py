"""What a power cut may cost is told by what the release itself does with its database in the rehearsal."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing

import msgspec
import pytest

import workshop
from bulletproof.domain.durability import Durability
from bulletproof.effects.isolation import why_no_namespaces
from bulletproof.effects.sqlite_journal import journal_mode
from django_project import project
from embedded.conftest import LayApp
from free_ports import free_port
from live_app import LiveApp

pytestmark = pytest.mark.skipif(
    bool(why_no_namespaces()), reason=f"the kernel lets this user make no cell: {why_no_namespaces()}"
)

RAW = """\
import os
import sqlite3

from flask import Flask

app = Flask(__name__)
FILE = os.environ["DATABASE_URL"].removeprefix("sqlite:///")


def connect():
    connection = sqlite3.connect(FILE)
    connection.execute("PRAGMA {pragma}")
    return connection


with connect() as first:
    first.execute("CREATE TABLE IF NOT EXISTS note (id INTEGER PRIMARY KEY, words TEXT)")


@app.get("/up")
def up():
    return str(connect().execute("SELECT count(*) FROM note").fetchone()[0])
"""
ALCHEMY = """\
import os

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import event
from sqlalchemy.engine import Engine

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db = SQLAlchemy(app)


@event.listens_for(Engine, "connect")
def set_up(connection, _):
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


class Note(db.Model):
    id = db.Column(db.Integer, primary_key=True)


@app.get("/up")
def up():
    return str(Note.query.count())
"""
_DJANGO = (
    '{"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE_URL"].removeprefix("sqlite:///"),'
    ' "OPTIONS": {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=9000"}}'
)


Table = Mapping[str, object]


def deployed(lay_app: LayApp, word: str, files: Mapping[str, str], app: Table, **tables: Table) -> LiveApp:
    """An app of these files, with these tables of its configuration, that serves."""
    made = lay_app(word, files)
    configure(made, app, **tables)
    made.deploy()
    return made


def configure(made: LiveApp, app: Table, **tables: Table) -> None:
    """Commit a configuration."""
    made.configure(app=app, proxy={"port": free_port()}, **tables)
    workshop.commit(made.folder, {}, "Configure it")


def planned(app: LiveApp) -> Durability:
    """What the plan for the last commit tells of its durability."""
    plan = json.loads(app.run("plan", "--json", status=0).out)
    return msgspec.convert(plan["report"]["durability"], Durability)


def mode_of(app: LiveApp) -> str:
    """What the live database's header says."""
    return journal_mode(app.database)


def test_raw_sqlite3(lay_app: LayApp) -> None:
    """Python's defaults are told as they are; synchronous OFF deserves a word in each deployment."""
    files = {"app.py": RAW.format(pragma="foreign_keys = 1"), "requirements.txt": "flask\n"}
    app = deployed(lay_app, "raw", files, {"entry": "app:app", "workers": 1})

    told = planned(app)
    assert (told.mode, told.synchronous, told.sqlite) == ("DELETE", "FULL", sqlite3.sqlite_version)
    assert told.sets == ("foreign_keys = 1",)
    assert told.sentence == "a power cut right after a commit may take that one back; the database stays whole"
    assert (told.warnings, told.advice) == ((), ())

    workshop.commit(app.folder, {"app.py": RAW.format(pragma="synchronous = off")}, "Faster")
    done = app.deploy()
    assert "the app sets synchronous = OFF: a power cut may damage the database" in done.out
    report = json.loads(app.layout.report(2).read_text())
    assert report["durability"]["synchronous"] == "OFF"
    assert report["durability"]["sentence"] == "a power cut may damage the database"


def test_sqlalchemy_with_an_event_listener(lay_app: LayApp) -> None:
    """The usual way to WAL: the plan says what the weaker `synchronous` costs."""
    files = {"app.py": ALCHEMY, "requirements.txt": "flask\nflask-sqlalchemy\n"}
    app = deployed(lay_app, "alchemy", files, {"entry": "app:app", "workers": 3})

    told = planned(app)
    assert (told.mode, told.synchronous, told.sqlite) == ("WAL", "NORMAL", sqlite3.sqlite_version)
    assert told.sets == ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON")
    assert told.warnings == ()
    words = app.run("plan", status=0).out
    assert "  power cut   WAL journal, synchronous NORMAL, SQLite" in words
    assert "a power cut may cost the last commits; the database stays whole" in " ".join(words.split())


def test_django_with_an_init_command(lay_app: LayApp) -> None:
    """What Django's OPTIONS set is heard as well."""
    app = deployed(lay_app, "django", project(database=_DJANGO), {"workers": 1})

    told = planned(app)
    assert (told.mode, told.synchronous) == ("WAL", "FULL")
    assert {"journal_mode = WAL", "synchronous = FULL", "busy_timeout = 9000"} <= set(told.sets)
    assert told.sentence == "a power cut costs nothing that was acknowledged"


def test_the_configuration_asks_for_wal(lay_app: LayApp) -> None:
    """A new database, which the app makes by booting, is in WAL mode before it serves; a live one when it migrates."""
    files = {"app.py": RAW.format(pragma="foreign_keys = 1"), "requirements.txt": "flask\n"}
    app = deployed(lay_app, "wal", files, {"entry": "app:app", "workers": 2}, database={"journal": "wal"})
    assert mode_of(app) == "WAL"
    assert planned(app).mode == "WAL"

    with closing(sqlite3.connect(app.database, timeout=5)) as connection:
        app.run("stop", status=0)
        assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    app.change("start").must(0, "deployed")
    told = planned(app)
    assert (told.mode, told.warnings) == ("DELETE", ())
    assert "the next deployment that migrates it puts it into WAL mode" in told.advice[0]

    more = RAW.format(pragma="foreign_keys = 1").replace(
        "\n\n@app", '    first.execute("INSERT INTO note VALUES (1, 1) ON CONFLICT DO NOTHING")\n\n\n@app', 1
    )
    workshop.commit(app.folder, {"app.py": more}, "A first note")
    assert planned(app).mode == "WAL"
    app.deploy()
    assert mode_of(app) == "WAL"


def test_an_adopted_database_comes_in_wal_mode(lay_app: LayApp) -> None:
    """The copy is put into WAL mode, the original stays as it is."""
    code = ALCHEMY.replace("journal_mode=WAL", "cache_size=100")
    app = lay_app("adopted", {"app.py": code, "requirements.txt": "flask\nflask-sqlalchemy\n"})
    origin = app.folder / "mine.db"
    with closing(sqlite3.connect(origin)) as connection, connection:
        connection.execute("CREATE TABLE note (id INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO note VALUES (7)")
    configure(app, {"entry": "app:app", "workers": 1}, database={"journal": "wal"})

    done = app.change("deploy", "--database", str(origin)).must(0, "deployed")

    assert "in WAL mode" in done.out
    assert (mode_of(app), journal_mode(origin)) == ("WAL", "DELETE")
    assert app.ask("/up")[2] == "1"
