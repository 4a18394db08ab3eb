"""A release built by real uv stands alone, is read-only, has its bytecode, and keeps outside what users made."""

from __future__ import annotations

import os
import re
import stat
import time
from pathlib import Path

import pytest

import workshop
from bulletproof.adapters.releases import BuiltReleases
from bulletproof.domain.config import App, AppConfig
from bulletproof.errors import StepFailed


def test_a_release_runs_from_its_place(releases: BuiltReleases, app: Path) -> None:
    """Built in one folder and renamed into another, its programs, its Python and the app's modules work."""
    built = workshop.release(releases, "1-aaa", app)
    assert "gunicorn (version" in workshop.run(
        built / "venv" / "bin" / "gunicorn", "--version", folder=built / "source"
    )
    workshop.run(built / "venv" / "bin" / "gunicorn", "--check-config", "app:app", folder=built / "source")
    prefix = workshop.run(
        built / "venv" / "bin" / "python", "-c", "import sys; print(sys.prefix)", folder=built / "source"
    )
    assert prefix.strip() == str(built / "venv")
    shebangs = [file.read_bytes() for file in (built / "venv" / "bin").iterdir() if not file.is_symlink()]
    assert not [text for text in shebangs if b".bp-" in text]


def test_no_release_can_alter_another(releases: BuiltReleases, app: Path) -> None:
    """A line appended to a module in one release is neither in another nor in one that is built afterwards."""
    first, second = workshop.release(releases, "1-aaa", app), workshop.release(releases, "2-bbb", app)
    workshop.append(workshop.site(first) / "itsdangerous" / "__init__.py", "\nPLANTED = True\n")
    third = workshop.release(releases, "3-ccc", app)
    assert "PLANTED" in (workshop.site(first) / "itsdangerous" / "__init__.py").read_text()
    for other in (second, third):
        assert "PLANTED" not in (workshop.site(other) / "itsdangerous" / "__init__.py").read_text()


