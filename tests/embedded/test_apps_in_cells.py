"""Apps that reach for live data and for the world when they boot: in a cell of either kind they get nowhere.

Each runs with the packages of a real release: the usual ones under gunicorn, in namespaces and by the audit hook alone,
the others as gunicorn's worker would create them, by the hook alone. Landlock is tested with what the hook cannot see.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

import bulletproof
import workshop
from bulletproof.domain.durability import connections_of
from bulletproof.domain.public import Public
from bulletproof.effects import cell as cell_script
from bulletproof.effects import durable, isolation
from bulletproof.effects.isolation import Cell, violations
from bulletproof.effects.probe import ask_socket
from bulletproof.effects.process import Running
from bulletproof.errors import Refused
from embedded.places import until

FORBIDDEN = "unshare: Operation not permitted"
"""What a kernel says that makes no namespaces for a user."""
NOBODY = 65534
APP = """\
import os, socket, sqlite3, subprocess, sys
from pathlib import Path
from flask import Flask

live, other, source, service, tcp, udp, neighbour = {facts}
own = os.environ["DATABASE_URL"].removeprefix("sqlite:///")

def write(path):
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM which")
    connection.commit()

def create_app():
    app = Flask(__name__)
    print("about to do it", flush=True)
{code}
    print("did it", flush=True)
    app.get("/")(lambda: "served")
    return app
