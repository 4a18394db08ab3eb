"""A host and a project that all tests of the whole share, and apps that are ended whatever happens to their test."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import workshop
from bulletproof.demo.playground import Playground
from live_app import LiveApp, free_port, new_app, remove_sealed

MakeApp = Callable[[str], LiveApp]
InitApp = Callable[[str, Mapping[str, str]], LiveApp]


@pytest.fixture(scope="session")
def house() -> Iterator[Path]:
    """A folder with a short name for the root and the projects: packages are downloaded once."""
    folder = Path(tempfile.mkdtemp(prefix="bp-live-", dir="/tmp"))
    yield folder
    remove_sealed(folder)


@pytest.fixture(scope="session")
def project(house: Path) -> Path:
    """DataCharted as a git repository with a tag for each release, good and broken; v2 is checked out."""
    return Playground.make(house / "datacharted").folder


@contextmanager
def living(house: Path, project: Path, word: str) -> Iterator[LiveApp]:
    """An app of a name that nobody else has; ended at the end."""
    app = new_app(house / "root", project, f"{word}-{secrets.token_hex(2)}", port=free_port())
    try:
        yield app
    finally:
        app.end()


@pytest.fixture
def make_app(house: Path, project: Path) -> Iterator[MakeApp]:
    """Makes apps for one test."""
    with ExitStack() as apps:
        yield lambda word: apps.enter_context(living(house, project, word))


@pytest.fixture(scope="module")
def make_lasting_app(house: Path, project: Path) -> Iterator[MakeApp]:
    """Makes apps for all tests of a module."""
    with ExitStack() as apps:
        yield lambda word: apps.enter_context(living(house, project, word))


@pytest.fixture
def init_app(house: Path) -> Iterator[InitApp]:
    """Makes an app of these files, on which `init` was run and whose files were committed; ended at the end."""
    with ExitStack() as apps:
        yield lambda word, files: apps.enter_context(_initialised(house, word, files))


@contextmanager
def _initialised(house: Path, word: str, files: Mapping[str, str]) -> Iterator[LiveApp]:
    name = f"{word}-{secrets.token_hex(2)}"
    app = LiveApp(root=house / "root", name=name, folder=house / "projects" / name / "app", port=None)
    workshop.commit(app.folder, files, "The first")
    try:
        app.run("init", "--name", name, status=0)
        workshop.commit(app.folder, {}, "Configure it")
        yield app
    finally:
        if app.layout.journal.exists():
            app.end()
