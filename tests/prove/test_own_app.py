"""`bulletproof prove` on a user's own app, whose history in git has a migration."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bulletproof.prove
from bulletproof.prove import strace

pytestmark = [
    pytest.mark.skipif(not strace.is_there(), reason="strace is not installed"),
    pytest.mark.timeout(600),
]

_CONFIG = """\
name = "own"

[app]
entry = "app:app"
workers = 1

[migrations]
command = "python migrate.py"

[backup]
schedule = "never"

[health]
paths = ["/up"]

[require]
free_disk_mib = 1
free_memory_mib = 1
"""
_MORE = """
connection = sqlite3.connect(os.environ["DATABASE_URL"].partition("///")[2])
connection.execute("CREATE TABLE IF NOT EXISTS added (id INTEGER PRIMARY KEY)")
connection.close()
"""


def _git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@localhost")
    subprocess.run(("git", *identity, *words), cwd=folder, check=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two revisions, of which the second adds a table."""
    folder = tmp_path / "own"
    shutil.copytree(Path(bulletproof.prove.__file__).parent / "app", folder)
    (folder / "bulletproof.toml").write_text(_CONFIG)
    _git(folder, "init", "--quiet")
    for words, more in (("first", ""), ("second", _MORE)):
        with (folder / "migrate.py").open("a") as file:
            file.write(more)
        _git(folder, "add", "--all")
        _git(folder, "commit", "--quiet", "-m", words)
        (folder / "requirements.txt").touch()
    return folder


def _prove(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = (sys.executable, "-P", "-m", "bulletproof", "--root", str(project.parent / "root"), "prove", *words)
    return subprocess.run(argv, cwd=project, capture_output=True, text=True, check=False, timeout=500)


def test_the_migration_of_an_own_app_is_met_and_survives(project: Path) -> None:
    """The revision before it serves first, with new data; every fault of the sample is survived."""
    ended = _prove(project, "--only", "migrate/", "--faults", "6", "--seed", "3", "--hosts", "1")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "A migration of the data was met while revision " in ended.stdout
    assert "0 broke a promise" in ended.stdout
    assert "migrate" in ended.stdout.splitlines()[3], ended.stdout
