"""A machine reached by SSH: a real sshd on a loopback port, with keys, a home and a configuration of its own."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from free_ports import free_port
from live_app import LiveApp

ENGINE = Path(".local/share/bulletproof/engine")
_SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
_PRIVILEGE_SEPARATION = Path("/run/sshd")
"""What an sshd of root wants to be there; Debian's unit makes it in memory at each boot (sshd(8))."""


@dataclass(slots=True)
class RemoteHost:
    """The machine: `home` is its user's, and everything below `folder` is gone afterwards."""

    folder: Path
    port: int
    sshd: subprocess.Popen[bytes] | None = None
    extra: dict[str, str] = field(default_factory=dict)
    """Variables of our side."""

    @property
    def home(self) -> Path:
        """The home folder that a command begins in."""
        return self.folder / "home"

    @property
    def root(self) -> Path:
        """The root of its embedded host."""
        return self.home / ".local/share/bulletproof"

    @property
    def known_hosts(self) -> Path:
        """What our side knows of keys."""
        return self.folder / "known_hosts"

    @property
    def environment(self) -> Mapping[str, str]:
        """What makes our side's ssh read the configuration of this machine and of nobody else."""
        runtime = self.folder / "run"
        runtime.mkdir(mode=0o700, exist_ok=True)
        path = f"{self.folder / 'bin'}:{os.environ.get('PATH', os.defpath)}"
        return {"PATH": path, "XDG_RUNTIME_DIR": str(runtime), **self.extra}

    @property
    def prefix(self) -> tuple[str, ...]:
        """The words before a command of our side."""
        return ("env", *(f"{name}={value}" for name, value in self.environment.items()))

    def commands(self) -> str:
        """Every line that a shell of the host was given."""
        log = self.folder / "commands.log"
        return log.read_text() if log.exists() else ""

    def start(self) -> None:
        """Let sshd listen."""
        assert _SSHD is not None
        argv = [_SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        with (self.folder / "sshd.log").open("ab") as log:
            self.sshd = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=log)
        deadline = time.monotonic() + 20
        while not _listens(self.port):
            assert self.sshd.poll() is None, (self.folder / "sshd.log").read_text()
            assert time.monotonic() < deadline, "sshd does not listen"
            time.sleep(0.02)

    def sessions(self) -> list[psutil.Process]:
        """The processes of sshd that each carry one connection."""
        assert self.sshd is not None
        return psutil.Process(self.sshd.pid).children(recursive=False)

    def cut(self) -> int:
        """Cut every connection as a lost network would: nobody says goodbye. Returns how many there were."""
        carriers = [*self.sessions(), *(one for session in self.sessions() for one in session.children()[:1])]
        found = [one for one in carriers if one.is_running() and "sshd" in one.name()]
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return len(found)

    def may_run(self, key: str = "user_key") -> str:
        """The account's entry for a key of ours: a login, whose home is the machine's."""
        public = (self.folder / f"{key}.pub").read_text()
        return f'command="{self.folder / "login"}" {public}'

    def forget_connections(self) -> None:
        """End the connection that our side keeps for a while."""
        for process in self._ours("ssh"):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()

    def stop(self) -> None:
        """Nothing listens any more, and nothing of it runs."""
        self.forget_connections()
        if self.sshd is not None:
            for process in self.sessions():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self.sshd.send_signal(signal.SIGTERM)
            self.sshd.wait(timeout=20)
            self.sshd = None

    def use_engine(self, python: Path) -> None:
        """Let the engine of a virtual environment be the host's, as `setup` would."""
        engines = self.home / ENGINE
        engines.mkdir(parents=True, exist_ok=True)
        link = engines / "current"
        link.unlink(missing_ok=True)
        link.symlink_to(python.parent.parent)

    def _ours(self, name: str) -> list[psutil.Process]:
        place = str(self.folder)
        return [
            process
            for process in psutil.process_iter(["name", "cmdline"])
            if process.info["name"] == name and place in " ".join(process.info["cmdline"] or ())
        ]


