"""An app of a user's, whose history in git has a migration."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import bulletproof.prove

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
