"""Lists of dependencies and packages of the source, built by real uv: which list counts, and what is installed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import workshop
from bulletproof.adapters.releases import BuiltReleases
from bulletproof.domain.config import App, AppConfig
from bulletproof.effects import tree
from bulletproof.effects.requirements import locked
from bulletproof.errors import StepFailed

LOCKS = Path(__file__).parents[2] / "locks"
BACKEND = """\
import base64, hashlib, pathlib, zipfile

def build_wheel(folder, *_):
    pathlib.Path("written-by-the-build").write_text("x")
    info = "tiny-1.0.dist-info"
    files = {
        "tiny.py": b"VERSION = 'local'\\n",
        f"{info}/METADATA": b"Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\nRequires-Dist: markupsafe\\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\\nGenerator: us\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    with zipfile.ZipFile(f"{folder}/tiny-1.0-py3-none-any.whl", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\\n" for name in files))
    return "tiny-1.0-py3-none-any.whl"
"""
BUILD_SYSTEM = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
TINY = {"pyproject.toml": f'{BUILD_SYSTEM}[project]\nname = "tiny"\nversion = "1.0"\ndependencies = ["markupsafe"]\n'}
TINY = {**TINY, "backend.py": BACKEND}


def _below(folder: str, files: Mapping[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": content for name, content in files.items()}


@pytest.mark.parametrize("line", ["./lib", "-e lib", "tiny @ file:lib", "--editable=./lib", "-r more.txt", "./lib[x]"])
def test_a_package_of_the_source_is_built_for_the_release(cold: BuiltReleases, app: Path, line: str) -> None:
    """However it is written: what it needs is locked by hash, itself it is built from a copy, and installed."""
    workshop.write(app, {**_below("lib", TINY), "requirements.txt": f"{line}\n", "more.txt": "./lib\n"})
    before = tree.tree_digest(app)
    built = workshop.release(cold, "1-aaa", app)
    entries = locked((built / "requirements.lock").read_text())
    assert set(entries) == {"markupsafe", "gunicorn"}
    assert all("--hash=sha256:" in entry for entry in entries.values())
    assert (workshop.site(built) / "tiny.py").read_text() == "VERSION = 'local'\n"
    assert cold.manifest("1-aaa").remarks == ("built tiny 1.0",)
    assert tree.tree_digest(app) == before
    assert "written-by-the-build" not in {path.name for path in built.rglob("*")}


def test_a_wheel_of_the_source_is_installed(cold: BuiltReleases, app: Path) -> None:
    """A wheel that lies in the source is a package of the source too."""
    workshop.make_wheel(app / "wheels", needs=("markupsafe",))
    workshop.write(app, {"requirements.txt": "./wheels/tiny-1.0-py3-none-any.whl\n"})
    built = workshop.release(cold, "1-aaa", app)
    assert (workshop.site(built) / "tiny.py").is_file()
    assert {"markupsafe", "gunicorn"} == set(locked((built / "requirements.lock").read_text()))


def test_a_changed_package_of_the_source_is_built_anew_without_a_network(
    cold: BuiltReleases, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of its code needs neither the index nor a new lock; a change of what it needs does."""
    workshop.write(app, {**_below("lib", TINY), "requirements.txt": "./lib\n"})
    first = workshop.release(cold, "1-aaa", app)
    with monkeypatch.context() as offline:
        offline.setenv("UV_OFFLINE", "1")
        workshop.write(app, {"lib/backend.py": BACKEND.replace("'local'", "'changed'")})
        second = workshop.release(cold, "2-bbb", app)
    assert (workshop.site(second) / "tiny.py").read_text() == "VERSION = 'changed'\n"
    assert (second / "requirements.lock").read_bytes() == (first / "requirements.lock").read_bytes()
    workshop.write(app, {"lib/pyproject.toml": TINY["pyproject.toml"].replace("markupsafe", "itsdangerous")})
    third = workshop.release(cold, "3-ccc", app)
    assert set(locked((third / "requirements.lock").read_text())) == {"itsdangerous", "gunicorn"}