@dataclass(frozen=True, slots=True)
class FarApp(LiveApp):
    """An app whose verbs go by SSH to a host on which it lives."""

    host: RemoteHost | None = None

    def argv(self, *words: str) -> list[str]:
        """The command line of a verb, which names the host."""
        assert self.host is not None
        client = (*self.host.prefix, sys.executable, "-P", "-m", "bulletproof")
        return [*client, "--to", "far", "--root", str(self.root), *words]

    @property
    def here(self) -> LiveApp:
        """The same app, for commands on the host itself."""
        return LiveApp(root=self.root, name=self.name, folder=self.folder, port=self.port, settings=self.settings)


@contextlib.contextmanager
def remote_host(folder: Path) -> Iterator[RemoteHost]:
    """A machine in a folder with a short name; skips the test in words where there is no sshd."""
    if _SSHD is None or shutil.which("ssh") is None:
        pytest.skip("needs OpenSSH's sshd and ssh (Debian: openssh-server)")
    folder.mkdir(mode=0o700)
    host = RemoteHost(folder=folder, port=free_port())
    _lay(host)
    try:
        host.start()
        yield host
    finally:
        host.stop()


def _lay(host: RemoteHost) -> None:
    """Keys for both sides, each side's configuration, and a home."""
    if os.getuid() == 0:
        _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    (host.home / ".config").mkdir(parents=True)
    for name in ("host_key", "user_key", "other_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host.folder / name)], check=True)
    know(host, "host_key")
    # A login has the machine's own home, which no test may touch: so each command is given another one first. The
    # other variables are ours, since some of them lead to packages.
    login = host.folder / "login"
    path = f"{host.home / 'bin'}:{os.environ.get('PATH', os.defpath)}"
    variables = {**os.environ, "HOME": str(host.home), "LANG": "C.UTF-8", "PATH": path}
    words = " ".join(shlex.quote(f"{name}={value}") for name, value in variables.items() if "PYTEST" not in name)
    login.write_text(
        f"#!/bin/sh\ncd {shlex.quote(str(host.home))} || exit 1\n"
        f"printf '%s\\n' \"$SSH_ORIGINAL_COMMAND\" >>{shlex.quote(str(host.folder / 'commands.log'))}\n"
        f'exec env -i {words} TERM="${{TERM:-dumb}}" SSH_CONNECTION="$SSH_CONNECTION"'
        f' /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    login.chmod(0o755)
    # Upon the key and not upon all sessions: another key of the account may have another command.
    (host.folder / "authorized_keys").write_text(host.may_run())
    (host.folder / "sshd_config").write_text(
        f"Port {host.port}\nListenAddress 127.0.0.1\nHostKey {host.folder}/host_key\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {host.folder}/authorized_keys {host.home}/.ssh/authorized_keys\n"
        f'SetEnv "HOME={host.home}"\n'
        f"PasswordAuthentication no\nStrictModes no\n"
        f"PermitRootLogin yes\nSubsystem sftp /usr/lib/openssh/sftp-server\n"
        f"MaxStartups 50:30:100\nMaxSessions 50\n"
    )
    (host.folder / "ssh_config").write_text(
        f"Host far\n  HostName 127.0.0.1\n  Port {host.port}\n"
        f"Host ci\n  HostName 127.0.0.1\n  Port {host.port}\n  IdentityFile {host.folder}/ci_key\n"
        f"Host * !ci\n  IdentityFile {host.folder}/user_key\n"
        f"Host *\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {host.known_hosts}\n  GlobalKnownHostsFile /dev/null\n"
    )
    programs = host.folder / "bin"
    programs.mkdir()
    ssh = programs / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {host.folder}/ssh_config "$@"\n')
    ssh.chmod(0o755)


def know(host: RemoteHost, key: str) -> None:
    """Let our side know this key as the machine's."""
    words = (host.folder / f"{key}.pub").read_text().split()[:2]
    host.known_hosts.write_text(f"[127.0.0.1]:{host.port} {' '.join(words)}\n")


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
