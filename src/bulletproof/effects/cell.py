"""Runs a program in a cell: a root of only what is listed, no network, no other process in sight. Stand-alone.

`python -I -S cell.py`, the cell's plan as JSON on descriptor 0. Needs no root where the kernel lets a user make user
namespaces. Where it does not, the cell has no root of its own: Landlock keeps the program to what is listed, as far as
the kernel knows it. Either way the first process dies with its parent and takes everything in the cell with it.
"""

# Only the standard library, and no exec before the last one: the capabilities in our new user namespace would be lost
# at an exec, and they are what lets an ordinary user mount here.

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import socket
import stat
import struct
import sys
import time

TYPE_CHECKING = False  # without `typing` this begins in 35 ms of processor time, not in 42 (medians of 15)
if TYPE_CHECKING:
    from typing import NoReturn, TypedDict

    class Plan(TypedDict):
        """What the program in the cell can reach, and what it is."""

        parent: int
        """The process that starts the cell, and without which it may not be."""
        namespaces: bool
        """Whether the kernel gives the cell a root, a network and processes of its own."""
        account: tuple[int, int] | None
        """The user and the group that the program runs as, when we are root and it is not to be."""
        root: str
        """An empty folder to build the cell's root on."""
        read_only: list[str]
        writable: list[tuple[str, str]]
        """Outside, and where it lies inside."""
        overlaid: list[tuple[str, str]]
        """Outside, and where it lies inside: what is written there is gone with the cell."""
        memory: int
        """Bytes, for each process and for all of them together."""
        folder: str
        argv: list[str]
        environment: dict[str, str]


CANNOT = 97
"""Exit status: the kernel did not let us make the cell; the reason is on stderr."""
TOO_MUCH = 98
"""Exit status: the processes in the cell together took more memory than they may, and were ended."""

_SAMPLE_SECONDS = 0.5
"""How often their memory is added up: each look reads all of /proc, 5 ms with 300 processes."""

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
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38
_AWAITED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1)
"""Blocked in our own processes, which wait for them; SIGUSR1 says that all must end at once."""
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_OUTPUT = {"stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
"""Where apps that are used to containers write their logs."""
_LINKS = ("bin", "lib", "lib64", "sbin", "lib32", "libx32")

# landlock(7). The numbers of its system calls are the same on every architecture.
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT, _LANDLOCK_TELL_VERSION, _LANDLOCK_BENEATH = 444, 445, 446, 1, 1
_LANDLOCK_READS = 0b1101  # execute, read a file, read a folder
_LANDLOCK_OF_FILES = 1 << 14 | 0b111  # truncate, read, write, execute
_LANDLOCK_FILES = {1: (1 << 13) - 1, 2: (1 << 14) - 1}
"""What each version can forbid about files; from the third on it is `_LANDLOCK_FILES_SINCE_3`."""
_LANDLOCK_FILES_SINCE_3 = (1 << 15) - 1
_LANDLOCK_CONNECT, _LANDLOCK_CONNECT_SINCE = 2, 4
_LANDLOCK_SCOPES, _LANDLOCK_SCOPES_SINCE = 0b11, 6  # abstract unix sockets and signals to the outside

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> NoReturn:
    """Make the cell and become the program in it."""
    plan: Plan = json.load(sys.stdin)
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != plan["parent"]:
        os._exit(CANNOT)  # it died before we would have been told
    if plan["namespaces"]:
        _unshare(is_root_enough=plan["account"] is not None)
    starter = os.getpid()
    ended, alive = os.pipe()
    inner = os.fork()
    if inner:
        _stand_for(inner)
    os.close(alive)
    if plan["namespaces"]:
        _enter(plan, ended)
    else:
        _stay_outside(starter)
    _limit(plan)
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    os.chdir(plan["folder"])
    _look_after(_start(plan), plan["memory"])


def _stand_for(inner: int) -> NoReturn:
    """Pass signals on to the process inside, and end as it ends: whoever waits for us has waited for all of it."""
    while True:
        number = signal.sigwait(_AWAITED)
        if number != signal.SIGCHLD:
            os.kill(inner, number)
            continue
        ended, status = os.waitpid(inner, os.WNOHANG)
        if ended:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _enter(plan: Plan, ended: int) -> None:
    """Become the first process of the namespaces, with which all others in them end.

    Nobody outside has a number here: that our starter has died is told by the end of what it would write on `ended`.
    """
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if select.select([ended], [], [], 0)[0]:
        os._exit(CANNOT)  # it died before we would have been told
    _build_root(plan)
    _loopback_up()
    _drop_rights()


def _stay_outside(starter: int) -> None:
    """Become the one to whom every process of the program falls that loses its parent, so that we can end them all.

    In a session of our own: a kill of our parent's session may not hit us before we have done that.
    """
    os.setsid()
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1, 0, 0, 0), "prctl")
    if os.getppid() != starter:
        os._exit(CANNOT)  # it died before we would have been told


