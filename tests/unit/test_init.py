"""`init` finds what an app is by reading it, writes a bulletproof.toml that holds, and touches nothing else."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from bulletproof.cli.init import init_command
from bulletproof.domain.config import App, AppConfig, Database, Health, Journal, Proxy, Server
from bulletproof.domain.settings import NOT_YET_OURS
from bulletproof.domain.toml import parse
from bulletproof.effects.env_file import EnvFile
from bulletproof.effects.project import read_config
from bulletproof.effects.source_tree import read_source, search_entry
from bulletproof.effects.sqlite_found import describe_database
from bulletproof.errors import BulletproofError, StepFailed, UsageError
from bulletproof.operations.detect import DatabaseFound, Findings, Found, GitFound, detect, find_entry, valid_name
from bulletproof.operations.init import as_json, describe, initialise, toml_text, warnings

Tree = dict[str, str | bytes]

FLASK = "from flask import Flask\n"
APP = f"{FLASK}app = Flask(__name__)\n"
FACTORY = f"""{FLASK}

def create_app():
    app = Flask(__name__)
    return app
"""

SEED: Tree = {
    "run.py": """from app import create_app

app = create_app()

if __name__ == "__main__":
    app.run()
""",
    "app/__init__.py": """import os
from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

db = SQLAlchemy()
migrate = Migrate()


def create_app(config=None):
    app = Flask(__name__)
    app.config["SECRET_KEY"] = os.environ["SECRET_KEY"]
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ.get("DATABASE_URL", "sqlite:///app_dev.db")
    db.init_app(app)
    migrate.init_app(app, db)
    from app.views import pages
    app.register_blueprint(pages)
    return app
""",
    "app/views.py": """from flask import Blueprint

pages = Blueprint("pages", __name__)


@pages.route("/up")
def up():
    return "up"
""",
    "app/models.py": "from app import db\n",
    "migrations/env.py": "from alembic import context\nfrom flask import Flask\napp = Flask(__name__)\n",
    "migrations/versions/0001.py": "revision = '1'\n",
    "tests/test_app.py": "from app import create_app\napp = create_app()\n",
    "requirements.txt": "flask==3.1.3\n# the rest\nflask-sqlalchemy\nFlask-Migrate>=4 ; python_version > '3'\n",
    ".env": "SECRET_KEY='top secret'\nDATABASE_URL=sqlite:///app_dev.db\n",
    ".env.example": "SECRET_KEY=\nDATABASE_URL=sqlite:///app_dev.db\n",
    ".python-version": "3.12\n",
}


def planted(folder: Path, tree: Tree) -> Path:
    """The folder with these files in it."""
    for name, content in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder with a name that an app can have."""
    path = tmp_path / "shop"
    path.mkdir()
    return path


def git(folder: Path, *words: str) -> None:
    """Run git without anybody's configuration."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    environment = {**clean, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", *who, *words], cwd=folder, env=environment, check=True, capture_output=True)


def failure(folder: Path, reference: str) -> BulletproofError:
    """The error that looking at the folder must end in."""
    with pytest.raises(BulletproofError) as caught:
        detect(folder)
    assert caught.value.reference == reference
    return caught.value


# --- the seed's layout, whole -----------------------------------------------------------------------------------------


def test_the_seeds_app_is_found_whole(folder: Path) -> None:
    """Every finding of the layout that the guide describes, with the place it was seen at."""
    planted(folder, SEED)
    connection = sqlite3.connect(folder / "app_dev.db")
    connection.execute("create table user (id)")
    connection.commit()
    connection.close()
    (folder / "notes.db").write_text("no database")
    git(folder, "init", "-q")
    (folder / ".gitignore").write_text(".env\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first")
    assert detect(folder) == Findings(
        folder=str(folder),
        name=Found(what="shop", where="the folder's name"),
        entry=Found(what="run:app", where="run.py:3: app = create_app()"),
        import_folder="",
        packages=("flask", "flask-sqlalchemy", "Flask-Migrate"),
        package_list="requirements.txt",
        requirements_problem="",
        env=EnvFile(
            name=".env",
            names=("SECRET_KEY", "DATABASE_URL"),
            databases={"DATABASE_URL": "sqlite"},
            sqlite_files={"DATABASE_URL": "app_dev.db"},
        ),
        env_example=EnvFile(
            name=".env.example",
            names=("SECRET_KEY", "DATABASE_URL"),
            empty=("SECRET_KEY",),
            databases={"DATABASE_URL": "sqlite"},
            sqlite_files={"DATABASE_URL": "app_dev.db"},
        ),
        database=DatabaseFound(
            kind="sqlite",
            setting="DATABASE_URL",
            where="app/__init__.py:13",
            files=("app_dev.db",),
            holds=(describe_database(folder / "app_dev.db").words,),
            used="app_dev.db",
            tracked=("app_dev.db",),
        ),
        journal=Found(what="DELETE", where="app_dev.db is so"),
        migrations=Found(what="flask-migrate", where="migrations"),
        health=Found(what="/up", where="app/views.py:6"),
        python=Found(what="3.12", where=".python-version"),
        git=GitFound(is_repository=True),
    )
    assert find_entry(folder, Server.GUNICORN) == "run:app"


# --- the entry --------------------------------------------------------------------------------------------------------

CLEAR: dict[str, tuple[Tree, str, str]] = {
    "an object": ({"app.py": APP}, "app:app", "app.py:2: app = Flask(__name__)"),
    "a line that is too long to be shown": (
        {"app.py": f"{FLASK}app = Flask(__name__, static_folder='{'x' * 50}')\n"},
        "app:app",
        f"app.py:2: app = Flask(__name__, static_folder='{'x' * 20}...",
    ),
    "an object named application": (
        {"wsgi.py": "import flask\napplication = flask.Flask(__name__)\n"},
        "wsgi:application",
        "wsgi.py:2: application = flask.Flask(__name__)",
    ),
    "an object in a file of any name": ({"mysite.py": APP}, "mysite:app", "mysite.py:2: app = Flask(__name__)"),
    "a package's object": (
        {"shop/__init__.py": APP, "shop/views.py": "from shop import app\n\n@app.route('/')\ndef home(): ...\n"},
        "shop:app",
        "shop/__init__.py:2: app = Flask(__name__)",
    ),
    "a factory alone": ({"app/__init__.py": FACTORY}, "app:create_app()", "app/__init__.py:4: def create_app():"),
    "a factory with optional arguments": (
        {"app/__init__.py": FACTORY.replace("create_app()", "create_app(config=None, *, debug=False, **others)")},
        "app:create_app()",
        "app/__init__.py:4: def create_app(config=None, *, debug=False, **others):",
    ),
    "a factory of another name": (
        {"app/__init__.py": FACTORY.replace("create_app", "build")},
        "app:build()",
        "app/__init__.py:4: def build():",
    ),
    "a factory that is only annotated": (
        {"app/factory.py": "import flask\ndef make() -> 'flask.Flask':\n    return _made()\n", "app/__init__.py": ""},
        "app.factory:make()",
        "app/factory.py:2: def make() -> 'flask.Flask':",
    ),
    "a package in src": (
        {"src/shop/__init__.py": FACTORY, "src/shop/__main__.py": "from shop import create_app\n"},
        "shop:create_app()",
        "src/shop/__init__.py:4: def create_app():",
    ),
    "an object handed on to wsgi.py": (
        {"shop/__init__.py": APP, "wsgi.py": "from shop import app as application\n"},
        "wsgi:application",
        "wsgi.py:1: from shop import app as application",
    ),
    "a factory handed on through a package": (
        {
            "app/__init__.py": "from .factory import create_app\n",
            "app/factory.py": FACTORY,
            "manage.py": "import app\n\nserver = app.create_app()\n",
        },
        "app.factory:create_app()",
        "app/factory.py:4: def create_app():",
    ),
    "many ways to one app": (
        {
            "app/__init__.py": FACTORY,
            "run.py": "from app import create_app\napp = create_app()\n",
            "wsgi.py": "from run import app\n",
            "seed_data.py": "from app import create_app\napp = create_app()\n",
        },
        "wsgi:app",
        "wsgi.py:1: from run import app",
    ),
    "imports from above and beside": (
        {
            "shop/__init__.py": "from .web.wsgi import app\n",
            "shop/web/__init__.py": "",
            "shop/web/wsgi.py": "from ..core.factory import create_app\napp = create_app()\n",
            "shop/core/__init__.py": "",
            "shop/core/factory.py": FACTORY,
        },
        "shop.web.wsgi:app",
        "shop/web/wsgi.py:2: app = create_app()",
    ),
    "a factory that wsgi.py gets from a package that gets it from a module": (
        {
            "app/__init__.py": "from .factory import create_app\n",
            "app/factory.py": FACTORY,
            "wsgi.py": "import app as package\napplication = package.create_app()\n",
        },
        "wsgi:application",
        "wsgi.py:2: application = package.create_app()",
    ),
    "a factory that passes its app on": (
        {
            "app/__init__.py": f"""{FLASK}

