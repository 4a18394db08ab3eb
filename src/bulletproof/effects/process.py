"""The one door to subprocess: an argv in, a Completed out, StepFailed in words on trouble."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bulletproof.errors import StepFailed

_CONTEXT_LINES = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """What a program did."""

    argv: tuple[str, ...]
    status: int
    """Exit status; minus the signal's number when a signal ended it."""
    output: str
    errors: str


def run(
    argv: Sequence[str | Path],
    *,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = 600.0,
    input_text: str | None = None,
) -> Completed:
    """Run a program to its end, in a session of its own, and kill all of it when we are interrupted or time is up.

    Raises StepFailed when it cannot be started or outlasts `timeout_seconds`; its exit status is the caller's to judge.
    """
    words = tuple(str(word) for word in argv)
    try:
        child = subprocess.Popen(
            words,
            cwd=folder,
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL if input_text is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise StepFailed("program-not-started", f"{words[0]} could not be started: {error.strerror}") from error
    try:
        output, errors = child.communicate(input_text, timeout=timeout_seconds)
    except subprocess.TimeoutExpired as error:
        _end(child)
        raise StepFailed(
            "program-too-slow", f"{words[0]} did not end within {timeout_seconds:.0f} seconds and was killed"
        ) from error
    except BaseException:
        _end(child)
        raise
    return Completed(argv=words, status=child.returncode, output=output, errors=errors)


def run_checked(
    argv: Sequence[str | Path],
    *,
    folder: Path,
    reference: str,
    failure: str,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = 600.0,
    hint: str = "",
) -> Completed:
    """Run a program that must succeed; raises StepFailed(reference) saying `failure`, with its last lines."""
    completed = run(argv, folder=folder, environment=environment, timeout_seconds=timeout_seconds)
    if completed.status != 0:
        raise StepFailed(reference, failure, context=last_lines(completed.errors or completed.output), hint=hint)
    return completed


def last_lines(text: str, count: int = _CONTEXT_LINES) -> tuple[str, ...]:
    """The last lines of a program's output that say something."""
    return tuple([line.rstrip() for line in text.splitlines() if line.strip()][-count:])


def _end(child: subprocess.Popen[str]) -> None:
    """Kill the program and everything in its session, and reap it."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
