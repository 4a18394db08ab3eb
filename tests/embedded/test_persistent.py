"""What apps write below their own source lives in the data folder, with nothing written by hand."""

from __future__ import annotations

import contextlib
import http.client
import sqlite3
from pathlib import Path

import pytest

import workshop
from django_project import NOTE, WRITTEN, project
from embedded.conftest import LayApp
from live_app import LiveApp

pytestmark = [pytest.mark.xdist_group("persistent"), pytest.mark.timeout(600)]

_TUTORIAL = """\
import os
import sqlite3

from flask import Flask, request

app = Flask(__name__)
app.config.from_mapping(
    DATABASE=os.path.join(app.instance_path, "flaskr.sqlite"),
    UPLOAD_FOLDER=os.path.join(os.path.abspath(os.path.dirname(__file__)), "static", "uploads"),
)
os.makedirs(app.instance_path, exist_ok=True)


def ask(statement, *values):
    with sqlite3.connect(app.config["DATABASE"]) as connection:
        return [row[0] for row in connection.execute(statement, values)]


@app.get("/")
def posts():
    return {"posts": ask("SELECT title FROM post ORDER BY id"), "key": open(f"{app.instance_path}/key").read()}


@app.post("/upload/<name>")
def upload(name):
    with open(os.path.join(app.config["UPLOAD_FOLDER"], name), "wb") as file:
        file.write(request.get_data())
    ask("INSERT INTO post (title) VALUES (?)", name)
    return "", 201
"""
_MODELS = """\
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///app_dev.db"
db = SQLAlchemy(app)


class Post(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    title = db.Column(db.String(80))


{more}
with app.app_context():
    db.create_all()


@app.get("/")
def posts():
    return {{"posts": [post.title for post in Post.query]}}
"""
_MORE = """\
class Tag(db.Model):
    id = db.Column(db.Integer, primary_key=True)


"""
_TABLE = "CREATE TABLE post (id INTEGER NOT NULL, title VARCHAR(80), PRIMARY KEY (id))"


