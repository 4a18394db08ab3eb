"""Small apps of every kind that a person may bring, each with what `init` says of it and what its users are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import workshop
from django_project import project
from migrating import PLAIN_ENV, revision

HELLO = "hello"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An app, and what becomes of it."""

    name: str
    title: str
    """What kind of app it is, for people."""
    files: Mapping[str, str]
    entry: str = ""
    """What `init` finds; empty when it refuses the app."""
    says: tuple[str, ...] = ()
    """Words on the screen of `init`, each with its reason."""
    answer: str = HELLO
    """What `/` answers once it is deployed; empty when it is refused."""
    refused: str = ""
    """The error's reference, of `init` when there is no entry, otherwise of `deploy`."""
    words: tuple[str, ...] = ()
    """Words of that error, or of the deployment."""
    links: Mapping[str, str] = field(default_factory=dict)
    submodule: str = ""
    """A folder that is a git repository of its own."""
    assets_bytes: int = 0
    """The size of a file of assets, in static/."""


def flask(*, imports: str = "", name: str = "app", more: str = "") -> str:
    """A Flask app object that says hello."""
    return f"{imports}from flask import Flask\n\n{name} = Flask(__name__)\n\n\n{_route(name)}{more}"


def factory(parameters: str = "", *, name: str = "create_app") -> str:
    """A Flask factory with these parameters."""
    body = _route("app").replace("\n", "\n    ").rstrip()
    made = f"    app = Flask(__name__)\n\n    {body}\n\n    return app\n"
    return f"from flask import Flask\n\n\ndef {name}({parameters}):\n{made}"


def _route(name: str) -> str:
    return f'@{name}.get("/")\ndef hello():\n    return "{HELLO}"\n'


_ASGI = """\
async def application(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
"""
_WSGI = """\
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""
_FASTAPI = """\
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

app = FastAPI()


@app.get("/", response_class=PlainTextResponse)
async def hello():
    return "hello"
"""
_STARLETTE = """\
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

site = Starlette(routes=[Route("/", lambda request: PlainTextResponse("hello"))])
"""
_TUTORIAL = """\
[project]
name = "flaskr"
version = "1.0.0"
dependencies = ["flask"]

[build-system]
requires = ["flit_core<4"]
build-backend = "flit_core.buildapi"
"""
_PYPROJECT = '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">={python}"\ndependencies = ["flask"]\n'
_SCRIPT = """\
from flask import Flask

if __name__ == "__main__":
    app = Flask(__name__)
    app.run()
"""
_WITH_DATABASE = f"""\
import os

from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

{flask()}

app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
database = SQLAlchemy(app)
Migrate(app, database)


class Book(database.Model):
    id = database.Column(database.Integer, primary_key=True)