def test_a_package_of_the_source_that_cannot_be_built_is_named(cold: BuiltReleases, app: Path) -> None:
    """The message names the folder, the context has what the build printed, the hint repeats it."""
    broken = {**TINY, "backend.py": "def build_wheel(*_):\n    raise SystemExit('nothing works')\n"}
    workshop.write(app, {**_below("lib", broken), "requirements.txt": "./lib\n"})
    with pytest.raises(StepFailed, match="local-package-failed") as caught:
        workshop.release(cold, "1-aaa", app)
    assert "`lib`" in caught.value.message
    assert caught.value.hint == "uv build lib"
    assert any("nothing works" in line for line in caught.value.context)
    workshop.assert_nothing_left(cold, "1-aaa")


def test_a_project_is_installed_where_its_entry_is_not_found_otherwise(cold: BuiltReleases, app: Path) -> None:
    """Code in a folder that no server looks into works as the package that the project declares."""
    entry = AppConfig(name="shop", app=App(entry="tiny:VERSION"))
    workshop.write(app, {**TINY, "requirements.txt": "markupsafe\n"})
    built = workshop.release(cold, "1-aaa", app, entry)
    assert (workshop.site(built) / "tiny.py").is_file()


def test_a_project_that_only_might_need_installing_may_fail_to_build(cold: BuiltReleases, app: Path) -> None:
    """An app that asks for versions of packages is deployed without its own, and that is said."""
    broken = {**TINY, "backend.py": "def build_wheel(*_):\n    raise SystemExit('nothing works')\n"}
    asking = {"app.py": f"import importlib.metadata\n{workshop.APP}", "requirements.txt": "itsdangerous\n"}
    workshop.write(app, {**broken, **asking})
    workshop.release(cold, "1-aaa", app)
    (remark,) = cold.manifest("1-aaa").remarks
    assert remark == "the project itself could not be built, so it is not installed as a package"


def test_what_only_a_build_can_tell_is_built_from_a_copy(cold: BuiltReleases, app: Path) -> None:
    """Dependencies that a project declares dynamically are what its build says, with nothing written to the source."""
    dynamic = TINY["pyproject.toml"].replace('dependencies = ["markupsafe"]', 'dynamic = ["dependencies"]')
    (app / "requirements.txt").unlink()
    workshop.write(app, {**TINY, "pyproject.toml": dynamic})
    built = workshop.release(cold, "1-aaa", app)
    assert "markupsafe" in locked((built / "requirements.lock").read_text())
    assert not (built / "source" / "written-by-the-build").exists()


def test_a_lock_counts_more_than_a_list(cold: BuiltReleases, app: Path) -> None:
    """Of several lists the lock is taken; the others are told, and they need not even be readable."""
    lock = (LOCKS / "pylock" / "pylock.toml").read_text()
    workshop.write(app, {"pylock.toml": lock, "requirements.txt": b"caf\xe9 is no list"})
    built = workshop.release(cold, "1-aaa", app)
    manifest = cold.manifest("1-aaa")
    assert (manifest.dependencies, manifest.remarks) == ("pylock.toml", ("requirements.txt is not used",))
    assert "itsdangerous" in locked((built / "requirements.lock").read_text())


@pytest.mark.parametrize(
    ("tool", "file", "old", "new", "command"),
    [
        ("uv", "pyproject.toml", '"itsdangerous>=2.1"', '"itsdangerous", "markupsafe"', "uv lock"),
        ("pylock", "pyproject.toml", ">=2.1", ">=3", "uv export --format pylock.toml"),
        ("poetry", "pyproject.toml", ">=2.1", "<2", "poetry lock"),
        ("pipenv", "Pipfile", '">=2.1"', '"<2"', "pipenv lock"),
    ],
)
def test_a_lock_that_is_older_than_its_list_is_refused(
    releases: BuiltReleases, tmp_path: Path, tool: str, file: str, old: str, new: str, command: str
) -> None:
    """What the list asks for and the lock does not give is named, with the command that makes the lock anew."""
    folder = LOCKS / tool
    files = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}
    app = workshop.write(tmp_path / "other", {**files, "app.py": workshop.APP, file: files[file].replace(old, new)})
    with pytest.raises(StepFailed, match="lock-outdated") as caught:
        workshop.release(releases, "1-aaa", app)
    assert caught.value.hint.startswith(command)
    workshop.assert_nothing_left(releases, "1-aaa")


