"""Commands that begin as forks of a process which has imported everything: all of the proof's but the hostile ones.

A fork becomes what a new process would have been: its session, folder, environment, descriptors, and the command line
that /proc shows; what it saves is 0.3 s of imports, 0.5 s under strace. strace is attached before it goes on.

This file is run by itself as well, as what the supervisor runs after a dead deployer: only the standard library.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TextIO

_LOCK = "BULLETPROOF_LOCK_FD"
"""As the supervisor tells a recovery which descriptor holds the lock."""
_ROOM = "x" * 2000
"""The last word of the server's command line, in whose place a fork writes its own."""
_MOST_BYTES = 1 << 20
_LOOK_SECONDS = 0.002
_MET_SECONDS = 0.1
"""So often a trace is looked at for the fault, after which nothing needs to be traced."""
_ATTACH_SECONDS = 20.0
_STEP_SECONDS = 300.0
"""Longer than any command may take."""
_START_SECONDS = 60.0
_VERBS = ("deploy", "rollback", "backup", "restart", "start", "stop", "recover", "status", "words", "recording")


@dataclass(frozen=True, slots=True)
class Child:
    """A command that has begun."""

    pid: int
    _connection: socket.socket
    _tracer: _Tracer | None

    def kill(self) -> None:
        """End it by SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, seconds: float | None = None) -> int:
        """Its exit status, or minus the signal's number; its trace is complete. Raises TimeoutError."""
        until = time.monotonic() + (seconds or float("inf"))
        with self._connection:
            while not _is_told(self._connection, _MET_SECONDS):
                if time.monotonic() > until:
                    raise TimeoutError(f"it runs for longer than {seconds} s")
                if self._tracer is not None:
                    self._tracer.let_go_when_met()
            status = int(self._connection.recv(64))
        if self._tracer is not None:
            self._tracer.process.wait()
        return status


@dataclass(frozen=True, slots=True)
class _Tracer:
    """The strace that looks on."""

    process: subprocess.Popen[bytes]
    trace: Path

    def let_go_when_met(self) -> None:
        """Every call costs time while it looks on."""
        if self.process.poll() is None and b"(INJECTED)" in self.trace.read_bytes():
            self.process.terminate()  # upon which it detaches


def _is_told(connection: socket.socket, seconds: float = 0.0) -> bool:
    return bool(select.select([connection], [], [], seconds)[0])


def begin(
    place: Path,
    words: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    descriptors: Sequence[int],
    tracer: Sequence[str] = (),
    step: str = "",
) -> Child:
    """Fork the server at `place` into `bulletproof WORDS`; a fourth descriptor is the lock that it inherits.

    It is traced from its start, or from where it has told that this step begins, which is waited for.
    """
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(place))
    request: dict[str, object] = {"words": list(words), "folder": str(folder), "environment": dict(environment)}
    request |= {"stops": bool(tracer), "step": step}
    socket.send_fds(connection, [json.dumps(request).encode()], list(descriptors))
    pid = int(connection.recv(64))
    return Child(pid, connection, _attach(pid, tracer, connection) if tracer else None)


def _attach(pid: int, tracer: Sequence[str], connection: socket.socket) -> _Tracer | None:
    """It waits for us in a stop, so that nothing of it is missed; None when it ended without one."""
    _wait_until(lambda: _is_stopped(pid) or _is_told(connection), "did not stop", _STEP_SECONDS)
    if _is_told(connection):
        return None
    process = subprocess.Popen((*tracer, "-p", str(pid)), stderr=subprocess.DEVNULL)
    _wait_until(lambda: _field(pid, "TracerPid") != "0", "was not traced")
    os.kill(pid, signal.SIGCONT)
    return _Tracer(process, Path(tracer[tracer.index("-o") + 1]))


def _is_stopped(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return _field(pid, "State") == "T (stopped)"
    return False


def _wait_until(is_so: Callable[[], bool], words: str, seconds: float = _ATTACH_SECONDS) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            raise TimeoutError(f"a command {words}")
        time.sleep(_LOOK_SECONDS)


def _field(pid: int, name: str) -> str:
    text = Path(f"/proc/{pid}/status").read_text()
    return text.partition(f"\n{name}:\t")[2].partition("\n")[0]


def start_server(place: Path, python: str) -> subprocess.Popen[bytes]:
    """Start what is forked, and wait until it can be."""
    argv = (python, "-P", "-m", "bulletproof.prove.warm", str(place), _ROOM)
    server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd="/")
    until = time.monotonic() + _START_SECONDS
    while not place.exists():
        if server.poll() is not None or time.monotonic() > until:
            raise OSError(f"what commands are forked from ended with {server.poll()}")
        time.sleep(0.01)
    return server


