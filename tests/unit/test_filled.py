"""Folders that users fill and databases that no setting moves are found by reading; so is the line that helps."""

from __future__ import annotations

import pytest

from bulletproof.domain.config import App, AppConfig, Database
from bulletproof.domain.filled import database_places, filled_folders, lines_for_folders, lines_for_writes
from bulletproof.domain.python_module import Module, read_module
from bulletproof.domain.source_paths import Names

_HERE = "import os\nhere = os.path.abspath(os.path.dirname(__file__))\n"
_BASE = "from pathlib import Path\nBASE_DIR = Path(__file__).resolve().parent.parent\n"

FOLDERS = {
    "a text": ("app.config['UPLOAD_FOLDER'] = 'uploads/'\n", ["uploads"]),
    "a setting's default": ("UPLOAD_DIR = os.environ.get('UPLOAD_DIR', './static/uploads')\n", ["static/uploads"]),
    "beside the file": (f"{_HERE}UPLOAD_FOLDER = os.path.join(here, 'static', 'img')\n", ["shop/static/img"]),
    "Django's": (f"{_BASE}MEDIA_ROOT = BASE_DIR / 'media'\n", ["media"]),
    "Django's of old": (f"{_HERE}MEDIA_ROOT = os.path.join(os.path.dirname(here), 'media')\n", ["media"]),
    "a mapping": ("app.config.update({'UPLOAD_FOLDER': os.path.join(app.root_path, 'up')})\n", ["shop/up"]),
    "a formatted text": (f"{_HERE}UPLOAD_FOLDER = f'{{here}}/up'\n", ["shop/up"]),
    "the instance folder": ("path = os.path.join(app.instance_path, 'x')\n", ["instance"]),
    "elsewhere": ("UPLOAD_FOLDER = '/srv/uploads'\nMEDIA_ROOT = '../media'\nMEDIA_DIR = ''\n", []),
    "not to be told": ("UPLOAD_FOLDER = find()\nMEDIA_ROOT = MEDIA_ROOT\n", []),
    "the source itself": (f"{_BASE}MEDIA_ROOT = BASE_DIR\n", []),
}
PLACES = {
    "Flask-SQLAlchemy": ("SQLALCHEMY_DATABASE_URI = 'sqlite:///x.db'\n", ["instance/x.db"]),
    "beside the file": (
        f"{_HERE}app.config['SQLALCHEMY_DATABASE_URI'] = 'sqlite:///' + os.path.join(here, 'x.db')\n",
        ["shop/x.db"],
    ),
    "SQLAlchemy": ("engine = create_async_engine('sqlite+aiosqlite:///./x.db?timeout=5')\n", ["x.db"]),
    "Django": (
        f"{_BASE}D = {{'ENGINE': 'django.db.backends.sqlite3', 'NAME': BASE_DIR / 'db.sqlite3'}}\n",
        ["db.sqlite3"],
    ),
    "the driver": ("sqlite3.connect(current_app.config['DATABASE'])\nx(DATABASE='data/x.db')\n", ["data/x.db"]),
    "in memory": ("sqlite3.connect(':memory:')\ncreate_engine('sqlite://')\n", []),
    "another kind": ("create_engine('postgresql:///shop')\n", []),
    "elsewhere": ("create_engine('sqlite:////srv/x.db')\n", []),
}


def _read(source: str) -> tuple[Module, ...]:
    module = read_module("shop/settings.py", source.encode())
    assert isinstance(module, Module)
    return (module,)


@pytest.mark.parametrize("case", FOLDERS)
def test_folders_that_users_fill(case: str) -> None:
    """In each usual way to write them; never one that lies outside of the source."""
    source, places = FOLDERS[case]
    modules = _read(source)
    assert [one.what for one in filled_folders(modules, Names.of(modules))] == places


@pytest.mark.parametrize("case", PLACES)
def test_databases_that_no_setting_moves(case: str) -> None:
    """A relative URL counts from where its library takes it from."""
    source, places = PLACES[case]
    modules = _read(source)
    found = database_places(modules, Names.of(modules), relative_to="instance")
    assert [one.what for one in found] == places


def test_the_line_that_helps_keeps_what_is_configured() -> None:
    """It names all that is to stand there, and a file beside the source's own cannot be helped by a line."""
    config = AppConfig(name="shop", app=App(persistent=("uploads",)), database=Database(links=("x.db",)))
    folder, top, database = lines_for_writes(config, ("var/a", "top", "y.sqlite3", "var/b"))
    assert folder.endswith('app.persistent = ["uploads", "var"]')
    assert "let it write into a folder" in top
    assert database.endswith('database.links = ["x.db", "y.sqlite3"]')


def test_folders_that_are_not_persistent_yet_are_told_with_all_that_is_to_stand_there() -> None:
    """One that lies in a persistent folder is kept already."""
    config = AppConfig(name="shop", app=App(persistent=("uploads",)))
    (line,) = lines_for_folders(config, ("uploads/images", "media"))
    assert line.startswith("users fill media, ")
    assert line.endswith('app.persistent = ["uploads", "media"]')
