"""Throw-away servers: a real systemd, booted in a second in namespaces and a cgroup of its own, over one base tree.

The base tree is a minimal Debian 12, made once by mmdebstrap and kept in the user's cache. A server is an overlay on
it; whatever is made for one is gone when it is destroyed, also when its test failed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

CHECKOUT = Path(__file__).resolve().parents[2]
_SUITE = "bookworm"
_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "python3", "python3-venv", "openssh-server"),
    *("curl", "sqlite3", "git", "iproute2", "ca-certificates", "logrotate"),
)
_BUILD_SECONDS = 600.0
_BOOT_SECONDS = 60.0
"""A boot took 0.6-1.0 s idle, and 1-3 s where ten others wanted the machine."""
_PATIENCE_SECONDS = 5.0
"""For a disk that was unmounted to be let go of by what is still dying."""
_RUN_SECONDS = 300.0
_POWER_OFF = signal.SIGRTMIN + 4
"""What PID 1 of a systemd takes for `systemctl poweroff` (systemd(1))."""
ADDRESS = "10.77.0.2"
"""Of every server, each in a network that nobody else is in."""
_EXT4_SHUTDOWN, _WITHOUT_ITS_LOG = 0x8004587D, 2
"""EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH (fs/ext4/ext4.h): not even its journal reaches the disk."""
_LIBC = ctypes.CDLL(None, use_errno=True)
_NEWNET = 0x40000000
_CGROUPS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup"))


def why_not() -> str:
    """Why no server can be made here; empty when it can."""
    if os.geteuid() != 0:
        return "only root can boot a systemd in namespaces"
    missing = [
        program for program in ("systemd-nspawn", "mmdebstrap", "nsenter", "ip") if shutil.which(program) is None
    ]
    return f"{', '.join(missing)} is missing: tools/debian.sh installs it on Debian" if missing else ""


def base_tree() -> Path:
    """The base tree, made if it is not there yet; one process makes it and others wait."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bulletproof-tests"
    cache.mkdir(parents=True, exist_ok=True)
    tree = cache / f"{_SUITE}-{hashlib.sha256(' '.join(_PACKAGES).encode()).hexdigest()[:12]}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            made = tree.with_suffix(".made")
            shutil.rmtree(made, ignore_errors=True)
            argv = ("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(_PACKAGES)}", _SUITE)
            subprocess.run((*argv, str(made)), check=True, timeout=_BUILD_SECONDS, stdout=subprocess.DEVNULL)
            made.rename(tree)
    return tree