def _serve(place: Path) -> dict[str, object]:
    """For each request, a keeper that forks and waits; returns, with its request, in the fork alone."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{place}.new")
    listener.listen(16)
    Path(f"{place}.new").rename(place)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return _keep(connection)
        connection.close()
        _reap()


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _keep(connection: socket.socket) -> dict[str, object]:
    content, descriptors, _, _ = socket.recv_fds(connection, _MOST_BYTES, 8)
    request = json.loads(content)
    if (pid := os.fork()) == 0:
        connection.close()
        _become(request, descriptors)
        return request  # type: ignore[no-any-return]
    for descriptor in descriptors:
        os.close(descriptor)
    connection.send(str(pid).encode())
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):  # whoever wanted to know has gone
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(request: dict[str, object], descriptors: list[int]) -> None:
    """Be as a process that was started by exec."""
    os.setsid()
    environment = {str(name): str(value) for name, value in request["environment"].items()}  # type: ignore[attr-defined]
    for target, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, target)
        os.close(descriptor)
    for lock in descriptors[3:]:
        os.set_inheritable(lock, True)  # noqa: FBT003  its only form
        environment[_LOCK] = str(lock)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(str(request["folder"]))
    words = [str(word) for word in request["words"]]  # type: ignore[attr-defined]
    _show([sys.executable, "-P", "-m", "bulletproof", *words])
    sys.argv = ["bulletproof", *words]
    if request["stops"] and not request["step"]:
        os.kill(os.getpid(), signal.SIGSTOP)


class _Told:
    """Standard output that stops the process as soon as it has told that a step begins."""

    def __init__(self, stream: TextIO, step: str, step_after: Callable[[str, str], str]) -> None:
        self._stream = stream
        self._awaited = step
        self._step_after = step_after
        self._step = "begin"

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write it, and notice what it tells."""
        written = self._stream.write(text)
        self._step = self._step_after(text, self._step)
        return written

    def flush(self) -> None:
        """What was written is told now."""
        self._stream.flush()
        if self._step == self._awaited:
            self._awaited = ""
            os.kill(os.getpid(), signal.SIGSTOP)


def _show(argv: Sequence[str]) -> None:
    """Let /proc show this command line: proc_pid_stat(5) tells where in our memory it stands."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begins, ends = int(fields[45]), int(fields[46])
    shown = b"\0".join(os.fsencode(word) for word in argv)[: ends - begins - 1]
    ctypes.memmove(begins, shown.ljust(ends - begins, b"\0"), ends - begins)


def _obey(orders: Path, place: Path, words: Sequence[str]) -> int:
    """Recover after a dead deployer, in place of `bulletproof recover`; met by the next fault that was ordered."""
    tracer = _next(orders)
    lock = int(os.environ.pop(_LOCK))
    child = begin(place, words, folder=Path("/"), environment=os.environ, descriptors=(0, 1, 2, lock), tracer=tracer)
    os.close(lock)  # the recovery alone holds it, and gives it back by its end
    return child.wait() & 0xFF


def _next(orders: Path) -> list[str]:
    """The first order, which is taken off the list; the supervisor runs one recovery at a time."""
    if not orders.exists():
        return []
    first, _, rest = orders.read_text().partition("\n")
    if rest:
        orders.write_text(rest)
    else:
        orders.unlink()
    return first.split(" ")


def _serve_commands(place: Path) -> None:
    """Fork commands until we are ended; a fork goes on as the command line."""
    import importlib  # noqa: PLC0415  of the server alone, as what follows

    main = importlib.import_module("bulletproof.cli.main").main
    for verb in _VERBS:
        importlib.import_module(f"bulletproof.cli.{verb}")
    step_after = importlib.import_module("bulletproof.prove.strace").step_after
    gc.collect()
    gc.freeze()  # a collection in a fork would copy all of it
    if step := str(_serve(place)["step"]):
        sys.stdout = _Told(sys.stdout, step, step_after)
    _end_after(main)


def _end_after(main: Callable[[], None]) -> NoReturn:
    """End as a process does, but leave its memory to the kernel: to take that of a fork apart copies it, for 0.1 s."""
    status: object = 0
    try:
        main()
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException:  # noqa: BLE001  as Python does
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()  # noqa: SLF001  there is no other way to have them run
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status if isinstance(status, int) else 1)


if __name__ == "__main__":
    if sys.argv[1] == "--recover":
        sys.exit(_obey(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]))
    _serve_commands(Path(sys.argv[1]))
