"""A program in a cell reaches nothing that was not listed, whatever it tries."""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from bulletproof.effects import cell as cell_script
from bulletproof.effects.isolation import Cell, end_at_once, start_in_cell, why_no_namespaces
from bulletproof.effects.process import run
from planted import Bug, planted

pytestmark = [
    pytest.mark.skipif(bool(why_no_namespaces()), reason=f"no namespaces for this user: {why_no_namespaces()}"),
    pytest.mark.xdist_group("isolation"),
]

PREFIX = Path(sys.executable).resolve().parents[1]


@dataclass
class Stage:
    """A live folder, a copy of it, and what a program in the cell said."""

    folder: Path

    @property
    def live(self) -> Path:
        """What must not be reached."""
        return self.folder / "live"

    @property
    def copy(self) -> Path:
        """What lies in its place in the cell."""
        return self.folder / "copy"

    @property
    def log(self) -> Path:
        """What the program said."""
        return self.folder / "log"

    def run(self, code: str, *, memory_bytes: int = 1 << 30, start: object = start_in_cell) -> list[str]:
        """Run Python code in the cell to its end; the lines that it printed."""
        assert callable(start)
        plan = Cell(
            mount_point=self.folder / "root",
            read_only=(PREFIX,),
            writable={self.copy: self.live},
            memory_bytes=memory_bytes,
        )
        python = str(PREFIX / "bin" / "python3")
        running = start(
            plan,
            (python, "-c", textwrap.dedent(code)),
            folder=self.live,
            environment={"PATH": "/usr/bin"},
            log=self.log,
        )
        deadline = time.monotonic() + 60
        while running.status() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        end_at_once(running)
        return self.log.read_text().splitlines()


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A stage in a folder of its own, with a database on either side."""
    folder = Path(tempfile.mkdtemp(prefix="bp-cell-", dir="/var/tmp"))
    try:
        for name in ("live", "copy", "root"):
            (folder / name).mkdir()
        for name in ("live", "copy"):
            with sqlite3.connect(folder / name / "app.db") as connection:
                connection.execute("CREATE TABLE which (name TEXT)")
                connection.execute("INSERT INTO which VALUES (?)", (name,))
            connection.close()
        yield Stage(folder=folder)
    finally:
        shutil.rmtree(folder)


def test_an_app_that_hard_codes_its_path_gets_the_copy(stage: Stage) -> None:
    """The live path holds the copy, and a write to it leaves the live file as it was, byte for byte."""
    before = (stage.live / "app.db").read_bytes()

    lines = stage.run(f"""
        import sqlite3
        connection = sqlite3.connect({str(stage.live / "app.db")!r})
        print(connection.execute("SELECT name FROM which").fetchone()[0])
        connection.execute("DELETE FROM which")
        connection.commit()
    """)

    assert lines == ["copy"]
    assert (stage.live / "app.db").read_bytes() == before
    with sqlite3.connect(stage.copy / "app.db") as copy:
        assert copy.execute("SELECT count(*) FROM which").fetchone() == (0,)
    copy.close()


def test_a_hard_link_to_the_live_file_elsewhere_is_not_there(stage: Stage) -> None:
    """Nothing outside what was listed exists, by whatever name."""
    elsewhere = stage.folder / "elsewhere.db"
    os.link(stage.live / "app.db", elsewhere)

    assert stage.run(f"import os; print(os.path.exists({str(elsewhere)!r}), os.listdir({str(stage.folder)!r}))") == [
        "False ['live']"
    ]


def test_nobody_is_reached_over_the_network(stage: Stage) -> None:
    """No mail, no webhook, no service on this machine's loopback or by its unix socket; only the app itself."""
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        path = stage.folder / "service.sock"
        unix.bind(str(path))
        unix.listen()
        lines = stage.run(f"""
            import errno, socket
            def attempt(family, address):
                try:
                    connection = socket.socket(family)
                    connection.settimeout(2)
                    connection.connect(address)
                    return "reached"
                except OSError as error:
                    return errno.errorcode[error.errno]
            print(attempt(socket.AF_INET, ("192.0.2.1", 25)))
            print(attempt(socket.AF_INET, ("127.0.0.1", {tcp.getsockname()[1]})))
            print(attempt(socket.AF_UNIX, {str(path)!r}))
            server = socket.create_server(("127.0.0.1", 0))
            print(attempt(socket.AF_INET, server.getsockname()))
        """)

    assert lines == ["ENETUNREACH", "ECONNREFUSED", "ENOENT", "reached"]


def test_no_right_is_left_and_none_can_be_had(stage: Stage) -> None:
    """The same user as outside, no capability, no new namespace, no uncovering of what lies below a mount."""
    lines = stage.run(f"""
        import ctypes, os
        status = open("/proc/self/status").read()
        print(os.getuid(), *(status.split(name)[1].split()[0] for name in ("CapEff:", "CapBnd:", "NoNewPrivs:")))
        libc = ctypes.CDLL(None, use_errno=True)
        print(libc.umount2({str(stage.live).encode()!r}, 2), libc.mount(b"none", b"/tmp", b"tmpfs", 0, None))
        print(sorted(name for name in os.listdir("/proc") if name.isdigit()))
        for path in ("/usr/bp", "/etc/bp", "/bp"):
            try:
                open(path, "w")
            except OSError as error:
                print(error.errno)
    """)

    assert lines[0] == f"{os.getuid()} {'0' * 16} {'0' * 16} 1"
    assert lines[1] == "-1 -1"
    assert lines[2] == "['1', '2']"
    assert set(lines[3:]) <= {"13", "30"}
    assert len(lines) == 6


