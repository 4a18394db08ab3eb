"""What the tests of migrations share: virtual environments, and a host without anything."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from bulletproof.domain.layout import Layout
from migrating import House, app_source

UV = Path(sys.executable).with_name("uv")


def _uv(*words: str | Path) -> None:
    subprocess.run([UV, "--quiet", *words], check=True, timeout=240)


@pytest.fixture(scope="session")
def venvs(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Make a folder with virtual environments, `full`, `django` and `bare`, once for all workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "migrator-venvs"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            _uv("venv", "--python", sys.executable, folder / "bare")
            _uv("venv", "--python", sys.executable, folder / "full")
            packages = ("flask", "flask-sqlalchemy", "flask-migrate", "aiosqlite", "sqlalchemy[asyncio]")
            _uv("pip", "install", "--compile-bytecode", "--python", folder / "full", *packages)
            _uv("venv", "--python", sys.executable, folder / "django")
            _uv(
                "pip",
                "install",
                "--compile-bytecode",
                "--python",
                folder / "django",
                "django~=5.2.0",
                "dj-database-url",
            )
            (folder / "done").touch()
    return folder


@pytest.fixture(scope="session")
def skeleton(venvs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the migrations folder that `flask db init` makes."""
    folder = tmp_path_factory.mktemp("skeleton")
    (folder / "wsgi.py").write_text(app_source())
    subprocess.run(
        [venvs / "full" / "bin" / "python", "-m", "flask", "--app", "wsgi:create_app()", "db", "init"],
        cwd=folder,
        env={"DATABASE_URL": "sqlite://", "PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
        timeout=60,
    )
    return folder / "migrations"


@pytest.fixture
def house(tmp_path: Path, venvs: Path, skeleton: Path) -> House:
    """Give an empty house."""
    return House(Layout(root=tmp_path / "root", app="shop", runtime=tmp_path / "run"), venvs, skeleton)
