"""The one door to subprocess."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
import pytest

from bulletproof.effects.process import run, run_checked
from bulletproof.errors import StepFailed


def python(code: str) -> tuple[str, ...]:
    """A program that runs this code."""
    return (sys.executable, "-I", "-S", "-c", code)


def test_a_program_tells_its_status_and_both_its_outputs(tmp_path: Path) -> None:
    """Status, output and errors come back whole, and what it was given is read."""
    code = "import sys; print(sys.stdin.read()); sys.stderr.write('no'); sys.exit(7)"

    completed = run(python(code), folder=tmp_path, input_text="grüße")

    assert (completed.status, completed.output, completed.errors) == (7, "grüße\n", "no")


def test_what_a_program_left_running_neither_delays_us_nor_lives_on(tmp_path: Path) -> None:
    """A background process that keeps the outputs open is killed when the program itself has ended."""
    code = (
        "import subprocess, sys; "
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True)"
    )
    begun = time.monotonic()

    completed = run(python(code), folder=tmp_path, timeout_seconds=50)

    assert completed.status == 0
    assert time.monotonic() - begun < 40
    assert _is_gone(int(completed.output))


def test_a_program_that_takes_too_long_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    """Past its time it is killed, its children too, and the words say so."""
    pid_file = tmp_path / "pid"
    code = (
        "import pathlib, subprocess, sys, time; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        f"pathlib.Path({str(pid_file)!r}).write_text(str(child.pid)); time.sleep(60)"
    )
    with pytest.raises(StepFailed) as failure:
        run(python(code), folder=tmp_path, timeout_seconds=3)

    assert failure.value.reference == "program-too-slow"
    assert _is_gone(int(pid_file.read_text()))


def test_a_program_that_is_not_there_is_told_in_words(tmp_path: Path) -> None:
    """Not to be able to start is an error with the program's name."""
    with pytest.raises(StepFailed, match="no-such-program could not be started"):
        run(("no-such-program",), folder=tmp_path)


def test_a_program_that_must_succeed_fails_with_its_last_lines(tmp_path: Path) -> None:
    """A status other than 0 is the failure that the caller names, with what the program said last."""
    with pytest.raises(StepFailed) as failure:
        run_checked(
            python("import sys; sys.stderr.write('first\\n\\nlast\\n'); sys.exit(1)"),
            folder=tmp_path,
            reference="it-failed",
            failure="it could not be done",
        )

    assert failure.value.reference == "it-failed"
    assert failure.value.context == ("first", "last")


def _is_gone(pid: int) -> bool:
    """Whether the process ends within a few seconds; a zombie that nobody reaped yet has ended."""
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False