def create_app():
    made = first = Flask(__name__)
    application = made
    return application

def helper():
    return 3

def init_app(app):
    app.ready = True
    return app

def test_app():
    app = object()
    return app
"""
        },
        "app:create_app()",
        "app/__init__.py:4: def create_app():",
    ),
    "an app wrapped twice in its factory": (
        {
            "app/__init__.py": f"""{FLASK}

def create_app():
    app = Flask(__name__)
    app.wsgi_app = print
    return outer(inner(app, x=1), y=2)

def other():
    return outer(Flask(__name__))
"""
        },
        "app:create_app()",
        "app/__init__.py:4: def create_app():",
    ),
    "two apps in one file of which one has the usual name": (
        {"app.py": f"{APP}admin = Flask('admin')\n"},
        "app:app",
        "app.py:2: app = Flask(__name__)",
    ),
    "a file that is imported inside a function": (
        {
            "run.py": "def load():\n    from shop import create_app\n    return create_app()\napp = load()\n",
            "shop/__init__.py": FACTORY,
        },
        "run:app",
        "run.py:4: app = load()",
    ),
    "one app or the other": (
        {
            "run.py": "from shop import create_app\napp = create_app() if x else create_app('test')\n",
            "shop/__init__.py": FACTORY.replace("()", "(kind='live')"),
        },
        "run:app",
        "run.py:2: app = create_app() if x else create_app('test')",
    ),
    "a script that fills the database": (
        {"app/__init__.py": FACTORY, "seed_data.py": "from app import create_app\napp = create_app()\n"},
        "app:create_app()",
        "app/__init__.py:4: def create_app():",
    ),
    "an app that is wrapped": (
        {"run.py": f"{APP}from werkzeug.middleware.proxy_fix import ProxyFix\napp = ProxyFix(app, x_for=1)\n"},
        "run:app",
        "run.py:2: app = Flask(__name__)",
    ),
    "what is made of an app is none": (
        {"app.py": f"{APP}from flask_migrate import Migrate\nmigrate = Migrate(app)\nclient = app.test_client()\n"},
        "app:app",
        "app.py:2: app = Flask(__name__)",
    ),
    "a class made from Flask": (
        {"app.py": f"{FLASK}class Shop(Flask):\n    pass\n\nif True:\n    app: Shop = Shop(__name__)\n"},
        "app:app",
        "app.py:6: app: Shop = Shop(__name__)",
    ),
    "an import that is tried": (
        {
            "run.py": "try:\n    from app import create_app\nexcept ImportError:\n    raise\napp = create_app('x')\n",
            "app/__init__.py": FACTORY.replace("()", "(config)"),
        },
        "run:app",
        "run.py:5: app = create_app('x')",
    ),
    "a script and a factory": (
        {
            "run.py": "from app import create_app\nif __name__ == '__main__':\n    app = create_app()\n    app.run()\n",
            "app/__init__.py": FACTORY,
        },
        "app:create_app()",
        "app/__init__.py:4: def create_app():",
    ),
    "FLASK_APP between two": (
        {"one.py": APP, "two.py": APP, ".flaskenv": "FLASK_APP=two.py\n"},
        "two:app",
        "two.py:2: app = Flask(__name__)",
    ),
    "FLASK_APP with a name": (
        {"app.py": f"{APP}admin = Flask('admin')\n", ".env": 'export FLASK_APP="app:admin"\n'},
        "app:admin",
        "app.py:3: admin = Flask('admin')",
    ),
    "FLASK_APP names the app that run.py serves": (
        {
            "other.py": APP,
            "app/__init__.py": FACTORY,
            "run.py": SEED["run.py"],
            ".flaskenv": "FLASK_APP=app:create_app()\n",
        },
        "run:app",
        "run.py:3: app = create_app()",
    ),
    "a second app that is only an example": (
        {"app.py": APP, "examples/small.py": APP, "admin.py": APP.replace("app =", "admin =")},
        "app:app",
        "app.py:2: app = Flask(__name__)",
    ),
    "what is not the app's own": (
        {
            "app.py": APP,
            **{
                f"{place}/wsgi.py": APP
                for place in (".hidden", "venv", ".venv", "node_modules", "__pycache__", "tests", "migrations", "build")
            },
            "odd-environment/pyvenv.cfg": "",
            "odd-environment/lib/wsgi.py": APP,
            "test_app.py": APP,
            "conftest.py": APP,
        },
        "app:app",
        "app.py:2: app = Flask(__name__)",
    ),
    "a file that is broken beside one that is not": (
        {"app.py": APP, "broken.py": "def (:\n", "null.py": b"x = '\0'\n", "deep.py": "x = " + "(" * 500 + ")" * 500},
        "app:app",
        "app.py:2: app = Flask(__name__)",
    ),
    "Windows line ends and a byte order mark": (
        {"app.py": b"\xef\xbb\xbffrom flask import Flask\r\n\r\napp = Flask(__name__)\r\n"},
        "app:app",
        "app.py:3: app = Flask(__name__)",
    ),
    "an encoding of its own": (
        {"app.py": "# coding: latin-1\nfrom flask import Flask\nname = 'Größe'\napp = Flask(name)\n".encode("latin-1")},
        "app:app",
        "app.py:4: app = Flask(name)",
    ),
}


@pytest.mark.parametrize("case", CLEAR)
def test_the_entry_is_found_with_its_reason(folder: Path, case: str) -> None:
    """Each usual way to write a Flask app leads to the entry that a server can load, and says why."""
    tree, entry, reason = CLEAR[case]
    planted(folder, tree)
    found = search_entry(folder, read_source(folder))
    assert found.chosen is not None, found
    assert (found.chosen.entry, found.chosen.reason) == (entry, reason)
    assert find_entry(folder, Server.GUNICORN) == entry


NOT_WHOLE = {"a factory that is only annotated", "an app wrapped twice in its factory", "one app or the other"}
"""Trees that name things which they do not define."""
LOADABLE = [case for case in CLEAR if case not in NOT_WHOLE]


def test_python_itself_loads_every_entry_that_is_found(tmp_path: Path) -> None:
    """What was found by reading is what importing gives: a Flask app, or a WSGI wrapper around one."""
    if importlib.util.find_spec("flask") is None:
        pytest.skip("Flask is not installed here")
    wanted = []
    for number, case in enumerate(LOADABLE):
        tree, entry, _ = CLEAR[case]
        (tmp_path / str(number)).mkdir()
        found = search_entry(planted(tmp_path / str(number), tree), read_source(tmp_path / str(number))).chosen
        assert found is not None
        wanted.append((str(tmp_path / str(number) / found.import_folder), entry))
    # One interpreter for all: what a tree imported is forgotten before the next.
    program = """
