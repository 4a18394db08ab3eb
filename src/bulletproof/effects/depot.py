"""The port Depot: a place off site for files, which are encrypted before they are put there."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from bulletproof.errors import Refused


class Depot(Protocol):
    """A place off site. A name is parts between slashes, such as `shop/12/database.db.zst.age`.

    Every method raises UsageError `offsite-name-odd` for a name that no depot takes, and StepFailed `offsite-failed` in
    words when it could not be done, after three tries where another one could help.
    """

    @property
    def called(self) -> str:
        """The place, for people; there is no secret in it."""

    def put(self, file: Path, name: str) -> None:
        """Put the file there, whole or not at all under its name; one of that name is replaced.

        What an earlier call for the same content was broken off at is gone on with where the place allows it.
        """

    def get(self, name: str, file: Path) -> None:
        """Make `file` what lies there, whole or not at all, mode 0600, and durable.

        What an earlier call for the same file was broken off at is gone on with.
        """

    def names(self, prefix: str) -> tuple[str, ...]:
        """All names below the folder `prefix`, everything when it is empty, sorted; none when there is no such folder.

        `shop` is above `shop/12/database.db`, and not above `shop-2/12/database.db`.
        """

    def remove(self, name: str) -> None:
        """Make it so that nothing of this name is there; idempotent."""


def not_installed(package: str) -> Refused:
    """The error for a package of the extra `offsite` that is not there."""
    return Refused(
        "offsite-not-installed",
        f"backups off site need the package {package}, which is not installed here",
        hint="pip install 'bulletproof[offsite]'",
    )
