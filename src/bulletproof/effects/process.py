"""The one door to subprocess: an argv in, a Completed out, StepFailed in words on trouble."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

import msgspec

from bulletproof.errors import StepFailed

NOTHING = subprocess.DEVNULL
_CONTEXT_LINES = 15
_CHECK_SECONDS = 0.05


class Completed(msgspec.Struct, frozen=True, kw_only=True):
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
    check: Callable[[], None] | None = None,
) -> Completed:
    """Run a program to its end; what it left running is killed, as all of it is when we are interrupted or time is up.

    `check` is called all the while and may raise to end it. Raises StepFailed when it cannot be started or outlasts
    `timeout_seconds`; its exit status is the caller's to judge.
    """
    words = tuple(str(word) for word in argv)
    # Files and not pipes: something that the program left running would keep a pipe open long after its end.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        given.write((input_text or "").encode())
        given.seek(0)
        child = _started(words, folder, environment, (given, output, errors))
        status = _run_to_end(child, words[0], timeout_seconds, check)
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


def _started(
    words: tuple[str, ...],
    folder: Path,
    environment: Mapping[str, str] | None,
    files: tuple[IO[bytes] | int, IO[bytes] | int, IO[bytes]],
) -> subprocess.Popen[bytes]:
    """The program in a session of its own. Raises StepFailed when it cannot be started."""
    given, output, errors = files
    try:
        return subprocess.Popen(
            words,
            bufsize=0,
            cwd=folder,
            env=None if environment is None else dict(environment),
            stdin=given,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
    except OSError as error:
        raise StepFailed("program-not-started", f"{words[0]} could not be started: {error.strerror}") from error


def _run_to_end(
    child: subprocess.Popen[bytes], name: str, timeout_seconds: float, check: Callable[[], None] | None
) -> int:
    """Its exit status; nothing of its session is left when this returns, however it returns."""
    try:
        return _awaited(child, timeout_seconds, check)
    except subprocess.TimeoutExpired as error:
        raise StepFailed(
            "program-too-slow", f"{name} did not end within {timeout_seconds:.0f} seconds and was killed"
        ) from error
    finally:
        _kill(child)


def _awaited(child: subprocess.Popen[bytes], timeout_seconds: float, check: Callable[[], None] | None) -> int:
    until = time.monotonic() + timeout_seconds
    while check is not None and time.monotonic() + _CHECK_SECONDS < until:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(_CHECK_SECONDS)
        check()
    return child.wait(max(0.0, until - time.monotonic()))


def _kill(child: subprocess.Popen[bytes]) -> None:
    """It and everything in its session, gone when this returns; idempotent."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def attend(
    argv: Sequence[str],
    *,
    given: IO[bytes] | int | None,
    said: IO[bytes] | None = None,
    errors: IO[bytes] | None = None,
) -> int:
    """Run a program in our own terminal, where it may ask the person, to its end; it is ended when we are interrupted.

    `given`, `said` and `errors` are its input and output, ours when None; NOTHING is an empty input. Returns its exit
    status, minus a signal's number.
    Raises FileNotFoundError when there is no such program.
    """
    child = subprocess.Popen(argv, stdin=given, stdout=said, stderr=errors)
    try:
        return child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise


def detach(argv: Sequence[str], *, given: IO[bytes], said: IO[bytes], errors: IO[bytes]) -> Running:
    """Start a program that outlives us: in a session of its own, on files of which nobody need be the reader."""
    return Running(subprocess.Popen(argv, stdin=given, stdout=said, stderr=errors, start_new_session=True))


