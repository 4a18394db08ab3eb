"""Static files of real apps, given out by the proxy: a deployment changes them with the pages that ask for them."""

from __future__ import annotations

import http
import re

import pytest

import workshop
from django_project import project
from embedded.conftest import LayApp
from live_app import LiveApp

pytestmark = [pytest.mark.xdist_group("static"), pytest.mark.timeout(600)]

_FLASK = """\
from flask import Flask, url_for

app = Flask(__name__)


@app.get("/up")
def up():
    return {{"status": "ok", "version": "{version}", "style": url_for("static", filename="app.css")}}
"""
_DJANGO_URLS = """\
from django.http import JsonResponse
from django.templatetags.static import static
from django.urls import path

urlpatterns = [path("up", lambda request: JsonResponse({"style": static("books/app.css")}))]
"""
_STORAGE = '{"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"}}'
_KEPT = "public, max-age=31536000, immutable"


def test_a_flasks_static_folder(init_app: LayApp) -> None:
    """`init; deploy` is enough; the next release's files come with it, and users' uploads stay."""
    app = init_app("flask", {"requirements.txt": "flask\n", "shop/__init__.py": _FLASK.format(version=1)})
    with (app.folder / "bulletproof.toml").open("a") as config:
        config.write('\napp.persistent = ["shop/static/uploads"]\n')
    workshop.commit(app.folder, {"shop/static/app.css": "one", "shop/static/only-old.css": "of one"}, "With style")
    first = app.deploy()
    assert "/static given out by the proxy" in first.note("build")
    assert _served(app, "/static/app.css") == ("one", "no-cache")
    (app.layout.data / "shop" / "static" / "uploads" / "of-a-user.txt").write_text("mine")
    assert _served(app, "/static/uploads/of-a-user.txt") == ("mine", "no-cache")

    (app.folder / "shop/static/only-old.css").unlink()
    workshop.commit(app.folder, {"shop/static/app.css": "two", "shop/__init__.py": _FLASK.format(version=2)}, "Two")
    app.deploy()
    assert _served(app, "/static/app.css")[0] == "two"
    assert _served(app, "/static/only-old.css")[0] == "of one", "a page of the first release still asks for it"
    assert _served(app, "/static/uploads/of-a-user.txt")[0] == "mine"
    assert app.ask("/static/none.css")[0] == http.HTTPStatus.NOT_FOUND

    app.change("rollback").must(0, "deployed")
    assert _served(app, "/static/app.css")[0] == "one"


def test_a_django_collects_its_static_files(init_app: LayApp) -> None:
    """collectstatic runs in the build; names with a hash may be kept for ever, and the former ones are still there."""
    files = project(apps=', "django.contrib.staticfiles"')
    files["shop/settings.py"] += (
        f'STATIC_URL = "static/"\nSTATIC_ROOT = BASE_DIR / "collected"\nSTORAGES = {_STORAGE}\n'
    )
    app = init_app(
        "django", {**files, "shop/urls.py": _DJANGO_URLS, "books/static/books/app.css": "body {margin: 1px}"}
    )
    first = app.deploy()
    assert "/static given out by the proxy" in first.note("build")
    old = _style(app)
    assert re.fullmatch(r"/static/books/app\.[0-9a-f]{12}\.css", old)
    assert _served(app, old) == ("body {margin: 1px}", _KEPT)

    workshop.commit(app.folder, {"books/static/books/app.css": "body {margin: 2px}"}, "Wider")
    app.deploy()
    new = _style(app)
    assert new != old
    assert _served(app, new) == ("body {margin: 2px}", _KEPT)
    assert _served(app, old) == ("body {margin: 1px}", _KEPT)


def test_a_django_whose_files_cannot_be_collected_is_undone(init_app: LayApp) -> None:
    """A file that is named and not there: the release is not, and it is said which file."""
    files = project(apps=', "django.contrib.staticfiles"')
    files["shop/settings.py"] += f'STATIC_URL = "static/"\nSTORAGES = {_STORAGE}\n'
    app = init_app("missing", {**files, "books/static/books/app.css": "@import url(gone.css);"})
    failed = app.run("deploy", status=3)
    assert "error: static-not-collected" in failed.err
    assert "gone.css" in failed.err
    assert not app.releases()


def _served(app: LiveApp, path: str) -> tuple[str, str]:
    """What the proxy gives out under a path, and how long it may be kept."""
    status, headers, body = app.fetch(path)
    assert status == http.HTTPStatus.OK, body
    return body, headers.get("Cache-Control", "")


def _style(app: LiveApp) -> str:
    """The path of the style sheet that a page of the live release asks for."""
    found = re.search(r'"style": "([^"]+)"', app.ask("/up")[2])
    assert found
    return found.group(1)
