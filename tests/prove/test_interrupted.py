"""The proof ended by a person: what it made and started goes, and no second signal keeps it from that."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
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


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT], ids=lambda one: one.name)
def test_a_proof_that_is_ended_twice_leaves_nothing(sent: signal.Signals) -> None:
    """While it injects: its hosts and its scratch folder are gone when it has ended, in silence."""
    argv = [sys.executable, "-P", "-m", "bulletproof.prove", "--only", "deploy/", "--faults", "40"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as proof:
        try:
            assert proof.stdout is not None
            assert "are injected" in proof.stdout.readline()
            base = until(lambda: _base(proof.pid), "it lays no host")
            assert base is not None
            proof.send_signal(sent)
            proof.send_signal(sent)
            _, said = proof.communicate(timeout=120)
        finally:
            proof.kill()
    assert (proof.returncode, said) == (128 + sent, "")
    assert not base.exists()
    assert not pids(base)


def _base(pid: int) -> Path | None:
    """Its scratch folder, by what it has started."""
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if found := _MADE.search(" ".join(child.cmdline())):
                return Path(found[0])
    return None