import importlib, json, sys
known = set(sys.modules)
for folder, entry in json.loads(sys.argv[1]):
    for name in set(sys.modules) - known:
        if not name.startswith(("flask", "werkzeug", "jinja2", "click", "sqlalchemy")) and not name.startswith("_"):
            if getattr(sys.modules[name], "__file__", None) and sys.modules[name].__file__.startswith(sys.argv[2]):
                del sys.modules[name]
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    module, _, name = entry.partition(":")
    found = getattr(importlib.import_module(module), name.removesuffix("()"))
    found = found() if name.endswith("()") else found
    assert callable(getattr(found, "wsgi_app", found)), (folder, entry, found)
    assert type(found).__name__ in {"Flask", "Shop", "ProxyFix"}, (folder, entry, found)
    sys.path.remove(folder)
    print(entry)
"""
    argv = [sys.executable, "-c", program, json.dumps(wanted), str(tmp_path)]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [entry for _, entry in wanted]


def test_a_source_folder_that_is_a_package_is_part_of_the_name(folder: Path) -> None:
    """`src` with an __init__.py is imported by its name, without one it must be on Python's path."""
    planted(folder, {"src/app.py": APP})
    chosen = search_entry(folder, read_source(folder)).chosen
    assert chosen is not None
    assert (chosen.entry, chosen.import_folder) == ("app:app", "src")
    planted(folder, {"src/__init__.py": ""})
    chosen = search_entry(folder, read_source(folder)).chosen
    assert chosen is not None
    assert (chosen.entry, chosen.import_folder) == ("src.app:app", "")


def test_two_apps_are_a_question_for_a_person(folder: Path) -> None:
    """Where two different apps are as likely, both are shown as lines to write, and none is taken."""
    planted(folder, {"app.py": APP, "main.py": FACTORY + "app = create_app()\n"})
    with pytest.raises(StepFailed) as caught:
        find_entry(folder, Server.GUNICORN)
    assert caught.value.reference == "entry-ambiguous"
    assert caught.value.message == "2 apps were found in the source, and none is clearly the one to serve"
    assert caught.value.context == (
        'app.entry = "app:app"   # app.py:2: app = Flask(__name__)',
        'app.entry = "main:app"  # main.py:7: app = create_app()',
    )
    assert caught.value.hint == "write one of these lines into bulletproof.toml"
    assert failure(folder, "entry-ambiguous").hint == "bulletproof init --entry MODULE:APP"
    for line in caught.value.context:
        assert parse(f'name = "aa"\n{line}').app.entry in {"app:app", "main:app"}


NEEDS_ARGUMENTS = "create_app needs arguments; make a file wsgi.py with app = create_app(...), called with yours"
NONE: dict[str, tuple[Tree, tuple[str, ...]]] = {
    "an empty folder": ({}, ()),
    "files that are no Python": (
        {"README.md": "def (", "wsgi": APP, "app.py.orig": APP, "a\x1b.py": APP, "b\n/c.py": APP},
        (),
    ),
    "a factory with a required argument": (
        {"app/__init__.py": FACTORY.replace("()", "(config_name)")},
        (f"app/__init__.py:4: {NEEDS_ARGUMENTS}",),
    ),
    "a factory with a required keyword": (
        {"app/__init__.py": FACTORY.replace("()", "(*, config)")},
        (f"app/__init__.py:4: {NEEDS_ARGUMENTS}",),
    ),
    "a script only": (
        {"run.py": f"{FLASK}if __name__ == '__main__':\n    app = Flask(__name__)\n    app.run()\n"},
        ("run.py:3: app is made only when the file is run as a script",),
    ),
    "a server that starts in the import": (
        {"app.py": f"{APP}app.run(debug=True)\n"},
        ('app.py:3: app.run(debug=True) would run on import; put it below if __name__ == "__main__":',),
    ),
    "a server that starts in the import of another file": (
        {"app.py": f"{APP}app.run()\n", "wsgi.py": "from app import app\n"},
        ('app.py:3: app.run() would run on import; put it below if __name__ == "__main__":',),
    ),
    "a package that hides a file": (
        {"app.py": APP, "app/__init__.py": "", "app/models.py": ""},
        ("app.py:1: app/__init__.py has the same name and is the one that Python imports",),
    ),
    "a create_app that has nothing to do with Flask": (
        {"app/__init__.py": "def create_app():\n    return object()\n", "other.py": "import flask\n"},
        (),
    ),
    "an app that is made asynchronously": (
        {"app.py": f"{FLASK}async def create_app():\n    return Flask(__name__)\n"},
        (f"app.py:2: {NEEDS_ARGUMENTS}",),
    ),
    "names that are private or that no configuration could hold": (
        {"app.py": f"{FLASK}def _make(): return Flask('x')\nápp = Flask('y')\n"},
        (),
    ),
    "a syntax error": (
        {"app.py": f"{APP}\nif app\n    pass\n"},
        ("app.py:4: not Python: expected ':'",),
    ),
    "a name that cannot be imported": (
        {"my.site/app.py": APP},
        ("my.site/app.py:1: the name of the file or of its folder cannot be imported",),
    ),
    "names that lead to one another": ({"a.py": "from b import app\n", "b.py": "from a import app\napp = app\n"}, ()),
}


