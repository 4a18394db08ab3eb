"""What a deployment told, line by line, so that it can be shown again and watched by whoever comes later."""

# It is only to be looked at: what happened is in the journal. So a line is not worth an fsync in the middle of a hold,
# and a disk that takes no more of it is not worth a deployment.

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from bulletproof.effects import durable

LARGEST_BYTES = 1 << 20
"""A deployment has some forty events of a few hundred bytes; beyond this only its end is kept."""


class Chronicle:
    """The open file of one deployment; a recovery goes on in the file that the killed deployer began."""

    def __init__(self, path: Path) -> None:
        durable.make_folder(path.parent, mode=0o700)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def tell(self, line: bytes, *, is_last: bool = False) -> None:
        """Add a line, which has no line end in it; what cannot be written is left out."""
        with contextlib.suppress(OSError):
            if is_last or os.fstat(self._file).st_size + len(line) < LARGEST_BYTES:
                # The line end comes first as well: a full disk may have left half a line before.
                os.write(self._file, b"\n" + line + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Told:
    """The lines of a chronicle, those that are still to come included."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._half = b""

    def new(self) -> list[bytes]:
        """The whole lines that came since the last time."""
        *lines, self._half = (self._half + self._file.read()).split(b"\n")
        return [line for line in lines if line]

    def close(self) -> None:
        """Close the file."""
        self._file.close()
