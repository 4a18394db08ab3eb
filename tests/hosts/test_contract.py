"""The tests of the ports that servers implement in their own way, run where a real systemd is PID 1."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from hosts import lab

PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
CONTRACT = lab.CHECKOUT / "tests" / "contract"

pytestmark = pytest.mark.skipif(bool(lab.why_not()), reason=lab.why_not())


@pytest.fixture(scope="module")
def server() -> Iterator[lab.Server]:
    """A fresh server."""
    with lab.booted(lab.Server(lab.base_tree(), sees_checkout=True)) as booted:
        yield booted


@pytest.mark.parametrize("tests", ["test_supervisor.py", "test_supervised_process.py"])
def test_systemd_keeps_what_every_supervisor_promises(server: lab.Server, tests: str) -> None:
    """All tests of the contract, over units."""
    told = server.must(*PYTEST, str(CONTRACT / tests), "-k", "systemd")
    assert " passed" in told
    assert "skipped" not in told
