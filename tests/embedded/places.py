"""A root of one's own for tests of the embedded supervisor, and the certainty that nothing of it runs afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil

from bulletproof.adapters.embedded.client import EmbeddedSupervisor
from bulletproof.adapters.embedded.policy import Policy
from bulletproof.domain.layout import Layout, runtime_folder
from bulletproof.domain.process import Phase, ProcessSpec

HURRIED = Policy(first_pause_seconds=0.01, longest_pause_seconds=0.02)
"""For tests in which a pause proves nothing."""

DEADLINE_SECONDS = 30.0
"""Far longer than anything takes on a loaded machine; only a failure waits for it."""

_ROOM_BYTES = 4 << 30


def _has_room(place: str) -> bool:
    return os.access(place, os.W_OK | os.X_OK) and shutil.disk_usage(place).free > _ROOM_BYTES


SHORT_FOLDER = next((place for place in ("/dev/shm", "/tmp") if _has_room(place)), "/tmp")  # noqa: S108
"""In memory where it has room: a power cut is no part of these tests, fsync took a quarter of the time of those of the
supervisor, and to copy a virtual environment of 1,350 files takes 0.3 s there instead of 0.8-1.2 s."""

T = TypeVar("T")


def until(ask: Callable[[], T], words: str = "it never came true", *, seconds: float = DEADLINE_SECONDS) -> T:
    """The first answer that is true, asked for again and again."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, words
        time.sleep(0.01)
    return answer


class Place:
    """A root, its supervisors, and processes to run there. Whatever is started carries the root's unique name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._scripts = 0

    def layout(self, app: str = "demo") -> Layout:
        """The layout of an app here."""
        return Layout(self.root, app, runtime_folder(self.root, os.getuid()))

    def supervisor(self, app: str = "demo", policy: Policy | None = None) -> EmbeddedSupervisor:
        """The supervisor of an app here, which does not run yet."""
        return EmbeddedSupervisor(self.layout(app), policy)

    def file(self, name: str) -> Path:
        """A file for a process to write."""
        return self.root / name

    def sleeper(self, name: str = "web-1") -> ProcessSpec:
        """A process that does nothing, for ever."""
        return self.shell("while :; do sleep 1000; done", name=name)

    def shell(self, text: str, name: str = "web-1") -> ProcessSpec:
        """A process that is a shell script."""
        return self.process(("/bin/sh", "-c", f": {self.root}; {text}"), name)

    def python(self, text: str, name: str = "web-1") -> ProcessSpec:
        """A process that is a Python script; `here` is its root."""
        self._scripts += 1
        script = self.root / f"script-{self._scripts}.py"
        script.write_text(f"from pathlib import Path\nhere = Path({str(self.root)!r})\n{text}")
        return self.process((sys.executable, str(script)), name)

    def process(self, argv: tuple[str, ...], name: str = "web-1") -> ProcessSpec:
        """A process with a short patience, so that a test which forgot to end it does not wait long."""
        environment = {"PATH": os.environ.get("PATH", os.defpath), "PLACE": str(self.root)}
        return ProcessSpec(
            name=name,
            argv=argv,
            folder=self.root,
            log=self.root / f"{name}.log",
            environment=environment,
            stop_seconds=1.0,
        )

    def processes(self) -> list[psutil.Process]:
        """What runs here: whose command line or environment has the root's name in it, but not ourselves."""
        found = []
        for entry in Path("/proc").iterdir():  # by hand, since psutil takes ten times as long for all of them
            if entry.name.isdecimal() and int(entry.name) != os.getpid() and self._is_here(entry):
                with contextlib.suppress(psutil.NoSuchProcess):
                    found.append(psutil.Process(int(entry.name)))
        return found

    def supervisors(self) -> list[psutil.Process]:
        """The supervisors among them."""
        return [process for process in self.processes() if _is_supervisor(process)]

    def clean_processes(self) -> None:
        """End all of it, supervisors first, so that nothing is started again."""
        for processes in (self.supervisors, self.processes, self.processes):
            for process in processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        until(lambda: not self.processes(), "what a test started could not be ended")

    def remove_folders(self) -> None:
        """Remove the root, and its folder for sockets where that lies elsewhere."""
        for folder in (runtime_folder(self.root, os.getuid()), self.root):
            shutil.rmtree(folder, ignore_errors=True)

    def _is_here(self, entry: Path) -> bool:
        try:
            return str(self.root).encode() in (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            return False  # it has ended, or is another user's


def _is_supervisor(process: psutil.Process) -> bool:
    try:
        return "bulletproof.adapters.embedded.supervisor" in process.cmdline()
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def new_place() -> Iterator[Place]:
    """A place that is empty again at the end, also after a failure; its path is short enough for sockets."""
    place = Place(Path(tempfile.mkdtemp(prefix="bp-", dir=SHORT_FOLDER)))
    try:
        yield place
    finally:
        place.clean_processes()
        place.remove_folders()


def runs_again(supervisor: EmbeddedSupervisor, name: str, restarts: int) -> int:
    """The new pid, once it has crashed that often and runs."""

    def pid() -> int | None:
        state = supervisor.state(name)
        return state.pid if state.restarts >= restarts and state.phase is Phase.RUNNING else None

    return until(pid, f"{name} did not run again") or 0


def kill_supervisor(supervisor: EmbeddedSupervisor) -> None:
    """Kill the supervisor alone, and see it gone."""
    pid = supervisor.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_alive(pid))


def is_alive(pid: int) -> bool:
    """Whether that process runs; one that ended and was not reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pids_in(file: Path, count: int) -> list[int]:
    """The pids that processes wrote into a file, once there are that many."""

    def read() -> list[int] | None:
        lines = file.read_text().splitlines() if file.exists() else []
        return [int(line) for line in lines] if len(lines) >= count else None

    return until(read, f"{file} never got {count} lines") or []
