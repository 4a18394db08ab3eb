"""A host that is reached by the person's own OpenSSH: their configuration, agent and jump hosts, its key known."""

from __future__ import annotations

import os
import re
import shlex
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import msgspec

from bulletproof.domain.address import Address
from bulletproof.domain.errand import ENGINE, ENGINE_HOME
from bulletproof.effects import durable
from bulletproof.effects.process import NOTHING, Completed, attend, last_lines
from bulletproof.errors import Refused

CONFIG_VARIABLE = "BULLETPROOF_SSH_CONFIG"
"""The environment variable that names another configuration for ssh than the person's, such as that of a CI job."""

_LOST = 255
"""ssh's own failures (ssh(1), EXIT STATUS); and what `run` gives back of a command that ended so."""
_NOT_THERE = 127
"""The status of a shell, and of env, for a program that is not there."""
_KEPT_SECONDS = 60
_PRIVATE = 0o700
_SOCKET_BYTES = 107 - 40 - 18
"""What is left of a socket's path (unix(7)) for its folder: %C has 40 characters, and ssh binds with 17 more."""

# What a person's configuration may not loosen: a key that is not known is never taken, from nobody.
_STRICT = {
    "StrictHostKeyChecking": "yes",
    "UpdateHostKeys": "no",
    "VerifyHostKeyDNS": "no",
    "NoHostAuthenticationForLocalhost": "no",
}
_OURS = {
    "RemoteCommand": "none",
    "PermitLocalCommand": "no",
    "ClearAllForwardings": "yes",
    "LogLevel": "ERROR",
    "ConnectTimeout": "15",
    "ServerAliveInterval": "5",  # a laptop that was closed finds within 15 seconds that nobody is there any more
    "ServerAliveCountMax": "3",
}
_ALONE = {"ControlMaster": "no", "ControlPath": "none"}
"""With a configuration of its own: its key must not go over another one's connection, nor leave one behind."""
_UNREACHABLE = re.compile(
    r"Could not resolve|Connection refused|timed out|No route to host|unreachable|Connection (?:closed|reset) by|"
    r"kex_exchange_identification|banner exchange"
)


