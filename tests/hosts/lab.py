"""Throw-away servers: a real systemd, booted in a second in namespaces and a cgroup of its own, over one base tree.

The base tree is a minimal Debian 12, made once by mmdebstrap and kept in the user's cache. A server is an overlay on
it; whatever is made for one is gone when it is destroyed, also when its test failed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
_SUITE = "bookworm"
_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "python3", "python3-venv", "openssh-server"),
    *("curl", "sqlite3", "git", "iproute2", "ca-certificates", "logrotate"),
)
_BUILD_SECONDS = 600.0
_BOOT_SECONDS = 60.0
"""A boot took 0.6-1.0 s idle, and 1-3 s where ten others wanted the machine."""
_RUN_SECONDS = 300.0
_POWER_OFF = signal.SIGRTMIN + 4
"""What PID 1 of a systemd takes for `systemctl poweroff` (systemd(1))."""
_CGROUPS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup"))


def why_not() -> str:
    """Why no server can be made here; empty when it can."""
    if os.geteuid() != 0:
        return "only root can boot a systemd in namespaces"
    missing = [program for program in ("systemd-nspawn", "mmdebstrap", "nsenter") if shutil.which(program) is None]
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
    """One systemd host; its checkout of ours and its Python are the outer ones, read-only and at the same paths."""

    def __init__(self, base: Path) -> None:
        self.name = f"bp{secrets.token_hex(3)}"
        self._base = base
        self._folder = Path(tempfile.mkdtemp(prefix="bulletproof-host-"))
        self._root = self._folder / "root"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def create(self) -> None:
        """Lay its file system: nothing is copied."""
        upper, work = self._folder / "upper", self._folder / "work"
        for folder in (upper, work, self._root):
            folder.mkdir()
        options = f"lowerdir={self._base},upperdir={upper},workdir={work}"
        subprocess.run(("mount", "-t", "overlay", "overlay", "-o", options, str(self._root)), check=True)

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
        if os.path.ismount(self._root):
            subprocess.run(("umount", str(self._root)), check=True)
        shutil.rmtree(self._folder, ignore_errors=True)
        for place in self._cgroups():
            for folder, _, _ in os.walk(place, topdown=False):
                Path(folder).rmdir()

    def _boot_argv(self) -> tuple[str, ...]:
        seen = dict.fromkeys((CHECKOUT, Path(sys.base_prefix)))
        outer = [f"--bind-ro={place}" for place in seen if place != Path("/usr")]
        return (
            *("systemd-nspawn", "--quiet", f"--directory={self._root}", "--boot", "--register=no", "--keep-unit"),
            *(f"--machine={self.name}", "--console=pipe", "--resolv-conf=off", "--timezone=off", "--link-journal=no"),
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


@contextlib.contextmanager
def booted() -> Iterator[Server]:
    """A server that runs; nothing of it is left afterwards."""
    server = Server(base_tree())
    try:
        server.create()
        server.boot()
        yield server
    finally:
        server.destroy()