"""


@dataclass(frozen=True)
class Case:
    """What an app does when it boots, and what the audit hook says that it tried; nothing if that is allowed."""

    name: str
    code: str
    told: str = ""

    def __str__(self) -> str:
        return self.name


USUAL = (
    Case("hard-codes its path", "write(live + '/app.db')", "sqlite3.connect {live}/app.db"),
    Case(
        "takes the variable from .env",
        "from dotenv import load_dotenv\n"
        "Path('.env').exists() and load_dotenv(source + '/.env', override=True)\n"
        "write(os.environ['DATABASE_URL'].removeprefix('sqlite:///'))",
        "sqlite3.connect {live}/app.db",
    ),
    Case("opens a second database", "write(other + '/second.db')", "sqlite3.connect {other}/second.db"),
    Case(
        "mails",
        "import smtplib\nsmtplib.SMTP('127.0.0.1', tcp, timeout=0.3).sendmail('a@b.example', 'c@d.example', 'Hello')",
        "socket.connect 127.0.0.1:{tcp}",
    ),
    Case(
        "calls a webhook",
        "import urllib.request\nurllib.request.urlopen(f'http://127.0.0.1:{tcp}/hook', timeout=0.3)",
        "socket.connect 127.0.0.1:{tcp}",
    ),
    Case(
        "starts a thread that writes all the time",
        "import threading, time\n"
        "def work():\n"
        "    while True:\n"
        "        try:\n"
        "            write(live + '/app.db')\n"
        "        except OSError:\n"
        "            pass\n"
        "        with open(own + '.beat', 'a') as file:\n"
        "            file.write('.')\n"
        "        time.sleep(0.01)\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "time.sleep(0.1)",
        "sqlite3.connect {live}/app.db",
    ),
    Case("migrates in create_app", "sqlite3.connect(own).executescript('ALTER TABLE which ADD COLUMN colour TEXT')"),
)
"""What apps are known to do."""

UNUSUAL = (
    Case(
        "hard-codes its path as a URI",
        "sqlite3.connect('file:' + live + '/app.db?mode=rw', uri=True).executescript('DELETE FROM which')",
        "sqlite3.connect {live}/app.db",
    ),
    Case(
        "attaches a second database",
        "sqlite3.connect(own).executescript(f\"ATTACH '{other}/second.db' AS two; DELETE FROM two.which\")",
        "sqlite3 ATTACH {other}/second.db",
    ),
    Case(
        "attaches a database that it names later",
        "connection = sqlite3.connect(own)\n"
        "connection.execute('ATTACH ? AS two', (other + '/second.db',))\n"
        "connection.executescript('DELETE FROM two.which')",
        "sqlite3 ATTACH of a name that is only known later",
    ),
    Case(
        "writes a copy with VACUUM INTO",
        "sqlite3.connect(own).execute(f\"VACUUM INTO '{other}/third.db'\")",
        "sqlite3 ATTACH {other}/third.db",
    ),
    Case("writes into the file", "open(live + '/app.db', 'r+b').write(b'x')", "open {live}/app.db"),
    Case("makes a file", "os.close(os.open(other + '/new', os.O_CREAT))", "open {other}/new"),
    Case("removes the file", "os.remove(live + '/app.db')", "os.remove {live}/app.db"),
    Case(
        "removes the file by its folder's descriptor",
        "os.remove('app.db', dir_fd=os.open(live, os.O_RDONLY))",
        "os.remove {live}/app.db",
    ),
    Case(
        "puts a file in its place",
        "Path(own + '.new').touch(); os.replace(own + '.new', live + '/app.db')",
        "os.rename {live}/app.db",
    ),
    Case("shortens the file", "os.truncate(live + '/app.db', 10)", "os.truncate {live}/app.db"),
    Case(
        "writes through a symlink of its own",
        "link = Path(own).with_name('link')\nlink.symlink_to(live + '/app.db')\nwrite(link)",
        "sqlite3.connect {live}/app.db",
    ),
    Case(
        "writes through a hard link of its own",
        "link = Path(own).with_name('link')\nos.link(live + '/app.db', link)\nlink.open('r+b').write(b'x')",
        "os.link {live}/app.db",
    ),
    Case("makes a folder", "os.makedirs(other + '/new')", "os.mkdir {other}/new"),
    Case(
        "calls a unix socket",
        "connection = socket.socket(socket.AF_UNIX)\nconnection.connect(service)\nconnection.send(b'x')",
        "socket.connect {service}",
    ),
    Case(
        "sends a datagram",
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', udp))",
        "socket.sendto 127.0.0.1:{udp}",
    ),
    Case(
        "forks a process that writes",
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    try:\n"
        "        write(live + '/app.db')\n"
        "    finally:\n"
        "        os._exit(0)\n"
        "os.waitpid(pid, 0)",
        "sqlite3.connect {live}/app.db",
    ),
    Case("runs a shell", "os.system(f'echo x >{other}/new')", "os.system echo x >{other}/new"),
    Case(
        "runs a program",
        "subprocess.run(['/bin/sh', '-c', f'echo x >{other}/new'])",
        "subprocess.Popen /bin/sh -c echo x >{other}/new",
    ),
    Case(
        "runs a Python that would be watched as well",
        "subprocess.run([sys.executable, '-c', f'open({other!r} + \"/new\", \"w\")'])",
        "open {other}/new",
    ),
    Case(
        "runs a Python that ignores the hook",
        "subprocess.run([sys.executable, '-Ic', f'open({other!r} + \"/new\", \"w\")'])",
        "subprocess.Popen {python} -Ic",
    ),
    Case(
        "runs a Python in another environment",
        "subprocess.run([sys.executable, '-c', f'open({other!r} + \"/new\", \"w\")'], env={})",
        "subprocess.Popen {python} -c",
    ),
    Case("calls the C library", "import ctypes\nctypes.CDLL(None).unlink(f'{live}/app.db'.encode())", "ctypes.dlsym"),
    Case(
        "calls the C library by an address",
        "import _ctypes, ctypes\n"
        "place = _ctypes.dlsym(ctypes.CDLL(None)._handle, 'unlink')\n"
        "ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p)(place)(f'{live}/app.db'.encode())",
        "ctypes.dlsym/handle unlink",
    ),
    Case("kills a neighbour", "os.kill(neighbour, 9)", "os.kill {neighbour} with signal 9"),
)
"""Other ways to the same files and to the world."""


@dataclass
class Stage:
    """A live folder, a copy of it, the world around it, and an app that boots on the copy."""

    folder: Path
    python: Path
    """Of a release's environment, with Flask and gunicorn in it."""
    tcp: socket.socket
    udp: socket.socket
    unix: socket.socket
    neighbour: subprocess.Popen[bytes]
    running: list[Running] = field(default_factory=list)

    @property
    def live(self) -> Path:
        """What must not be reached."""
        return self.folder / "live"

    @property
    def other(self) -> Path:
        """Where another database lies."""
        return self.folder / "other"

    @property
    def scratch(self) -> Path:
        """Everything that the rehearsal makes."""
        return self.folder / "scratch"

    @property
    def copy(self) -> Path:
        """Where the copy lies."""
        return self.scratch / "data"

    @property
    def source(self) -> Path:
        """The app's code."""
        return self.folder / "source"

    @property
    def log(self) -> Path:
        """What the app printed."""
        return self.folder / "log"

    @property
    def cell(self) -> Cell:
        """The cell that the app boots in."""
        return Cell(
            mount_point=self.scratch / "root",
            read_only=(self.source, self.python.parents[1], self.python.resolve().parents[1]),
            writable={self.copy: self.live, self.scratch / "run": self.folder / "run-7"},
            noticed=(self.source, self.scratch / "noticed"),
            database=(self.live if isolation.is_remapped() else self.copy) / "app.db",
            memory_bytes=1 << 30,
        )

    def lay(self) -> None:
        """Make the folders and the databases; the live one has a log that is not yet in it."""
        for path in (self.live, self.other, self.copy, self.scratch / "root", self.scratch / "run", self.source):
            path.mkdir(parents=True)
        for path in (self.live / "app.db", self.copy / "app.db", self.other / "second.db"):
            with contextlib.closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("CREATE TABLE which (name TEXT)")
                connection.execute("INSERT INTO which VALUES ('ada')")
                connection.commit()

    def write_app(self, code: str) -> None:
        """Write the app that does this when it boots."""
        told = (self.live, self.other, self.source, self.folder / "service.sock")
        ports = (self.tcp.getsockname()[1], self.udp.getsockname()[1], self.neighbour.pid)
        facts = (*map(str, told), *ports)
        (self.source / "app.py").write_text(
            APP.format(facts=repr(facts), code=textwrap.indent(textwrap.dedent(code), "    "))
        )
        (self.source / ".env").write_text(f"DATABASE_URL=sqlite:///{self.live}/app.db\n")

    def boot(self, code: str) -> None:
        """Boot the app under gunicorn in the cell, until it serves or has ended."""
        self.write_app(code)
        run = self.folder / "run-7" if isolation.is_remapped() else self.scratch / "run"
        gunicorn = ("-m", "gunicorn", f"--bind=unix:{run}/web.sock", "--worker-tmp-dir=/dev/shm", "--no-control-socket")
        running = self.start(str(self.python), *gunicorn, "app:create_app()")
        until(lambda: running.status() is not None or self.serves(), "it neither served nor ended")

    def create(self, code: str) -> None:
        """Create the app in the cell, to the end."""
        self.write_app(code)
        self.run(str(self.python), "-c", "import app; app.create_app()")

    def run(self, *argv: str) -> int:
        """Run a program in the cell to its end; returns its exit status."""
        running = self.start(*argv)
        until(lambda: running.status() is not None, "it did not end")
        return running.status() or 0

    def start(self, *argv: str, search: str = "/nowhere", memory_bytes: int = 1 << 30) -> Running:
        """Start a program in the cell, where `search` is its own PYTHONPATH."""
        data = self.live if isolation.is_remapped() else self.copy
        environment = {"PATH": "/usr/bin:/bin", "DATABASE_URL": f"sqlite:///{data}/app.db", "PYTHONPATH": search}
        cell = replace(self.cell, memory_bytes=memory_bytes)
        running = isolation.start_in_cell(cell, argv, folder=self.source, environment=environment, log=self.log)
        self.running.append(running)
        return running

    def serves(self) -> bool:
        """Whether the app answers on the socket outside."""
        answer = ask_socket(self.scratch / "run" / "web.sock", "/", Public(host="localhost"), timeout_seconds=5)
        return answer.is_healthy

    def end(self) -> None:
        """End the app."""
        for running in self.running:
            isolation.end_at_once(running)
        self.running.clear()

    def create_outside(self, code: str) -> None:
        """Create the same app without a cell, as a deployment would."""
        self.write_app(code)
        environment = {"PATH": "/usr/bin", "DATABASE_URL": f"sqlite:///{self.live}/app.db"}
        argv = (str(self.python), "-c", "import app; app.create_app()")
        with self.log.open("wb") as log:
            subprocess.run(argv, cwd=self.source, env=environment, stdout=log, stderr=log, timeout=60, check=False)

    def content(self) -> dict[str, str]:
        """Every live file byte for byte, in both folders."""
        files = (path for folder in (self.live, self.other) for path in sorted(folder.rglob("*")))
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in files}

    def arrived(self) -> list[str]:
        """What reached the world."""
        found = [name for name in ("tcp", "unix", "udp") if _has_arrived(getattr(self, name))]
        return found if self.neighbour.poll() is None else [*found, "neighbour"]

    def processes(self) -> list[int]:
        """What runs of the app, by its environment or its command line."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                told = (entry / "environ").read_bytes() if entry.name.isdecimal() else b""
                if str(self.folder).encode() in told and int(entry.name) != os.getpid():
                    found.append(int(entry.name))
        return found


def _has_arrived(listener: socket.socket) -> bool:
    listener.settimeout(0.05)
    try:
        if listener.type == socket.SOCK_DGRAM:
            listener.recv(100)
        else:
            listener.accept()[0].close()
    except TimeoutError:
        return False
    return True


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The Python of a release that was really built."""
    base = tmp_path_factory.mktemp("cells")
    releases = workshop.shop(base / "root", base=base, is_warm=False)
    files = {"app.py": workshop.APP, "requirements.txt": "flask==3.1.3\ngunicorn==27.0.1\npython-dotenv==1.2.4\n"}
    yield workshop.release(releases, "1-cells", workshop.write(base / "app", files)) / "venv" / "bin" / "python"
    releases.discard("1-cells")


