"""Runs a program in a cell: a root of only what is listed, no network, no other process in sight. Stand-alone.

`python -I -S cell.py`, the cell's plan as JSON on descriptor 0. Needs no root where the kernel lets a user make user
namespaces. The first process dies with its parent and takes everything in the cell with it.
"""

# Only the standard library, and no exec before the last one: the capabilities in our new user namespace would be lost
# at an exec, and they are what lets an ordinary user mount here.

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import stat
import struct
import sys
from typing import NoReturn, TypedDict

CANNOT = 97
"""Exit status: the kernel did not let us make the cell; the reason is on stderr."""

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = ("bin", "lib", "lib64", "sbin", "lib32", "libx32")

_libc = ctypes.CDLL(None, use_errno=True)


class Plan(TypedDict):
    """What the program in the cell can reach, and what it is."""

    root: str
    """An empty folder to build the cell's root on."""
    read_only: list[str]
    writable: list[tuple[str, str]]
    """Outside, and where it lies inside."""
    memory: int
    """Bytes, for each process."""
    folder: str
    argv: list[str]
    environment: dict[str, str]


def main() -> NoReturn:
    """Make the cell and become the program in it."""
    plan: Plan = json.load(sys.stdin)
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    user, group = os.getuid(), os.getgid()
    _check(_libc.unshare(_NEWUSER | _NEWNS | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET), "unshare")
    _map_ourselves(user, group)
    inner = os.fork()
    if inner:
        _, status = os.waitpid(inner, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    _build_root(plan)
    _loopback_up()
    _limit(plan)
    _drop_rights()
    os.chdir(plan["folder"])
    _become(plan)


def _map_ourselves(user: int, group: int) -> None:
    """The same user inside as outside, and nobody else."""
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{user} {user} 1")
    _write("/proc/self/gid_map", f"{group} {group} 1")


def _build_root(plan: Plan) -> None:
    """A root in memory that holds what the plan lists, and nothing of the old one."""
    root = plan["root"]
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755")
    for folder in ("tmp", "var/tmp", "dev/shm"):
        os.makedirs(f"{root}/{folder}", exist_ok=True)
        _mount("tmpfs", f"{root}/{folder}", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=1777")
    for path in plan["read_only"]:
        _bind(path, root + path, read_only=True)
    for link in _LINKS:
        if os.path.islink(f"/{link}"):
            os.symlink(os.readlink(f"/{link}"), f"{root}/{link}")
    for source, target in plan["writable"]:
        _bind(source, root + target, read_only=False)
    for device in _DEVICES:
        if os.path.exists(f"/dev/{device}"):
            _bind(f"/dev/{device}", f"{root}/dev/{device}", read_only=False)
    os.makedirs(f"{root}/proc")
    _mount("proc", f"{root}/proc", "proc", _MS_NOSUID | _MS_NODEV)
    os.makedirs(f"{root}/.old")
    _check(_libc.syscall(155, root.encode(), f"{root}/.old".encode()), "pivot_root")
    os.chdir("/")
    _check(_libc.umount2(b"/.old", _MNT_DETACH), "umount")
    os.rmdir("/.old")
    _mount("none", "/", None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)


def _bind(source: str, target: str, *, read_only: bool) -> None:
    if stat.S_ISDIR(os.stat(source).st_mode):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "a").close()
    _mount(source, target, None, _MS_BIND | _MS_REC)
    if read_only:
        # Flags that the mount has outside are locked inside and must be repeated.
        locked = os.statvfs(target).f_flag
        keep = sum(
            flag
            for flag, bit in (
                (_MS_NOSUID, os.ST_NOSUID),
                (_MS_NODEV, os.ST_NODEV),
                (8, os.ST_NOEXEC),
                (1024, os.ST_NOATIME),
            )
            if locked & bit
        )
        _mount("none", target, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | keep)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() if kind else None, ctypes.c_ulong(flags), data.encode() or None
    )
    _check(result, f"mount {target}")


def _loopback_up() -> None:
    """An app may talk to itself on 127.0.0.1; there is nobody else."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        (flags,) = struct.unpack_from("16xh", fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0)))
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def _limit(plan: Plan) -> None:
    """Each process may take so much memory; a file may not become larger than so much."""
    resource.setrlimit(resource.RLIMIT_DATA, (plan["memory"], plan["memory"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _drop_rights() -> None:
    """No capability survives the coming exec, not even for root, and none can be had again."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for capability in range(last + 1):
        _check(_libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0), "prctl")
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def _become(plan: Plan) -> NoReturn:
    """Run the program as a child, so that the cell's first process reaps whatever it leaves."""
    child = os.fork()
    if child == 0:
        nothing = os.open("/dev/null", os.O_RDONLY)
        os.dup2(nothing, 0)
        os.execve(plan["argv"][0], plan["argv"], plan["environment"])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _: os.kill(child, got))
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        sys.stderr.write(f"{what}: {os.strerror(number)}\n")
        sys.stderr.flush()
        os._exit(CANNOT)


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError as error:
        sys.stderr.write(f"{path}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(CANNOT)


if __name__ == "__main__":
    main()
