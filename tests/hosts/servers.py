"""Servers that are set up as a person sets one up, by SSH; and apps that live on them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bulletproof.domain.layout import Layout
from hosts import lab
from live_app import LiveApp

WHEELS = Path("/wheels")
"""Where every server finds the packages of apps: it has no way to an index."""
_REQUIREMENTS = Path("examples") / "datacharted" / "requirements.txt"
_FETCH_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The keys and the configuration of our side's ssh, which knows one server: `far`."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What makes our side's ssh read this configuration and nobody's own."""
        path = f"{self.folder / 'bin'}:{os.environ.get('PATH', os.defpath)}"
        return {**os.environ, "PATH": path, "XDG_RUNTIME_DIR": str(self.folder / "run")}

    def let_in(self, server: lab.Server) -> None:
        """Let the server know our key, and our side the server's."""
        server.put("/root/.ssh/authorized_keys", (self.folder / "key.pub").read_text(), mode=0o600)
        (server.files / "root/.ssh").chmod(0o700)
        key = (server.files / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2]
        (self.folder / "known_hosts").write_text(f"{lab.ADDRESS} {' '.join(key)}\n")


@dataclass(frozen=True, slots=True)
class ServerApp(LiveApp):
    """An app that lives on a server, and whose verbs go there by SSH."""

    server: lab.Server | None = None
    access: Access | None = None

    @property
    def host(self) -> lab.Server:
        """The server."""
        assert self.server is not None
        return self.server

    @property
    def layout(self) -> Layout:
        """Where everything of the app lies, seen from outside the server."""
        return Layout(self.host.files, self.name, self.host.memory / "run/bulletproof")

    @contextlib.contextmanager
    def killed_at(self, step: str) -> Iterator[None]:
        """The deployer is killed on the server as soon as it is at that step, by the lock's own note."""
        script = (
            f'while ! grep -q \'"step":"{step}"\' /var/lib/bulletproof/{self.name}/lock; do :; done;'
            f" systemctl kill --signal=KILL '{self.name}-deployment-*'"
        )
        with ThreadPoolExecutor(1) as beside:
            killing = beside.submit(self.host.run, "timeout", "60", "sh", "-c", script)
            yield
            assert killing.result().returncode == 0, killing.result()

    def is_idle(self) -> bool:
        """Whether no deployment is at work."""
        return self._looks_whole()

    def argv(self, *words: str) -> list[str]:
        """The command line of a verb, which names the server."""
        assert self.access is not None
        environment = [f"{name}={self.access.environment[name]}" for name in ("PATH", "XDG_RUNTIME_DIR")]
        return ["env", *environment, sys.executable, "-P", "-m", "bulletproof", "--to", "far", *words]


@contextlib.contextmanager
def new_access() -> Iterator[Access]:
    """A key pair, and an ssh that uses it."""
    folder = Path(tempfile.mkdtemp(prefix="bp-ssh-", dir="/tmp"))
    for name in ("run", "bin"):
        (folder / name).mkdir(mode=0o700)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
    (folder / "config").write_text(
        f"Host far\n  HostName {lab.ADDRESS}\n  User root\nHost *\n  IdentityFile {folder}/key\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
    )
    ssh = folder / "bin" / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/config "$@"\n')
    ssh.chmod(0o755)
    try:
        yield Access(folder=folder)
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def fetched_wheels() -> Iterator[Path]:
    """The packages of the example, downloaded."""
    folder = Path(tempfile.mkdtemp(prefix="bp-wheels-"))
    folder.chmod(0o755)  # who builds is another user than root
    argv = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", str(folder))
    words = ("--requirement", str(lab.CHECKOUT / _REQUIREMENTS), "setuptools", "wheel", "uvicorn", "websockets")
    try:
        subprocess.run((*argv, *words), check=True, timeout=_FETCH_SECONDS)
        yield folder
    finally:
        shutil.rmtree(folder)


def set_up_by_ssh(server: lab.Server, access: Access, *words: str) -> subprocess.CompletedProcess[str]:
    """Set a server up as a person does."""
    server.put("/etc/uv/uv.toml", f'no-index = true\nfind-links = ["{WHEELS}"]\n')
    with server.network():
        done = subprocess.run(
            [sys.executable, "-P", "-m", "bulletproof", "setup", "far", *words],
            cwd=access.folder,
            env=access.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done


@contextlib.contextmanager
def living(
    server: lab.Server, access: Access, project: Path, name: str = "shop", user: str = ""
) -> Iterator[ServerApp]:
    """An app for a server that runs; whoever asks it is in the server's network meanwhile."""
    with laid(server, access, project, name, user) as app, server.network():
        yield app


@contextlib.contextmanager
def laid(server: lab.Server, access: Access, project: Path, name: str = "shop", user: str = "") -> Iterator[ServerApp]:
    """A project of that name, whose verbs go to the server; the app runs as `user`, if one is named."""
    folder = Path(tempfile.mkdtemp(prefix="bp-app-"))
    shutil.copytree(project, folder / "app")
    # A busy machine is no reason to refuse.
    quick: dict[str, dict[str, object]] = {"health": {"deadline_seconds": 8}, "hold": {"seconds": 120}}
    if user:
        quick["app"] = {"user": user}
    place = folder / "app"
    app = ServerApp(root=Path("/"), name=name, folder=place, port=None, server=server, access=access, settings=quick)
    app.configure()
    try:
        yield app
    finally:
        shutil.rmtree(folder)
