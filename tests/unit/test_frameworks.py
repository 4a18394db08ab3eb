"""`init` knows what is no Flask as well: FastAPI, Starlette, Django, any ASGI app; with its server and its database."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from bulletproof.cli.init import init_command
from bulletproof.domain.config import Server
from bulletproof.effects.project import read_config
from bulletproof.errors import StepFailed
from bulletproof.operations.detect import Found, detect, find_entry
from bulletproof.operations.init import as_json, describe, initialise, warnings
from django_project import WRITTEN, project

Tree = dict[str, str]

FASTAPI = "from fastapi import FastAPI\n"
STARLETTE = "from starlette.applications import Starlette\n"
ASGI_APP = "async def app(scope, receive, send):\n    ...\n"
FOUND: dict[str, tuple[Tree, str, str, Server]] = {
    "a FastAPI in main.py": ({"main.py": f"{FASTAPI}app = FastAPI()\n"}, "main:app", "FastAPI", Server.UVICORN),
    "a FastAPI in a package": (
        {"app/__init__.py": "", "app/main.py": "import fastapi\napp = fastapi.FastAPI(title='x')\n"},
        "app.main:app",
        "FastAPI",
        Server.UVICORN,
    ),
    "a FastAPI in src": ({"src/app/main.py": f"{FASTAPI}app = FastAPI()\n"}, "app.main:app", "FastAPI", Server.UVICORN),
    "a factory of a FastAPI": (
        {"main.py": f"{FASTAPI}def create_app() -> FastAPI:\n    app = FastAPI()\n    return app\n"},
        "main:create_app()",
        "FastAPI",
        Server.UVICORN,
    ),
    "a FastAPI behind middleware": (
        {"main.py": f"{FASTAPI}import socketio\nweb = FastAPI()\napp = socketio.ASGIApp(None, other_asgi_app=web)\n"},
        "main:app",
        "FastAPI",
        Server.UVICORN,
    ),
    "an app with another mounted in it": (
        {"main.py": f"{FASTAPI}app = FastAPI()\nadmin = FastAPI()\napp.mount('/admin', admin)\n"},
        "main:app",
        "FastAPI",
        Server.UVICORN,
    ),
    "a FastAPI that runs itself as a script": (
        {"main.py": f"import uvicorn\n{FASTAPI}app = FastAPI()\nif __name__ == '__main__':\n    uvicorn.run(app)\n"},
        "main:app",
        "FastAPI",
        Server.UVICORN,
    ),
    "a Starlette": (
        {"asgi.py": f"{STARLETTE}app = Starlette(routes=[])\n"},
        "asgi:app",
        "Starlette",
        Server.UVICORN,
    ),
    "a Starlette of a class of its own": (
        {"app.py": f"{STARLETTE}class Site(Starlette):\n    pass\n\napplication = Site()\n"},
        "app:application",
        "Starlette",
        Server.UVICORN,
    ),
    "a Quart": ({"app.py": "from quart import Quart\napp = Quart(__name__)\n"}, "app:app", "Quart", Server.UVICORN),
    "a Litestar": (
        {"app.py": "from litestar import Litestar\napp = Litestar([])\n"},
        "app:app",
        "Litestar",
        Server.UVICORN,
    ),
    "a plain ASGI app": ({"app.py": ASGI_APP}, "app:app", "ASGI", Server.UVICORN),
    "a Django with both": (project(), "shop.wsgi:application", "Django", Server.GUNICORN),
    "a Django with asgi.py alone": (project(servers=("asgi",)), "shop.asgi:application", "Django", Server.UVICORN),
    "a Django with channels": (
        {
            "manage.py": project()["manage.py"],
            "shop/settings.py": "",
            "shop/asgi.py": "from channels.routing import ProtocolTypeRouter\n"
            "from django.core.asgi import get_asgi_application\n"
            "application = ProtocolTypeRouter({'http': get_asgi_application(), 'websocket': None})\n",
        },
        "shop.asgi:application",
        "Django",
        Server.UVICORN,
    ),
    "a Flask": ({"app.py": "from flask import Flask\napp = Flask('x')\n"}, "app:app", "Flask", Server.GUNICORN),
}


def planted(folder: Path, tree: Tree) -> Path:
    """The folder with these files in it."""
    for name, content in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize("case", FOUND)
def test_entry_and_server_are_found_and_written(tmp_path: Path, case: str) -> None:
    """Each layout leads to what a server loads and to the server that can; both hold in the written file."""
    tree, entry, framework, server = FOUND[case]
    done = initialise(planted(tmp_path, tree))
    written = read_config(done.path)

    assert (written.app.entry, written.app.server) == (entry, server)
    assert done.findings.framework.name == framework
    assert as_json(done)["framework"] == framework
    told = [line for line in describe(done.findings) if line.topic == "server"]
    is_added = bool(done.findings.packages) and server.value not in done.findings.packages
    assert bool(told) is (server is Server.UVICORN or is_added)
    assert all(("added to each release" in line.why) is is_added for line in told)
    assert ("server" in tomllib.loads(done.path.read_text())["app"]) is (server is Server.UVICORN)


@pytest.mark.parametrize(
    "text",
    [
        "async def relay(scope, receive, send): ...\n",
        "async def app(request): ...\n",
        "def app(scope, receive, send): ...\n",
        "from starlette.routing import Router\napp = Router()\n",
    ],
)
def test_what_is_no_app(tmp_path: Path, text: str) -> None:
    """Neither middleware of the same shape, nor another function of the same name, nor a part of an app is one."""
    with pytest.raises(StepFailed) as caught:
        detect(planted(tmp_path, {"app.py": text}))
    assert caught.value.reference == "entry-not-found"


@pytest.mark.parametrize(
    ("file", "text", "entry", "server"),
    [
        ("wsgi.py", "from ara.server.wsgi import application\n", "wsgi:application", Server.GUNICORN),
        ("wsgi.py", "from shop.run import make\napp = make('settings')\n", "wsgi:app", Server.GUNICORN),
        ("asgi.py", "import shop.web\napplication = shop.web.App()\n", "asgi:application", Server.UVICORN),
    ],
)
def test_an_app_of_an_installed_package(tmp_path: Path, file: str, text: str, entry: str, server: Server) -> None:
    """In wsgi.py and asgi.py the name says what it is, wherever it comes from."""
    done = initialise(planted(tmp_path, {file: text, "requirements.txt": "shop\n"}))
    assert (done.config.app.entry, done.config.app.server) == (entry, server)


@pytest.mark.parametrize(
    "tree",
    [
        {"jobs.py": "from celery import app\n"},
        {"wsgi.py": "from jobs import app\n", "jobs.py": "app = 3\n"},
        {"wsgi.py": "app = print()\n"},
    ],
)
def test_what_is_no_app_of_an_installed_package(tmp_path: Path, tree: Tree) -> None:
    """Another file's name says nothing, and what lies in the source can be looked into."""
    with pytest.raises(StepFailed) as caught:
        detect(planted(tmp_path, tree))
    assert caught.value.reference == "entry-not-found"


