"""A machine that is reached by SSH, and an app that lives on it, for all tests of this folder."""

from __future__ import annotations

import secrets
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from free_ports import free_port
from live_app import new_app
from remote_host import FarApp, RemoteHost, remote_host


@pytest.fixture(scope="package")
def host() -> Iterator[RemoteHost]:
    """A machine with an engine."""
    with tempfile.TemporaryDirectory(prefix="bp-far-", dir="/tmp") as folder, remote_host(Path(folder) / "m") as host:
        host.use_engine(Path(sys.executable))
        yield host


@pytest.fixture(scope="package")
def app(host: RemoteHost, house: Path, project: Path) -> Iterator[FarApp]:
    """An app that was deployed there over SSH, twice."""
    laid = new_app(house / "root", project, f"far-{secrets.token_hex(2)}", port=free_port())
    app = FarApp(root=laid.root, name=laid.name, folder=laid.folder, port=laid.port, host=host)
    app.settings["app"] = {"workers": 1}
    app.configure()
    (app.folder / ".env").write_text("SECRET_KEY=first\n")
    try:
        app.deploy("v1")
        app.deploy("v2")
        yield app
    finally:
        app.here.end()