@pytest.mark.parametrize("case", NONE)
def test_without_an_entry_it_is_said_what_was_looked_for_and_why_it_did_not_do(folder: Path, case: str) -> None:
    """No app that a server can load is an error with every near miss and the line to write."""
    tree, reasons = NONE[case]
    planted(folder, tree)
    with pytest.raises(StepFailed) as caught:
        find_entry(folder, Server.GUNICORN)
    assert caught.value.reference == "entry-not-found"
    assert caught.value.context[0].startswith("looked for: app or application, made with Flask(...)")
    assert caught.value.context[1:] == reasons
    assert caught.value.hint == 'write app.entry = "MODULE:APP" into bulletproof.toml'


def test_a_source_of_any_shape_is_only_read(folder: Path) -> None:
    """Pipes, links in circles and links to nowhere named like modules neither stop the search nor are followed."""
    planted(folder, {"app.py": APP, "loop/x.py": ""})
    os.mkfifo(folder / "pipe.py")
    (folder / "gone.py").symlink_to("nowhere")
    (folder / "loop" / "again").symlink_to(folder, target_is_directory=True)
    (folder / "folder.py").mkdir()
    planted(folder, {"runs.py": f"open({str(folder / 'ran')!r}, 'w')\n{APP.replace('app =', 'other =')}"})
    assert find_entry(folder, Server.GUNICORN) == "app:app"
    assert not (folder / "ran").exists()


# --- the database -----------------------------------------------------------------------------------------------------

DATABASES: dict[str, tuple[Tree, DatabaseFound | None]] = {
    "none": ({}, None),
    "os.environ in brackets": (
        {"config.py": "import os\nclass Config:\n    SQLALCHEMY_DATABASE_URI = os.environ['DATABASE_URL']\n"},
        DatabaseFound(kind="", setting="DATABASE_URL", where="config.py:3"),
    ),
    "os.getenv of another name": (
        {
            "config.py": "from os import getenv\nURI = getenv('SHOP_DB') or 'postgresql+psycopg://h/d'\n",
            "db.py": "from config import URI\nengine = create_engine(URI)\n",
        },
        DatabaseFound(kind="postgresql", setting="SHOP_DB", where="db.py:2"),
    ),
    "a keyword, and a mapping that is handed in": (
        {
            "app.py": f"{APP}app.config.update(SQLALCHEMY_DATABASE_URI=settings.get('DATABASE_URL') or 'sqlite:///a.db')\n"
        },
        DatabaseFound(kind="sqlite", setting="DATABASE_URL", where="app.py:3"),
    ),
    "the usual repair of an old scheme": (
        {
            "app.py": "x['SQLALCHEMY_DATABASE_URI'] = os.environ.get('DATABASE_URL', '').replace('postgres://', 'mysql://')\n"
            " or 'sqlite:///' + path\n".replace("\n or", " or")
        },
        DatabaseFound(kind="sqlite", setting="DATABASE_URL", where="app.py:1"),
    ),
    "one for each environment": (
        {
            "config.py": "class Dev:\n    SQLALCHEMY_DATABASE_URI = os.environ.get('DEV_DATABASE_URL') or 'sqlite:///dev.db'\n"
            "class Test:\n    SQLALCHEMY_DATABASE_URI = 'sqlite://'\n"
            "class Live:\n    SQLALCHEMY_DATABASE_URI = os.environ.get('SHOP_DATABASE_URL') or 'sqlite:///live.db'\n"
        },
        DatabaseFound(kind="sqlite", setting="SHOP_DATABASE_URL", where="config.py:6"),
    ),
    "written in the source": (
        {"app.py": "app.config['SQLALCHEMY_DATABASE_URI'] = 'sqlite:////opt/shop/app.db'\n"},
        DatabaseFound(kind="sqlite", setting="", where="app.py:1"),
    ),
    "put together from parts": (
        {
            "app.py": "U = os.environ['DB_USER']\nSQLALCHEMY_DATABASE_URI = f'postgresql://{U}@{os.environ[\"DB_HOST\"]}/shop'\n"
        },
        DatabaseFound(kind="postgresql", setting="", where="app.py:2"),
    ),
    "in memory only": ({"app.py": "app.config['SQLALCHEMY_DATABASE_URI'] = 'sqlite:///:memory:'\n"}, None),
    "flask's own configuration is no setting": (
        {"db.py": "engine = create_engine(app.config['SQLALCHEMY_DATABASE_URI'])\n"},
        None,
    ),
    "a path in a setting": (
        {"db.py": "import os, sqlite3\nFILE = os.getenv('DB_PATH', 'data/x.db')\nsqlite3.connect(FILE)\n"},
        DatabaseFound(kind="sqlite", setting="", where="db.py:3", links=("data/x.db",)),
    ),
    "a relative URL in the source": (
        {"db.py": "import flask_sqlalchemy\nSQLALCHEMY_DATABASE_URI = 'sqlite:///x.db'\n"},
        DatabaseFound(kind="sqlite", setting="", where="db.py:2", links=("instance/x.db",)),
    ),
    "a driver": (
        {
            "db.py": "import psycopg, os\nconnection = psycopg.connect(os.environ['PG'])\n",
            ".env": "PG=postgres://h/d\n",
        },
        DatabaseFound(kind="postgresql", setting="PG", where="db.py:2"),
    ),
    "a setting two names away, and a use that tells less": (
        {
            "a.py": "import os, sqlalchemy\nurl = os.environ['STORE']\nengine = sqlalchemy.create_engine(url)\n",
            "b.py": "kept = os.environ.get('STORE') or 'mysql://h/d'\nURI = kept\nengine = create_async_engine(URI)\n",
        },
        DatabaseFound(kind="mysql", setting="STORE", where="b.py:3"),
    ),
    "a setting that looks like it": (
        {"settings.py": "from environs import env\nurl = env.str('DATABASE_URL')\n"},
        DatabaseFound(kind="", setting="DATABASE_URL", where="settings.py:2"),
    ),
    "the dotenv file has the last word on the kind": (
        {
            "app.py": "x['SQLALCHEMY_DATABASE_URI'] = os.getenv('DATABASE_URL', 'sqlite:///x.db')\n",
            ".env": "DATABASE_URL=postgresql://user:password@host/shop\n",
            ".env.example": "DATABASE_URL=sqlite:///x.db\n",
        },
        DatabaseFound(kind="postgresql", setting="DATABASE_URL", where="app.py:1"),
    ),
    "only a dotenv file tells": (
        {"app.py": APP, ".env": "KEY=1\nSTORE='mysql+pymysql://u:p@h/d'\n"},
        DatabaseFound(kind="mysql", setting="STORE", where=".env"),
    ),
}