def test_memory_is_capped(stage: Stage) -> None:
    """A program that wants more than its share gets none, and the machine is not harmed."""
    lines = stage.run(
        """
        try:
            bytearray(600 << 20)
            print("had it")
        except MemoryError:
            print("refused")
        """,
        memory_bytes=256 << 20,
    )

    assert lines == ["refused"]


def test_all_of_it_dies_with_its_starter(stage: Stage) -> None:
    """Kill -9 of the process that started the cell ends everything in it, a daemon that left its session too."""
    starter = f"""
        import sys, time
        from pathlib import Path
        from bulletproof.effects.isolation import Cell, start_in_cell
        plan = Cell(mount_point=Path({str(stage.folder / "root")!r}), read_only=(Path({str(PREFIX)!r}),),
                    writable={{Path({str(stage.copy)!r}): Path({str(stage.live)!r})}}, memory_bytes=1 << 30)
        code = "import os, time; os.fork() or (os.setsid(), os.fork()); " + \\
               "[(open('beat', 'a').write('.'), time.sleep(0.05)) for _ in range(1200)]"
        start_in_cell(plan, ({str(PREFIX / "bin" / "python3")!r}, "-c", code), folder=Path({str(stage.live)!r}),
                      environment={{}}, log=Path({str(stage.log)!r}))
        time.sleep(60)
    """
    process = subprocess.Popen((sys.executable, "-c", textwrap.dedent(starter)), start_new_session=True)
    beat = stage.copy / "beat"
    try:
        _wait_until(lambda: beat.exists() and beat.stat().st_size > 6)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    _wait_until(lambda: not _in_cell(stage))
    size = beat.stat().st_size
    time.sleep(0.3)

    assert beat.stat().st_size == size


_KILLED_AT_ONCE = """\
import os, signal, sys, time
from pathlib import Path
from bulletproof.effects.isolation import Cell, is_remapped, start_in_cell
folder = Path(sys.argv[1])
assert is_remapped()
there = {folder / "copy": folder / "live"}
plan = Cell(mount_point=folder / "root", read_only=(), writable=there, memory_bytes=1 << 30)
argv = ("/usr/bin/sleep", sys.argv[2])
start_in_cell(plan, argv, folder=Path("/"), environment={}, log=folder / "log")
time.sleep(float(sys.argv[3]))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_starter_that_dies_before_the_cell_is_made_leaves_nothing(stage: Stage) -> None:
    """A found bug: what asks to die with its parent must see that the parent still lives."""
    seconds = f"{600 + random.random() * 100:.6f}"
    for wait in (0.0, 0.01, 0.03):
        argv = (sys.executable, "-c", _KILLED_AT_ONCE, str(stage.folder), seconds, str(wait))
        assert subprocess.run(argv, check=False).returncode == -signal.SIGKILL
    time.sleep(0.5)  # it would have begun by now
    _wait_until(lambda: not any(seconds in words for one in psutil.process_iter() for words in _words(one)))


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_what_the_kernel_forbids_is_told() -> None:
    """Where a user may make no namespaces, the trial says so in the system's words, and nothing was run."""
    plan = f'{{"parent": {os.getpid()}, "namespaces": true, "account": null, "root": "/nowhere", "read_only": [], "writable": [], "memory": 1, "folder": "/", "argv": ["/usr/bin/touch", "/tmp/bp-ran"], "environment": {{}}}}'  # noqa: E501

    tried = run((sys.executable, "-I", "-S", cell_script.__file__), folder=Path("/"), input_text=plan)

    assert tried.status == cell_script.CANNOT
    assert "mount /nowhere: No such file or directory" in tried.errors


BUGS = (
    Bug(
        "the live folder instead of the copy",
        "bulletproof.effects.isolation",
        "([str(outside), str(inside)] for outside, inside in plan.writable.items())",
        "([str(inside), str(inside)] for outside, inside in plan.writable.items())",
    ),
    Bug(
        "the whole machine in sight",
        "bulletproof.effects.isolation",
        '_SYSTEM = ("/usr", "/etc")',
        '_SYSTEM = ("/usr", "/etc", "/var/tmp")',
    ),
)


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_a_rehearsal_that_is_not_isolated_is_caught(stage: Stage, bug: Bug) -> None:
    """The assertions have teeth: over a cell with a hole in it they fail."""
    before = (stage.live / "app.db").read_bytes()
    with planted(bug, ("bulletproof.effects.isolation",)):
        with_a_hole = importlib.import_module("bulletproof.effects.isolation").start_in_cell

        lines = stage.run(
            f"""
            import os, sqlite3
            connection = sqlite3.connect({str(stage.live / "app.db")!r})
            connection.execute("DELETE FROM which")
            connection.commit()
            print(os.listdir({str(stage.folder)!r}))
            """,
            start=with_a_hole,
        )

    assert (stage.live / "app.db").read_bytes() != before or lines != ["['live']"]


def _in_cell(stage: Stage) -> list[int]:
    """Processes that work in the copy."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(stage.live) and process.pid != os.getpid():
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def _wait_until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def test_a_cell_that_a_broken_disk_prevents_is_told_without_a_traceback() -> None:
    """Found by an EIO at a mkdir of its root: people were shown where in our code it happened."""
    plan: cell_script.Plan = {
        "parent": os.getpid(),
        "namespaces": False,
        "account": None,
        "root": "/",
        "read_only": [],
        "writable": [],
        "overlaid": [],
        "memory": 1 << 30,
        "folder": "/there/is/none",
        "argv": ["/bin/true"],
        "environment": {},
    }
    argv = (sys.executable, "-I", "-S", cell_script.__file__)
    ended = run(argv, folder=Path("/"), input_text=json.dumps(plan), timeout_seconds=20)
    words = "the cell could not be made: [Errno 2] No such file or directory: '/there/is/none'"
    assert (ended.status, ended.errors.strip()) == (1, words)
