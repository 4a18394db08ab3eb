"""A real app on an embedded host, asked and steered as a person would: by the command line, over HTTP, by signals."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

import workshop
from bulletproof.demo.ledger import duplicated_writes, lost_writes
from bulletproof.demo.traffic import Load, Traffic
from bulletproof.domain.layout import Layout, runtime_folder
from bulletproof.effects import lock
from bulletproof.engine.journal import Journal
from embedded.places import until

COMMAND_SECONDS = 180.0
"""Far longer than any command takes on a loaded machine."""
RECOVERY_SECONDS = 10.0
"""A killed deployer's host is whole again within this time, without a command: a promise."""
_OVERLOADED_SECONDS = 40.0
"""What we wait for it where others keep the machine busier than it has processors for, which nobody promised for."""
LIGHT = Load(clients=4, rate=30, slow_clients=0)
"""Enough to meet every cutover, and little enough to leave the machine to what is tested."""
LASTING = Load(clients=4, rate=30, slow_clients=0, bound_seconds=3600)
"""The same for all tests of a module."""

Event = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A command that ended: its exit status, its data and its talk."""

    status: int
    out: str
    err: str

    @property
    def events(self) -> list[Event]:
        """What `--json` told, line by line; every line is a JSON object."""
        found = [json.loads(line) for line in self.out.splitlines()]
        assert all(isinstance(event, dict) for event in found), self.out
        return found

    @property
    def last(self) -> Event:
        """The deployment's outcome, which is the last line."""
        last = self.events[-1]
        assert last["event"] == "deployment", self
        return last

    @property
    def reference(self) -> str:
        """The error's reference, empty when there was none."""
        error = self.last["error"]
        return str(error["reference"]) if isinstance(error, dict) else ""

    @property
    def release(self) -> str:
        """The release that the deployment was about."""
        return str(self.last["release"])

    def steps(self, event: str) -> list[str]:
        """The steps of which an event was told, in order."""
        return [str(told["step"]) for told in self.events if told["event"] == event]

    def seconds(self, step: str) -> float:
        """How long a step took."""
        (told,) = [event for event in self.events if event["event"] == "step-done" and event["step"] == step]
        return float(str(told["seconds"]))

    def note(self, step: str) -> str:
        """What a step said of itself."""
        (told,) = [event for event in self.events if event["event"] == "step-done" and event["step"] == step]
        return str(told["note"])

    def must(self, status: int, outcome: str = "") -> Done:
        """It ended so; what it said is shown when it did not."""
        assert self.status == status, f"exit {self.status}, not {status}\n{self.out}\n{self.err}"
        assert not outcome or self.last["outcome"] == outcome, f"{self.last}\n{self.err}"
        return self


class Running:
    """A command that runs, and whose events are read as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []

    def read_until(self, event: str, step: str = "") -> bool:
        """Read on until that event was told; False when the command ended without it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            told = json.loads(line)
            if told["event"] == event and told.get("step", "") == step:
                return True
        return False

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self) -> Done:
        """Wait for its end."""
        assert self.process.stdout is not None
        if not self.process.stdout.closed:
            self.lines += self.process.stdout  # `communicate` leaves out what is in its buffer already
        _, err = self.process.communicate(timeout=COMMAND_SECONDS)
        return Done(status=self.process.returncode, out="".join(self.lines), err=err)


