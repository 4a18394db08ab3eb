"""A program as a unit of systemd that is gone when it has ended: it belongs to the machine, and not to who began it."""

from __future__ import annotations

import os
import re
import secrets
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from bulletproof.effects.process import Running, detach, run

_PROPERTIES = (
    "CPUWeight=30",  # a third of what the app's own units have, where both want the processor
    "IOWeight=30",
    "MemoryMax=80%",
    "KillMode=mixed",
    "TimeoutStopSec=600",  # at a shutdown: long enough for any undo, which SIGTERM begins
    "SuccessExitStatus=1 2 3 4 5 6 130 141",  # its own words for how it ended: only a kill is none of them
)
_END = re.compile(r"code=(exited|killed|dumped)/status=(?P<status>\w+)")
"""How systemd-run tells of it; its own exit status knows success and failure only."""
_ASK_SECONDS = 30.0


class TransientUnit:
    """The unit, watched by a program that may die without harm to it."""

    def __init__(self, name: str, watcher: Running, told: IO[bytes]) -> None:
        self._name = name
        self._watcher = watcher
        self._told = told

    @property
    def pid(self) -> int:
        """Its process; 0 while there is none."""
        argv = ("systemctl", "show", "--property=MainPID", "--value", self._name)
        return int(run(argv, folder=Path("/"), timeout_seconds=_ASK_SECONDS).output.strip() or 0)

    def status(self) -> int | None:
        """Its exit status, minus a signal's number; None while it runs."""
        status = self._watcher.status()
        if status is None:
            return None
        self._told.seek(0)
        end = _END.search(self._told.read().decode(errors="replace"))
        if end is None:
            return status
        return int(end["status"]) if end[1] == "exited" else -signal.Signals[f"SIG{end['status']}"]


def begin_unit(
    app: str, argv: Sequence[str], *, given: IO[bytes], said: IO[bytes], errors: IO[bytes], on_failure: str
) -> TransientUnit:
    """Start a program with our folder, environment and these files; `on_failure` is started when it is killed."""
    name = f"{app}-deployment-{secrets.token_hex(4)}.service"
    # PID 1 opens the files by our descriptors: they have no name, and nobody else can find them.
    streams = {"StandardInput": "file", "StandardOutput": "append", "StandardError": "append"}
    files = (
        f"{stream}={how}:/proc/{os.getpid()}/fd/{file.fileno()}"
        for (stream, how), file in zip(streams.items(), (given, said, errors), strict=True)
    )
    properties = (*_PROPERTIES, f"OnFailure={on_failure}", f"WorkingDirectory={Path.cwd()}", *files)
    told = tempfile.TemporaryFile()  # noqa: SIM115  as long as the unit is watched
    words = (
        *("systemd-run", "--wait", "--collect", "--service-type=exec", f"--unit={name}"),
        *(f"--property={one}" for one in properties),
        *(f"--setenv={one}" for one in os.environ),
        *("--", *argv),
    )
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        return TransientUnit(name, detach(words, given=nothing, said=told, errors=told), told)
