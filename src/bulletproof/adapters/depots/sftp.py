"""A depot on a host that is reached by the person's own OpenSSH, for which sftp alone is enough."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import msgspec

from bulletproof.adapters.depots.trouble import Trouble, getting, listing, putting, removing, tried
from bulletproof.domain.address import Address
from bulletproof.domain.depot import OURS, check_name, check_prefix, parents
from bulletproof.effects import durable, partial
from bulletproof.effects.process import last_lines
from bulletproof.effects.sftp import OUTSTANDING_BYTES, Answer, SftpHost, quoted
from bulletproof.errors import Refused

_MAY_PASS = {"host-unreachable", "ssh-failed", "connection-lost"}
"""What ssh says of a moment's trouble; keys do not get better by trying again."""


class Full(Trouble):
    """There is no room, here or there."""


class SftpDepot(msgspec.Struct, frozen=True):
    """The port Depot below a folder of a host, which must be there.

    A file is sent under a name that tells its content, so that it is gone on with only where it belongs, is synced
    where the host's sftp can, and then renamed.
    """

    address: Address
    folder: str

    @property
    def called(self) -> str:
        """The host and the folder."""
        return f"sftp://{self.address.called}/{self.folder.lstrip('/')}"

    def put(self, file: Path, name: str) -> None:
        """Send it, going on with what is there of the same content, and rename it."""
        check_name(name)
        check_name(file.name)  # sftp is given it as well
        tried(putting(name, self.called), lambda: self._put(file, name))

    def get(self, name: str, file: Path) -> None:
        """Fetch it, going on with what is here of a file of the same size and minute: sftp tells no more of it."""
        check_name(name)
        tried(getting(name, self.called), lambda: self._get(name, file))

    def names(self, prefix: str) -> tuple[str, ...]:
        """All names below a folder."""
        folder = check_prefix(prefix)
        return tried(listing(self.called), lambda: self._names(folder))

    def remove(self, name: str) -> None:
        """Delete it, and the folders that it leaves empty."""
        check_name(name)
        tried(removing(name, self.called), lambda: self._remove(name))

    def _put(self, file: Path, name: str) -> None:
        size, digest = _content(file)
        beside = PurePosixPath(name).parent
        unfinished = str(beside / partial.partial_name(name, digest))
        start = str(beside / partial.partial_prefix(name))
        found = self._beside(name)
        sent = found.get(unfinished, 0)
        older = [f"-rm {quoted(path)}" for path in found if path.startswith(start) and path != unfinished]
        send = _sending(file, unfinished, sent, size)
        rename = f"rename {quoted(unfinished)} {quoted(name)}"
        try:
            self._checked(*older, *send, rename, here=file.parent, room=size - sent)
        except Full:
            self._carried_out((f"-rm {quoted(unfinished)}",))  # or it would be in the way of everybody there
            raise

    def _beside(self, name: str) -> dict[str, int]:
        """What lies in the folder of a name, which is made if it is not there."""
        made = [f"-mkdir {quoted(folder)}" for folder in parents(name)]
        folder = str(PurePosixPath(name).parent)
        return {entry.path: entry.size for entry in self._checked(*made, f"ls -lna {quoted(folder)}").entries}

    def _get(self, name: str, file: Path) -> None:
        found = self._checked(f"ls -ln {quoted(name)}").entries
        entry = next((entry for entry in found if entry.path == name and entry.kind == "-"), None)
        if entry is None:
            raise Trouble("there is no such file", hint=self._by_hand)
        try:
            unfinished = partial.open_partial(file, f"{name} {entry.version}", doubted_bytes=OUTSTANDING_BYTES)
            self._fetch(name, unfinished, entry.size)
            durable.rename(unfinished, file)
        except OSError as error:
            hint = f"df -h {shlex.quote(str(file.parent))}"
            raise Trouble(f"it could not be written here: {error}", hint=hint) from error

    def _fetch(self, name: str, unfinished: Path, size: int) -> None:
        """Make the part a whole of `size` bytes."""
        try:
            self._checked(f"reget {quoted(name)} {quoted(unfinished.name)}", here=unfinished.parent)
        except Full:
            durable.remove(unfinished)  # or it would be in the way of everybody here
            raise
        if unfinished.stat().st_size != size:
            raise Trouble("it changed while it was fetched", hint=self._by_hand, may_pass=True)

    def _names(self, folder: str) -> tuple[str, ...]:
        """Level by level, each in one batch."""
        names: list[str] = []
        level = [folder or "."]
        while level:
            answer = self._checked(*(f"-ls -lna {quoted(one)}" for one in level))
            if strange := [line for line in answer.errors.splitlines() if "not found" not in line and line.strip()]:
                raise Trouble(strange[-1], hint=self._by_hand, context=tuple(strange[-4:]))
            entries = [entry for entry in answer.entries if not PurePosixPath(entry.path).name.startswith(OURS)]
            names += [entry.path for entry in entries if entry.kind == "-"]
            level = [entry.path for entry in entries if entry.kind == "d"]
        return tuple(sorted(names))

    def _remove(self, name: str) -> None:
        answer = self._carried_out((f"rm {quoted(name)}",))
        if not answer.is_done and not (answer.entered and answer.is_not_there):
            raise self._trouble(answer)
        if folders := [f"-rmdir {quoted(folder)}" for folder in reversed(parents(name))]:
            self._carried_out(folders)

    def _checked(self, *commands: str, here: Path = Path("/"), room: int = 0) -> Answer:
        """The answer to a batch that went well; `room` is how many bytes it needs on the host."""
        answer = self._carried_out(commands, here)
        if not answer.is_done:
            raise self._trouble(answer, here=here, room=room)
        return answer

    def _carried_out(self, commands: Sequence[str], here: Path = Path("/")) -> Answer:
        try:
            return SftpHost(self.address).carry_out(self.folder, commands, here=here)
        except Refused as error:
            may_pass = error.reference in _MAY_PASS
            raise Trouble(error.message, hint=error.hint, context=error.context, may_pass=may_pass) from error

    def _trouble(self, answer: Answer, *, here: Path = Path("/"), room: int = 0) -> Trouble:
        """What the words of sftp mean; its server says no more than `Failure` of a full disk."""
        said = last_lines(answer.errors, 4)
        if not answer.entered:
            why = "is not there" if answer.is_not_there else "cannot be entered"
            return Trouble(f"the folder {self.folder} {why}", hint=self._by_hand, context=said)
        if "No space left on device" in answer.errors:
            return Full(f"the disk of {here} is full", hint=f"df -h {shlex.quote(str(here))}")
        if "Permission denied" in answer.errors:
            return Trouble("nothing may be changed there", hint=self._by_hand, context=said)
        if answer.is_not_there:
            return Trouble("there is no such file", hint=self._by_hand, context=said)
        if room and (free := self._carried_out(("df",)).free_bytes) is not None and free < room:
            why = f"its disk is full: {free >> 20} MiB are free, and {room >> 20} MiB are still to come"
            return Full(why, hint=f"echo df -h {quoted(self.folder)} | {self._by_hand}")
        return Trouble(said[-1] if said else "it said nothing", hint=self._by_hand, context=said, may_pass=True)

    @property
    def _by_hand(self) -> str:
        return SftpHost(self.address).typed()


def _content(file: Path) -> tuple[int, str]:
    """The size of a file, and what its content alone has as digest."""
    try:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
            return os.fstat(opened.fileno()).st_size, digest
    except OSError as error:
        raise Trouble(f"{file} cannot be read: {error.strerror}", hint=f"ls -l {shlex.quote(str(file))}") from error


def _sending(file: Path, unfinished: str, sent: int, size: int) -> tuple[str, ...]:
    """The commands that make a whole of what was sent; `reput` takes neither nothing nor the whole."""
    if sent == size and size:
        return ()
    verb = "reput" if 0 < sent < size else "put"
    return (f"{verb} -f {quoted(file.name)} {quoted(unfinished)}",)
