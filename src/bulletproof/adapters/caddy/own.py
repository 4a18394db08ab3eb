"""A certificate of the user's own, with its key: whether the proxy may read them, and works by them as they are now."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from bulletproof.domain.account import Account
from bulletproof.domain.config import Proxy
from bulletproof.effects import durable
from bulletproof.effects.ownership import acting_as
from bulletproof.errors import Refused

_UNSEEN = ("/etc/bulletproof", "/home", "/root", "/run/user", "/tmp", "/var/lib/bulletproof", "/var/tmp")  # noqa: S108
"""What the proxy's unit hides from it on a server."""


class OwnCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """Those files of a proxy, if it has any; `reader` is as whom the proxy runs, where that is another than we are."""

    proxy: Proxy
    reader: Account | None
    noted: Path
    """Notes what the proxy has read, since it looks at them only when it is told to."""

    def refuse_unreadable(self) -> None:
        """Raise Refused `certificate-unreadable` for what the proxy could not read; Caddy says it in its log alone."""
        for file in self._files:
            if self.reader and _is_hidden(file.resolve()):
                raise _unreadable(file, "lies where the proxy cannot look on a server", self.reader)
            try:
                with acting_as(self.reader), file.open("rb"):
                    pass
            except OSError as error:
                raise _unreadable(file, f"cannot be read by the proxy: {error.strerror}", self.reader) from error

    def is_renewed(self) -> bool:
        """Whether they are others by now than those that the proxy has read. Raises OSError."""
        return bool(self._files) and self._digest() != self._noted()

    def note(self) -> None:
        """What they are now is what the proxy has read; the note says nothing of a key. Raises OSError."""
        if self.is_renewed():
            durable.write_file(self.noted, self._digest(), mode=0o600)

    @property
    def _files(self) -> tuple[Path, ...]:
        return tuple(Path(name) for name in (self.proxy.certificate, self.proxy.key) if name)

    def _digest(self) -> str:
        digests = (hashlib.sha256(file.read_bytes()).digest() for file in self._files)
        return hashlib.sha256(b"".join(digests)).hexdigest()

    def _noted(self) -> str:
        try:
            return self.noted.read_text(encoding="ascii")
        except FileNotFoundError:
            return ""


def _is_hidden(file: Path) -> bool:
    return any(file.is_relative_to(place) for place in _UNSEEN)


def _unreadable(file: Path, words: str, reader: Account | None) -> Refused:
    hint = f"chmod u+r {file}"
    if reader is not None:
        copy = f"/etc/ssl/{file.name}"
        hint = f"install --group={reader.name} --mode=640 {file} {copy}; then name {copy} in bulletproof.toml"
    return Refused("certificate-unreadable", f"{file} {words}", hint=hint)