@dataclass(frozen=True, slots=True)
class LiveApp:
    """An app, its project's folder and its host below `root`; its name is nobody else's, so its processes are found."""

    root: Path
    name: str
    folder: Path
    port: int | None
    settings: dict[str, dict[str, object]] = field(default_factory=dict)

    # --- where things lie

    @property
    def layout(self) -> Layout:
        """Where everything of the app lies."""
        return Layout(self.root, self.name, runtime_folder(self.root, os.getuid()))

    @property
    def database(self) -> Path:
        """The live database."""
        return self.layout.data / "app.db"

    @property
    def address(self) -> str:
        """Where its users find it."""
        return f"http://127.0.0.1:{self.layout.port.read_text().strip()}"

    def numbers(self) -> dict[str, set[int]]:
        """Of which deployments there are processes, socket folders and copies of the settings."""
        sockets = [path.name for path in self.layout.sockets.glob("*") if path.name.isdecimal()]
        copies = [path.stem for path in self.layout.frozen_settings.glob("[0-9]*")]
        return {
            "processes": {number for one in self.processes() if (number := _instance(one)) is not None},
            "sockets": set(map(int, sockets)),
            "settings": set(map(int, copies)),
        }

    def releases(self) -> set[str]:
        """The folders of releases, half-made ones included."""
        return {path.name for path in self.layout.releases.glob("*")}

    def leftovers(self) -> list[Path]:
        """What was half-made, and a scratch of a build in the cache."""
        layout = self.layout
        places = (layout.home, layout.data, layout.state, layout.environment.parent, layout.cache)
        found = [path for place in places if place.exists() for path in _half_made(place)]
        return [path for path in found if self.name in str(path)]

    # --- the command line

    def configure(self, **tables: Mapping[str, object]) -> None:
        """Write bulletproof.toml: the tables given over those that all tests share."""
        shared: dict[str, dict[str, object]] = {
            "app": {"workers": 1},  # which boots in half the time; tests that need more ask for them
            "health": {"deadline_seconds": 20, "timeout_seconds": 5},
            "drain": {"seconds": 10, "stop_seconds": 2},
            "proxy": {"port": self.port} if self.port else {},
            "backup": {"schedule": "never"},
            "check": {"schedule": "never", "skip": ["clock", "reboot"]},
            "require": {"free_disk_mib": 1, "free_memory_mib": 1},
        }
        lines = [f'name = "{self.name}"']
        for table in sorted(shared.keys() | self.settings.keys() | tables.keys()):
            values = {**shared.get(table, {}), **self.settings.get(table, {}), **tables.get(table, {})}
            lines += ["", f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        (self.folder / "bulletproof.toml").write_text("\n".join(lines) + "\n")

    def argv(self, *words: str) -> list[str]:
        """The command line of a verb."""
        return [sys.executable, "-P", "-m", "bulletproof", "--root", str(self.root), *words]

    def run(self, *words: str, stdin: str | None = None, status: int | None = None) -> Done:
        """Run a verb in the project's folder to its end."""
        ended = subprocess.run(
            self.argv(*words),
            cwd=self.folder,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        done = Done(status=ended.returncode, out=ended.stdout, err=ended.stderr)
        return done if status is None else done.must(status)

    def change(self, *words: str) -> Done:
        """Run a verb that changes what is live, with its events."""
        return self.run(*words, "--json")

    def deploy(self, *words: str) -> Done:
        """Deploy with success."""
        return self.change("deploy", *words).must(0, "deployed")

    @contextlib.contextmanager
    def begun(self, *words: str, stdin: str = "") -> Iterator[Running]:
        """A verb that runs; killed at the end when it still does."""
        process = subprocess.Popen(
            self.argv(*words, "--json"),
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdin is not None
        with process.stdin:
            process.stdin.write(stdin)
        process.stdin = None
        try:
            yield Running(process)
        finally:
            process.kill()
            process.communicate()

    def kill_at(self, event: str, step: str, *words: str) -> Done:
        """Run a verb and kill -9 it when that event of that step is told."""
        with self.begun(*words) as command:
            assert command.read_until(event, step), f"no {event} of {step}: {''.join(command.lines)}"
            command.send(signal.SIGKILL)
            return command.end()

    def status(self) -> Event:
        """What `status --json` tells."""
        found = json.loads(self.run("status", "--json").out)
        assert isinstance(found, dict)
        return found

    def wait_until_whole(self) -> Event:
        """The status once nothing is left to finish or undo, which must be so in time and without a command."""
        is_overloaded = os.getloadavg()[0] > 2 * (os.cpu_count() or 1)
        patience = _OVERLOADED_SECONDS if is_overloaded else RECOVERY_SECONDS
        deadline = time.monotonic() + patience
        # Looked at from here, because a command every instant would take the processor from the recovery.
        while not self._looks_whole():
            assert time.monotonic() < deadline, f"not whole after {patience:.0f} s: {self.status()}\n{self.diaries()}"
            time.sleep(0.05)
        found = self.status()
        assert (found["unfinished"], found["lock"]) == (None, None), f"{found}\n{self.diaries()}"
        return found

    def _looks_whole(self) -> bool:
        with contextlib.closing(self.journal()) as journal:
            if journal.unfinished() is not None:
                return False
        # A deployer that was killed after its supervisor had ended leaves a note that nobody is there to remove.
        return lock.peek(self.layout.lock) is None or not self.processes()

    def journal(self) -> Journal:
        """The journal, read from here."""
        journal = Journal.read(self.layout.journal)
        assert journal is not None
        return journal

    def lived(self) -> tuple[set[int], set[str]]:
        """The numbers and the releases of all deployments that were live, by the journal."""
        with contextlib.closing(self.journal()) as journal:
            lived = journal.lived()
        return {live.number for live in lived}, {live.release for live in lived}

    def diaries(self) -> str:
        """What the supervisor and its recoveries wrote, for the words of a failure."""
        logs = (self.layout.logs / name for name in ("supervisor.log", "recover.log"))
        return "\n".join(log.read_text(errors="replace")[-3000:] for log in logs if log.exists())

    def history(self) -> list[Event]:
        """What `releases --json` tells, oldest first."""
        found = json.loads(self.run("releases", "--json", status=0).out)
        assert isinstance(found, list)
        return found[::-1]

    # --- its users

    def ask(self, path: str = "/up", **headers: str) -> tuple[int, str, str]:
        """One request: the status, the version that the answer names, and the body."""
        status, told, body = self.fetch(path, **headers)
        return status, told.get("X-DataCharted-Version", ""), body

    def fetch(self, path: str, **headers: str) -> tuple[int, http.client.HTTPMessage, str]:
        """One request: the status, the headers and the body."""
        port = int(self.layout.port.read_text())
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()

    def version(self) -> str:
        """The version that serves."""
        status, version, body = self.ask()
        assert status == http.HTTPStatus.OK, body
        return version

    def is_listening(self) -> bool:
        """Whether anybody accepts connections where its users look for it."""
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", int(self.layout.port.read_text()))) == 0

    def rows(self) -> int:
        """How many charts the database holds."""
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM chart").fetchone()[0])

    @contextlib.contextmanager
    def under_load(self, load: Load = LIGHT) -> Iterator[Traffic]:
        """Constant reads and writes; at the end none of them may have failed, no write be lost or doubled."""
        with Traffic.start(self.address, self.folder.parent, load) as traffic:
            yield traffic
            report = traffic.report(traffic.began)
        assert report.failed == 0, f"{report.failed} of {report.requests} requests failed: {report.failures}"
        tokens = traffic.acknowledged()
        assert tokens, "the traffic wrote nothing"
        assert not lost_writes(tokens, self.database)
        assert not duplicated_writes(tokens, self.database)

    # --- its processes

    def processes(self) -> list[psutil.Process]:
        """Whatever carries both the root and the app's name in its command line or environment."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != os.getpid() and self._is_ours(entry):
                with contextlib.suppress(psutil.NoSuchProcess):
                    found.append(psutil.Process(int(entry.name)))
        return found

    def pid_of(self, name: str) -> int:
        """The main process of what the supervisor runs under a name, by its table."""
        table = json.loads((self.layout.sockets / "children.json").read_text())
        (pid,) = [entry["main"]["pid"] for entry in table["entries"] if entry["process"]["name"] == name]
        return int(pid)

    def supervisor(self) -> psutil.Process:
        """The supervisor's process."""
        (found,) = [one for one in self.processes() if "bulletproof.adapters.embedded.supervisor" in one.cmdline()]
        return found

    def kill_all(self) -> None:
        """Kill -9 every process of the app, as a power cut would, the supervisor first."""
        for _ in range(3):
            for process in sorted(self.processes(), key=lambda one: "supervisor" not in " ".join(_cmdline(one))):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        until(lambda: not self.processes(), "what a test started could not be ended")

    def end(self) -> None:
        """Stop it; nothing of it may run then. What does run after all is ended by force, and told."""
        try:
            if self.layout.journal.exists():
                stopped = self.run("stop", "--wait", "30")
                assert stopped.status in {0, 2}, f"{stopped}\n{self.diaries()}"
            _wait_for_zombies(self.processes)
            left = [" ".join(_cmdline(process)) for process in self.processes()]
            assert not left, f"still runs after stop: {left}"
        finally:
            self.kill_all()
            remove_sealed(self.layout.home)

    def _is_ours(self, entry: Path) -> bool:
        try:
            told = (entry / "cmdline").read_bytes() + b"\0" + (entry / "environ").read_bytes()
        except OSError:
            return False  # it has ended, or is another user's
        return os.fsencode(self.root) in told and self.name.encode() in told


def _instance(process: psutil.Process) -> int | None:
    """The deployment whose instance the process belongs to."""
    try:
        number = process.environ().get("BULLETPROOF_DEPLOYMENT", "")
    except psutil.Error:
        return None
    return int(number) if number.isdecimal() else None


def _cmdline(process: psutil.Process) -> Sequence[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return ()


def _wait_for_zombies(processes: Callable[[], list[psutil.Process]]) -> None:
    """A supervisor that answered its last order needs an instant to be gone from the kernel's list."""
    deadline = time.monotonic() + 2.0
    while processes() and time.monotonic() < deadline:
        time.sleep(0.05)


def _half_made(place: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(place):
        yield from (Path(folder, name) for name in (*folders, *files) if name.startswith(".bp-"))
        folders[:] = [name for name in folders if name not in {"venv", "source", "uv"}]


def remove_sealed(folder: Path) -> None:
    """Remove a folder with releases in it, whose folders may not be written; without the patience of a power cut."""
    for place, _, _ in os.walk(folder):
        Path(place).chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def new_app(root: Path, project: Path, name: str, *, port: int | None = None) -> LiveApp:
    """An app whose project is a copy of `project`, configured to be quick."""
    folder = root.parent / "projects" / name / "app"
    shutil.copytree(project, folder)
    app = LiveApp(root=root, name=name, folder=folder, port=port)
    app.configure()
    return app


def branch(app: LiveApp, files: Mapping[str, str | bytes], *, title: str = "A change") -> str:
    """Commit files on top of what is checked out; returns the commit's id."""
    return workshop.commit(app.folder, files, title)


def breaks_only_live(app: LiveApp, act: str = 'raise RuntimeError("Broken only where it is live.")') -> str:
    """A commit on top of what is checked out that boots on a copy of the data and crashes on the data themselves.

    `act` is what it does there, in Python; the modules time and pathlib are at hand.
    """
    source = (app.folder / "run.py").read_text()
    (app.layout.data / "break-me").touch()
    return branch(app, {"run.py": _BREAKS_ONLY_LIVE.format(str(app.layout.data / "break-me"), act) + source})


_BREAKS_ONLY_LIVE = """\
import pathlib
import time

if pathlib.Path({!r}).exists():
    {}

"""
