"""What the tests of servers share: keys, packages, a project, and a layer that set-up has written."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bulletproof.demo.playground import Playground
from hosts import lab
from hosts.servers import WHEELS, Access, fetched_wheels, new_access, set_up_by_ssh

NewServer = Callable[..., lab.Server]


@pytest.fixture(scope="session")
def access() -> Iterator[Access]:
    """A key pair, and an ssh that uses it."""
    with new_access() as made:
        yield made


@pytest.fixture(scope="session")
def wheels() -> Iterator[Path]:
    """The packages of the example, downloaded once."""
    with fetched_wheels() as folder:
        yield folder


@pytest.fixture(scope="session")
def datacharted() -> Iterator[Path]:
    """DataCharted as a git repository with a tag for each release, good and broken; v2 is checked out."""
    folder = Path(tempfile.mkdtemp(prefix="bp-project-"))
    yield Playground.make(folder / "datacharted").folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def new_server(wheels: Path) -> NewServer:
    """Makes a server of a fresh Debian, which knows where packages lie."""
    return lambda *layers, **options: lab.Server(*layers, lab.base_tree(), mounts={wheels: str(WHEELS)}, **options)


@pytest.fixture(scope="session")
def set_up(new_server: NewServer, access: Access) -> Iterator[Path]:
    """What `setup` writes on a fresh Debian, as a layer for servers that are to have it already."""
    with lab.booted(new_server()) as server:
        access.let_in(server)
        set_up_by_ssh(server, access)
        server.power_off()
        yield server.upper