@pytest.fixture
def stage(python: Path) -> Iterator[Stage]:
    """A stage in a folder of its own; nothing of it runs afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="bp-cells-", dir="/var/tmp"))
    with contextlib.ExitStack() as world:
        world.callback(shutil.rmtree, folder)
        tcp = world.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = world.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        unix = world.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(folder / "service.sock"))
        unix.listen()
        neighbour = world.enter_context(subprocess.Popen(("/usr/bin/sleep", "300"), start_new_session=True))
        world.callback(neighbour.kill)
        stage = Stage(folder, python, tcp, udp, unix, neighbour)
        stage.lay()
        world.callback(stage.end)
        # Open, so that the live database has a write-ahead log with something in it all the while.
        reader = world.enter_context(contextlib.closing(sqlite3.connect(stage.live / "app.db")))
        reader.execute("INSERT INTO which VALUES ('grace')")
        reader.commit()
        yield stage


@pytest.fixture(params=["namespaces", "landlock", "hook"])
def proof(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Each proof in turn; where namespaces would be used, a kernel that forbids them is played by the probe."""
    if request.param == "namespaces":
        if reason := isolation.why_no_namespaces():
            pytest.skip(f"the kernel lets this user make no namespaces: {reason}")
    else:
        monkeypatch.setattr(isolation, "why_no_namespaces", lambda: FORBIDDEN)
    if request.param == "landlock" and not cell_script.landlock_version():
        pytest.skip("this kernel has no Landlock")
    if request.param == "hook":
        _without_landlock(monkeypatch, tmp_path)
    return str(request.param)


