"""A database in memory: tables, the revisions noted in it, and what may be wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from bulletproof.errors import Refused


class Content(NamedTuple):
    """All that a database holds; `rows` has a bit for each write."""

    tables: tuple[str, ...] | None = None
    revisions: tuple[str, ...] = ()
    rows: int = 0


@dataclass
class FakeDatabase:
    """There is one as soon as `tables` is not None; `trouble` is the reference of what `check` refuses."""

    tables: tuple[str, ...] | None = None
    revisions: tuple[str, ...] = ()
    trouble: str = ""
    rows: int = 0
    """A bit for each write that it holds."""

    @property
    def content(self) -> Content:
        """All that it holds."""
        return Content(self.tables, self.revisions, self.rows)

    @content.setter
    def content(self, content: Content) -> None:
        self.tables, self.revisions, self.rows = content

    def exists(self) -> bool:
        """Whether there is one."""
        return self.tables is not None

    def size(self) -> int:
        """As if each table was a page."""
        return 4096 * len(self.tables or ())

    def check(self) -> str:
        """Say what it is, or refuse."""
        if self.tables is None:
            raise Refused("database-missing", "there is no database")
        if self.trouble:
            raise Refused(self.trouble, "the database is in trouble", hint="ls -l")
        return f"in memory, {len(self.tables)} tables"

    def use_wal(self) -> bool:
        """It has no journal."""
        return self.exists()

    def empty_wal(self, longer_than: int) -> int:  # noqa: ARG002  the port's
        """It has none."""
        return 0

    def remove(self) -> None:
        """Forget it and its trouble."""
        self.content, self.trouble = Content(), ""
