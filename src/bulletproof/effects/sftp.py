"""Batches of the person's own OpenSSH `sftp`, on the connection that all commands to a host share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from bulletproof.domain.address import Address
from bulletproof.effects.process import Completed, run
from bulletproof.effects.ssh import SshHost, options_of_ours
from bulletproof.errors import Refused, StepFailed

OUTSTANDING_BYTES = 64 * 32768
"""How much of a download can be asked for and not have come (sftp(1), -R and -B, given below)."""
_LOST = 255
"""The status of sftp when its connection could not be made or broke."""
_SECONDS = 7 * 24 * 3600.0
"""A bound for what cannot be: a connection that answers, which ssh watches over, and brings nothing for a week."""
_ENTRY = re.compile(r"([-dl])[-a-zA-Z]{9}\S?\s.*?\s(\d+) ([A-Z][a-z]{2} [ \d]\d +[\d:]{4,5}) (.+)")
_ROOM = re.compile(r"^\s*\d+\s+\d+\s+(\d+)\s+\d+\s+\d+%", re.MULTILINE)
_ESCAPED = re.compile(rb"\\([0-3][0-7]{2})")
_NOT_THERE = re.compile(r"No such file|not found")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What a listing says of a file, folder or symlink."""

    path: str
    kind: str
    """`-`, `d` or `l`."""
    size: int
    version: str
    """Its size and when it was changed, to the minute."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch."""

    is_done: bool
    """Whether every command went well that had to."""
    entered: bool
    """Whether its folder is there."""
    entries: tuple[Entry, ...]
    errors: str
    free_bytes: int | None
    """What `df` said is free for everybody."""

    @property
    def is_not_there(self) -> bool:
        """Whether it says that what a command was about is not there."""
        return _NOT_THERE.search(self.errors) is not None


class SftpHost(msgspec.Struct, frozen=True):
    """A host, and the way to carry out batches on it."""

    address: Address

    def carry_out(self, folder: str, commands: Sequence[str], *, here: Path) -> Answer:
        """Carry out commands in a folder of the host, local names being in `here`, until one without a dash fails.

        Raises Refused in the words of ssh when there is no connection, StepFailed when there is no program sftp.
        """
        done = self._run((f"cd {quoted(folder)}", "pwd", *commands), here)
        if done.status == _LOST:
            raise SshHost(self.address).not_connected(done)
        return Answer(
            is_done=done.status == 0,
            entered="Remote working directory:" in done.output,
            entries=tuple(_entries(done.output)),
            errors=done.errors,
            free_bytes=int(room[1]) * 1024 if (room := _ROOM.search(done.output)) else None,
        )

    def typed(self) -> str:
        """What a person would type to go there by hand."""
        address = self.address
        port = f"-P {address.port} " if address.port else ""
        return f"sftp {port}{f'{address.user}@' if address.user else ''}{_host(address)}"

    def _run(self, commands: Sequence[str], here: Path) -> Completed:
        address = self.address
        user = ("-o", f"User={address.user}") if address.user else ()
        port = ("-P", str(address.port)) if address.port else ()
        sizes = ("-R", "64", "-B", "32768")
        # The ssh that PATH finds, as everywhere else; sftp by itself takes /usr/bin/ssh.
        argv = ("sftp", "-S", "ssh", *options_of_ours(), *sizes, *user, *port, "-b", "-", _host(address))
        try:
            return run(
                argv,
                folder=here,
                environment={**os.environ, "LC_ALL": "C"},  # or months and other letters were the person's
                timeout_seconds=_SECONDS,
                input_text="".join(f"{command}\n" for command in commands),
            )
        except StepFailed as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise Refused("ssh-missing", "the program sftp is not installed here") from error
            raise


def quoted(path: str) -> str:
    """A path as a batch names it, never an option; `domain.depot` lets none through that this could not say."""
    return f'"{path}"' if path == "." or path.startswith("/") else f'"./{path}"'


def _host(address: Address) -> str:
    return f"[{address.host}]" if ":" in address.host else address.host


def _entries(output: str) -> Iterator[Entry]:
    for line in output.splitlines():
        if found := _ENTRY.fullmatch(line):
            kind, size, changed, path = found.groups()
            if path.rpartition("/")[2] not in {".", ".."}:
                yield Entry(
                    path=_letters(path).removeprefix("./"), kind=kind, size=int(size), version=f"{size} {changed}"
                )


def _letters(text: str) -> str:
    r"""The text with its letters beyond ASCII, which sftp shows as `\303\274`."""
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), text.encode()).decode(errors="surrogateescape")
