"""The Python that a release is built with, and the entry that it is started by."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import workshop
from bulletproof.adapters.releases import BuiltReleases
from bulletproof.domain.config import App, AppConfig, Server
from bulletproof.domain.source import Source
from bulletproof.errors import StepFailed


@pytest.mark.parametrize("wish", ["{0}.{1}", "{0}.{1}.{2}", "# ours\n{0}.{1}\n", "cpython-{0}.{1}", ">={0}.{1}"])
def test_the_python_that_the_app_pins_is_taken(releases: BuiltReleases, app: Path, wish: str) -> None:
    """.python-version decides, in every form that uv understands."""
    workshop.write(app, {".python-version": wish.format(*sys.version_info)})
    workshop.release(releases, "1-aaa", app)
    version = releases.manifest("1-aaa").python
    assert version.startswith(f"{sys.version_info[0]}.")
    assert wish.startswith(">") or version.startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({".python-version": "3.99"}, "asks for Python 3.99 (.python-version), and this machine has none"),
        ({"pyproject.toml": '[project]\nrequires-python = ">=3.99"'}, ">=3.99 (requires-python"),
        (
            {".python-version": "3", "pyproject.toml": '[project]\nrequires-python = ">=3.99"'},
            ".python-version asks for Python 3, and pyproject.toml requires >=3.99",
        ),
    ],
)
def test_a_python_that_is_not_here_is_named(
    releases: BuiltReleases, app: Path, files: dict[str, str], words: str
) -> None:
    """The wish, where it stands, and that nothing was downloaded for it."""
    workshop.write(app, files)
    with pytest.raises(StepFailed, match="python-missing") as caught:
        workshop.release(releases, "1-aaa", app)
    assert words in caught.value.message


def test_a_pyproject_that_cannot_be_read_is_told(releases: BuiltReleases, app: Path) -> None:
    """A syntax error or nonsense in pyproject.toml is no reason to guess a Python."""
    for nonsense in (
        "[project",
        'project = "x"',
        '[project]\nrequires-python = "new"',
        "[project]\nrequires-python = 3",
    ):
        workshop.write(app, {"pyproject.toml": nonsense})
        with pytest.raises(StepFailed, match="pyproject-unusable"):
            workshop.release(releases, "1-aaa", app)


def test_the_entry_is_found_when_it_is_not_configured(releases: BuiltReleases, app: Path) -> None:
    """Without an entry in the configuration the source is asked."""
    asked: list[Path] = []

    def find(source: Path, server: Server) -> str:
        asked.append(source)
        assert server is Server.GUNICORN
        assert (source / "app.py").is_file()
        return "app:found"

    finding = BuiltReleases(releases.layout, find, releases.downloads)
    manifest = finding.fetch("1-aaa", Source(folder=app, revision="files"), AppConfig(name="shop"))
    assert manifest.entry == finding.build("1-aaa").entry == finding.manifest("1-aaa").entry == "app:found"
    assert len(asked) == 1


def test_an_entry_that_is_not_there_is_refused(releases: BuiltReleases, app: Path) -> None:
    """A configured module must be in the source or in its packages."""
    for entry in ("itsdangerous.serializer:app", "app:app"):
        config = AppConfig(name="shop", app=App(entry=entry))
        workshop.release(releases, f"1-{entry.partition('.')[0].partition(':')[0]}", app, config)
    with pytest.raises(StepFailed, match="entry-missing") as caught:
        workshop.release(releases, "2-bbb", app, AppConfig(name="shop", app=App(entry="wsgi:app")))
    assert "`wsgi:app` names the module wsgi" in caught.value.message


def test_the_apps_own_uv_configuration_is_not_ours(cold: BuiltReleases, app: Path, tmp_path: Path) -> None:
    """A uv.toml or [tool.uv] that the source brings along, or that lies above it, aims our uv nowhere."""
    evil = f'index-url = "http://127.0.0.1:9/"\ncache-dir = "{tmp_path}/evil"\n'
    workshop.write(app, {"uv.toml": evil, "pyproject.toml": f"[tool.uv]\n{evil}"})
    workshop.write(tmp_path / "root", {"uv.toml": evil})
    workshop.release(cold, "1-aaa", app)
    assert not (tmp_path / "evil").exists()
