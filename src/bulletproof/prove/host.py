"""A real embedded host with a tiny app on it, steered by the real command line, under a light load."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from bulletproof.adapters.embedded.client import EmbeddedSupervisor
from bulletproof.adapters.embedded.policy import Policy
from bulletproof.demo.traffic import Traffic
from bulletproof.domain.layout import Layout, runtime_folder
from bulletproof.effects import durable
from bulletproof.effects.route import may_listen
from bulletproof.errors import BulletproofError
from bulletproof.prove import strace, warm
from bulletproof.prove.load import LIGHT, Ledgered, Load, Visitor
from bulletproof.prove.subject import TINY, Subject, former_folder

COMMAND_SECONDS = 120.0
Act = Callable[[subprocess.Popen[str]], None]
_PAUSE_SECONDS = 0.2
"""After a recovery that failed, where everybody's supervisor waits for a second: here many fail in a row. The first one
comes as soon as everybody's."""
_ROOM_BYTES = 2 << 30
_PORTS = range(20000, 30000)
"""Below the ephemeral ports, and far from where others look for one."""
_taken: set[int] = set()
"""The ports of this process's hosts: two that are laid at the same time must not both find one free."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str
    seconds: float

    @property
    def outcome(self) -> str:
        """The deployment's outcome by the last event, empty when it was killed before."""
        for line in reversed(self.out.splitlines()):
            with contextlib.suppress(ValueError):
                return str(json.loads(line).get("outcome", ""))
        return ""

    @property
    def error(self) -> dict[str, Any]:
        """The error that its last event tells of, empty when there is none."""
        for line in reversed(self.out.splitlines()):
            with contextlib.suppress(ValueError):
                return json.loads(line).get("error") or {}
        return {}

    @property
    def words(self) -> str:
        """How it ended and why, for a person; the end of its output when no event tells."""
        error = self.error
        why = f"{error['reference']}: {error['message']}" if error else (self.err + self.out)[-600:].strip()
        return f"{self.status}: {why}"


