"""An adoption in memory: the data that an app had before its first deployment, if it had any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bulletproof.ports import Manifest, Origin
from fakes.database import Content, FakeDatabase

_FILE = Path("/project/app.db")


@dataclass
class FakeAdoption:
    """ports.Adoption: `content` is what lies in the project's folder; None when nothing does."""

    database: FakeDatabase
    content: Content | None = None

    def find(self, number: int, manifest: Manifest, folder: Path, settings: Mapping[str, str]) -> Origin:  # noqa: ARG002
        """What is there."""
        return Origin(file=_FILE if self.content else None, words="in memory", opens=str(_FILE))

    def describe(self, file: Path) -> Origin:
        """As a person named it."""
        return Origin(file=file, words="in memory", opens=str(file))

    def take(self, number: int, file: Path) -> str:  # noqa: ARG002  the port's
        """Copy it."""
        assert self.content is not None
        assert not self.database.exists()
        self.database.content = self.content
        return "copied"

    def discard(self, number: int) -> None:
        """Nothing is half copied here."""

    def fill(self, folder: Path, names: tuple[str, ...]) -> int:  # noqa: ARG002  the port's
        """There are no folders."""
        return 0
