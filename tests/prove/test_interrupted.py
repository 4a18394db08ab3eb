"""The proof ended by a person: what it made and started goes, and no second signal keeps it from that."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bulletproof.prove import strace
from bulletproof.prove.host import pids
from embedded.places import until

pytestmark = [
    pytest.mark.skipif(not strace.is_there(), reason="strace is not installed"),
    pytest.mark.timeout(300),
]
_MADE = re.compile(r"/[\w/]*/bp-prove-\w+")


def test_a_proof_that_is_ended_twice_leaves_nothing() -> None:
    """While it injects: its hosts and its scratch folder are gone when it has ended."""
    argv = [sys.executable, "-P", "-m", "bulletproof.prove", "--only", "deploy/", "--faults", "40"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as proof:
        assert proof.stdout is not None
        assert "are injected" in proof.stdout.readline()
        assert _ended_twice(proof, signal.SIGTERM) == "ending: the hosts are taken down\n"
        assert proof.returncode == 128 + signal.SIGTERM


def test_a_proof_of_an_own_app_that_is_ended_twice_leaves_nothing(project: Path) -> None:
    """While it records; it says that it ends, and that nothing live was touched."""
    argv = [sys.executable, "-P", "-m", "bulletproof", "--root", str(project.parent / "root"), "prove"]
    with subprocess.Popen(argv, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as proof:
        said = _ended_twice(proof, signal.SIGINT)
        assert "ending: the hosts are taken down\n" in said
        assert said.endswith("interrupted by SIGINT; the hosts are gone, and nothing live was touched\n")
        assert proof.returncode == 128 + signal.SIGINT


def _ended_twice(proof: subprocess.Popen[str], sent: signal.Signals) -> str:
    """Sent again while it takes its hosts down; what it said, once nothing of it is left."""
    try:
        base = until(lambda: _base(proof.pid), "it lays no host")
        assert base is not None
        until(lambda: pids(base), "nothing of its hosts runs")
        proof.send_signal(sent)
        time.sleep(0.5)
        assert proof.poll() is None, "it has ended before its hosts"
        proof.send_signal(sent)
        _, said = proof.communicate(timeout=200)
    finally:
        proof.kill()
    assert not base.exists()
    assert not pids(base)
    return said


def _base(pid: int) -> Path | None:
    """Its scratch folder, by what it has started."""
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if found := _MADE.search(" ".join(child.cmdline())):
                return Path(found[0])
    return None
