"""What a restore would do to the data, in words."""

from __future__ import annotations

import msgspec

from bulletproof.domain.schema import NOTES


class RowChange(msgspec.Struct, frozen=True, kw_only=True):
    """A table that is different in the backup."""

    table: str
    missing: int
    """Rows of today that would be gone."""
    changed: int
    """Rows that would be again what they were."""
    returning: int
    """Rows that would come back."""

    @property
    def words(self) -> str:
        """What would become of the table."""
        parts = (
            (self.missing, "would be missing"),
            (self.changed, "would be again what they were"),
            (self.returning, "would come back"),
        )
        return f"{self.table}: " + ", ".join(f"{_rows(count)} {what}" for count, what in parts if count)


class Restoration(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore of one backup would do now."""

    backup: str
    taken_at: str
    release: str
    """The release that would serve it."""
    health: str = ""
    """What was healthy when that was booted on the backup."""
    rows: tuple[RowChange, ...] = ()
    schema: tuple[str, ...] = ()
    """What is different besides rows."""
    has_database: bool = True
    """Whether the backup has one; otherwise today's stays."""
    damage: str = ""
    """Why today's database cannot be compared: it is damaged, or there is none."""
    folders: tuple[str, ...] = ()
    files: int = 0
    left_alone: tuple[str, ...] = ()
    """Folders that stay as they are, each with the reason."""
    hold_seconds: float = 0.0

    @property
    def lines(self) -> tuple[str, ...]:
        """All of it, a line for each thing to know."""
        lines = [f"backup {self.backup} of {self.taken_at[:19].replace('T', ' ')} UTC, {self.health}"]
        if self.has_database:
            lines += [f"today's database cannot be compared: {self.damage}"] if self.damage else []
            lines += [change.words for change in self.told]
            lines += [] if self.told or self.damage or self.schema else ["the database holds the same as today"]
        lines += [f"in the schema: {words}" for words in self.schema]
        if self.folders:
            lines.append(f"{', '.join(self.folders)}: today's files are exchanged for the {self.files:,} of the backup")
        lines += self.left_alone
        if self.hold_seconds:
            lines.append(f"requests will wait for about {self.hold_seconds:.0f} s")
        return tuple(lines)

    @property
    def told(self) -> tuple[RowChange, ...]:
        """The changes of what users made, and not of what migrations note."""
        return tuple(change for change in self.rows if change.table not in NOTES)


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
