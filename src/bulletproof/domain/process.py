"""ProcessSpec and ProcessState: what a supervisor is asked to run and what it says of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import msgspec


class Phase(StrEnum):
    """Where a supervised process stands."""

    ABSENT = "absent"
    """The supervisor was not asked to run it, or was asked to stop it."""
    RUNNING = "running"
    WAITING = "waiting"
    """It has a schedule, and is not due."""
    BACKING_OFF = "backing-off"
    """It crashed and is started again after a pause."""
    STOPPING = "stopping"
    FAILED = "failed"
    """It crashed too often in a row; the supervisor gave up."""


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One process and all it needs; secrets stay in `settings`, a 0600 file of JSON that is read at the start."""

    name: str
    argv: tuple[str, ...]
    folder: Path
    """The working directory."""
    log: Path
    """Where its output goes, appended."""
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    """Its whole environment besides `settings`, over which it wins; nothing is inherited from the supervisor."""
    settings: Path | None = None
    runtime: Path | None = None
    """A folder of its own for its socket, made before it starts and removed after it stopped."""
    listen: Path | None = None
    """A unix socket that the supervisor binds and keeps, passed as descriptor 3: it outlives the process."""
    stop_signal: str = "SIGTERM"
    """What asks it to end; SIGTERM, SIGQUIT or SIGINT."""
    stop_seconds: float = 10.0
    """From that signal to SIGKILL."""
    schedule: str = ""
    """When it is run, as a crontab has it; empty means always. Only one with a schedule may end by itself."""
    timeout_seconds: float = 0.0
    """One with a schedule is asked to end when a run takes longer; 0 is never."""
    drain_seconds: float = 0.0
    """How long it may go on by itself once it is told to stop; then it is asked to end."""
    is_group: bool = False
    """Whether the signal goes to all of its process group: it is a shell that lets its commands end first."""


class ProcessState(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor says of a process."""

    name: str
    phase: Phase
    pid: int | None = None
    restarts: int = 0
    """How often it crashed since it was asked for."""
    words: str = ""
    """What happened last: `exited with status 3`, `killed by SIGKILL`, `gave up after 8 crashes in 40 s`."""


START_TIME = "%Y-%m-%d %H:%M:%S %z"
"""How the line begins that is laid into a log with each start, for strftime(3)."""
_STARTED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [-+]\d{4} \[bulletproof\] \S+ is started")


def start_line(name: str, time: str) -> str:
    """What is laid into the log of a process with each start: what it says afterwards is told from what it said before.

    Empty for what runs by the clock for us, whose log is read by people as a list.
    """
    if is_backup(name) or is_check(name):
        return ""
    return f"{time} [bulletproof] {name} is started"


def is_start_line(line: str) -> bool:
    """Whether a line of a log is that."""
    return _STARTED.fullmatch(line.rstrip()) is not None


def since_start(lines: Sequence[str]) -> tuple[str, ...]:
    """Those that were printed since the last start; all of them when it lies further back."""
    starts = [index for index, line in enumerate(lines) if is_start_line(line)]
    return tuple(lines[starts[-1] + 1 :]) if starts else tuple(lines)


def web_name(number: int) -> str:
    """The name of the app's web process of deployment `number`."""
    return f"web-{number}"


def worker_name(number: int, name: str, index: int) -> str:
    """The name of the `index`th process of a worker of deployment `number`."""
    return f"worker-{number}-{name}-{index}"


def timer_name(number: int, name: str) -> str:
    """The name of a timer of deployment `number`."""
    return f"timer-{number}-{name}"


def generation_of(name: str) -> int | None:
    """The deployment that a worker or a timer belongs to; None for any other process."""
    found = _BACKGROUND.fullmatch(name)
    return int(found[1]) if found else None


def backup_name(mark: str) -> str:
    """The name of what makes backups by the clock; it belongs to no deployment."""
    return f"backup-{mark}"


def is_backup(name: str) -> bool:
    """Whether a process is that."""
    return name.startswith("backup-")


def check_name(mark: str) -> str:
    """The name of what looks at everything by the clock; it belongs to no deployment."""
    return f"check-{mark}"


def is_check(name: str) -> bool:
    """Whether a process is that."""
    return name.startswith("check-")


def replica_name(mark: str) -> str:
    """The name of what replicates the live database; it belongs to no deployment."""
    return f"replica-{mark}"


def is_replica(name: str) -> bool:
    """Whether a process is that."""
    return name.startswith("replica-")


_BACKGROUND = re.compile(r"(?:worker|timer)-(\d+)-.+")

PROXY = "proxy"
"""The name of the proxy's process."""
RELAY = "relay"
"""The name of the parking relay's process."""