class Host(msgspec.Struct, frozen=True):
    """A root below `base`, the app's project, and how commands are run there."""

    base: Path
    subject: Subject = TINY
    python: str = sys.executable
    """The interpreter that has the Bulletproof under test; a test plants its bugs in one of its own."""
    _server: list[subprocess.Popen[bytes]] = msgspec.field(default_factory=list)
    """What the commands are forked from, once it is there."""

    @classmethod
    def lay(cls, base: Path, subject: Subject = TINY, python: str = sys.executable) -> Host:
        """Lay the project, and deploy it until there is something to prune."""
        host = cls(base, subject, python)
        host._make_project()
        host._server.append(warm.start_server(host._place, python))
        if subject.has_former:
            host._deploy_former()
        else:
            host.must(*subject.first)
            for _ in range(2):
                host.must(*subject.again)
        host.supervise()
        return host

    def with_python(self, python: str) -> Host:
        """The same host, from now on with the Bulletproof of that interpreter; this object is of no use any more."""
        self._end_server()
        host = Host(self.base, self.subject, python)
        host._write_recover()
        host._server.append(warm.start_server(host._place, python))
        for pid, command, _ in processes(host.layout.root):
            if "embedded.supervisor" in command:
                os.kill(pid, signal.SIGKILL)
        host.supervise()
        return host

    @property
    def layout(self) -> Layout:
        """Where everything of the app lies."""
        root = self.base / "r"
        return Layout(root, self.subject.name, runtime_folder(root, os.getuid()))

    @property
    def project(self) -> Path:
        """The app's project."""
        return self.base / "project"

    @property
    def database(self) -> Path:
        """The live database."""
        return self.layout.data / self.subject.database

    @property
    def address(self) -> str:
        """Where users find the app."""
        return f"http://127.0.0.1:{self.layout.port.read_text().strip()}"

    @property
    def trace(self) -> Path:
        """What strace wrote of the last command."""
        return self.base / "trace"

    @property
    def marker(self) -> Path:
        """While this file is there, an app of the revision `ill` does not boot on the live data."""
        return self.layout.data / "ill"

    def supervise(self) -> None:
        """Replace the supervisor by one whose recoveries can be met by a fault, unless it is one.

        After a fault that killed it, the command line has started one that knows of no orders.
        """
        for pid, command, _ in processes(self.layout.root):
            if "embedded.supervisor" in command:
                if str(self._recover) in command:
                    return
                os.kill(pid, signal.SIGKILL)
        program = (
            "from bulletproof.prove.host import supervise_from_here; from pathlib import Path; "
            f"supervise_from_here(Path({str(self.base)!r}), {self.subject.name!r})"
        )
        subprocess.run([self.python, "-P", "-c", program], check=True, cwd="/")

    def go_back(self) -> None:
        """Let the earlier revision serve again, on its data, if the app has one that does not: as if nothing had been.

        Raises BulletproofError when it does not start.
        """
        if not self.subject.has_former or self.layout.current.readlink() == self._seed.joinpath("current").readlink():
            return
        self._kill_all()
        shutil.rmtree(self.layout.root)
        shutil.copytree(self._seed / "root", self.layout.root, symlinks=True)
        self.must("start", "--wait", "20")
        self.supervise()

    def _deploy_former(self) -> None:
        """Twice, so that a release is kept beside the live one; and keep a copy of all of it."""
        folder = former_folder(self.project)
        for words in (self.subject.first, self.subject.again):
            self.must(*words, folder=folder)
        current = self.layout.current.readlink()
        self.must("stop", "--wait", "20")
        self._kill_all()
        self._seed.mkdir()
        shutil.copytree(self.layout.root, self._seed / "root", symlinks=True)
        self._seed.joinpath("current").symlink_to(current)
        self.must("start", "--wait", "20")

    def run(
        self,
        *words: str,
        injection: strace.Injection | None = None,
        step: str = "",
        is_traced: bool = False,
        folder: Path | None = None,
    ) -> Ended:
        """Run a verb to its end, its system calls recorded, one of them met by a fault; in the project's folder.

        They are recorded, and counted for the fault, from where this step begins.
        """
        tracer = strace.prefix(self.trace, injection) if is_traced or injection is not None else ()
        self.trace.unlink(missing_ok=True)
        since = "" if step in strace.FROM_THE_START else step
        begun = time.monotonic()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            status = self._begin_warm(words, out.fileno(), err.fileno(), tracer, since, folder).wait(COMMAND_SECONDS)
            told = [_text(file) for file in (out, err)]
        return Ended(status=status, out=told[0], err=told[1], seconds=time.monotonic() - begun)

    def run_and_kill(self, *words: str, step: str) -> Ended:
        """Run a verb, and kill -9 it when that step begins."""
        begun = time.monotonic()
        reading, writing = os.pipe()
        with tempfile.TemporaryFile() as err, os.fdopen(reading) as out:
            command = self._begin_warm(words, writing, err.fileno())
            os.close(writing)
            lines = []
            for line in out:
                lines.append(line)
                told = json.loads(line)
                if (told["event"], told.get("step")) == ("step-started", step):
                    command.kill()
            status, said = command.wait(COMMAND_SECONDS), _text(err)
        return Ended(status=status, out="".join(lines), err=said, seconds=time.monotonic() - begun)

    def _begin_warm(
        self,
        words: Sequence[str],
        out: int,
        err: int,
        tracer: Sequence[str] = (),
        step: str = "",
        folder: Path | None = None,
    ) -> warm.Child:
        with Path(os.devnull).open() as nothing:
            return warm.begin(
                self._place,
                self.argv(*words)[4:],
                folder=folder or self.project,
                environment=os.environ,
                descriptors=(nothing.fileno(), out, err),
                tracer=tracer,
                step=step,
            )

    def run_and(self, act: Act, *words: str, step: str) -> Ended:
        """Run a verb to its end; `act` is called when that step begins."""
        begun = time.monotonic()
        with self.begin(*words) as command:
            lines = []
            assert command.stdout is not None  # noqa: S101  asked for in `begin`
            for line in command.stdout:
                lines.append(line)
                told = json.loads(line)
                if (told["event"], told.get("step")) == ("step-started", step):
                    act(command)
            status = command.wait(COMMAND_SECONDS)
            assert command.stderr is not None  # noqa: S101  asked for in `begin`
            said = command.stderr.read()
        return Ended(status=status, out="".join(lines), err=said, seconds=time.monotonic() - begun)

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Start a verb in a session of its own."""
        return subprocess.Popen(
            self.argv(*words),
            cwd=self.project,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def argv(self, *words: str) -> tuple[str, ...]:
        """The command line of a verb that tells events."""
        return (self.python, "-P", "-m", "bulletproof", "--root", str(self.layout.root), *words, "--json")

    def must(self, *words: str, folder: Path | None = None) -> Ended:
        """Run a verb with success. Raises BulletproofError with what it said."""
        ended = self.run(*words, folder=folder)
        if ended.status:
            what = f"{' '.join(words)} ended with {ended.words}"
            raise BulletproofError("host-not-prepared", what, context=tuple(ended.error.get("context", ())))
        return ended

    def meet_recoveries(self, injections: Sequence[strace.Injection | None]) -> None:
        """Let the next recoveries be recorded, and each be met by its fault."""
        for trace in self.recovery_traces():
            trace.unlink()
        orders = (strace.prefix(self._recovery_trace(number), one) for number, one in enumerate(injections))
        if injections:
            durable.write_file(self.base / "orders", "\n".join(map(" ".join, orders)))

    def forget_recoveries(self) -> None:
        """Take back the orders that none has obeyed."""
        (self.base / "orders").unlink(missing_ok=True)

    def recovery_traces(self) -> list[Path]:
        """What strace wrote of the recoveries that came since, in their order."""
        return [place for number in range(9) if (place := self._recovery_trace(number)).exists()]

    def _recovery_trace(self, number: int) -> Path:
        return self.base / f"recovery-trace-{number}"

    def load(self) -> Load:
        """Light traffic on it."""
        if self.subject.has_ledger:
            return Ledgered(Traffic.start(self.address, self.base, LIGHT))
        return Visitor(self.address, self.subject.paths[0])

    def end(self) -> None:
        """Stop everything; what does not stop is killed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.run("stop", "--wait", "20")
        self._kill_all()
        self._end_server()

    def _end_server(self) -> None:
        for server in self._server:
            server.kill()
            server.wait()
        self._place.unlink(missing_ok=True)

    def _kill_all(self) -> None:
        for _ in range(2):
            for pid in pids(self.layout.root):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)

    @property
    def _seed(self) -> Path:
        return self.base / "seed"

    @property
    def _recover(self) -> Path:
        return self.base / "recover"

    @property
    def _place(self) -> Path:
        return self.base / "warm"

    def _make_project(self) -> None:
        durable.make_folder(self.base)
        self.subject.lay(self.project, _free_port(), self.marker)
        self._write_recover()

    def _write_recover(self) -> None:
        recover = self._recover
        root, app = self.layout.root, self.subject.name
        recover.write_text(
            _RECOVER.format(
                python=self.python,
                warm=warm.__file__,
                order=self.base / "orders",
                place=self._place,
                root=root,
                app=app,
            )
        )
        recover.chmod(0o755)


