"""Set-up of the machine itself: what a Debian server needs to run apps, made where it is missing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from bulletproof.domain.account import BUILD_USER, PROXY_USER
from bulletproof.domain.ownership import Owned
from bulletproof.domain.rotation import OLD_RULE, rule, rule_of
from bulletproof.effects import durable
from bulletproof.effects.ownership import claim, differences, has_account, make_missing
from bulletproof.effects.process import run_checked
from bulletproof.errors import Refused

SERVER = Path("/etc/bulletproof/server")
"""That it is there says that the apps of root are systemd's, and lie below /."""
ENGINES = Path("/opt/bulletproof/engine")
COMMAND = Path("/usr/local/bin/bulletproof")
_STATE = Path("/var/lib/bulletproof")
_PROGRAM = ENGINES / "current" / "bin" / "bulletproof"
_PACKAGES = {
    "logrotate": Path("/usr/sbin/logrotate"),
    "ca-certificates": Path("/etc/ssl/certs/ca-certificates.crt"),
}
"""Debian's, each with what it brings."""
_INSTALL_SECONDS = 600.0
_FOLDERS = (
    Owned(path=Path("/etc/bulletproof"), mode=0o755),
    Owned(path=Path("/opt/bulletproof"), mode=0o755),
    Owned(path=ENGINES, mode=0o755),
    Owned(path=Path("/var/cache/bulletproof"), mode=0o755),
    Owned(path=_STATE, mode=0o700),
    Owned(path=Path("/var/lib/bulletproof-proxy"), mode=0o755),
)
_RECOVER = """\
# Written by bulletproof setup. It is started when a deployment was killed.
[Unit]
Description=recovery of %i, by Bulletproof
StartLimitIntervalSec=60
StartLimitBurst=8

[Service]
Type=oneshot
Environment=BULLETPROOF_DETACHED=1
ExecStart=/usr/local/bin/bulletproof --root / recover --app %i --wait 30
Restart=on-failure
RestartSec=1
RestartPreventExitStatus=4
"""
_FILES = {
    Path("/etc/systemd/system/bulletproof-recover@.service"): _RECOVER,
    SERVER: "Set up by Bulletproof: the apps of root lie below /, and systemd runs them.\n",
}


class Lack(msgspec.Struct, frozen=True):
    """One thing that is not as it must be, and what makes it so."""

    words: str
    make: Callable[[], None]


def changes(user: str) -> tuple[Lack, ...]:
    """What this machine lacks to run apps as `user`, in the order in which it is made; nothing where all is right.

    Raises Refused `not-a-server` where systemd does not run the machine, or we are not root.
    """
    if os.geteuid() != 0 or not Path("/run/systemd/system").is_dir():
        words = "a server is set up by root, where systemd runs the machine"
        raise Refused("not-a-server", words, hint="deploy without set-up: bulletproof deploy")
    return tuple(_changes(user))


def _changes(user: str) -> Iterator[Lack]:
    for name, brought in _PACKAGES.items():
        if not brought.exists():
            yield Lack(f"install Debian's package {name}", partial(_install, name))
    for name in dict.fromkeys((PROXY_USER, BUILD_USER, user)):
        if not has_account(name):
            yield Lack(f"make the system user {name}, who cannot log in", partial(_add, name))
    yield from _folders()
    apps = sorted(journal.parent.name for journal in _STATE.glob("*/journal.db"))
    for file, text in (*_FILES.items(), *((rule_of(app), rule(app)) for app in apps)):
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            yield Lack(f"write {file}", partial(durable.write_file, file, text))
    if OLD_RULE.exists():
        yield Lack(f"remove {OLD_RULE}, which named other programs' logs", partial(durable.remove, OLD_RULE))
    if not COMMAND.is_symlink() or COMMAND.readlink() != _PROGRAM:
        yield Lack(f"let {COMMAND} lead to the engine", partial(durable.replace_symlink, COMMAND, _PROGRAM))


def _folders() -> Iterator[Lack]:
    for folder in _FOLDERS:
        if not folder.path.exists():
            yield Lack(f"make {folder.path}, {folder.mode:o}", partial(make_missing, (folder,)))
        elif found := differences((folder,)):
            words = f"give {folder.path} to root with mode {folder.mode:o}, not {found[0][1]}"
            yield Lack(words, partial(claim, (folder,)))


def _install(package: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (("update",), ("install", "--yes", "--no-install-recommends", package)):
        run_checked(
            ("apt-get", "--quiet", "--quiet", *words),
            folder=Path("/"),
            environment=environment,
            timeout_seconds=_INSTALL_SECONDS,
            reference="package-not-installed",
            failure=f"Debian's package {package} could not be installed",
            hint=f"apt-get install {package}",
        )


def _add(name: str) -> None:
    options = ("--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent")
    run_checked(
        ("useradd", *options, "--shell", "/usr/sbin/nologin", name),
        folder=Path("/"),
        reference="user-not-made",
        failure=f"the system user {name} could not be made",
    )
