"""Which static files a source names, so that the proxy may give them out."""

from __future__ import annotations

import pytest

from bulletproof.domain.python_module import Module, read_module
from bulletproof.domain.static_files import may_name_static_files, public_path, static_folders


def module(path: str, text: str) -> Module:
    """A file of the source."""
    read = read_module(path, text.encode(), has_source_package=False)
    assert isinstance(read, Module)
    return read


FLASK = "from flask import Flask\n"
MOUNT = "from fastapi.staticfiles import StaticFiles\napp.mount("


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        ("run.py", f"{FLASK}app = Flask(__name__)", {"/static": "static"}),
        ("shop/__init__.py", f"{FLASK}def create_app():\n    return Flask(__name__)", {"/static": "shop/static"}),
        ("src/shop/web.py", "import flask\napp = flask.Flask(__name__)", {"/static": "src/shop/static"}),
        ("run.py", f'{FLASK}app = Flask(__name__, static_folder="assets")', {"/assets": "assets"}),
        ("run.py", f'{FLASK}app = Flask(__name__, static_url_path="/s/v1")', {"/s/v1": "static"}),
        ("run.py", f'{FLASK}app = Flask(__name__, static_folder="a", static_url_path="b/")', {"/b": "a"}),
        ("run.py", f"{FLASK}app = Flask(__name__, instance_relative_config=True)", {"/static": "static"}),
        ("web/main.py", f'{MOUNT}"/static", StaticFiles(directory="web/static"), name="s")', {"/static": "web/static"}),
        ("main.py", f'{MOUNT}"/site", StaticFiles(directory="dist", html=True))', {"/site": "dist"}),
    ],
)
def test_what_is_written_out_is_found(path: str, text: str, found: dict[str, str]) -> None:
    """The folder lies beside the file that makes a Flask; a mounted one below the source."""
    assert static_folders([module(path, text)]) == found
    assert may_name_static_files(text.encode())


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("run.py", f"{FLASK}app = Flask(__name__, static_folder=None)"),
        ("run.py", f"{FLASK}app = Flask(__name__, static_folder=folder)"),
        ("run.py", f'{FLASK}app = Flask(__name__, static_url_path="")'),
        ("run.py", f'{FLASK}app = Flask(__name__, static_folder="/srv/static")'),
        ("run.py", f'{FLASK}app = Flask(__name__, static_folder="../static")'),
        ("run.py", f'{FLASK}app = Flask(__name__, static_host="cdn.example.com")'),
        ("run.py", f"{FLASK}app = Flask(__name__, **options)"),
        ("run.py", f'{FLASK}app = Flask("shop")'),
        ("run.py", "app = Flask(__name__)"),
        ("run.py", "from mine import Flask\napp = Flask(__name__)"),
        ("main.py", f'{MOUNT}"/static", StaticFiles(directory=BASE / "static"))'),
        ("main.py", f'{MOUNT}"/static", StaticFiles(packages=["bootstrap"], directory="static"))'),
        ("main.py", f'{MOUNT}"/", StaticFiles(directory="dist"))'),
        ("main.py", f'{MOUNT}"/static", other)'),
    ],
)
def test_what_is_not_written_out_is_left_to_the_app(path: str, text: str) -> None:
    """It gives such files out itself, as it does without a proxy."""
    assert static_folders([module(path, text)]) == {}


def test_a_path_that_two_apps_claim_is_neithers() -> None:
    """Two Flasks, each with a static folder of its own: only one of them is served, and it knows its files."""
    two = [module(f"{name}/__init__.py", f"{FLASK}app = Flask(__name__)") for name in ("shop", "admin")]
    assert static_folders(two) == {}


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("static/", "/static"),
        ("/static/", "/static"),
        ("/a/b", "/a/b"),
        ("https://cdn.example.com/static/", ""),
        ("//cdn.example.com/static/", ""),
        ("/", ""),
        ("", ""),
        ("/a/../b", ""),
        ("/{tenant}/static", ""),
    ],
)
def test_the_path_of_a_url_prefix(url: str, path: str) -> None:
    """Only a path of this site that is not all of it."""
    assert public_path(url) == path
