"""Files encrypted with age (age-encryption.org/v1), piece by piece: one of any size needs a few MiB of memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bulletproof.effects import durable
from bulletproof.effects.depot import not_installed
from bulletproof.errors import StepFailed, UsageError

if TYPE_CHECKING:
    from pyrage import x25519

_PRIVATE = 0o600
_OTHER_KEY = "No matching keys found"
"""What pyrage says of a file that was encrypted for others, and of one whose list of recipients is damaged."""


def new_identity() -> tuple[str, str]:
    """A new key: the identity, which decrypts and must be kept secret, and its recipient, which only encrypts.

    Raises Refused `offsite-not-installed`.
    """
    identity = _pyrage().x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def recipient_of(identity: str) -> str:
    """Who encrypts for that key. Raises UsageError `identity-odd`, Refused `offsite-not-installed`."""
    return str(_identity(identity).to_public())


def encrypt(source: Path, target: Path, recipients: Sequence[str]) -> None:
    """Make `target` the content of `source`, mode 0600, which each of `recipients` can decrypt; whole or not at all.

    Raises UsageError `recipient-odd`, StepFailed `not-encrypted`, Refused `offsite-not-installed`.
    """
    pyrage = _pyrage()
    readers = [_recipient(recipient) for recipient in recipients]
    if not readers:
        raise UsageError("recipient-odd", "nobody is named who could decrypt it", hint="name one: age1...")
    try:
        with _piped(source, target) as (reading, writing):
            pyrage.encrypt_io(reading, writing, readers)
    except (OSError, pyrage.EncryptError) as error:
        raise StepFailed("not-encrypted", f"{source} could not be encrypted: {error}", hint=_look(source)) from error


def decrypt(source: Path, target: Path, identity: str) -> None:
    """Make `target` what was encrypted as `source`, mode 0600; where a single bit differs, nothing is left of it.

    `identity` is AGE-SECRET-KEY-1..., or a file of age-keygen with it. Raises UsageError `identity-odd`, StepFailed
    `not-decrypted`, Refused `offsite-not-installed`.
    """
    pyrage = _pyrage()
    key = _identity(identity)
    try:
        with _piped(source, target) as (reading, writing):
            pyrage.decrypt_io(reading, writing, [key])
    except (OSError, pyrage.DecryptError) as error:
        words = f"{source} could not be decrypted: {_why(error)}"
        raise StepFailed("not-decrypted", words, hint=_look(source)) from error


def _why(error: Exception) -> str:
    """What is wrong with the file, or its disk; pyrage says little."""
    if isinstance(error, OSError) and error.errno is not None:
        return str(error)
    if _OTHER_KEY in str(error):
        return "it was encrypted for another key than this one, or its beginning is damaged"
    if isinstance(error, OSError):
        return "it is damaged or cut off; nothing of it was kept"
    return f"it is damaged, cut off or no file of age ({error})"


def _look(source: Path) -> str:
    return f"ls -l {source.parent}"


def _recipient(text: str) -> x25519.Recipient:
    pyrage = _pyrage()
    try:
        recipient: x25519.Recipient = pyrage.x25519.Recipient.from_str(text.strip())
    except pyrage.RecipientError as error:
        shown = "a secret key" if "SECRET" in text.upper() else f"`{''.join(filter(str.isprintable, text))}`"
        raise UsageError(
            "recipient-odd", f"{shown} is no recipient of age, such as age1...: {error}", hint="age-keygen -y KEYFILE"
        ) from error
    return recipient


def _identity(text: str) -> x25519.Identity:
    """Read a key without repeating any of it in words."""
    pyrage = _pyrage()
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    try:
        (line,) = lines
        identity: x25519.Identity = pyrage.x25519.Identity.from_str(line)
    except (ValueError, pyrage.IdentityError):
        words = f"this is not one secret key of age, which begins with AGE-SECRET-KEY-1; it has {len(lines)} lines"
        raise UsageError("identity-odd", words, hint="age-keygen -o KEYFILE") from None
    return identity


class _Pipe:
    """A file whose own trouble, a full disk or an interruption, is kept: pyrage makes a text of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.trouble: BaseException | None = None

    def read(self, size: int = -1) -> bytes:
        with self._kept():
            return self._file.read(size)

    def write(self, content: bytes) -> int:
        with self._kept():
            return self._file.write(content)

    def flush(self) -> None:
        with self._kept():
            self._file.flush()

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except BaseException as trouble:
            self.trouble = trouble
            raise


@contextlib.contextmanager
def _piped(source: Path, target: Path) -> Iterator[tuple[_Pipe, _Pipe]]:
    """Yield what is read from and written to; `target` is there only when the block has ended well."""
    with (
        source.open("rb") as reading,
        durable.new_file(target, _PRIVATE) as descriptor,
        os.fdopen(descriptor, "wb", closefd=False) as writing,
    ):
        pipes = _Pipe(reading), _Pipe(writing)
        try:
            yield pipes
        except Exception:
            for pipe in pipes:
                if pipe.trouble is not None:
                    raise pipe.trouble from None
            raise


def _pyrage() -> Any:  # noqa: ANN401  a module that may not be there
    """The package, which only those need who put backups off site. Raises Refused `offsite-not-installed`."""
    try:
        import pyrage  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise not_installed("pyrage") from error
    return pyrage
