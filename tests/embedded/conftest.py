"""A host and a project that all tests of the whole share, and apps that are ended whatever happens to their test."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import workshop
from bulletproof.adapters.embedded.client import EmbeddedSupervisor
from bulletproof.demo.playground import Playground
from embedded.places import HURRIED, SHORT_FOLDER, Place, new_place
from free_ports import free_port
from live_app import LiveApp, new_app, remove_sealed
from s3_server import BUCKET, KEYS, S3Server

MakeApp = Callable[[str], LiveApp]
LayApp = Callable[[str, Mapping[str, str]], LiveApp]


@pytest.fixture(scope="session")
def house() -> Iterator[Path]:
    """A folder with a short name for the root and the projects: packages are downloaded once."""
    folder = Path(tempfile.mkdtemp(prefix="bp-live-", dir=SHORT_FOLDER))
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
def lay_app(house: Path) -> Iterator[LayApp]:
    """Makes an app of these files, committed; ended at the end."""
    with ExitStack() as apps:
        yield lambda word, files: apps.enter_context(_laid(house, word, files))


@pytest.fixture
def init_app(lay_app: LayApp) -> LayApp:
    """The same, on which `init` was run, and what that wrote was committed."""

    def make(word: str, files: Mapping[str, str]) -> LiveApp:
        app = lay_app(word, files)
        app.run("init", "--name", app.name, status=0)
        workshop.commit(app.folder, {}, "Configure it")
        return app

    return make


@contextmanager
def _laid(house: Path, word: str, files: Mapping[str, str]) -> Iterator[LiveApp]:
    name = f"{word}-{secrets.token_hex(2)}"
    app = LiveApp(root=house / "root", name=name, folder=house / "projects" / name / "app", port=None)
    workshop.commit(app.folder, files, "The first")
    try:
        yield app
    finally:
        if app.layout.journal.exists():
            app.end()


@pytest.fixture
def place() -> Iterator[Place]:
    """A root of its own, in which nothing runs afterwards."""
    with new_place() as new:
        yield new


@pytest.fixture
def supervisor(place: Place) -> EmbeddedSupervisor:
    """The supervisor of the app `demo`, not running yet, and in no mood to wait between restarts."""
    return place.supervisor(policy=HURRIED)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of a real server, whose keys are in the surroundings; its address."""
    server = S3Server(tmp_path / "s3")
    server.start()
    try:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}"}.items():
            monkeypatch.setenv(name, value)
        yield f"s3://{BUCKET}/shop"
    finally:
        server.kill()