def test_candidates_of_any_framework_are_listed(tmp_path: Path) -> None:
    """Two apps that are as likely are a question, whatever they are written with."""
    two = {"main.py": f"{FASTAPI}app = FastAPI()\n", "app.py": "from flask import Flask\napp = Flask('x')\n"}
    with pytest.raises(StepFailed) as caught:
        detect(planted(tmp_path, two))
    assert caught.value.reference == "entry-ambiguous"
    assert caught.value.context == (
        "app.entry = \"app:app\"   # app.py:2: app = Flask('x')",
        'app.entry = "main:app"  # main.py:2: app = FastAPI()',
    )


def test_two_django_projects_are_listed(tmp_path: Path) -> None:
    """Nothing says which of two projects is to be served."""
    server = project()["shop/wsgi.py"]
    with pytest.raises(StepFailed) as caught:
        detect(planted(tmp_path, {"one/wsgi.py": server, "two/wsgi.py": server}))
    assert caught.value.reference == "entry-ambiguous"
    entries = [line.partition("  #")[0].strip() for line in caught.value.context]
    assert entries == ['app.entry = "one.wsgi:application"', 'app.entry = "two.wsgi:application"']


@pytest.mark.parametrize(
    ("entry", "server"), [("shop.wsgi:application", Server.GUNICORN), ("shop.asgi:application", Server.UVICORN)]
)
def test_an_entry_that_is_given_says_the_server(tmp_path: Path, entry: str, server: Server) -> None:
    """With --entry the framework is the one that the source imports, and an asgi module is served so."""
    done = initialise(planted(tmp_path, project()), entry=entry)
    assert (done.config.app.entry, done.config.app.server) == (entry, server)
    assert done.findings.settings_module == Found(what="shop.settings", where=f"{_file(entry)}:5")