class SshHost(msgspec.Struct, frozen=True):
    """A host, and the way to run programs on it. All runs share one connection, kept for a minute after the last."""

    address: Address

    def connect(self) -> None:
        """Be connected, so that what fails from now on is not that. Raises Refused in words for every way it can fail.

        The person may be asked for a passphrase.
        """
        if self._is_connected():
            return
        done = self._ssh("-T", command=("true",))
        if done.status != 0:
            raise self.not_connected(done)

    def has_engine(self) -> bool:
        """Whether there is an engine on the host, whatever its version."""
        return self._ssh("-T", command=("test", "-x", ENGINE)).status == 0

    def ask(self, command: Sequence[str], given: IO[bytes] | None = None) -> Completed:
        """Run a program on the host to its end, quietly. Raises Refused `connection-lost`."""
        done = self._ssh("-T", command=command, given=given)
        if done.status in {_LOST, -13}:
            raise self.lost(done.errors)
        return done

    def run(
        self,
        command: Sequence[str],
        *,
        given: IO[bytes] | None = None,
        said: IO[bytes] | None = None,
        in_terminal: bool = False,
    ) -> int:
        """Run a program on the host, its output ours as it comes; returns its exit status.

        `given` is its standard input, `said` takes its standard output instead of ours; with `in_terminal` it has a
        terminal, which is ours. Raises Refused `connection-lost` when that is what ended it, and `engine-missing` when
        the host has no such program.
        """
        argv = (*self._argv("-t" if in_terminal else "-T"), "--", _for_shell(command))
        status = attend(argv, given=None if in_terminal else given or NOTHING, said=said)
        if status == _LOST and not self._is_connected():
            raise self.lost("")
        if status == _NOT_THERE and not self.has_engine():
            raise self.without_engine()
        return status

    def lost(self, said: str) -> Refused:
        """The error for a connection that broke in the middle."""
        return Refused("connection-lost", f"the connection to {self.address.called} was lost", context=last_lines(said))

    def without_engine(self) -> Refused:
        """The error for a host that has never been set up."""
        return Refused(
            "engine-missing",
            f"{self.address.called} has no Bulletproof in {ENGINE_HOME}",
            hint=f"bulletproof setup --to {self.address.called}",
        )

    def _is_connected(self) -> bool:
        """Whether there is a connection that commands share."""
        return self._ssh("-O", "check").status == 0

    def _ssh(self, *options: str, command: Sequence[str] = (), given: IO[bytes] | None = None) -> Completed:
        argv = (*self._argv(*options), *(("--", _for_shell(command)) if command else ()))
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
            try:
                status = attend(argv, given=given or NOTHING, said=said, errors=errors)
            except FileNotFoundError as error:
                raise Refused("ssh-missing", "the program ssh is not installed here") from error
            return Completed(argv=argv, status=status, output=_text(said), errors=_text(errors))

    def _argv(self, *options: str) -> tuple[str, ...]:
        address = self.address
        port = ("-p", str(address.port)) if address.port else ()
        user = ("-l", address.user) if address.user else ()
        return ("ssh", *options_of_ours(), *port, *user, *options, address.host)

    def not_connected(self, done: Completed) -> Refused:
        """The error for what ssh, or a program that goes by it, said when there was no connection."""
        called, host, said = self.address.called, self.address.host, last_lines(done.errors or done.output)
        reference, words, hint = "ssh-failed", f"ssh could not connect to {called}", ""
        if "REMOTE HOST IDENTIFICATION HAS CHANGED" in done.errors:
            reference, words = "host-key-changed", f"{called} shows another key than the one that is known for it"
            hint = f"find out why; only if the host was made anew: ssh-keygen -R {host}, then: ssh {called}"
        elif "Host key verification failed" in done.errors:
            reference, words = "host-key-unknown", f"the key of {called} is not known here, and none is taken unseen"
            hint = f"ssh {self._typed()}  (compare the fingerprint that it shows with the host's own)"
        elif "Permission denied" in done.errors or "Too many authentication failures" in done.errors:
            reference, words, hint = "ssh-refused", f"{called} does not let us in", f"ssh {self._typed()}"
        elif _UNREACHABLE.search(done.errors):
            reference, words, hint = "host-unreachable", f"{called} cannot be reached", f"ssh {self._typed()}"
        return Refused(reference, words, context=said[-6:], hint=hint)

    def _typed(self) -> str:
        """What a person would type to go there by hand."""
        user, port = self.address.user, self.address.port
        return f"{f'-p {port} ' if port else ''}{f'{user}@' if user else ''}{self.address.host}"


def options_of_ours() -> tuple[str, ...]:
    """How each program that goes by ssh is told to: no key taken unseen, one connection for all."""
    file = os.environ.get(CONFIG_VARIABLE, "")
    settings = {**_STRICT, **_OURS, **(_ALONE if file else _shared())}
    words = (word for name, value in settings.items() for word in ("-o", f"{name}={value}"))
    return (*(("-F", file) if file else ()), *words)


def _for_shell(command: Sequence[str]) -> str:
    """The one place where words become a line for the host's shell, which takes every one as it is, and gives way."""
    return f"exec {shlex.join(command)}"


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _shared() -> dict[str, str]:
    """Let all commands of a while use one connection; each has its own where no private folder is short enough."""
    for folder in _socket_folders():
        if len(bytes(folder)) < _SOCKET_BYTES and _is_private(folder):
            return {"ControlMaster": "auto", "ControlPath": f"{folder}/%C", "ControlPersist": str(_KEPT_SECONDS)}
    return _ALONE


def _socket_folders() -> Iterator[Path]:
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime, "bulletproof-ssh")
    yield Path(f"/tmp/bulletproof-{os.getuid()}/ssh")  # noqa: S108  its owner and mode are looked at


def _is_private(folder: Path) -> bool:
    """Whether the folder, made if need be, is ours and nobody else can enter it, nor change what it is called."""
    try:
        durable.make_folder(folder, mode=_PRIVATE)
        return _is_ours_alone(folder.lstat()) and _is_ours_alone(folder.parent.lstat())
    except OSError:
        return False


def _is_ours_alone(found: os.stat_result) -> bool:
    return stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == _PRIVATE and found.st_uid == os.getuid()