class Server:
    """One systemd host in a network of its own, on an overlay over `layers`, the uppermost first.

    With `sees_checkout` the checkout of ours and its Python are in it, read-only and at the same paths. With
    `disk_mib` what it writes lies on a disk of its own, whose power can be cut.
    """

    def __init__(
        self,
        *layers: Path,
        sees_checkout: bool = False,
        disk_mib: int = 0,
        mounts: Mapping[Path, str] = MappingProxyType({}),
    ) -> None:
        self.name = f"bp{secrets.token_hex(3)}"
        self._layers = layers
        self._sees_checkout = sees_checkout
        self._disk_mib = disk_mib
        self._mounts = mounts
        self._folder = Path(tempfile.mkdtemp(prefix="bulletproof-host-"))
        self._root = self._folder / "root"
        self._disk = self._folder / "disk"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    @property
    def upper(self) -> Path:
        """What it has written, as a layer for others once it is off."""
        return self._disk / "upper"

    def create(self) -> None:
        """Lay its file system: nothing is copied."""
        self._disk.mkdir()
        self._root.mkdir()
        if self._disk_mib:
            image = self._folder / "disk.img"
            with image.open("wb") as file:
                file.truncate(self._disk_mib << 20)
            _must("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,nodiscard", str(image))
        self._mount()

    def _mount(self) -> None:
        if self._disk_mib:
            _must("mount", "-o", "loop", str(self._folder / "disk.img"), str(self._disk))
        upper, work = self.upper, self._disk / "work"
        for folder in (upper, work):
            folder.mkdir(exist_ok=True)
        options = f"lowerdir={':'.join(map(str, self._layers))},upperdir={upper},workdir={work}"
        _must("mount", "-t", "overlay", "overlay", "-o", options, str(self._root))

    def _unmount(self) -> None:
        for place in (self._root, self._disk):
            if os.path.ismount(place):
                _must("umount", str(place))

    def _leave_disk(self) -> None:
        # What keeps the old file system alive would be mounted again with its image: a process that is still dying in
        # there, or for as long as it lives a mount namespace that somebody made meanwhile. Then a copy is gone on with.
        image = self._folder / "disk.img"
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while _is_in_use(image):
            if time.monotonic() > deadline:
                _must("cp", "--sparse=always", str(image), f"{image}.new")
                Path(f"{image}.new").rename(image)
                return
            time.sleep(0.05)

    def cut_power(self) -> None:
        """End all of it, and lose what was not synced; `boot` finds what is left. Only with a disk of its own."""
        disk = os.open(self._disk, os.O_RDONLY)
        try:
            fcntl.ioctl(disk, _EXT4_SHUTDOWN, struct.pack("I", _WITHOUT_ITS_LOG))
        finally:
            os.close(disk)
        self.kill()
        self._unmount()
        self._leave_disk()
        self._mount()

    def boot(self) -> None:
        """Boot it and wait until it is up."""
        console = self._folder / "console.log"
        with console.open("ab") as log:
            self._nspawn = subprocess.Popen(
                self._in_its_cgroup(self._boot_argv()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _BOOT_SECONDS
        while not self._is_up():
            assert self._nspawn.poll() is None, f"systemd-nspawn ended:\n{console.read_text(errors='replace')}"
            assert time.monotonic() < deadline, f"it did not boot:\n{console.read_text(errors='replace')}"
            time.sleep(0.05)
        self.must("ip", "address", "replace", f"{ADDRESS}/32", "dev", "lo")

    def run(self, *argv: str, seconds: float = _RUN_SECONDS) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as root and with nothing inherited."""
        inside = ("nsenter", "--target", str(self._leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
        environment = ("env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root")
        return subprocess.run(
            (*inside, "--", *environment, "LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1", *argv),
            check=False,
            text=True,
            capture_output=True,
            timeout=seconds,
            start_new_session=True,
        )

    def put(self, path: str, text: str, mode: int = 0o644) -> None:
        """Lay a file in it, while it runs."""
        place = self.memory / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Let this thread, and what it starts meanwhile, be in the server's network instead of the outer one."""
        outer = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        inner = os.open(f"/proc/{self._leader}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(inner)
            yield
        finally:
            _enter(outer)
            os.close(outer)
            os.close(inner)

    @property
    def files(self) -> Path:
        """Its disk, seen from outside: all but what it keeps in memory, as /run and /tmp."""
        return self._root

    @property
    def memory(self) -> Path:
        """Its root with what it keeps in memory, while it runs. SQLite cannot open a file by such a path."""
        return Path(f"/proc/{self._leader}/root")

    def must(self, *argv: str, seconds: float = _RUN_SECONDS) -> str:
        """Run a command that has to succeed; tells what it printed."""
        done = self.run(*argv, seconds=seconds)
        assert done.returncode == 0, (
            f"{' '.join(argv)}: {done.returncode}\n{done.stdout[-8000:]}\n{done.stderr[-4000:]}"
        )
        return done.stdout

    def power_off(self) -> None:
        """Shut it down in order."""
        self._end(_POWER_OFF)

    def kill(self) -> None:
        """End all of it at once; what was written but not synced stays, as the machine's kernel goes on."""
        self._end(signal.SIGKILL)

    def destroy(self) -> None:
        """Leave nothing of it; idempotent."""
        if self._nspawn is not None:
            self.kill()
        self._unmount()
        shutil.rmtree(self._folder, ignore_errors=True)
        for place in self._cgroups():
            for folder, _, _ in os.walk(place, topdown=False):
                Path(folder).rmdir()

    def _boot_argv(self) -> tuple[str, ...]:
        seen = dict.fromkeys((CHECKOUT, Path(sys.base_prefix)) if self._sees_checkout else ())
        outer = [f"--bind-ro={place}" for place in seen if place != Path("/usr")]
        outer += [f"--bind-ro={place}:{inside}" for place, inside in self._mounts.items()]
        return (
            *("systemd-nspawn", "--quiet", f"--directory={self._root}", "--boot", "--register=no", "--keep-unit"),
            *(
                "--system-call-filter=pidfd_getfd",
                f"--machine={self.name}",
                "--console=pipe",
                "--resolv-conf=off",
                "--timezone=off",
                "--link-journal=no",
            ),
            *("--private-network", *outer),
        )

    def _in_its_cgroup(self, argv: Sequence[str]) -> tuple[str, ...]:
        """The command in a cgroup of the server's own: otherwise two servers would share one below their caller's."""
        for place in self._cgroups():
            place.mkdir(exist_ok=True)
        enter = "".join(f"echo $$ > {place}/cgroup.procs; " for place in self._cgroups())
        return ("/bin/sh", "-c", f'{enter}exec "$@"', "enter", *argv)

    def _cgroups(self) -> list[Path]:
        return [place / f"lab-{self.name}" for place in _CGROUPS if (place / "cgroup.procs").exists()]

    def _is_up(self) -> bool:
        self._leader = self._leader or self._find_leader()
        told = self.run("systemctl", "is-system-running").stdout.strip() if self._leader else ""
        return told in {"running", "degraded"}

    def _find_leader(self) -> int:
        """The process that is PID 1 inside; 0 when there is none yet."""
        assert self._nspawn is not None
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in children.read_text().split():
                status = Path(f"/proc/{child}/status").read_text()
                inside = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1]
                if inside == "1" and Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
        return 0

    def _end(self, number: int) -> None:
        assert self._nspawn is not None
        # The leader and not systemd-nspawn, which would leave everything inside running.
        self._leader = self._leader or self._find_leader()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._leader or self._nspawn.pid, number)
        self._nspawn.wait(_BOOT_SECONDS)
        self._nspawn, self._leader = None, 0


def _enter(network: int) -> None:
    if _LIBC.setns(network, _NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _is_in_use(image: Path) -> bool:
    told = subprocess.run(
        ("losetup", "--associated", str(image)), check=True, capture_output=True, timeout=_RUN_SECONDS
    )
    return bool(told.stdout.strip())


def _must(*argv: str) -> None:
    subprocess.run(argv, check=True, timeout=_RUN_SECONDS, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def booted(server: Server) -> Iterator[Server]:
    """It runs; nothing of it is left afterwards."""
    try:
        server.create()
        server.boot()
        yield server
    finally:
        server.destroy()
