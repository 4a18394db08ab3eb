"""The one door to subprocess."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
import pytest

from bulletproof.effects.process import run, run_checked, talk
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


def test_a_check_ends_a_program(tmp_path: Path) -> None:
    """It is asked while the program runs, and what it raises is raised when the program is gone."""
    pid_file = tmp_path / "pid"

    def check() -> None:
        if pid_file.exists() and pid_file.read_text():
            raise KeyError

    begun = time.monotonic()
    with pytest.raises(KeyError):
        run(
            python(f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"),
            folder=tmp_path,
            check=check,
        )

    assert time.monotonic() - begun < 20
    assert _is_gone(int(pid_file.read_text()))


def test_a_check_does_not_make_time_longer(tmp_path: Path) -> None:
    """A program that is checked has no more time than another."""
    with pytest.raises(StepFailed) as failure:
        run(python("import time; time.sleep(60)"), folder=tmp_path, timeout_seconds=0.3, check=lambda: None)

    assert failure.value.reference == "program-too-slow"


def test_a_program_is_talked_with(tmp_path: Path) -> None:
    """It hears and answers line by line; ended, it says nothing, and why it ended is told more than once."""
    program = talk(
        python("import sys\nfor line in sys.stdin: print(line.upper(), end='', flush=True)"), folder=tmp_path
    )
    for line in ("grüße", "and more"):
        program.say(line)
        assert program.hear() == line.upper()
    assert program.is_running()
    program.kill()
    assert not program.is_running()
    program.say("still there?")
    assert not program.hear()

    failing = talk(python("raise SystemExit('no\\nway')"), folder=tmp_path)
    assert not failing.hear()
    failing.say("still there?")
    for _ in range(2):
        assert failing.kill() == ("no", "way")


def test_a_talk_with_nobody_is_told_in_words(tmp_path: Path) -> None:
    """As with any program that is not there."""
    with pytest.raises(StepFailed) as failure:
        talk((tmp_path / "nobody",), folder=tmp_path)

    assert failure.value.reference == "program-not-started"


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
