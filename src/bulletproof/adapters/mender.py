"""The port Mender over the files of this machine."""

from __future__ import annotations

from pathlib import Path

import msgspec

from bulletproof.domain.layout import Layout
from bulletproof.domain.repair import Change, Note
from bulletproof.effects import durable, mending
from bulletproof.effects.records import damaged_packages
from bulletproof.effects.rotation import rotate

_KEPT_BYTES = 20 << 20
"""Of a log that is rotated, as the supervisor of the embedded host keeps of its own."""


class FileMender(msgspec.Struct, frozen=True):
    """Notes lie in the app's state, each named after the number of its deployment."""

    layout: Layout

    def found(self, changes: tuple[Change, ...]) -> tuple[Change, ...]:
        """How each of these is now; what is gone is none of them. Raises OSError."""
        return tuple(mending.found(changes))

    def make(self, change: Change) -> None:
        """Make it so, following no link; idempotent. Raises OSError, and Refused `place-not-plain`."""
        mending.make(change)

    def keep(self, number: int, note: Note) -> None:
        """Deployment `number`'s note is on disk when this returns."""
        place = self.layout.repair(number)
        durable.make_folder(place.parent, mode=0o700)
        durable.write_file(place, msgspec.json.encode(note), mode=0o600)

    def kept(self, number: int) -> Note | None:
        """That note; None when it was not written yet, or is not needed any more."""
        try:
            return msgspec.json.decode(self.layout.repair(number).read_bytes(), type=Note)
        except FileNotFoundError:
            return None

    def forget(self, number: int) -> None:
        """Make it so that the note is not; idempotent."""
        durable.remove(self.layout.repair(number))

    def damage(self, release: str) -> tuple[str, ...]:
        """The files of its packages that are not what was installed."""
        return tuple(damaged_packages(self.layout.venv(release)))

    def rotate(self, log: str) -> None:
        """Let a log begin anew, with its end kept beside it; idempotent."""
        rotate(Path(log), longest_bytes=_KEPT_BYTES)