@pytest.mark.parametrize("case", DATABASES)
def test_the_database_is_told_by_the_source_and_the_dotenv_files(folder: Path, case: str) -> None:
    """Which setting holds the URL, what kind it is and where that was seen, in every usual way to write it."""
    tree, database = DATABASES[case]
    planted(folder, {"run.py": APP, **tree})
    assert detect(folder, entry="run:app").database == database


def test_databases_that_lie_in_the_folder_are_told_by_their_first_bytes(folder: Path) -> None:
    """Real SQLite files are named with what they hold, and nothing is laid beside them."""
    planted(
        folder, {"run.py": APP, ".env": "DATABASE_URL=sqlite:///x.db\n", "fake.db": "text", "instance/empty.db": ""}
    )
    for name in ("x.db", "instance/y.sqlite3"):
        connection = sqlite3.connect(folder / name)
        connection.execute("create table t (x)")
        connection.close()
    before = sorted(path.name for path in folder.rglob("*"))
    database = detect(folder).database
    assert database is not None
    assert database.files == ("instance/y.sqlite3", "x.db")
    assert sorted(path.name for path in folder.rglob("*")) == before


# --- the other findings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("@app.get('/health')\ndef health(): ...\n", "/health"),
        ("@app.route('/healthz', methods=['GET'])\ndef health(): ...\n@app.get('/up')\ndef up(): ...\n", "/up"),
        ("app.add_url_rule('/healthz', view_func=print)\n", "/healthz"),
        ("@app.route('/health', methods=['POST'])\ndef health(): ...\n", None),
        ("api = Blueprint('api', __name__, url_prefix='/api')\n@api.get('/health')\ndef health(): ...\n", None),
        ("@api.get('/health')\ndef health(): ...\napp.register_blueprint(api, url_prefix='/api')\n", None),
        ("client.get('/up')\n", None),
        ("@app.get('/healthy')\ndef health(): ...\n", None),
    ],
)
def test_a_health_route_counts_only_when_its_whole_path_is_known(folder: Path, source: str, path: str | None) -> None:
    """A route below a prefix, of another method or in a test client would make a healthy release fail its gate."""
    planted(folder, {"app.py": APP + source})
    found = detect(folder).health
    assert (found.what if found else None) == path


def test_settings_are_told_by_their_names_alone(folder: Path) -> None:
    """Quoted, exported, empty and multi-line settings are all seen; no value is in anything that can be shown."""
    secret = "hunter2"
    lines = [
        "# a comment",
        f"SECRET_KEY='{secret} # no comment'",
        f'export MULTI="first {secret}',
        f'second {secret}"',
        f"PLAIN={secret}#{secret}",
        "EMPTY=",
        f"DATABASE_URL=sqlite:///{secret}.db",
        f"FLASK_APP={secret}",
        "NO_VALUE",
        "",
    ]
    planted(folder, {"app.py": APP, "requirements.txt": "Flask\n", ".env": "\ufeff" + "\r\n".join(lines)})
    done = initialise(folder)
    assert done.findings.env is not None
    assert done.findings.env.names == ("SECRET_KEY", "MULTI", "PLAIN", "EMPTY", "DATABASE_URL", "FLASK_APP")
    assert done.findings.env.empty == ("EMPTY",)
    shown = [repr(done), json.dumps(as_json(done)), done.path.read_text(), *warnings(done.findings)]
    shown += [f"{line.what} {line.why}" for line in describe(done.findings)]
    assert not [text for text in shown if secret in text]


@pytest.mark.parametrize(
    ("tree", "what", "why"),
    [
        (
            {".env": "B=1\nA=2\n"},
            "2 in .env",
            "B, A: taken by the first deployment, afterwards changed by `bulletproof env`",
        ),
        (
            {".env.example": "A=\n"},
            "none yet",
            ".env.example asks for A: write them into .env before the first deployment",
        ),
        ({".env": "", ".env.example": "#\n"}, "none", "there is no .env; later: `bulletproof env set NAME=VALUE`"),
    ],
)
def test_it_is_said_where_the_settings_come_from(folder: Path, tree: Tree, what: str, why: str) -> None:
    """Settings in .env, only asked for by .env.example, or nowhere, each with what follows."""
    planted(folder, {"app.py": APP, **tree})
    (line,) = (line for line in describe(detect(folder)) if line.topic == "settings")
    assert (line.what, line.why) == (what, why)