def _without_landlock(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A kernel without Landlock, played by a cell script that finds none."""
    source = Path(cell_script.__file__).read_text()
    asked = "if version := landlock_version():"
    assert source.count(asked) == 1
    script = folder / "cell.py"
    script.write_text(source.replace(asked, "if version := 0:"))
    monkeypatch.setattr(isolation, "_SCRIPT", (*isolation._SCRIPT[:-1], str(script)))
    monkeypatch.setattr(cell_script, "landlock_version", lambda: 0)


@pytest.mark.parametrize("case", USUAL, ids=str)
@pytest.mark.parametrize("proof", ["namespaces", "hook"], indirect=True)
def test_an_app_that_boots_reaches_nothing_live(stage: Stage, proof: str, case: Case) -> None:
    """The live files are as they were byte for byte, nothing arrived anywhere, and what it tried is told."""
    before = stage.content()

    stage.boot(case.code)
    has_served = stage.serves()
    stage.end()

    assert_nothing_reached(stage, before)
    assert_told(stage, case if proof == "hook" else dataclasses.replace(case, told=""))
    if "thread" in case.name or "migrates" in case.name:
        assert has_served, stage.log.read_text()
    durable.remove_tree(stage.scratch)
    time.sleep(0.05)
    assert not stage.scratch.exists()


@pytest.mark.parametrize("case", UNUSUAL, ids=str)
@pytest.mark.parametrize("proof", ["hook"], indirect=True)
def test_no_other_way_is_open(stage: Stage, proof: str, case: Case) -> None:  # noqa: ARG001
    """The hook alone closes every one that Python has, and tells which was tried."""
    before = stage.content()

    stage.create(case.code)

    assert_nothing_reached(stage, before)
    assert_told(stage, case)


@pytest.mark.parametrize("case", [*USUAL, *UNUSUAL], ids=str)
def test_without_a_cell_each_of_them_does_harm(stage: Stage, case: Case) -> None:
    """The tests above have teeth: what they look at changes when the same app is created outside."""
    before = stage.content()

    stage.create_outside(case.code)

    assert stage.content() != before or stage.arrived(), stage.log.read_text()


QUIET = (
    Case("asks for an address", "socket.getaddrinfo('mail.example.org', 25)", "socket.getaddrinfo mail.example.org"),
    Case("kills a group", "os.killpg(neighbour, 15)", "os.killpg {neighbour} with signal 15"),
    Case(
        "becomes another program",
        "os.execvp('sh', ['sh', '-c', 'true'])",
        "os.exec sh -c true",
    ),
    Case(
        "binds a socket beside the live one's",
        "socket.socket(socket.AF_UNIX).bind(other + '/web.sock')",
        "socket.bind {other}/web.sock",
    ),
)


@pytest.mark.parametrize("case", QUIET, ids=str)
@pytest.mark.parametrize("proof", ["hook"], indirect=True)
def test_what_leaves_no_trace_is_told_as_well(stage: Stage, proof: str, case: Case) -> None:  # noqa: ARG001
    """A name that is looked up, a signal, a program, a socket: each is refused."""
    stage.create(case.code)

    assert "did it" not in stage.log.read_text()
    assert_told(stage, case)


@pytest.mark.parametrize("proof", ["namespaces", "landlock", "hook"], indirect=True)
def test_what_every_app_does_is_allowed(stage: Stage, proof: str) -> None:  # noqa: ARG001
    """Temporary files, folders of its own, a connection to itself, its own child, and what the library asks around."""
    stage.create(
        """
        import ctypes.util, platform, shutil, tempfile, uuid
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "deep").mkdir()
            Path(folder, "deep", "file").write_text("x")
            os.chmod(folder, 0o700)
        Path(own).with_name("new").mkdir()
        os.makedirs(live, exist_ok=True)
        open("/dev/null", "w").close()
        with open("/dev/stdout", "a") as file:
            file.write("said it" + chr(10))
        for name in ("file:memory?mode=memory", ":memory:", ""):
            sqlite3.connect(name, uri=True).executescript("CREATE TABLE a (b); VACUUM; ATTACH ':memory:' AS two")
        one, two = socket.socketpair()
        one.sendmsg([b"x"])
        server = socket.socket(socket.AF_UNIX)
        server.bind(own + ".sock")
        server.listen()
        socket.socket(socket.AF_UNIX).connect(own + ".sock")
        socket.getaddrinfo("127.0.0.1", 25)
        platform.processor()
        child = subprocess.Popen([sys.executable, "-X", "utf8", "-c", "import time; time.sleep(60)"])
        os.kill(child.pid, 15)
        child.wait()
        try:
            subprocess.run(["no-such-program"])
        except FileNotFoundError:
            pass
        """
    )

    assert {"said it", "did it"} <= set(stage.log.read_text().splitlines()), stage.log.read_text()
    assert violations(stage.cell) == ()


@pytest.mark.parametrize("proof", ["hook"], indirect=True)
def test_an_app_keeps_its_own_sitecustomize(stage: Stage, proof: str) -> None:  # noqa: ARG001
    """It runs, after the hook is in place; and a library that cannot be watched is not there."""
    (stage.source / "sitecustomize.py").write_text(
        f"print('its own')\ntry:\n    open({str(stage.other / 'new')!r}, 'w')\nexcept OSError:\n    print('refused')\n"
        "try:\n    import pysqlite3\nexcept ImportError as error:\n    print(error)\n"
    )
    (stage.source / "pysqlite3.py").touch()

    running = stage.start(str(stage.python), "-c", "print('and the program')", search=str(stage.source))
    until(lambda: running.status() is not None)

    lines = stage.log.read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "its own",
        "refused",
        "pysqlite3 cannot be watched",
        "and the program",
    ]
    assert violations(stage.cell) == (f"open {stage.other}/new",)


def test_its_connections_are_listened_to(stage: Stage, proof: str) -> None:  # noqa: ARG001
    """With each proof, in the program and in those that it starts; only what ran last is told."""
    code = """
        import os, sqlite3
        connection = sqlite3.connect(os.environ["DATABASE_URL"].removeprefix("sqlite:///"))
        connection.execute("PRAGMA synchronous = NORMAL")
        """
    stage.create(code)
    stage.create(code)

    assert violations(stage.cell) == ()
    (found,) = connections_of(isolation.heard(stage.cell))
    assert (found.sqlite, found.synchronous, found.journal) == (sqlite3.sqlite_version, 1, "WAL")


@pytest.mark.parametrize("proof", ["landlock"], indirect=True)
def test_what_is_not_python_is_kept_by_landlock(stage: Stage, proof: str) -> None:  # noqa: ARG001
    """A shell reads and writes its copy, and nothing else; afterwards it is told that nobody watched it."""
    before = stage.content()
    port = stage.tcp.getsockname()[1]
    attempts = (
        f"echo x >{stage.other}/new",
        f"echo x >>{stage.live}/app.db",
        f"rm {stage.live}/app.db",
        f"mv {stage.copy}/app.db {stage.live}/app.db",
        f"ln {stage.live}/app.db {stage.copy}/linked.db",
        f"grep -c SQLite {stage.live}/app.db",
        f"ls {stage.live}",
        f"exec 3<>/dev/tcp/127.0.0.1/{port}",
        f"kill -9 {stage.neighbour.pid}",
    )

    stage.run("/bin/bash", "-c", "\n".join(f"( {one} ) && echo succeeded" for one in attempts))
    allowed = stage.run(
        "/bin/bash", "-c", f"mv {stage.copy}/app.db {stage.copy}/moved.db && grep -c SQLite /etc/passwd"
    )

    assert "succeeded" not in stage.log.read_text()
    assert stage.content() == before
    assert stage.arrived() == []
    assert allowed == 1  # grep's word for no such line
    assert (stage.copy / "moved.db").exists()
    assert violations(stage.cell) == ("it ran without the audit hook, so nobody knows what it opened",)


@pytest.mark.parametrize("proof", ["landlock"], indirect=True)
def test_an_app_serves_under_landlock_and_the_hook(stage: Stage, proof: str) -> None:  # noqa: ARG001
    """Both together leave an app all that it needs."""
    stage.boot("sqlite3.connect(own).executescript('DELETE FROM which')")

    assert stage.serves(), stage.log.read_text()
    stage.end()
    assert violations(stage.cell) == ()
    assert count(stage.copy / "app.db") == 0
    assert stage.processes() == []


DAEMON = """
beat = os.path.dirname(own) + "/beat"
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        import time
        while True:
            with open(beat, "a") as file:
                file.write(".")
            time.sleep(0.01)
    os._exit(0)
