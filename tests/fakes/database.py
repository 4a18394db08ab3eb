"""A database in memory: tables, the revisions noted in it, and what may be wrong with it."""

from __future__ import annotations

from dataclasses import dataclass

from bulletproof.errors import Refused


@dataclass
class FakeDatabase:
    """There is one as soon as `tables` is not None; `trouble` is the reference of what `check` refuses."""

    tables: tuple[str, ...] | None = None
    revisions: tuple[str, ...] = ()
    trouble: str = ""

    def exists(self) -> bool:
        """Whether there is one."""
        return self.tables is not None

    def check(self) -> str:
        """Say what it is, or refuse."""
        if self.tables is None:
            raise Refused("database-missing", "there is no database")
        if self.trouble:
            raise Refused(self.trouble, "the database is in trouble", hint="ls -l")
        return f"in memory, {len(self.tables)} tables"

    def remove(self) -> None:
        """Forget it and its trouble."""
        self.tables, self.revisions, self.trouble = None, (), ""