@pytest.mark.parametrize(
    ("source", "files", "what", "why"),
    [
        (
            "os.environ['DB_URL']",
            (),
            "not told",
            "its URL is in DB_URL (app.py:3); SQLite in the data folder, unless you set that to another",
        ),
        (
            "os.getenv('DB_URL', 'oracle://h')",
            (),
            "Oracle",
            f"its URL is in DB_URL (app.py:3), and stays there; {NOT_YET_OURS}",
        ),
        (
            "os.getenv('DB_URL', 'sqlite:///x')",
            (),
            "SQLite",
            "its URL is in DB_URL (app.py:3); it will live in the data folder",
        ),
        (
            "'sqlite:///x'",
            ("a.db",),
            "SQLite",
            "seen in app.py:3; x is a link to it in each release, and it will live in the data folder",
        ),
        (
            "'sqlite:////srv/x'",
            ("a.db",),
            "SQLite",
            "seen in app.py:3; it will live in the data folder",
        ),
    ],
)
def test_it_is_said_where_the_database_will_live(
    folder: Path, source: str, files: tuple[str, ...], what: str, why: str
) -> None:
    """Each kind of database comes with what a deployment does about it."""
    planted(
        folder, {"app.py": f"{APP}SQLALCHEMY_DATABASE_URI = {source}\n", **dict.fromkeys(files, b"SQLite format 3\0")}
    )
    found = detect(folder)
    (line,) = (line for line in describe(found) if line.topic == "database")
    assert (line.what, line.why) == (what, why)
    is_fixed = [warning for warning in warnings(found) if warning.startswith("app.py:3 says where the database is")]
    assert bool(is_fixed) == source.startswith("'sqlite:////")


def test_what_a_first_deployment_would_refuse_is_a_warning(folder: Path) -> None:
    """A damaged .env, missing settings, a missing or empty requirements.txt are told before anybody deploys."""
    planted(folder, {"app.py": APP})
    (missing,) = warnings(detect(folder))
    assert missing.startswith(
        "the source has no requirements.txt or other list of packages, so nobody knows what the app needs: pip "
    )
    planted(folder, {"requirements.txt": "# nothing\n", ".env": "A=1\nno setting at all\n"})
    assert list(warnings(detect(folder))) == [
        "requirements.txt names no package",
        f"{folder}/.env, line 2: this is not of the form NAME=value; the first deployment will refuse it",
    ]
    planted(folder, {"requirements.txt": "click\n", ".env": "A=1\nB=\n", ".env.example": "A=\nC=\nD=\n"})
    assert list(warnings(detect(folder))) == [
        "requirements.txt does not name Flask",
        ".env gives no value to B",
        ".env.example asks for C, D, which .env does not have",
    ]
    for url, asked in (("sqlite:///x.db", "C"), ("mysql://h/d", "C, DATABASE_URL")):
        planted(folder, {".env.example": f"A=\nC=\nDATABASE_URL={url}\n"})
        assert list(warnings(detect(folder)))[-1] == f".env.example asks for {asked}, which .env does not have"


def test_git_is_asked_about_secrets_and_the_configuration(folder: Path) -> None:
    """A tracked .env, an ignored bulletproof.toml and a repository without a commit are told; no git is no trouble."""
    planted(folder, {"app.py": APP, "requirements.txt": "flask\n", ".env": "A=1\n"})
    assert detect(folder).git == GitFound(is_repository=False)
    assert not list(warnings(detect(folder)))
    git(folder, "init", "-q")
    (folder / ".gitignore").write_text("*.toml\n")
    git(folder, "add", "-A")
    found = detect(folder)
    assert (found.git.is_repository, found.git.is_env_tracked, found.git.is_config_ignored) == (True, True, True)
    assert [warning.partition(":")[0] for warning in warnings(found)] == [
        ".env is tracked by git, so the repository holds the secrets",
        "git ignores bulletproof.toml",
        "the repository has no commit yet",
    ]
    git(folder, "commit", "-q", "-m", "first")
    git(folder, "rm", "-q", "--cached", ".env")
    (folder / ".gitignore").write_text(".env\n")
    assert detect(folder).git == GitFound(is_repository=True)


def test_a_git_hook_does_not_lead_to_another_repository(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What git sets for its hooks names another repository than the app's, and is left out."""
    git(folder, "init", "-q")
    planted(folder, {"app.py": APP, ".env": "A=1\n"})
    git(folder, "add", "-A")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "no-index"))
    assert detect(folder).git.is_env_tracked


def test_a_folder_of_a_repository_is_asked_about_its_own_files(folder: Path) -> None:
    """An app in a part of a repository has its own .env, not the one at the root."""
    git(folder, "init", "-q")
    planted(folder, {".env": "A=1\n", "backend/app.py": APP})
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first")
    assert detect(folder / "backend").git == GitFound(is_repository=True)


@pytest.mark.parametrize(
    ("tree", "tool", "where"),
    [
        ({"alembic/env.py": "import alembic\n"}, "alembic", "alembic"),
        (
            {"app/migrations/env.py": "from alembic import context\n", "db.py": "import flask_migrate\n"},
            "flask-migrate",
            "app/migrations",
        ),
        ({"src/shop/migrations/env.py": "from alembic import context\n"}, "alembic", "src/shop/migrations"),
        ({"migrations/env.py": "print()\n"}, None, None),
        ({"migrations/0001_initial.py": "from alembic import op\n"}, None, None),
        ({".venv/migrations/env.py": "from alembic import context\n"}, None, None),
    ],
)
def test_migrations_are_found_where_they_usually_are(
    folder: Path, tree: Tree, tool: str | None, where: str | None
) -> None:
    """A folder counts as migrations when its env.py is Alembic's."""
    planted(folder, {"app.py": APP, **tree})
    found = detect(folder).migrations
    assert found == (Found(what=tool, where=where) if tool and where else None)


def test_the_wished_python_is_found(folder: Path) -> None:
    """.python-version comes before pyproject.toml's requires-python; a broken pyproject.toml says nothing."""
    planted(folder, {"app.py": APP, "pyproject.toml": '[project]\nname = "My.Shop"\nrequires-python = ">=3.11"\n'})
    assert detect(folder).python == Found(what=">=3.11", where="pyproject.toml")
    assert detect(folder).name == Found(what="my-shop", where="pyproject.toml")
    planted(folder, {".python-version": "3.13.1\n3.12\n"})
    assert detect(folder).python == Found(what="3.13.1", where=".python-version")
    planted(folder, {"pyproject.toml": "[project\n"})
    (folder / ".python-version").unlink()
    assert detect(folder).python is None
    assert detect(folder).name == Found(what="shop", where="the folder's name")


