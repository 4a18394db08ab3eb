"""kill -9 of a deployer that builds: no release appears and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import workshop
from bulletproof.adapters.releases import BuiltReleases

PATIENCE_SECONDS = 60.0


@pytest.mark.parametrize(
    "moment",
    [
        "opt/shop/releases/.bp-fetch-1-aaa/source",
        "opt/shop/releases/.bp-build-1-aaa",
        "var/cache/bulletproof/venvs/.bp-build-shop-1-aaa/entry/venv/lib/*/site-packages/gunicorn/app",
        "opt/shop/releases/.bp-build-1-aaa/venv/bin",
        "var/lib/shop/.bp-build-1-aaa/*",
    ],
)
def test_a_killed_build_leaves_nothing(
    cold: BuiltReleases, app: Path, deployer: Callable[[], subprocess.Popen[bytes]], moment: str
) -> None:
    """Kill -9 at any moment: no release appears, what it started dies with it, and discarding leaves no trace."""
    workshop.write(app, {"wide/" + f"f{n}": "x" for n in range(300)})
    workshop.write(app, {"uploads/" + f"f{n}": "x" for n in range(300)})
    process = deployer()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not list(cold.layout.root.glob(moment)):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1].decode()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert cold.existing() == ()
    _nothing_runs(str(cold.layout.root))
    workshop.assert_nothing_left(cold, "1-aaa")


def test_what_was_killed_and_discarded_can_be_built(
    cold: BuiltReleases, app: Path, deployer: Callable[[], subprocess.Popen[bytes]]
) -> None:
    """A release of the same name builds after a killed one, discarded or not, and the cache is whole."""
    process = deployer()
    while not list(cold.layout.root.glob("opt/shop/releases/.bp-build-1-aaa/venv/bin")):
        assert process.poll() is None, process.communicate()[1].decode()
    process.kill()
    process.wait()
    built = workshop.release(cold, "1-aaa", app)
    workshop.run(built / "venv" / "bin" / "gunicorn", "--check-config", "app:app", folder=built / "source")
    assert not list(cold.layout.cache.rglob(".bp-*"))


def _nothing_runs(words: str) -> None:
    """Within a second no process has `words` in its command line."""
    deadline = time.monotonic() + 1.0
    while found := [process for process in psutil.process_iter(["cmdline"]) if words in str(process.info["cmdline"])]:
        mine = [process for process in found if process.pid != os.getpid()]
        if not mine:
            return
        assert time.monotonic() < deadline, mine
        time.sleep(0.02)
