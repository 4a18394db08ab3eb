"""The main process of a supervised one: started, or found again by another supervisor, and seen to have ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

import msgspec

from bulletproof.adapters.embedded import kernel, listener
from bulletproof.adapters.embedded.kernel import Identity
from bulletproof.domain.process import START_TIME, ProcessSpec, start_line
from bulletproof.domain.settings import for_app
from bulletproof.effects import durable
from bulletproof.errors import StepFailed

_LOG_MODE = 0o640
_RUNTIME_MODE = 0o750


class Running:
    """A process that was alive when we got to know it: our own child, or one that a dead supervisor started."""

    def __init__(self, identity: Identity, pidfd: int, child: subprocess.Popen[bytes] | None = None) -> None:
        self.identity = identity
        self.pidfd = pidfd
        """Readable when it has ended."""
        self._child = child

    def has_ended(self) -> bool:
        """Whether it has; our own child is reaped by the question."""
        return _is_readable(self.pidfd) if self._child is None else self._child.poll() is not None

    def end_in_words(self) -> str:
        """How it ended, once it has."""
        if self._child is None:
            return "ended, how is not known: it was started by an earlier supervisor"
        return _in_words(self._child.returncode)

    def ask_to_end(self, process: ProcessSpec) -> None:
        """Its stop signal to it alone, since what it started is its own to end for now; or to its process group."""
        if self.has_ended():
            return
        number = signal.Signals[process.stop_signal]
        if process.is_group:
            os.killpg(self.identity.pid, number)  # it lives and leads its group, so the number is its own
        else:
            signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        """Forget it, once it has ended."""
        os.close(self.pidfd)


def start(process: ProcessSpec, token: str, listening: socket.socket | None) -> Running:
    """Run it in a session of its own, with nothing inherited. Raises StepFailed that says why it could not be."""
    environment = _environment(process, token, listening)
    try:
        _make_place(process)
        child = _spawn(process, environment, listening)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise StepFailed("process-not-started", f"could not be started: {error.strerror}{where}") from error
    except (ValueError, IndexError) as error:  # a zero byte in an argument, an equals sign in a name, no program
        raise StepFailed("process-not-started", f"could not be started: {error}") from error
    identity = kernel.identity(child.pid)
    assert identity is not None, "a child that was not reaped always has a number"  # noqa: S101
    return Running(identity, os.pidfd_open(child.pid), child)


def adopt(wanted: Identity) -> Running | None:
    """The process that an earlier supervisor started, if it still runs."""
    try:
        pidfd = os.pidfd_open(wanted.pid)
    except ProcessLookupError:
        return None
    # Asked while we hold on to it, so that no other process can be taken for it.
    if not _is_readable(pidfd) and kernel.identity(wanted.pid) == wanted:
        return Running(wanted, pidfd)
    os.close(pidfd)
    return None


def tell_start(name: str, log: int) -> None:
    """Let the log of a process tell that it is started; on a full disk it does not, and nothing else is changed."""
    if line := start_line(name, time.strftime(START_TIME)):
        with contextlib.suppress(OSError):
            os.write(log, f"{line}\n".encode())


def keep_descriptor_free() -> None:
    """Let nothing but the null device be at the number that children find their listening socket at."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    if null != listener.DESCRIPTOR:
        os.dup2(null, listener.DESCRIPTOR, inheritable=False)
        os.close(null)


def _make_place(process: ProcessSpec) -> None:
    """Its log's folder and an empty runtime folder: a socket that a killed server left would stop the next one."""
    if not process.log.parent.is_dir():
        durable.make_folder(process.log.parent)
    if process.runtime is not None:
        durable.make_folder(process.runtime, mode=_RUNTIME_MODE)
        for leftover in process.runtime.iterdir():
            durable.remove_tree(leftover)


def _spawn(
    process: ProcessSpec, environment: dict[str, str], listening: socket.socket | None
) -> subprocess.Popen[bytes]:
    log = os.open(process.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, _LOG_MODE)
    try:
        tell_start(process.name, log)
        if listening is not None:
            # Put in place here, so that the child inherits it without code of ours between fork and exec.
            os.dup2(listening.fileno(), listener.DESCRIPTOR, inheritable=False)
        return subprocess.Popen(
            process.argv,
            cwd=process.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=() if listening is None else (listener.DESCRIPTOR,),
            start_new_session=True,
        )
    finally:
        keep_descriptor_free()
        os.close(log)


def _environment(process: ProcessSpec, token: str, listening: socket.socket | None) -> dict[str, str]:
    ours = {kernel.TOKEN_NAME: token} | ({} if listening is None else {"LISTEN_FDS": "1"})
    return {**for_app(_settings(process.settings)), **process.environment, **ours}


def _settings(file: Path | None) -> dict[str, str]:
    if file is None:
        return {}
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, str])
    except OSError as error:
        raise StepFailed("settings-not-read", f"its settings could not be read: {error.strerror}: {file}") from error
    except msgspec.DecodeError as error:
        raise StepFailed("settings-not-read", f"its settings are no JSON object of texts: {file}") from error


def _is_readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _in_words(status: int) -> str:
    if status == 0:
        return "ended by itself"
    if status > 0:
        return f"exited with status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
