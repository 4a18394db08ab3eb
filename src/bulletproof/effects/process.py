"""The one door to subprocess: an argv in, a Completed out, StepFailed in words on trouble."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

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
    """Run a program to its end; what it left running is killed, as all of it is when we are interrupted or time is up.

    Raises StepFailed when it cannot be started or outlasts `timeout_seconds`; its exit status is the caller's to judge.
    """
    words = tuple(str(word) for word in argv)
    # Files and not pipes: something that the program left running would keep a pipe open long after its end.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        given.write((input_text or "").encode())
        given.seek(0)
        status = _run_to_end(words, folder, environment, (given, output, errors), timeout_seconds)
        return Completed(argv=words, status=status, output=_text(output), errors=_text(errors))


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


def _run_to_end(
    words: tuple[str, ...],
    folder: Path,
    environment: Mapping[str, str] | None,
    files: tuple[IO[bytes], IO[bytes], IO[bytes]],
    timeout_seconds: float,
) -> int:
    """Run it in a session of its own, of which nothing is left when this returns, however it returns."""
    given, output, errors = files
    try:
        child = subprocess.Popen(
            words,
            cwd=folder,
            env=None if environment is None else dict(environment),
            stdin=given,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
    except OSError as error:
        raise StepFailed("program-not-started", f"{words[0]} could not be started: {error.strerror}") from error
    try:
        return child.wait(timeout_seconds)
    except subprocess.TimeoutExpired as error:
        raise StepFailed(
            "program-too-slow", f"{words[0]} did not end within {timeout_seconds:.0f} seconds and was killed"
        ) from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


class Running:
    """A program that was started and is watched; ended with everything in its session."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child

    def status(self) -> int | None:
        """Its exit status, minus a signal's number; None while it runs."""
        return self._child.poll()

    def wait(self, seconds: float) -> int | None:
        """Its exit status once it has ended; None when it still runs after so long."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._child.wait(max(0.0, seconds))
        return None

    def end(self, *, patience_seconds: float) -> None:
        """SIGTERM, then SIGKILL to its whole session; returns when it is gone; idempotent."""
        if self._child.poll() is None:
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(patience_seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()


def spawn(
    argv: Sequence[str | Path], *, folder: Path, environment: Mapping[str, str], input_text: str, log: Path
) -> Running:
    """Start a program in a session of its own, its output appended to `log`. Raises StepFailed when it cannot be."""
    words = tuple(str(word) for word in argv)
    with tempfile.TemporaryFile() as given, log.open("ab") as output:
        given.write(input_text.encode())
        given.seek(0)
        try:
            child = subprocess.Popen(
                words,
                cwd=folder,
                env=dict(environment),
                stdin=given,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            raise StepFailed("program-not-started", f"{words[0]} could not be started: {error.strerror}") from error
    return Running(child)