os.wait()
"""


@pytest.mark.parametrize("proof", ["namespaces", "hook"], indirect=True)
def test_a_daemon_of_the_app_ends_with_it(stage: Stage, proof: str) -> None:  # noqa: ARG001
    """When the rehearsal has ended the app, nothing of it runs, though it left its session and its parent."""
    stage.boot(DAEMON)
    until((stage.copy / "beat").exists)

    stage.end()

    assert stage.processes() == []


STARTER = """
import sys, time
from pathlib import Path
from bulletproof.effects import isolation
isolation.why_no_namespaces = lambda: "forbidden"
cell = isolation.Cell(**eval(sys.argv[1]))
isolation.start_in_cell(cell, eval(sys.argv[2]), folder=Path(sys.argv[3]), environment=eval(sys.argv[4]),
                        log=Path(sys.argv[5]))
time.sleep(120)
"""


def test_all_of_it_ends_when_the_rehearsing_process_is_killed(stage: Stage) -> None:
    """kill -9: gunicorn, its workers and a daemon are gone without a command, and the scratch can be removed."""
    stage.write_app(DAEMON)
    bind = f"--bind=unix:{stage.scratch}/run/web.sock"
    argv = (str(stage.python), "-m", "gunicorn", bind, "--no-control-socket", "app:create_app()")
    cell = (
        f"dict(mount_point=Path({str(stage.cell.mount_point)!r}), memory_bytes={1 << 30},"
        f" read_only=tuple(map(Path, {[*map(str, stage.cell.read_only)]!r})),"
        f" writable={{Path({str(stage.copy)!r}): Path('/a'), Path({str(stage.scratch / 'run')!r}): Path('/b')}})"
    )
    environment = {"DATABASE_URL": f"sqlite:///{stage.copy}/app.db"}
    words = (cell, repr(argv), str(stage.source), repr(environment), str(stage.log))
    with subprocess.Popen((sys.executable, "-c", STARTER, *words), start_new_session=True) as starter:
        try:
            until(lambda: (stage.copy / "beat").exists() and stage.serves(), stage.log.name)
        finally:
            starter.kill()

    until(lambda: not stage.processes(), "something of it still runs")

    durable.remove_tree(stage.scratch)
    time.sleep(0.1)
    assert not stage.scratch.exists()


@pytest.mark.parametrize("proof", ["namespaces", "hook"], indirect=True)
def test_the_memory_of_all_processes_is_capped(stage: Stage, proof: str) -> None:  # noqa: ARG001
    """Two that take little each and too much together are ended, and it is said why."""
    greedy = "import os, time; os.fork(); kept = bytearray(150 << 20); time.sleep(60)"
    running = stage.start(str(stage.python), "-c", greedy, memory_bytes=200 << 20)

    until(lambda: running.status() is not None)

    assert running.status() == cell_script.TOO_MUCH
    assert "ended: all of it together took more than 200 MiB of memory" in stage.log.read_text()
    assert stage.processes() == []


UNPRIVILEGED = """
import json, os, sys, time
from pathlib import Path
stage, is_forbidden, packages, python = Path(sys.argv[1]), sys.argv[2] == "hook", sys.argv[3], sys.argv[4]
sys.path.insert(0, str(stage / "bulletproof"))
from bulletproof.effects import isolation
if is_forbidden:
    isolation.why_no_namespaces = lambda: "forbidden"