def _unshare(*, is_root_enough: bool) -> None:
    """Get namespaces of our own; in one for users only the user that we are can be told, so none where it is another's.

    A user namespace is what lets anybody but root make the others.
    """
    user, group = os.getuid(), os.getgid()
    others = _NEWNS | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET
    _check(_libc.unshare(others if is_root_enough else others | _NEWUSER), "unshare")
    if not is_root_enough:
        _map_ourselves(user, group)


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
        _mount("tmpfs", f"{root}/{folder}", "tmpfs", _MS_NOSUID | _MS_NODEV, f"mode=1777,size={plan['memory']}")
    for path in plan["read_only"]:
        _bind(path, root + path, read_only=True)
    for link in _LINKS:
        if os.path.islink(f"/{link}"):
            os.symlink(os.readlink(f"/{link}"), f"{root}/{link}")
    for source, target in plan["writable"]:
        _bind(source, root + target, read_only=False)
    _overlay(plan)
    for device in _DEVICES:
        if os.path.exists(f"/dev/{device}"):
            _bind(f"/dev/{device}", f"{root}/dev/{device}", read_only=False)
    for name, target in _OUTPUT.items():
        os.symlink(target, f"{root}/dev/{name}")
    os.makedirs(f"{root}/proc")
    _mount("proc", f"{root}/proc", "proc", _MS_NOSUID | _MS_NODEV)
    os.makedirs(f"{root}/.old")
    _check(_libc.pivot_root(root.encode(), f"{root}/.old".encode()), "pivot_root")
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


