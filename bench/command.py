"""A command run to its end, with its exit status, its wall time and its CPU time with all that it waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_LONGEST_SECONDS = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a command did and what it took."""

    status: int
    """Exit status; minus the signal's number when a signal ended it."""
    seconds: float
    cpu_seconds: float
    """User and system time of the process and of every child that was waited for, as the kernel counts it."""
    output: str
    errors: str

    def then(self, later: Finished) -> Finished:
        """Both as one: the status of the later one, times added up."""
        return Finished(
            status=later.status,
            seconds=self.seconds + later.seconds,
            cpu_seconds=self.cpu_seconds + later.cpu_seconds,
            output=self.output + later.output,
            errors=self.errors + later.errors,
        )


def shell_environment() -> dict[str, str]:
    """Our environment without what changes how Python starts.

    With PYTHONDONTWRITEBYTECODE, which build machines set, each start would compile anew what it imports.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def run(argv: tuple[str, ...], *, folder: Path, environment: Mapping[str, str]) -> Finished:
    """Run a command in a session of its own; all of it is killed when we are interrupted or it hangs."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        begun = time.monotonic()
        child = subprocess.Popen(
            argv,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        status, cpu_seconds = _wait(child)
        seconds = time.monotonic() - begun
        output.seek(0)
        errors.seek(0)
        return Finished(
            status=status,
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            output=output.read().decode(errors="replace"),
            errors=errors.read().decode(errors="replace"),
        )


def _wait(child: subprocess.Popen[bytes]) -> tuple[int, float]:
    """Wait for the child with wait4(2), which alone tells what one child used and not all children so far."""
    hung = threading.Timer(_LONGEST_SECONDS, os.killpg, (child.pid, signal.SIGKILL))
    hung.daemon = True
    hung.start()
    try:
        _, status, used = os.wait4(child.pid, 0)
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise
    finally:
        hung.cancel()
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, used.ru_utime + used.ru_stime