def become(argv: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Let another program take the place of this one, with our input and output; no shell looks at its words."""
    os.execve(argv[0], list(argv), dict(environment))  # noqa: S606


class Running:
    """A program that was started and is watched; ended with everything in its session."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child

    @property
    def pid(self) -> int:
        """Its process."""
        return self._child.pid

    def status(self) -> int | None:
        """Its exit status, minus a signal's number; None while it runs."""
        return self._child.poll()

    def wait(self, seconds: float) -> int | None:
        """Its exit status once it has ended; None when it still runs after so long."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._child.wait(max(0.0, seconds))
        return None

    def ask_to_end(self, stop_signal: str) -> None:
        """Send it that signal, and do not wait."""
        self._child.send_signal(signal.Signals[stop_signal])

    def end(self, *, patience_seconds: float, stop_signal: str = "SIGTERM") -> None:
        """That signal, then SIGKILL to its whole session; returns when it is gone; idempotent."""
        if self._child.poll() is None:
            self._child.send_signal(signal.Signals[stop_signal])
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(patience_seconds)
        _kill(self._child)


class Streamed(Running):
    """A program of whose output each line is read as it comes."""

    def __init__(self, child: subprocess.Popen[bytes], output: IO[bytes]) -> None:
        super().__init__(child)
        self._output = output

    def lines(self) -> Iterator[str]:
        """Each line that it and what it started prints, without its end; ends when nobody can print any more."""
        for line in self._output:
            yield line.decode(errors="replace").rstrip("\r\n")
        self._output.close()


def stream(argv: Sequence[str], *, folder: Path, environment: Mapping[str, str]) -> Streamed:
    """Start a program in a session of its own, with no input. Raises StepFailed when it cannot be started."""
    reading, writing = os.pipe()
    output = os.fdopen(reading, "rb")
    try:
        with os.fdopen(writing, "wb") as said, Path(os.devnull).open("rb") as nothing:
            return Streamed(_started(tuple(argv), folder, environment, (nothing, said, said)), output)
    except BaseException:
        output.close()
        raise


def spawn(
    argv: Sequence[str | Path], *, folder: Path, environment: Mapping[str, str], input_text: str, log: Path
) -> Running:
    """Start a program in a session of its own, its output appended to `log`. Raises StepFailed when it cannot be."""
    words = tuple(str(word) for word in argv)
    with tempfile.TemporaryFile() as given, log.open("ab") as output:
        given.write(input_text.encode())
        given.seek(0)
        return Running(_started(words, folder, environment, (given, output, output)))


class Talk:
    """A program that is told lines and answers in lines, in a session of its own."""

    def __init__(self, child: subprocess.Popen[bytes], given: IO[bytes], said: IO[bytes], errors: IO[bytes]) -> None:
        self._child = child
        self._given = given
        self._said = said
        self._errors = errors
        self._last_lines: tuple[str, ...] = ()

    def say(self, line: str) -> None:
        """Tell it something; that it has ended is heard, not raised."""
        if not self._given.closed:
            with contextlib.suppress(BrokenPipeError):
                self._given.write(f"{line}\n".encode())

    def hear(self) -> str:
        """Its next line, without the end of the line; empty when it has ended."""
        return "" if self._said.closed else self._said.readline().decode(errors="replace").rstrip("\n")

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._child.poll() is None

    def kill(self) -> tuple[str, ...]:
        """End it at once; the last lines of its errors. It is gone when this returns; idempotent."""
        _kill(self._child)
        if not self._errors.closed:
            self._last_lines = last_lines(_text(self._errors))
        for stream in (self._given, self._said, self._errors):
            stream.close()
        return self._last_lines


def talk(argv: Sequence[str | Path], *, folder: Path) -> Talk:
    """Start a program to talk with. Raises StepFailed when it cannot be started."""
    errors = tempfile.TemporaryFile()  # noqa: SIM115  `kill` closes it
    try:
        child = _started(tuple(map(str, argv)), folder, None, (subprocess.PIPE, subprocess.PIPE, errors))
    except BaseException:
        errors.close()
        raise
    assert child.stdin is not None  # noqa: S101  mypy does not know what PIPE makes
    assert child.stdout is not None  # noqa: S101
    return Talk(child, child.stdin, child.stdout, errors)