@pytest.mark.parametrize(
    ("wish", "name"),
    [
        ("datacharted", "datacharted"),
        ("My Shop_2", "my-shop-2"),
        ("2nd-shop", "nd-shop"),
        ("Größe", "grosse"),
        ("--x--", "x-app"),
        ("店", ""),
        ("a" * 31 + "-b", "a" * 31),
        ("a" * 50, "a" * 32),
    ],
)
def test_any_wish_becomes_a_name_that_an_app_can_have(wish: str, name: str) -> None:
    """Folder names are brought into the form of a name, or dropped when nothing is left of them."""
    assert valid_name(wish) == name
    if name:
        assert parse(f'name = "{name}"').name == name


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_written_file_holds_what_was_found_and_shows_every_default(folder: Path) -> None:
    """The file is short; as written it is the findings, uncommented also the defaults, and the name is enough."""
    planted(folder, SEED)
    done = initialise(folder)
    text = (folder / "bulletproof.toml").read_text()
    assert done.path == folder / "bulletproof.toml"
    assert done.config == read_config(done.path) == AppConfig(name="shop", app=App(entry="run:app"))
    assert len(text.splitlines()) <= 41
    assert max(map(len, text.splitlines())) <= 120
    everything = re.sub(r"(?m)^# (?=[a-z_.]+ = )", "", text)
    assert parse(everything) == AppConfig(name="shop", app=App(entry="run:app"), proxy=Proxy(port=8000))
    shown = [key for key in everything_that_can_be_said() if not is_for_a_domain(key)]
    assert sorted(flattened(tomllib.loads(everything))) == sorted(shown)
    assert all(re.fullmatch(r"(# )?[a-z_.]+ = \S.*?  # \S.*", line) for line in text.splitlines()[3:])
    only_name = "".join(line for line in text.splitlines(keepends=True) if line.startswith("name"))
    assert parse(only_name) == AppConfig(name="shop")
    assert parse(f"[tool.bulletproof]\n{text}", below=("tool", "bulletproof")) == done.config


def is_for_a_domain(key: str) -> bool:
    """Whether a key is for an app with a domain, of which the guide tells."""
    return key.startswith("proxy.") and key not in {"proxy.port", "proxy.static_files"}