reason = isolation.why_no_namespaces() if not is_forbidden else isolation.why_not()
scratch = stage / "scratch"
cell = isolation.Cell(mount_point=scratch / "root", memory_bytes=1 << 30, writable={scratch / "data": stage / "live"},
                      read_only=(stage / "source", Path(packages), Path(python).parents[1]))
data = stage / "live" if isolation.is_remapped() else scratch / "data"
environment = {"DATABASE_URL": f"sqlite:///{data}/app.db", "PYTHONPATH": packages}
running = isolation.start_in_cell(cell, (python, "-c", "import app; app.create_app()"), folder=stage / "source",
                                  environment=environment, log=stage / "log")
while not reason and running.status() is None:
    time.sleep(0.02)
isolation.end_at_once(running)
print(json.dumps([reason, os.getuid(), isolation.violations(cell)]))
"""


@pytest.mark.parametrize("kind", ["namespaces", "hook"])
def test_it_needs_no_root(stage: Stage, kind: str) -> None:
    """The same for an ordinary user: the copy is written, the live file is not."""
    prefix = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups") if os.getuid() == 0 else ()
    python = _python_for(prefix)
    for place in (Path(bulletproof.__file__).parent, Path(msgspec.__file__).parent):
        shutil.copytree(place, stage.folder / "bulletproof" / place.name)
    shutil.copytree(stage.python.parents[1] / "lib", stage.folder / "lib", symlinks=True)
    packages = next((stage.folder / "lib").glob("python*/site-packages"))
    stage.write_app("sqlite3.connect(own).executescript('DELETE FROM which')\nwrite(live + '/app.db')")
    if prefix:
        _give(stage.folder, NOBODY)
    before = stage.content()

    words = (str(stage.folder), kind, str(packages), python)
    done = subprocess.run(
        (*prefix, python, "-c", UNPRIVILEGED, *words), cwd="/", capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    reason, user, told = json.loads(done.stdout)
    if reason and kind == "namespaces":
        pytest.skip(f"the kernel lets an ordinary user make no namespaces: {reason}")
    assert reason == ""
    assert user == (NOBODY if prefix else os.getuid())
    assert stage.content() == before
    assert count(stage.copy / "app.db") == 0, stage.log.read_text()
    assert told == ([f"sqlite3.connect {stage.live}/app.db"] if kind == "hook" else [])


def _python_for(prefix: tuple[str, ...]) -> str:
    """A Python of our version, which our packages fit, that the user may run."""
    ask = "import os, sys; print(*sys.version_info[:2], os.access(sys.executable, os.X_OK))"
    for python in (str(Path(sys.executable).resolve()), "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            asked = (*prefix, python, "-c", ask)
            done = subprocess.run(asked, cwd="/", capture_output=True, text=True, timeout=30, check=False)
            if done.stdout.split() == [*map(str, sys.version_info[:2]), "True"]:
                return python
    pytest.skip("no Python of this version can be run by an ordinary user here")


def _give(folder: Path, user: int) -> None:
    """Make everything in a folder the user's, and let him in."""
    folder.chmod(0o755)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, user, follow_symlinks=False)


