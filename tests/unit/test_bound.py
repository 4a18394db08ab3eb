"""A program that is bound to its starter ends with it, however that one ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bulletproof.effects.bound import run_bound
from bulletproof.errors import StepFailed

_STARTER = """
import sys
from pathlib import Path
from bulletproof.effects.bound import run_bound
words = ("/bin/sh", "-c", "echo $$ > pid; exec sleep 60")
run_bound(words, folder=Path(sys.argv[1]), environment={}, timeout_seconds=60)
"""


def test_it_runs_as_any_program(tmp_path: Path) -> None:
    """Arguments, input, output, environment, folder and status go through unchanged."""
    script = 'read line; echo "$line $X $1 $(pwd)"; echo bad >&2; exit 3'
    done = run_bound(
        ("/bin/sh", "-c", script, "sh", "a b"),
        folder=tmp_path,
        environment={"X": "y"},
        timeout_seconds=10,
        input_text="in\n",
    )
    assert (done.status, done.output, done.errors) == (3, f"in y a b {tmp_path}\n", "bad\n")
    with pytest.raises(StepFailed, match="program-too-slow"):
        run_bound(("/bin/sleep", "60"), folder=tmp_path, environment={}, timeout_seconds=0.5)


def test_it_dies_with_its_starter(tmp_path: Path) -> None:
    """After kill -9 of the starter the program is gone within a second."""
    starter = subprocess.Popen([sys.executable, "-c", _STARTER, str(tmp_path)])
    try:
        program = _program(tmp_path / "pid", starter)
    finally:
        starter.send_signal(signal.SIGKILL)
        starter.wait()
    deadline = time.monotonic() + 1.0
    while (is_alive := _is_alive(program)) and time.monotonic() < deadline:
        time.sleep(0.02)
    if is_alive:
        program.kill()
    assert not is_alive


def _is_alive(program: psutil.Process) -> bool:
    """Whether it still runs; dead and not reaped, which is init's task, is dead."""
    try:
        return program.is_running() and program.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _program(file: Path, starter: subprocess.Popen[bytes]) -> psutil.Process:
    deadline = time.monotonic() + 20.0
    while not (file.exists() and file.read_text().endswith("\n")):
        assert starter.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return psutil.Process(int(file.read_text()))
