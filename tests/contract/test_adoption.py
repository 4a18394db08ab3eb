"""Which database an app opens is told by the app, in a cell, whatever its text says and however strong the cell is."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from bulletproof.adapters.adoption import CheckoutAdoption
from bulletproof.effects import cell as cell_script
from bulletproof.effects import isolation
from migrating import House, app_source, prints

_PLAIN = """\
import os
import sqlite3


def app(environ, start_response):
    sqlite3.connect({place})
    start_response("200 OK", [])
    return [b""]
"""
_ENGINE = """\
import os
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine({place})
app = print
"""
_DJANGO = """\
import os
import django
from django.conf import settings
from pathlib import Path

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).parent / "db.sqlite3"}},
    MEDIA_ROOT=str(Path(__file__).parent / "media"),
)
django.setup()
app = print
"""
OPENS = {
    "relative to the instance folder": (app_source(url='"sqlite:///x.db"'), "instance/x.db"),
    "made when it is loaded": (app_source(url='"sqlite:///x.db"', at_boot="db.create_all()"), "instance/x.db"),
    "beside the source": (_PLAIN.format(place='os.path.join(os.path.dirname(__file__), "x.db")'), "x.db"),
    "from where it stands": (_PLAIN.format(place='"data/x.db"'), "data/x.db"),
    "an asynchronous engine": (_ENGINE.format(place='"sqlite+aiosqlite:///./x.db"'), "x.db"),
    "by a setting": (app_source(url='os.environ["STORE"]'), "/elsewhere/x.db"),
    "Django": (_DJANGO, "db.sqlite3"),
}


@pytest.fixture(params=["namespaces", "landlock"])
def strength(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What keeps the app in its cell."""
    if request.param == "namespaces" and isolation.why_no_namespaces():
        pytest.skip(isolation.why_no_namespaces())
    if request.param == "landlock":
        if not cell_script.landlock_version():
            pytest.skip("this kernel has no Landlock")
        monkeypatch.setattr(isolation, "why_no_namespaces", lambda: "the test forbids it")
    return str(request.param)


def _database(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE t (x)")


@pytest.mark.parametrize("case", OPENS)
def test_the_app_tells(house: House, tmp_path: Path, strength: str, case: str) -> None:  # noqa: ARG001
    """Its own one of two is found, the other is listed, and nothing of the project's folder or the data is touched."""
    source, place = OPENS[case]
    entry = "wsgi:create_app()" if "create_app" in source else "wsgi:app"
    manifest = house.release("1", {"wsgi.py": source}, entry=entry, venv="")
    venv = "django" if case == "Django" else "full"
    shutil.copytree(house.venvs / venv, house.layout.venv("1"), symlinks=True)
    checkout = tmp_path / "checkout"
    own = tmp_path / "elsewhere" / "x.db" if place.startswith("/") else checkout / place
    _database(own)
    _database(checkout / "old.db")
    before = prints(tmp_path / "checkout"), prints(house.layout.data)

    adoption = CheckoutAdoption(house.layout, house.file)
    origin = adoption.find(1, manifest, checkout, {"STORE": f"sqlite:///{own}"})

    assert origin.file == own, origin
    assert [other.partition(":")[0] for other in origin.others] == ["old.db"]
    assert origin.folders == (("media",) if case == "Django" else ())
    assert (prints(tmp_path / "checkout"), prints(house.layout.data)) == before
    assert not house.layout.rehearsal(1).exists()


def test_an_app_that_cannot_be_loaded(house: House, tmp_path: Path) -> None:
    """It is said why, and what lies there is listed."""
    if isolation.why_no_namespaces():
        pytest.skip(isolation.why_no_namespaces())
    manifest = house.release("1", {"wsgi.py": "import nowhere"}, entry="wsgi:app", venv="")
    shutil.copytree(house.venvs / "bare", house.layout.venv("1"), symlinks=True)
    _database(tmp_path / "checkout" / "old.db")
    origin = CheckoutAdoption(house.layout, house.file).find(1, manifest, tmp_path / "checkout", {})
    assert (origin.file, origin.opens) == (None, "")
    assert origin.trouble == "ModuleNotFoundError: No module named 'nowhere'"
    assert len(origin.others) == 1