@pytest.mark.parametrize("proof", ["namespaces", "landlock", "hook"], indirect=True)
def test_the_proof_is_told_in_words(proof: str) -> None:
    """What keeps it, why nothing stronger does, and what that does not stop."""
    words = {
        "namespaces": "in namespaces of its own",
        "landlock": f"kept by Landlock and watched by an audit hook, because the kernel makes no namespaces for us"
        f" ({FORBIDDEN}); a library in C could still reach a unix socket, or send a datagram",
        "hook": f"watched by an audit hook alone, because the kernel makes no namespaces for us ({FORBIDDEN});"
        " a library in C, or a program that is not Python, could get around",
    }
    assert isolation.proof() == words[proof]
    assert isolation.is_remapped() == (proof == "namespaces")
    assert isolation.why_not() == ""


def test_where_no_proof_works_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the reason of the stronger one is not all: the weaker one was tried as well."""
    monkeypatch.setattr(isolation, "why_no_namespaces", lambda: FORBIDDEN)
    monkeypatch.setattr(isolation, "_why_no_watched_program", lambda: "prctl: Operation not permitted")

    assert isolation.why_not() == "prctl: Operation not permitted"


def test_what_an_app_must_read_has_to_be_there(tmp_path: Path) -> None:
    """A path of `[rehearsal] allow` that is missing is refused in words, before anything is started."""
    (tmp_path / "model").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")

    isolation.require_readable((str(tmp_path / "model"), str(tmp_path)))

    for name in ("missing", "link"):
        with pytest.raises(Refused) as refused:
            isolation.require_readable((str(tmp_path / "model"), str(tmp_path / name)))
        assert refused.value.reference == "rehearsal-path-missing"
        assert f'`[rehearsal] allow` names "{tmp_path / name}", which is not there' in refused.value.message


def assert_nothing_reached(stage: Stage, before: dict[str, str]) -> None:
    """It was tried, and in vain; nothing of it runs."""
    assert "about to do it" in stage.log.read_text()
    assert stage.content() == before
    assert stage.arrived() == []
    assert stage.processes() == []


def assert_told(stage: Stage, case: Case) -> None:
    """The notes say what the case says, or nothing at all."""
    facts = {"live": stage.live, "other": stage.other, "service": stage.folder / "service.sock"}
    ports = {"tcp": stage.tcp.getsockname()[1], "udp": stage.udp.getsockname()[1]}
    expected = case.told.format(**facts, **ports, python=stage.python, neighbour=stage.neighbour.pid)
    told = violations(stage.cell)
    assert all(line.startswith(expected) for line in told), told
    assert bool(told) == bool(expected), stage.log.read_text()


def count(database: Path) -> int:
    """How many rows there are."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT count(*) FROM which").fetchone()[0])
