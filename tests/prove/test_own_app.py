"""`bulletproof prove` on a user's own app, whose history in git has a migration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bulletproof.prove import strace

pytestmark = [
    pytest.mark.skipif(not strace.is_there(), reason="strace is not installed"),
    pytest.mark.timeout(600),
]


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