def flattened(table: dict[str, object], prefix: str = "") -> list[str]:
    """The dotted keys of a document."""
    keys = []
    for key, value in table.items():
        keys += flattened(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [f"{prefix}{key}"]
    return keys


def everything_that_can_be_said() -> list[str]:
    """Every dotted key of the configuration."""
    config = AppConfig(name="aa")
    tables = {name: getattr(config, name) for name in config.__struct_fields__ if name != "name"}
    chosen = [name for name, table in tables.items() if isinstance(table, dict)]
    fixed = [f"{name}.{key}" for name, table in tables.items() if name not in chosen for key in table.__struct_fields__]
    return ["name", *(key for key in fixed if not key.startswith("check.")), "check.schedule", *chosen]


def test_what_the_defaults_would_get_wrong_is_written_as_lines_that_hold(folder: Path) -> None:
    """A health route and a database setting of other names stand in the file without a #."""
    planted(
        folder,
        {
            "app.py": f"{APP}@app.get('/healthz')\ndef health(): ...\n",
            "config.py": "SQLALCHEMY_DATABASE_URI = os.getenv('STORE')\n",
        },
    )
    assert initialise(folder).config == AppConfig(
        name="shop",
        app=App(entry="app:app"),
        health=Health(paths=("/healthz",)),
        database=Database(setting="STORE"),
    )


def test_hostile_lines_of_the_source_stay_comments(folder: Path) -> None:
    """Nothing in the app's text becomes a line of the configuration or reaches a terminal as an escape."""
    planted(folder, {"app.py": f"{FLASK}app = Flask('\x1b[31m\\n')  ;  name = '''\n[app]\n'''\n"})
    done = initialise(folder)
    assert done.config == AppConfig(name="shop", app=App(entry="app:app"))
    assert "\x1b" not in done.path.read_text()
    found = CliRunner().invoke(init_command, [str(folder), "--force"])
    assert "\x1b" not in found.stderr


def test_an_existing_configuration_is_never_overwritten_unasked(folder: Path) -> None:
    """A second init changes no byte and exits 2 with the way to force it; a table in pyproject.toml is left alone."""
    planted(folder, {"app.py": APP, "bulletproof.toml": "mine\n"})
    with pytest.raises(UsageError) as caught:
        initialise(folder)
    assert (caught.value.reference, caught.value.exit_code) == ("config-exists", 2)
    assert caught.value.hint == "bulletproof deploy, or bulletproof init --force to write it anew"
    assert (folder / "bulletproof.toml").read_text() == "mine\n"
    assert initialise(folder, is_forced=True).config.name == "shop"
    (folder / "bulletproof.toml").unlink()
    planted(folder, {"pyproject.toml": '[tool.bulletproof]\nname = "aa"\n'})
    with pytest.raises(UsageError) as caught:
        initialise(folder, is_forced=True)
    assert caught.value.reference == "config-exists"
    assert not (folder / "bulletproof.toml").exists()


def test_a_failed_init_writes_nothing(folder: Path) -> None:
    """Neither an unknown entry nor a wrong option leaves a file."""
    planted(folder, {"one.py": APP, "two.py": APP})
    with pytest.raises(StepFailed):
        initialise(folder)
    for name, entry in (("My Shop", None), (None, "--config=x"), (None, "run"), ("a\n[app]", None)):
        with pytest.raises(UsageError) as caught:
            initialise(folder, name=name, entry=entry)
        assert caught.value.reference == "option-invalid"
        assert "\n" not in caught.value.message
    with pytest.raises(UsageError) as caught:
        initialise(folder / "nowhere")
    assert caught.value.reference == "folder-missing"
    assert sorted(path.name for path in folder.iterdir()) == ["one.py", "two.py"]
    assert initialise(folder, entry="two:app", name="other").config == AppConfig(name="other", app=App(entry="two:app"))


def test_a_configuration_that_cannot_be_written_is_told_in_words(folder: Path) -> None:
    """A folder in the file's place is an error, not a traceback."""
    planted(folder, {"app.py": APP, "bulletproof.toml/x": ""})
    with pytest.raises(UsageError) as caught:
        initialise(folder, is_forced=True)
    assert caught.value.reference == "config-unwritable"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_missing_permissions_are_told_in_words(folder: Path) -> None:
    """What may not be read or written is named; a database's folder that is closed is passed by."""
    planted(
        folder,
        {"app.py": APP, "pgdata/secret.py": APP, "x.db": b"SQLite format 3\0", ".env": "DATABASE_URL=sqlite:///x.db\n"},
    )
    (folder / "pgdata").chmod(0)
    (folder / "x.db").chmod(0)
    found = detect(folder)
    assert found.entry.what == "app:app"
    assert found.database is not None
    assert found.database.files == ("x.db",)
    folder.chmod(0o500)
    with pytest.raises(UsageError) as caught:
        initialise(folder)
    assert caught.value.reference == "config-unwritable"
    (folder / "app.py").chmod(0)
    failure(folder, "source-unreadable")
    folder.chmod(0o700)
    (folder / "pgdata").chmod(0o700)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_talks_on_stderr_and_keeps_stdout_for_data(folder: Path) -> None:
    """Every finding is one line of a table on stderr, then what was written and the next command; stdout is empty."""
    planted(folder, SEED)
    result = CliRunner().invoke(init_command, [str(folder)])
    assert (result.exit_code, result.stdout) == (0, "")
    lines = result.stderr.splitlines()
    assert lines[0] == f"shop, a Flask app in {folder}"
    assert [line.split()[0] for line in lines if re.match(r"  \S", line)] == [
        *("entry", "server", "packages", "settings", "database", "journal", "migrations", "health", "python", "source")
    ]
    said = " ".join(result.stderr.split())  # where a long line is folded depends on the width
    assert "entry run:app run.py:3: app = create_app()" in said
    assert "packages 3 in requirements.txt installed for each release, apart from all others" in said
    assert lines[-2:] == ["wrote bulletproof.toml", "next: bulletproof deploy"]


def test_the_command_prints_its_findings_as_json(folder: Path) -> None:
    """With --json stdout is one object: the findings, the warnings and what was written."""
    planted(folder, SEED)
    result = CliRunner().invoke(init_command, [str(folder), "--json"])
    found = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (0, "")
    assert found["entry"] == {"what": "run:app", "where": "run.py:3: app = create_app()"}
    assert found["env"] == {
        "name": ".env",
        "names": ["SECRET_KEY", "DATABASE_URL"],
        "empty": [],
        "databases": {"DATABASE_URL": "sqlite"},
        "problem": "",
    }
    assert (found["warnings"], found["written"]) == ([], str(folder / "bulletproof.toml"))


def test_the_installed_command_ends_with_the_promised_exit_codes(folder: Path) -> None:
    """0 when written, 2 when there is a configuration already, 1 when no app was found; never a traceback."""
    planted(folder, {"app.py": APP, "requirements.txt": "flask\n"})
    command = [sys.executable, "-c", "from bulletproof.cli.main import main; main()", "init"]

    def status(*words: str) -> int:
        done = subprocess.run([*command, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=60)
        assert "Traceback" not in done.stderr
        return done.returncode

    assert [status(), status(), status("--force")] == [0, 2, 0]
    (folder / "app.py").unlink()
    assert status("--force") == 1


def test_the_text_of_the_file_is_made_of_the_findings_alone(folder: Path) -> None:
    """The same findings give the same text, whoever asks and whenever."""
    planted(folder, SEED)
    findings = detect(folder)
    assert toml_text(findings, "shop") == toml_text(detect(folder), "shop")
    assert toml_text(findings, "shop").count("\n") == 3 + sum(
        not is_for_a_domain(key) for key in everything_that_can_be_said()
    )


def test_folders_that_users_fill_are_written_down(folder: Path) -> None:
    """A configured folder, Flask's own and one that git ignores; one inside another is that, and a kept one is none."""
    tree: Tree = {
        "app.py": f"{APP}app.config['UPLOAD_FOLDER'] = 'static/uploads/images'\nopen(app.instance_path)\n",
        ".gitignore": "uploads/\n",
        "static/uploads/images/a": "",
        "media/kept": "",
        "web/uploads/ours": "",
    }
    git(planted(folder, tree), "init", "-q")
    git(folder, "add", "media")
    found = detect(folder).persistent
    assert [one.what for one in found] == ["instance", "static/uploads", "web/uploads"]
    done = initialise(folder)
    assert done.config.app.persistent == ("instance", "static/uploads", "web/uploads")
    assert [line.what for line in describe(done.findings) if line.topic == "folder"] == [
        "instance/",
        "static/uploads/",
        "web/uploads/",
    ]


def test_a_person_at_a_terminal_is_asked_which_app_is_meant(folder: Path) -> None:
    """The candidates are numbered, with where each was seen; a number that is none is asked for again."""
    planted(folder, {"app.py": APP, "main.py": FACTORY + "app = create_app()\n"})
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "r+b", buffering=0) as terminal:
        command = [sys.executable, "-P", "-m", "bulletproof", "init", "--name", "shop"]
        with subprocess.Popen(command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs) as child:
            os.close(theirs)
            terminal.write(b"3\n2\n")
            shown = b""
            with contextlib.suppress(OSError):  # how Linux says that nobody writes to a terminal any more
                while chunk := terminal.read(4096):
                    shown += chunk
            assert child.wait(60) == 0, shown.decode()
    words = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    assert "1  app:app   app.py:2: app = Flask(__name__)" in words
    assert "2  main:app  main.py:7: app = create_app()" in words
    assert "3 is not in the range 1<=x<=2" in words
    assert 'app.entry = "main:app"' in (folder / "bulletproof.toml").read_text()


ENGINE = "from sqlalchemy import create_engine\nengine = create_engine('sqlite:///mine.db')\n"


@pytest.mark.parametrize(
    ("mode", "source", "what"),
    [
        ("DELETE", "", "DELETE"),
        ("WAL", "", ""),
        ("", "", "no WAL"),
        ("DELETE", "SETUP = 'PRAGMA foreign_keys=ON; PRAGMA journal_mode = WAL'\n", ""),
        ("", "PRAGMAS = {'journal_mode': 'wal'}\n", ""),
        ("", "PRAGMAS = {'journal_mode': 'truncate'}\n", "no WAL"),
        ("", "MODE = 'wal'\n", "no WAL"),
    ],
)
def test_wal_is_offered_to_whom_it_may_help(folder: Path, mode: str, source: str, what: str) -> None:
    """Where neither the database nor the source has WAL, one line says with which key a deployment sees to it."""
    planted(folder, {"app.py": f"{APP}{ENGINE}{source}"})
    if mode:
        with contextlib.closing(sqlite3.connect(folder / "mine.db")) as connection:
            connection.execute(f"PRAGMA journal_mode = {mode}")
            connection.execute("CREATE TABLE t (a)")

    done = initialise(folder)

    told = [line for line in describe(done.findings) if line.topic == "journal"]
    assert [line.what for line in told] == [what] * bool(what)
    assert all('database.journal = "wal" in bulletproof.toml' in line.why for line in told)
    assert '# database.journal = "as-it-is"' in done.path.read_text()
    assert done.config.database.journal is Journal.AS_IT_IS


def test_wal_is_not_offered_for_another_database(folder: Path) -> None:
    """Only SQLite has it."""
    planted(folder, {"app.py": f"{APP}SQLALCHEMY_DATABASE_URI = 'postgresql:///shop'\n"})
    assert detect(folder).journal is None
