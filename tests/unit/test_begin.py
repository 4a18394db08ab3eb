"""How the command begins: an interrupt before it can answer is no traceback."""

from __future__ import annotations

import signal
import subprocess
import sys

PROGRAM = """\
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
signal.signal(signal.SIGINT, getattr(signal, sys.argv.pop(1)))
from bulletproof.__main__ import run
run()
"""


def _begun(handler: str) -> subprocess.CompletedProcess[str]:
    """Interrupted while it imports; `handler` is what was done at an interrupt before."""
    argv = [sys.executable, "-P", "-c", PROGRAM, handler, "--version"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_an_interrupt_of_the_imports_ends_in_silence() -> None:
    """By the signal, so that a shell knows; nothing was begun."""
    done = _begun("default_int_handler")
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_an_ignored_interrupt_stays_ignored() -> None:
    """As for what a shell started behind `nohup` or in the background."""
    done = _begun("SIG_IGN")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("bulletproof")
