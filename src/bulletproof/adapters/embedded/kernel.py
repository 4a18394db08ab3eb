"""What the kernel knows of processes, and the two system calls for it that Python does not offer."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

import msgspec

TOKEN_NAME = "BULLETPROOF_PROCESS"  # noqa: S105  a mark, no secret
"""The environment variable that marks a supervised process and all that it starts, also what left its session."""

_PROC = Path("/proc")
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_SYS_PIDFD_GETFD = 438  # pidfd_getfd(2): the same number on every architecture that CPython supports
_DEAD = {"Z", "X"}


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """A process that no later one with its number can be taken for."""

    pid: int
    ticks: int
    """Its start, counted from boot (proc_pid_stat(5), field 22)."""


class _Stat(msgspec.Struct, frozen=True, kw_only=True):
    is_alive: bool
    session: int
    ticks: int


def identity(pid: int) -> Identity | None:
    """Who has that number now, perhaps ended and not yet reaped; None when nobody has."""
    found = _stat(pid)
    return Identity(pid=pid, ticks=found.ticks) if found else None


def boot() -> str:
    """The run of the machine, or of the container, in which we are: processes of another one are gone."""
    first = _stat(1)  # the id is the kernel's, so that a restarted container shows only here
    started = first.ticks if first else 0
    return f"{(_PROC / 'sys/kernel/random/boot_id').read_text().strip()}.{started}"


def kill_all(session: Identity | None, token: str) -> int:
    """SIGKILL to every living process of a session and to every one marked with `token`; how many there were.

    Who forks at this moment may have a child that was not seen: it is all over only when the answer is 0.
    """
    number = session.pid if session and _is_ours(session) else 0
    members = [pid for pid in _pids() if _belongs(pid, number, token)]
    for pid in members:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself meanwhile
            _kill(pid, number, token)
    return len(members)


def reap_orphans(known: set[int]) -> None:
    """Reap what ended after its own parent did; the `known` children are left to those who want their status."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in known:
            return
        os.waitpid(ended.si_pid, 0)


def become_subreaper() -> None:
    """From now on whoever loses its parent below us becomes our child, so that we can reap it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def descriptor_of(process: int, number: int) -> int:
    """A duplicate of descriptor `number` of the process that the pidfd `process` names, closed on exec.

    Raises OSError: EBADF when it has none, EPERM when we may not (Yama allows it to ancestors only), ENOSYS.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = int(libc.syscall(ctypes.c_long(_SYS_PIDFD_GETFD), process, number, 0))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor


def _is_ours(session: Identity) -> bool:
    """Whether the number still means that session: while it has a member, no new process gets its number."""
    found = _stat(session.pid)
    return found is None or found.ticks == session.ticks


def _kill(pid: int, session: int, token: str) -> None:
    process = os.pidfd_open(pid)
    try:
        if _belongs(pid, session, token):  # asked again, now that the number cannot change hands
            signal.pidfd_send_signal(process, signal.SIGKILL)
    finally:
        os.close(process)


def _belongs(pid: int, session: int, token: str) -> bool:
    found = _stat(pid)
    if found is None or not found.is_alive:
        return False
    return (session != 0 and found.session == session) or f"{TOKEN_NAME}={token}\0".encode() in _environment(pid)


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]


def _stat(pid: int) -> _Stat | None:
    try:
        content = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    fields = content.rpartition(")")[2].split()
    return _Stat(is_alive=fields[0] not in _DEAD, session=int(fields[3]), ticks=int(fields[19]))


def _environment(pid: int) -> bytes:
    try:
        return (_PROC / str(pid) / "environ").read_bytes()
    except OSError:  # another user's, or it has just ended: in both cases it is none of ours
        return b""
