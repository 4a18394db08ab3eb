"""What a rehearsal found: what a deployment would do to the data, how long requests would wait, and the way back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from bulletproof.domain.schema import Change

MARGIN_SECONDS = 2.0
"""Kept of every hold for what cannot be foreseen."""
STOP_SECONDS = 1.5
"""gunicorn needs about 1.1 s from SIGTERM to its end on two idle cores (measured), whatever the app."""


class Way(StrEnum):
    """How a later rollback to the release before would keep the data."""

    CODE = "code"
    """The older code works with the data as they are then."""
    DOWN = "down"
    """Its migrations are taken back; rehearsed."""
    RESTORE = "restore"
    """Only a restore of older data, which a person decides."""
    NONE = "none"
    """There is no release to go back to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds on the copy."""

    copy: float = 0.0
    """A copy of the whole database, and a comparison of two."""
    migrate: float = 0.0
    boot: float = 0.0
    """From the new release's start until it was healthy."""
    previous_boot: float = 0.0
    """The same of the release that serves now."""

    @property
    def hold(self) -> float:
        """How long requests would wait: stop, snapshot, work copy, migration, swap, boot."""
        return STOP_SECONDS + 3 * self.copy + self.migrate + self.boot

    @property
    def way_back(self) -> float:
        """How long an undo at the last moment would take: set aside, put back, boot."""
        return 2 * self.copy + self.previous_boot


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The findings of one rehearsal."""

    release: str
    previous: str = ""
    proof: str = ""
    """What kept the rehearsal from the live data, or why there was none."""
    copy_bytes: int = 0
    tool: str = "none"
    pending: tuple[str, ...] = ()
    """The migrations that would run, in order."""
    command: str = ""
    """What would be run for them."""
    changes: tuple[Change, ...] = ()
    """What they, and then the new release's boot, change."""
    is_migrating: bool = False
    """Whether the data is changed, so that requests must wait."""
    migrates_at_boot: bool = False
    """Whether booting alone changes the data."""
    health: str = ""
    """What was healthy."""
    rollback: Way = Way.NONE
    rollback_words: str = ""
    times: Times = field(default_factory=Times)

    @property
    def losses(self) -> tuple[Change, ...]:
        """The changes that take away what users made."""
        return tuple(change for change in self.changes if change.is_destructive)


def revisions_of(pending: Iterable[str]) -> tuple[str, ...]:
    """The revisions of migrations as a tool tells them: `3f2c add points` is 3f2c."""
    return tuple(words.partition(" ")[0] for words in pending)