def _database(file: Path, *titles: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(_TABLE)
        connection.executemany("INSERT INTO post (title) VALUES (?)", [(title,) for title in titles])


def _initialise(app: LiveApp) -> str:
    app.run("init", "--name", app.name, status=0)
    workshop.commit(app.folder, {}, "Configure it")
    return (app.folder / "bulletproof.toml").read_text()


def _upload(app: LiveApp, name: str, content: bytes) -> None:
    port = int(app.layout.port.read_text())
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("POST", f"/upload/{name}", body=content)
        assert connection.getresponse().status == 201


def test_the_tutorials_app_keeps_what_its_users_made(lay_app: LayApp) -> None:
    """A database in `instance/`, a key beside it and uploads below `static/` outlive the release that wrote them."""
    files = {"app.py": _TUTORIAL, "requirements.txt": "flask\n", ".gitignore": "instance/\nstatic/uploads/\n"}
    app = lay_app("tutorial", files)
    _database(app.folder / "instance" / "flaskr.sqlite", "one")
    (app.folder / "instance" / "key").write_text("secret")
    (app.folder / "static" / "uploads").mkdir(parents=True)
    (app.folder / "static" / "uploads" / "old.txt").write_text("of the checkout")
    text = _initialise(app)
    assert '\ndatabase.links = ["instance/flaskr.sqlite"]' in text
    assert '\napp.persistent = ["static/uploads", "instance"]' in text

    app.deploy()
    assert app.ask("/")[2].strip() == '{"key":"secret","posts":["one"]}'
    _upload(app, "new.txt", b"of a user")
    uploads = app.layout.data / "static" / "uploads"
    assert {path.name: path.read_text() for path in uploads.iterdir()} == {
        "old.txt": "of the checkout",
        "new.txt": "of a user",
    }
    (uploads / "old.txt").write_text("changed by a user")

    workshop.write(app.folder, {"static/uploads/new.txt": "shipped", "static/uploads/old.txt": "shipped"})
    workshop.git(app.folder, "add", "-f", "static/uploads")
    workshop.commit(app.folder, {}, "Ship files where users have theirs")
    app.deploy()
    _upload(app, "newer.txt", b"of a user")
    assert {path.name: path.read_text() for path in uploads.iterdir()} == {
        "old.txt": "changed by a user",
        "new.txt": "of a user",
        "newer.txt": "of a user",
    }
    assert app.ask("/")[2].strip() == '{"key":"secret","posts":["one","new.txt","newer.txt"]}'
    with contextlib.closing(sqlite3.connect(app.folder / "instance" / "flaskr.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM post").fetchone() == (1,)


def test_a_relative_url_that_no_setting_moves(lay_app: LayApp) -> None:
    """`sqlite:///app_dev.db` written in the source leads to the data; a table more is migrated as for any app."""
    files = {"app.py": _MODELS.format(more=""), "requirements.txt": "flask-sqlalchemy\n", ".gitignore": "*.db\n"}
    app = lay_app("relative", files)
    _database(app.folder / "instance" / "app_dev.db", "one", "two")
    assert '\ndatabase.links = ["instance/app_dev.db"]' in _initialise(app)
    app.deploy()
    assert app.ask("/")[2].strip() == '{"posts":["one","two"]}'
    workshop.commit(app.folder, {"app.py": _MODELS.format(more=_MORE)}, "A table more")
    app.deploy()
    assert app.ask("/")[2].strip() == '{"posts":["one","two"]}'
    with contextlib.closing(sqlite3.connect(app.database)) as connection:
        assert connection.execute("SELECT count(*) FROM tag").fetchone() == (0,)


def test_a_django_as_startproject_writes_it(lay_app: LayApp) -> None:
    """`BASE_DIR / "db.sqlite3"` leads to the data, in the first deployment and in a migration."""
    app = lay_app("started", project(database=WRITTEN))
    assert '\ndatabase.links = ["db.sqlite3"]' in _initialise(app)
    app.deploy()
    with contextlib.closing(sqlite3.connect(app.database)) as connection, connection:
        connection.execute("INSERT INTO books_book (title) VALUES ('one')")
    workshop.commit(
        app.folder, project(NOTE, fields=("note = models.TextField(null=True)",), database=WRITTEN), "Take notes"
    )
    app.deploy()
    with contextlib.closing(sqlite3.connect(app.database)) as connection:
        assert connection.execute("SELECT title, note FROM books_book").fetchall() == [("one", None)]


def test_a_write_into_the_source_is_named_with_the_line_that_helps(lay_app: LayApp) -> None:
    """What `init` cannot see, the rehearsal notices: the place, and what to write into bulletproof.toml."""
    source = "from flask import Flask\n\napp = Flask(__name__)\n\n\n@app.get('/up')\ndef up():\n    return 'up'\n"
    writes = source.replace("    return", "    name = ''.join(['var/', 'cache'])\n{0}    return")
    app = lay_app("writes", {"app.py": source, "requirements.txt": "flask\n"})
    _initialise(app)
    app.deploy()

    gentle = writes.format("    try:\n        open(f'{name}/page', 'w')\n    except OSError:\n        pass\n")
    workshop.commit(app.folder, {"app.py": gentle, "var/cache/.keep": ""}, "Try to write")
    planned = " ".join(app.run("plan", status=0).out.split())
    assert 'it writes var/cache/page into its own source, which is read-only: app.persistent = ["var/cache"]' in planned

    workshop.commit(app.folder, {"app.py": writes.format("    open(f'{name}/page', 'w')\n")}, "Write")
    failed = app.change("deploy").must(3, "undone")
    assert 'app.persistent = [\\"var/cache\\"]' in failed.out

    text = (app.folder / "bulletproof.toml").read_text()
    workshop.commit(app.folder, {"bulletproof.toml": f'{text}app.persistent = ["var/cache"]\n'}, "Say where")
    app.deploy()
    assert sorted(path.name for path in (app.layout.data / "var" / "cache").iterdir()) == [".keep", "page"]
    workshop.commit(app.folder, {"app.py": writes.format("    open(f'{name}/other', 'w')\n")}, "Write another")
    app.run("plan", status=0)
    assert not (app.layout.data / "var" / "cache" / "other").exists()