"""
_MAKE_BOOKS = 'op.create_table("book", sa.Column("id", sa.Integer, primary_key=True))'
_WORKER = "import time\n\nwhile True:\n    time.sleep(1)\n"
_FLASK = {"requirements.txt": "flask\n"}
_COMPOSE = {
    "Dockerfile": "FROM node:20\nCMD node server.js\n",
    "server.js": "require('http').createServer().listen(8000)\n",
}
_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1000000\n"


CASES = (
    # --- where the app is
    Case(name="object", title="an app object in app.py", files={**_FLASK, "app.py": flask()}, entry="app:app"),
    Case(name="main", title="an app object in main.py", files={**_FLASK, "main.py": flask()}, entry="main:app"),
    Case(
        name="wsgi",
        title="wsgi.py, with its own name for the app",
        files={**_FLASK, "wsgi.py": flask(name="application")},
        entry="wsgi:application",
    ),
    Case(
        name="run",
        title="run.py, which calls the factory of a package",
        files={
            **_FLASK,
            "run.py": "from shop import create_app\n\napp = create_app()\n",
            "shop/__init__.py": factory(),
        },
        entry="run:app",
    ),
    Case(
        name="factory",
        title="a factory in a package, its arguments with defaults",
        files={**_FLASK, "shop/__init__.py": factory('config="production"')},
        entry="shop:create_app()",
    ),
    Case(
        name="package",
        title="an app object in a package",
        files={**_FLASK, "shop/__init__.py": "", "shop/web.py": flask()},
        entry="shop.web:app",
    ),
    Case(
        name="src",
        title="a package in src/",
        files={**_FLASK, "src/shop/__init__.py": factory()},
        entry="shop:create_app()",
    ),
    Case(
        name="tutorial",
        title="an installed package with a factory, as Flask's tutorial has it",
        files={"pyproject.toml": _TUTORIAL, "flaskr/__init__.py": '"""Blog."""\n' + factory("test_config=None")},
        entry="flaskr:create_app()",
    ),
    Case(
        name="procfile",
        title="a Procfile that says where the app is",
        files={**_FLASK, "Procfile": "web: gunicorn site_of_mine:server\n", "site_of_mine.py": flask(name="server")},
        entry="site_of_mine:server",
        says=("Procfile:1",),
    ),
    Case(
        name="processes",
        title="a Procfile with a release command and a worker",
        files={
            **_FLASK,
            "Procfile": "web: gunicorn app:app\nrelease: python prepare.py\nmail: python mail.py\n",
            "app.py": flask(),
            "prepare.py": "print('prepared')\n",
            "mail.py": _WORKER,
        },
        entry="app:app",
        says=("mail", "python prepare.py"),
    ),
    Case(
        name="arguments",
        title="a factory that needs an argument",
        files={**_FLASK, "shop/__init__.py": factory("config")},
        answer="",
        refused="entry-not-found",
        words=("shop/__init__.py:4: create_app needs arguments; make a file wsgi.py with app = create_app(...)",),
    ),
    Case(
        name="script",
        title="an app that is made only when its file is run",
        files={**_FLASK, "app.py": _SCRIPT},
        answer="",
        refused="entry-not-found",
        words=("app.py:4: app is made only when the file is run as a script",),
    ),
    Case(
        name="two",
        title="two apps, and nothing that says which",
        files={**_FLASK, "admin.py": flask(), "shop.py": flask()},
        answer="",
        refused="entry-ambiguous",
        words=("admin:app", "shop:app"),
    ),
    # --- other frameworks
    Case(
        name="fastapi",
        title="FastAPI",
        files={"requirements.txt": "fastapi\n", "main.py": _FASTAPI},
        entry="main:app",
        words=("uvicorn was added",),
    ),
    Case(
        name="starlette",
        title="Starlette, with its own name for the app",
        files={"requirements.txt": "starlette\n", "asgi.py": _STARLETTE},
        entry="asgi:site",
        words=("uvicorn was added",),
    ),
    Case(
        name="asgi",
        title="an ASGI app without a framework",
        files={"requirements.txt": "uvicorn\n", "asgi.py": _ASGI},
        entry="asgi:application",
    ),
    Case(
        name="plain",
        title="a WSGI app without a framework",
        files={"requirements.txt": "gunicorn\n", "wsgi.py": _WSGI},
        entry="wsgi:application",
    ),
    Case(
        name="no-list",
        title="no list of packages",
        files={"wsgi.py": _WSGI},
        entry="wsgi:application",
        says=("requirements.txt",),
        answer="",
        refused="requirements-missing",
        words=("pip freeze > requirements.txt",),
    ),
    Case(
        name="django",
        title="Django, as startproject lays it",
        files=project(),
        entry="shop.wsgi:application",
        says=("shop.settings", "books/migrations"),
        answer="",
    ),
    Case(
        name="django-asgi",
        title="Django with asgi.py alone",
        files=project(servers=("asgi",)),
        entry="shop.asgi:application",
        answer="",
        words=("uvicorn was added",),
    ),
    # --- what it needs
    Case(
        name="unpinned",
        title="requirements.txt without versions",
        files={**_FLASK, "app.py": flask()},
        entry="app:app",
        words=("by requirements.txt", "gunicorn was added"),
    ),
    Case(
        name="project",
        title="pyproject.toml alone",
        files={"pyproject.toml": _PYPROJECT.format(python="3.9"), "app.py": flask()},
        entry="app:app",
        words=("by pyproject.toml",),
    ),
    Case(
        name="too-new",
        title="a Python that this machine does not have",
        files={"pyproject.toml": _PYPROJECT.format(python="3.99"), "app.py": flask()},
        entry="app:app",
        answer="",
        refused="python-missing",
        words=("3.99",),
    ),
    # --- not yet ours, or hardly
    Case(
        name="postgresql",
        title="PostgreSQL",
        files={**_FLASK, ".env": "DATABASE_URL=postgresql://shop@localhost/shop\n", "app.py": flask()},
        entry="app:app",
        says=("PostgreSQL",),
    ),
    Case(
        name="postgresql-migrations",
        title="PostgreSQL, with migrations of its own",
        files={
            "requirements.txt": "flask\nflask-sqlalchemy\nflask-migrate\npsycopg[binary]\n",
            ".env": "DATABASE_URL=postgresql+psycopg://shop@127.0.0.1:1/shop\n",
            "app.py": _WITH_DATABASE,
            "migrations/env.py": PLAIN_ENV,
            "migrations/alembic.ini": "[alembic]\n",
            "migrations/versions/a1.py": revision("a1", "a table of books", upgrade=_MAKE_BOOKS),
        },
        entry="app:app",
        says=("PostgreSQL", "migrations are yours to run"),
        words=("PostgreSQL: not looked after yet",),
    ),
    Case(
        name="mysql",
        title="MySQL",
        files={**_FLASK, ".env": "DATABASE_URL=mysql://shop@localhost/shop\n", "app.py": flask()},
        entry="app:app",
        says=("MySQL",),
    ),
    Case(
        name="docker",
        title="only a Dockerfile, of another language",
        files=_COMPOSE,
        answer="",
        refused="entry-not-found",
        words=("Dockerfile",),
    ),
    Case(
        name="windows",
        title="written on Windows, with its line ends",
        files={
            "requirements.txt": "flask\r\n",
            ".env": "GREETING=hello\r\n",
            "Procfile": "web: gunicorn app:app\r\n",
            "app.py": flask(imports="import os\n")
            .replace(f'"{HELLO}"', 'os.environ["GREETING"]')
            .replace("\n", "\r\n"),
        },
        entry="app:app",
    ),
    Case(
        name="lfs",
        title="a file that is only a Git LFS pointer",
        files={**_FLASK, "app.py": flask(), "static/film.mp4": _POINTER},
        entry="app:app",
        answer="",
        refused="source-incomplete",
        words=("static/film.mp4", "git lfs pull"),
    ),
    Case(
        name="submodule",
        title="a git submodule",
        files={**_FLASK, "app.py": flask()},
        submodule="vendor",
        entry="app:app",
        answer="",
        refused="source-incomplete",
        words=("vendor", "submodule"),
    ),
    Case(
        name="assets",
        title="500 MB of assets",
        files={**_FLASK, "app.py": flask()},
        assets_bytes=500_000_000,
        entry="app:app",
    ),
    Case(
        name="leaving-link",
        title="a symlink that leads out of the source",
        files={**_FLASK, "app.py": flask()},
        links={"secrets": "/etc/passwd"},
        entry="app:app",
        answer="",
        refused="source-unsafe",
        words=("secrets", "leaves the source"),
    ),
    Case(
        name="inner-link",
        title="a symlink within the source",
        files={
            **_FLASK,
            "app.py": "from greeting import HELLO\n" + flask().replace('"hello"', "HELLO"),
            "real.py": 'HELLO = "hello"\n',
        },
        links={"greeting.py": "real.py"},
        entry="app:app",
    ),
)


def complete(folder: Path, case: Case) -> None:
    """Lay what is more than a file with a content."""
    for name, target in case.links.items():
        (folder / name).symlink_to(target)
    if case.submodule:
        workshop.commit(folder / case.submodule, {"README": "of another project"})
    if case.assets_bytes:
        assets = folder / "static" / "assets.bin"
        assets.parent.mkdir(exist_ok=True)
        with assets.open("wb") as file:
            file.truncate(case.assets_bytes)