_RECOVER = """\
#!/bin/sh
# What the supervisor runs after a dead deployer: `bulletproof recover`, met by the fault that was ordered.
exec {python} -I -S {warm} --recover {order} {place} --root {root} recover --app {app}
"""


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def supervise_from_here(base: Path, app: str) -> None:
    """Start the supervisor of a host's app, with the code of this process."""
    root = base / "r"
    policy = Policy(recover_argv=(str(base / "recover"),), recover_first_pause_seconds=_PAUSE_SECONDS)
    EmbeddedSupervisor(Layout(root, app, runtime_folder(root, os.getuid())), policy).ensure_running()


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder with a short name, in memory where it has room, so that paths of sockets fit; removed at the end."""
    places = [place for place in ("/dev/shm", "/tmp") if _has_room(place)]  # noqa: S108  as tests do
    base = Path(tempfile.mkdtemp(prefix="bp-prove-", dir=places[0] if places else None))
    try:
        yield base
    finally:
        durable.remove_tree(base)


def _free_port() -> int:
    begin = _PORTS.start + int.from_bytes(os.urandom(2), "big") % (len(_PORTS) - 200)
    port = next(port for port in range(begin, begin + 200) if port not in _taken and may_listen(port))
    _taken.add(port)
    return port


def _has_room(place: str) -> bool:
    return os.access(place, os.W_OK | os.X_OK) and shutil.disk_usage(place).free > _ROOM_BYTES


def pids(root: Path) -> list[int]:
    """The processes that carry the root in their command line or environment, but not our own."""
    return [pid for pid, _, _ in processes(root)]


def processes(root: Path) -> Iterator[tuple[int, str, str]]:
    """Each process of the root: pid, command line, environment; neither a zombie nor ourselves."""
    exact, needle = os.fsencode(root), os.fsencode(root) + b"/"
    for name in os.listdir("/proc"):  # noqa: PTH208  by Path it took a third of the time of the proof's own code
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        try:
            command, environment = _content(f"/proc/{name}/cmdline"), _content(f"/proc/{name}/environ")
        except OSError:
            continue  # it has ended, or is another user's
        every = command + b"\0" + environment
        if command and (needle in every or (exact in every and exact in every.split(b"\0"))):
            shown = command.replace(b"\0", b" ").decode(errors="replace")
            yield int(name), shown, environment.decode(errors="replace")


def _content(file: str) -> bytes:
    with open(file, "rb", buffering=0) as opened:  # noqa: PTH123  as above
        return opened.read()