def _overlay(plan: Plan) -> None:
    """Folders that may be written to, although what is written stays in memory; read-only where no overlay can be."""
    if not plan["overlaid"]:
        return
    root, layers = plan["root"], f"{plan['root']}/.layers"
    os.makedirs(layers)
    _mount("tmpfs", layers, "tmpfs", _MS_NOSUID | _MS_NODEV, f"mode=700,size={plan['memory']}")
    for number, (lower, target) in enumerate(plan["overlaid"]):
        upper, work = f"{layers}/{number}-upper", f"{layers}/{number}-work"
        os.mkdir(upper, 0o755)
        os.mkdir(work, 0o755)
        os.makedirs(root + target, exist_ok=True)
        options = f"lowerdir={lower},upperdir={upper},workdir={work},userxattr"
        is_plain = not set(lower) & set(",:\\")
        flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV)
        if not is_plain or _libc.mount(b"overlay", (root + target).encode(), b"overlay", flags, options.encode()) < 0:
            _bind(lower, root + target, read_only=True)
    _check(_libc.umount2(layers.encode(), _MNT_DETACH), "umount")
    os.rmdir(layers)


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
    """Each process may take so much memory, and leaves no image of it behind."""
    resource.setrlimit(resource.RLIMIT_DATA, (plan["memory"], plan["memory"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _drop_rights() -> None:
    """No capability survives the coming exec, not even for root."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for capability in range(last + 1):
        _check(_libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0), "prctl")


def _start(plan: Plan) -> int:
    """Start the program as our child, so that we reap whatever it leaves."""
    child = os.fork()
    if child:
        return child
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nothing, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
    if not plan["namespaces"]:
        # Should we be killed ourselves, at least the program ends.
        _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
        if version := landlock_version():
            _keep_to(plan, version)
    if plan["account"] is not None:
        _become(*plan["account"])
    return os.execve(plan["argv"][0], plan["argv"], plan["environment"])


def _become(user: int, group: int) -> None:
    """Be that user and in no group but this; with the last of root's rights goes the way back."""
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    os.umask(0o007)


def landlock_version() -> int:
    """Which version of Landlock the kernel has; 0 when it has none."""
    return max(0, int(_libc.syscall(_LANDLOCK_CREATE, None, 0, _LANDLOCK_TELL_VERSION)))


def _keep_to(plan: Plan, version: int) -> None:
    """Let this process and all that it starts reach only what the plan lists: by the kernel, whatever language it is.

    Connections over TCP and signals to others are forbidden as well where the kernel knows how; it knows nothing of
    UDP and of unix sockets that have a path.
    """
    files = _LANDLOCK_FILES.get(version, _LANDLOCK_FILES_SINCE_3)
    connect = _LANDLOCK_CONNECT if version >= _LANDLOCK_CONNECT_SINCE else 0
    scopes = _LANDLOCK_SCOPES if version >= _LANDLOCK_SCOPES_SINCE else 0
    forbidden = struct.pack("=QQQ", files, connect, scopes)
    rules = _libc.syscall(_LANDLOCK_CREATE, forbidden, len(forbidden), 0)
    _check(rules, "landlock_create_ruleset")
    devices = [f"/dev/{device}" for device in _DEVICES]
    for path in ("/proc", *(f"/{link}" for link in _LINKS), *plan["read_only"]):
        _allow(rules, path, _LANDLOCK_READS)
    for path in ("/dev/shm", *devices, *_OUTPUT.values(), *(outside for outside, _ in plan["writable"])):  # noqa: S108
        _allow(rules, path, files)
    _check(_libc.syscall(_LANDLOCK_RESTRICT, rules, 0), "landlock_restrict_self")
    os.close(rules)


def _allow(rules: int, path: str, access: int) -> None:
    if not os.path.exists(path):
        return  # such as /lib32, which few machines have; what does not exist cannot be reached
    place = os.open(path, os.O_PATH)
    if not stat.S_ISDIR(os.fstat(place).st_mode):
        access &= _LANDLOCK_OF_FILES
    rule = struct.pack("=Qi", access, place)
    _check(_libc.syscall(_LANDLOCK_ADD, rules, _LANDLOCK_BENEATH, rule, 0), f"landlock_add_rule {path}")
    os.close(place)


def _look_after(child: int, memory: int) -> NoReturn:
    """Wait for the program's end, and let nothing of it stay; end it when all of it takes too much memory."""
    while True:
        got = signal.sigtimedwait(_AWAITED, _SAMPLE_SECONDS)
        if got is not None and got.si_signo == signal.SIGUSR1:
            _end_all()
            os._exit(CANNOT)
        if got is not None and got.si_signo != signal.SIGCHLD:
            os.kill(child, got.si_signo)
        status = _reap().get(child)
        if status is not None:
            _end_all()
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
        if sum(map(_memory_of, _descendants())) > memory:
            sys.stderr.write(f"ended: all of it together took more than {memory >> 20} MiB of memory\n")
            sys.stderr.flush()
            _end_all()
            os._exit(TOO_MUCH)


def _end_all() -> None:
    """Kill whatever the program started; a process that hides from one look is found by the next."""
    while found := _descendants():
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        _reap()
        time.sleep(0.005)


def _reap() -> dict[int, int]:
    """Those of our children that have ended, with their wait status."""
    ended = {}
    try:
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = found[1]
    except ChildProcessError:
        pass  # there are no more
    return ended


def _descendants() -> list[int]:
    """The processes below us, by the kernel's list: not every kernel has lists of children."""
    below: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal() and (told := _read(f"/proc/{name}/stat")):
            parent = int(told.rpartition(b")")[2].split()[1])  # proc_pid_stat(5): behind the name and the state
            below.setdefault(parent, []).append(int(name))
    found = list(below.get(os.getpid(), ()))
    for pid in found:
        found += below.get(pid, ())
    return found


def _memory_of(pid: int) -> int:
    """Bytes of its memory, what it shares with others divided among them."""
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) << 10
    return 0


def _read(path: str) -> bytes:
    """What the kernel tells of a process; nothing when it has ended."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


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
    try:
        main()
    except OSError as error:
        sys.exit(f"the cell could not be made: {error}")
