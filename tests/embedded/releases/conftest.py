"""Hosts without a release, a small app, and a deployer to kill."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import workshop
from bulletproof.adapters.releases import BuiltReleases


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this test process keeps its downloads and the warm cache."""
    return tmp_path_factory.getbasetemp()


@pytest.fixture
def releases(tmp_path: Path, base: Path) -> BuiltReleases:
    """An empty host whose cache knows the small app's packages."""
    return workshop.shop(tmp_path / "root", base=base)


@pytest.fixture
def cold(tmp_path: Path, base: Path) -> BuiltReleases:
    """An empty host without a cache, but for uv's downloads."""
    return workshop.shop(tmp_path / "root", base=base, is_warm=False)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A small app with one requirement."""
    return workshop.write(tmp_path / "app", workshop.APP_FILES)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network for uv."""
    monkeypatch.setenv("UV_OFFLINE", "1")


_DEPLOYER = """
import sys
from pathlib import Path
import workshop
base, root, app = map(Path, sys.argv[1:4])
releases = workshop.shop(root, base=base, is_warm=False)
config = workshop.AppConfig(name="shop", app=workshop.App(entry="app:app", persistent=("uploads",)))
workshop.release(releases, "1-aaa", app, config)
"""


@pytest.fixture
def deployer(tmp_path: Path, base: Path, app: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts a process that fetches and builds, and kills it at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-c", _DEPLOYER, str(base), str(tmp_path / "root"), str(app)]
        paths = {"PYTHONPATH": str(Path(workshop.__file__).parent)}
        started.append(subprocess.Popen(argv, env=os.environ | paths, stderr=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
