"""ProcessSpec and ProcessState: what a supervisor is asked to run and what it says of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Phase(StrEnum):
    """Where a supervised process stands."""

    ABSENT = "absent"
    """The supervisor was not asked to run it, or was asked to stop it."""
    RUNNING = "running"
    BACKING_OFF = "backing-off"
    """It crashed and is started again after a pause."""
    STOPPING = "stopping"
    FAILED = "failed"
    """It crashed too often in a row; the supervisor gave up."""


class StopSignal(StrEnum):
    """What asks a process to end."""

    TERM = "SIGTERM"
    QUIT = "SIGQUIT"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """One process and all it needs; secrets stay in `settings`, a 0600 file of JSON that is read at the start."""

    name: str
    argv: tuple[str, ...]
    folder: Path
    """The working directory."""
    log: Path
    """Where its output goes, appended."""
    environment: dict[str, str] = field(default_factory=dict)
    """Its whole environment besides `settings`, over which it wins; nothing is inherited from the supervisor."""
    settings: Path | None = None
    runtime: Path | None = None
    """A folder of its own for its socket, made before it starts and removed after it stopped."""
    listen: Path | None = None
    """A unix socket that the supervisor binds and keeps, passed as descriptor 3: it outlives the process."""
    stop_signal: StopSignal = StopSignal.TERM
    stop_seconds: float = 10.0
    """From that signal to SIGKILL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessState:
    """What the supervisor says of a process."""

    name: str
    phase: Phase
    pid: int | None = None
    restarts: int = 0
    """How often it crashed since it was asked for."""
    words: str = ""
    """What happened last: `exited with status 3`, `killed by SIGKILL`, `gave up after 8 crashes in 40 s`."""


def web_name(number: int) -> str:
    """The name of the app's web process of deployment `number`."""
    return f"web-{number}"


PROXY = "proxy"
"""The name of the proxy's process."""
RELAY = "relay"
"""The name of the parking relay's process."""