def test_releases_share_no_file(releases: BuiltReleases, app: Path) -> None:
    """No file of a release has a second name anywhere: nothing is a hard link into a cache."""
    built = workshop.release(releases, "1-aaa", app)
    files = [path for path in built.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 100
    assert {path.stat().st_nlink for path in files} == {1}


def test_a_release_is_read_only(releases: BuiltReleases, app: Path) -> None:
    """Once sealed nobody may write into it, and everybody may read it, whatever the umask was."""
    umask = os.umask(0o077)
    try:
        built = workshop.release(releases, "1-aaa", app)
    finally:
        os.umask(umask)
    modes = {stat.S_IMODE(path.lstat().st_mode) for path in (built, *built.rglob("*")) if not path.is_symlink()}
    assert modes == {0o444, 0o555}
    assert releases.manifest("1-aaa").is_built


def test_bytecode_is_there_and_used(releases: BuiltReleases, app: Path) -> None:
    """Running a release compiles nothing and writes nothing: app and packages load from the .pyc made at build."""
    workshop.write(app, {"pkg/__init__.py": "", "pkg/mod.py": "import logging.config\n", "broken.py": "def :\n"})
    workshop.write(app, {"app.py": f"import pkg.mod\n{workshop.APP}"})
    built = workshop.release(releases, "1-aaa", app)
    before = workshop.names_below(built)
    python = built / "venv" / "bin" / "python"
    said = workshop.run(python, "-v", "-c", "import app, gunicorn.app.wsgiapp", folder=built / "source")
    loaded = re.findall(rf"# code object from '?({re.escape(str(built))}[^'\n]+)", said)
    assert len(loaded) > 10
    assert [path for path in loaded if not path.endswith(".pyc")] == []
    assert {"source/__pycache__", "source/pkg/__pycache__"} <= before
    assert workshop.names_below(built) == before


def test_persistent_folders_live_in_the_data(releases: BuiltReleases, app: Path) -> None:
    """What the first release ships goes into the data once; afterwards users' files are the ones that count."""
    data = releases.layout.data
    config = AppConfig(name="shop", app=App(entry="app:app", persistent=("uploads", "var/cache dir")))
    workshop.write(app, {"uploads/welcome.txt": "v1"})
    first = workshop.release(releases, "1-aaa", app, config)
    (first / "source" / "uploads" / "users.txt").write_text("mine")
    assert (data / "uploads" / "welcome.txt").read_text() == "v1"
    (data / "uploads" / "welcome.txt").write_text("edited")
    workshop.write(app, {"uploads/welcome.txt": "v2"})
    second = workshop.release(releases, "2-bbb", app, config)
    assert (second / "source" / "uploads").readlink() == data / "uploads"
    assert (second / "source" / "var" / "cache dir").readlink() == data / "var" / "cache dir"
    assert {path.name: path.read_text() for path in (data / "uploads").iterdir()} == {
        "welcome.txt": "edited",
        "users.txt": "mine",
    }
    releases.discard("1-aaa")
    assert (data / "uploads" / "users.txt").read_text() == "mine"
    assert not list(data.glob(".bp-*"))


@pytest.mark.parametrize("name", ["app.py", "app.py/x", "link", "link/x"])
def test_a_persistent_folder_that_cannot_be_one_is_refused(releases: BuiltReleases, app: Path, name: str) -> None:
    """A file or a symlink of the source is no persistent folder; the data stays untouched."""
    workshop.write(app, {"sub/a": ""})
    (app / "link").symlink_to("sub")
    config = AppConfig(name="shop", app=App(entry="app:app", persistent=(name,)))
    with pytest.raises(StepFailed, match="persistent-unusable"):
        workshop.release(releases, "1-aaa", app, config)
    assert not releases.layout.data.exists()


def test_one_persistent_folder_cannot_lie_in_another(releases: BuiltReleases, app: Path) -> None:
    """Two that overlap are refused."""
    config = AppConfig(name="shop", app=App(entry="app:app", persistent=("a/b", "a")))
    with pytest.raises(StepFailed, match="persistent-unusable"):
        workshop.release(releases, "1-aaa", app, config)


def test_a_damaged_release_is_told(releases: BuiltReleases, app: Path) -> None:
    """A manifest that is gone, cannot be read, tells of another release or lacks its Python is no release."""
    built = workshop.release(releases, "1-aaa", app)
    for folder in (built, built / "venv" / "bin"):
        folder.chmod(0o755)
    file, python = built / "release.json", built / "venv" / "bin" / "python"
    whole = file.read_bytes()
    for damaged in (b"", b"{}", whole[:-20], whole.replace(b'"1-aaa"', b'"2-bbb"'), whole.replace(b"true", b"false")):
        file.chmod(0o644)
        file.write_bytes(damaged)
        with pytest.raises(StepFailed, match="release-damaged"):
            releases.manifest("1-aaa")
    file.write_bytes(whole)
    assert releases.manifest("1-aaa").is_built
    python.unlink()
    python.symlink_to("/nonexistent/python3")
    with pytest.raises(StepFailed, match=r"the Python 3\S+ that it was built with is gone"):
        releases.manifest("1-aaa")
    file.unlink()
    with pytest.raises(StepFailed, match="it is not there"):
        releases.manifest("1-aaa")


@pytest.mark.parametrize("name", ["", "..", ".bp-x", "a/b", "../x", "-x"])
def test_only_ids_of_releases_are_discarded(releases: BuiltReleases, name: str) -> None:
    """A name that is no release's id reaches no file."""
    with pytest.raises(StepFailed, match="release-unknown"):
        releases.discard(name)
    with pytest.raises(StepFailed, match="release-unknown"):
        releases.point_current_at(name, None)


def test_a_code_change_builds_within_two_seconds(releases: BuiltReleases, app: Path) -> None:
    """The cached way is quick: the best of three builds."""
    seconds = []
    for number in range(3):
        begun = time.monotonic()
        workshop.release(releases, f"{number}-aaa", app)
        seconds.append(time.monotonic() - begun)
    assert min(seconds) < 2.0
