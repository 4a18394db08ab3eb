"""`init` and `deploy`, with nothing written by hand: Django with a migration under traffic, FastAPI and Starlette."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import workshop
from bulletproof.demo.ledger import duplicated_writes, lost_writes
from bulletproof.demo.traffic import Traffic
from django_project import NOTE, PAGES, project
from embedded.conftest import LayApp
from live_app import LIGHT, LiveApp

pytestmark = [pytest.mark.xdist_group("frameworks"), pytest.mark.timeout(600)]

_STORE = """\
import contextlib
import os
import sqlite3

FILE = "/" + os.environ["DATABASE_URL"].partition(":///")[2].lstrip("/")


def ask(statement, *values):
    with contextlib.closing(sqlite3.connect(FILE, timeout=20)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS chart (title TEXT)")
        return [row[0] for row in connection.execute(statement, values)]


def add(title):
    ask("INSERT INTO chart VALUES (?)", title)
    return {"title": title}


def charts():
    return {"charts": ask("SELECT title FROM chart LIMIT 100")}
"""
_FASTAPI = """\
from fastapi import Body, FastAPI, Response

import store

app = FastAPI()


@app.get("/up")
async def up(response: Response):
    response.headers["X-DataCharted-Version"] = "{version}"
    return {{"status": "ok"}}


@app.post("/api/register", status_code=201)
async def register(response: Response):
    response.set_cookie("user", "1")
    return {{}}


@app.get("/api/charts")
def charts():
    return store.charts()


@app.post("/api/charts", status_code=201)
def add(title: str = Body(embed=True)):
    return store.add(title)
"""
_STARLETTE = """\
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse
from starlette.routing import Route

import store


async def up(request):
    return JSONResponse({{"status": "ok"}}, headers={{"X-DataCharted-Version": "{version}"}})


async def register(request):
    answer = JSONResponse({{}}, status_code=201)
    answer.set_cookie("user", "1")
    return answer


async def charts(request):
    if request.method == "POST":
        title = (await request.json())["title"]
        return JSONResponse(await run_in_threadpool(store.add, title), status_code=201)
    return JSONResponse(await run_in_threadpool(store.charts))


def create_app() -> Starlette:
    return Starlette(
        routes=[
            Route("/up", up),
            Route("/api/register", register, methods=["POST"]),
            Route("/api/charts", charts, methods=["GET", "POST"]),
        ]
    )
"""
_ASGI = {
    "fastapi": ("main.py", _FASTAPI, 'app.entry = "main:app"'),
    "starlette": ("src/asgi.py", _STARLETTE, 'app.entry = "asgi:create_app()"'),
}


@contextmanager
def _under_load(app: LiveApp, table: str) -> Iterator[None]:
    """Reads and writes all the while: none may fail, be lost or be doubled."""
    with Traffic.start(app.address, app.folder.parent, LIGHT) as traffic:
        yield
        report = traffic.report(traffic.began)
    tokens = traffic.acknowledged()
    assert report.failed == 0, f"{report.failed} of {report.requests} requests failed: {report.failures}"
    assert tokens, "the traffic wrote nothing"
    assert not lost_writes(tokens, app.database, table=table)
    assert not duplicated_writes(tokens, app.database, table=table)


def _columns(app: LiveApp, table: str) -> list[str]:
    with contextlib.closing(sqlite3.connect(f"file:{app.database}?mode=ro", uri=True)) as connection:
        return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


def _change(app: LiveApp, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(app.database, timeout=20)) as connection, connection:
        connection.execute(statement)


def test_a_django_is_migrated_and_rolled_back_under_traffic(init_app: LayApp) -> None:
    """The first deployment makes the database, the second migrates it, and the older code works with that again."""
    app = init_app("django", project())
    first = app.deploy()
    assert _columns(app, "books_book") == ["id", "title"]

    with _under_load(app, "books_book"):
        workshop.commit(app.folder, project(NOTE, fields=("note = models.TextField(null=True)",)), "Take notes")
        second = app.deploy()
        assert _columns(app, "books_book") == ["id", "title", "note"]
        app.change("rollback").must(0, "deployed")

    assert _columns(app, "books_book") == ["id", "title", "note"]
    assert app.status()["serving"] == first.release != second.release


def test_a_django_column_that_older_code_cannot_fill_is_taken_back(init_app: LayApp) -> None:
    """Whether the down migration will need a word is told at once; of a table without rows it takes nothing away.

    Django's own note of a migration is nothing that users made.
    """
    app = init_app("back", project())
    first = app.deploy()
    _change(app, "INSERT INTO books_book (title) VALUES ('one')")
    workshop.commit(app.folder, project(PAGES, fields=("pages = models.IntegerField(default=0)",)), "Count pages")
    second = app.deploy()
    assert "rollback: with a down migration, rehearsed; it takes --allow-data-loss" in second.note("rehearse")
    assert _columns(app, "books_book") == ["id", "title", "pages"]
    assert app.change("rollback").must(3, "undone").reference == "data-loss"
    _change(app, "DELETE FROM books_book")
    app.change("rollback").must(0, "deployed")

    assert _columns(app, "books_book") == ["id", "title"]
    assert app.status()["serving"] == first.release


def test_a_host_that_django_refuses_is_told(init_app: LayApp) -> None:
    """The gate's failure says what to add to ALLOWED_HOSTS."""
    app = init_app("hosts", project(hosts='["shop.example"]'))
    with (app.folder / "bulletproof.toml").open("a") as config:
        config.write("health.deadline_seconds = 5\n")
    workshop.commit(app.folder, {}, "Be quick")
    failed = app.run("deploy", status=3)
    assert 'add "127.0.0.1" to it' in failed.err


@pytest.mark.parametrize("framework", _ASGI)
def test_an_asgi_app_is_deployed_twice_under_traffic(init_app: LayApp, framework: str) -> None:
    """The second version goes live and back without a failed request; uvicorn is added to the release."""
    file, source, line = _ASGI[framework]
    store = Path(file).with_name("store.py").as_posix()
    files = {"requirements.txt": f"{framework}\n", store: _STORE}
    app = init_app(framework, {**files, file: source.format(version="v1")})
    text = (app.folder / "bulletproof.toml").read_text()
    assert line in text
    assert 'app.server = "uvicorn"' in text
    first = app.deploy()
    assert app.version() == "v1"

    with _under_load(app, "chart"):
        workshop.commit(app.folder, {file: source.format(version="v2")}, "The second")
        app.deploy()
        assert app.version() == "v2"
        app.change("rollback").must(0, "deployed")
        assert app.version() == "v1"
    assert app.status()["serving"] == first.release