def _file(entry: str) -> str:
    return f"{entry.partition(':')[0].replace('.', '/')}.py"


def test_a_project_in_a_folder_of_its_own(tmp_path: Path) -> None:
    """Where the settings cannot be imported, it is said in which folder they can."""
    tree = {f"backend/{name}": text for name, text in project(servers=("wsgi",)).items()}
    with pytest.raises(StepFailed) as caught:
        detect(planted(tmp_path, tree))
    assert caught.value.reference == "entry-not-found"
    words = "backend/shop/wsgi.py:5: shop.settings cannot be imported from here: cd backend, and use bulletproof there"
    assert words in caught.value.context
    assert detect(tmp_path / "backend").entry.what == "shop.wsgi:application"


def test_a_django_is_told_whole(tmp_path: Path) -> None:
    """Settings, migrations, health route and database, each with its place."""
    tree = project()
    tree["shop/urls.py"] = tree["shop/urls.py"].replace('"up"', '"up/"')
    findings = detect(planted(tmp_path, tree))
    assert findings.settings_module == Found(what="shop.settings", where="shop/wsgi.py:5")
    assert findings.migrations == Found(what="django", where="books/migrations")
    assert findings.health == Found(what="/up/", where="shop/urls.py:6")
    assert findings.database is not None
    assert (findings.database.kind, findings.database.setting) == ("sqlite", "DATABASE_URL")
    assert list(warnings(findings)) == []
    done = CliRunner().invoke(init_command, [str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert ", a Django app in " in done.stderr
    assert "shop.settings" in done.stderr
    assert "shop/wsgi.py:5" in done.stderr
    assert read_config(tmp_path / "bulletproof.toml").health.paths == ("/up/",)


DATABASES = {
    WRITTEN: ("sqlite", ""),
    "dj_database_url.config()": ("", "DATABASE_URL"),
    'dj_database_url.config(env="SHOP_DB")': ("", "SHOP_DB"),
    'dj_database_url.config(default="postgres://x/y")': ("postgresql", "DATABASE_URL"),
    'dj_database_url.parse(os.environ["DATABASE_URL"])': ("", "DATABASE_URL"),
    "env.db()": ("", "DATABASE_URL"),
    'env.db("SHOP_DATABASE_URL", default="sqlite:///x.db")': ("", "SHOP_DATABASE_URL"),
    '{"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE_URL"].partition(":///")[2]}': (
        "sqlite",
        "DATABASE_URL",
    ),
    '{"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DB_PATH"]}': ("sqlite", ""),
    '{"ENGINE": "django.db.backends.postgresql", "NAME": "shop"}': ("postgresql", ""),
}


@pytest.mark.parametrize("database", DATABASES)
def test_django_says_where_its_database_is(tmp_path: Path, database: str) -> None:
    """An URL from a setting is taken; a place that is written down, or told otherwise, is a warning with its remedy."""
    findings = detect(planted(tmp_path, project(database=database)))
    assert findings.database is not None
    assert (findings.database.kind, findings.database.setting) == DATABASES[database]
    said = "\n".join(warnings(findings))
    assert ("shop/settings.py:14 says where the database is: read that from DATABASE_URL" in said) is (
        findings.database.setting == "" and not findings.database.links
    )
    assert ("dj_database_url.config()" in said) is (findings.database.setting == "" and not findings.database.links)


ROUTES: dict[str, tuple[str, str | None]] = {
    "FastAPI's own route": (f"{FASTAPI}app = FastAPI()\n@app.get('/health')\nasync def up(): ...\n", "/health"),
    "a front page": (f"{FASTAPI}app = FastAPI()\n@app.get('/')\nasync def home(): ...\n", None),
    "nothing to ask for": (f"{FASTAPI}app = FastAPI()\n@app.get('/items')\nasync def items(): ...\n", "/openapi.json"),
    "a router that is moved": (
        (
            f"from fastapi import APIRouter\n{FASTAPI}router = APIRouter(prefix='/api')\napp = FastAPI()\n"
            "@router.get('/up')\ndef up(): ...\n@app.get('/')\ndef home(): ...\n"
        ),
        None,
    ),
    "a router that is moved where it is included": (
        (
            f"from fastapi import APIRouter\n{FASTAPI}router = APIRouter()\napp = FastAPI()\n"
            "@router.get('/up')\ndef up(): ...\napp.include_router(router, prefix='/api')\n"
            "@app.get('/')\ndef home(): ...\n"
        ),
        None,
    ),
    "Starlette's list": (
        f"{STARLETTE}from starlette.routing import Route\napp = Starlette(routes=[Route('/healthz', print)])\n",
        "/healthz",
    ),
    "below a mount": (
        (
            f"{STARLETTE}from starlette.routing import Mount, Route\n\n"
            "app = Starlette(routes=[Mount('/api', routes=[Route('/up', print)])])\n"
        ),
        None,
    ),
}


@pytest.mark.parametrize("case", ROUTES)
def test_health_routes(tmp_path: Path, case: str) -> None:
    """A route counts when its whole path is known; of a FastAPI without front page its own description is asked for."""
    text, path = ROUTES[case]
    health = detect(planted(tmp_path, {"main.py": text})).health
    assert (health.what if health else None) == path


def test_only_the_topmost_urls_of_django_count(tmp_path: Path) -> None:
    """The path of an app's own urls.py begins where the project includes it, which is not followed."""
    tree = project()
    tree["books/urls.py"] = tree["shop/urls.py"].replace('"up"', '"health"')
    tree["shop/urls.py"] = tree["shop/urls.py"].replace('    path("up", views.up),\n', "")
    assert detect(planted(tmp_path, tree)).health is None


def test_a_server_that_cannot_run_the_app_is_told(tmp_path: Path) -> None:
    """Where nobody wrote down entry and server, gunicorn is not given what it would fail with at every request."""
    planted(tmp_path, {"main.py": f"{FASTAPI}app = FastAPI()\n"})
    with pytest.raises(StepFailed) as caught:
        find_entry(tmp_path, Server.GUNICORN)
    assert caught.value.reference == "server-mismatch"
    assert caught.value.message == "main:app is an ASGI app (FastAPI), which gunicorn cannot run"
    assert find_entry(tmp_path, Server.UVICORN) == "main:app"


def test_migrations_of_installed_apps_alone(tmp_path: Path) -> None:
    """A project without apps of its own has those of Django and of published apps."""
    tree = {name: text for name, text in project().items() if "migrations" not in name}
    assert detect(planted(tmp_path, tree)).migrations == Found(what="django", where="installed apps")