@pytest.mark.parametrize(
    ("files", "reference", "words"),
    [
        ({"poetry.lock": (LOCKS / "poetry-1" / "poetry.lock").read_text()}, "lock-unusable", "poetry lock"),
        ({"Pipfile.lock": "{"}, "lock-unusable", "pipenv lock"),
        ({"pylock.toml": "x ="}, "lock-unusable", "correct it"),
        ({"pylock.toml": "packages = 3"}, "lock-unusable", "uv export"),
        ({"Pipfile": "[packages]"}, "requirements-missing", "pipenv lock"),
        ({"pyproject.toml": '[tool.poetry.dependencies]\nflask = "*"'}, "requirements-missing", "poetry lock"),
        (
            {"pyproject.toml": '[project]\ndependencies = ["a"]\n[tool.uv.sources]\na = { path = "a" }'},
            "requirements-unusable",
            "uv lock",
        ),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_with_the_command(
    releases: BuiltReleases, app: Path, files: dict[str, str], reference: str, words: str
) -> None:
    """The hint has the command of the very tool that the list belongs to."""
    (app / "requirements.txt").unlink()
    workshop.write(app, files)
    with pytest.raises(StepFailed, match=reference) as caught:
        workshop.release(releases, "1-aaa", app)
    assert words in caught.value.hint


@pytest.mark.parametrize(
    ("tool", "old", "words"),
    [
        ("uv", 'requires-python = ">=3.11"', "uv.lock"),
        ("pylock", 'requires-python = ">=3.11"', "pylock.toml"),
        ("poetry", 'python-versions = ">=3.11"', "poetry.lock"),
        ("pipenv", '"python_version": "3.11"', "Pipfile.lock"),
    ],
)
def test_a_lock_for_a_python_that_is_not_here_is_refused(
    releases: BuiltReleases, tmp_path: Path, tool: str, old: str, words: str
) -> None:
    """Each lock's own wish for a Python counts, and is named when this machine has none such."""
    folder = LOCKS / tool
    files = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}
    lock = next(name for name in files if "lock" in name)
    new = old.replace("3.11", "3.99")
    app = workshop.write(tmp_path / "other", {**files, "app.py": workshop.APP, lock: files[lock].replace(old, new)})
    with pytest.raises(StepFailed, match="python-missing") as caught:
        workshop.release(releases, "1-aaa", app)
    assert words in caught.value.message
    assert "3.99" in caught.value.message
    assert "this machine has none" in caught.value.message


def test_the_python_of_a_runtime_is_taken(releases: BuiltReleases, app: Path) -> None:
    """runtime.txt counts where there is no .python-version."""
    workshop.write(app, {"runtime.txt": "python-{}.{}.{}\n".format(*sys.version_info)})
    workshop.release(releases, "1-aaa", app)
    workshop.write(app, {"runtime.txt": "python-3.99.1\n"})
    with pytest.raises(StepFailed, match=r"asks for Python 3\.99\.1 \(runtime\.txt\)"):
        workshop.release(releases, "2-bbb", app)


def test_a_source_build_without_pg_config_names_its_debian_package(
    cold: BuiltReleases, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real build of psycopg2 on a PATH without PostgreSQL's programs ends in one sentence and one command."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    workshop.write(app, {"requirements.txt": "psycopg2==2.9.10\n"})
    with pytest.raises(StepFailed, match="dependencies-failed") as caught:
        workshop.release(cold, "1-aaa", app)
    assert "`psycopg2==2.9.10` could not be built: the program pg_config is missing" in caught.value.message
    assert caught.value.hint == "apt install libpq-dev, then: bulletproof deploy"
