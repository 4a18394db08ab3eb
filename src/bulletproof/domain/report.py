"""What a rehearsal found: what a deployment would do to the data, how long requests would wait, and the way back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from bulletproof.domain.durability import Durability
from bulletproof.domain.schema import Change, Count

MARGIN_SECONDS = 2.0
"""Kept of every hold for what cannot be foreseen."""
DRAIN_SECONDS = 1.0
"""For requests in flight; more of them wait in a hold that has time to spare."""
STOP_SECONDS = 1.0
"""gunicorn needs 0.3-0.4 s from SIGQUIT to its end on two idle cores (measured), whatever the app."""
_MIB = 1 << 20


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


class Times(msgspec.Struct, frozen=True, kw_only=True):
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
        """How long requests would wait: drain, stop, snapshot, work copy, migration, swap, boot."""
        return DRAIN_SECONDS + STOP_SECONDS + 3 * self.copy + self.migrate + self.boot

    @property
    def way_back(self) -> float:
        """How long an undo at the last moment would take: set aside, put back, boot."""
        return 2 * self.copy + self.previous_boot


class PackageChange(msgspec.Struct, frozen=True, kw_only=True):
    """A package that is another one than the live release has; a version is empty where there is none."""

    name: str
    before: str = ""
    after: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The findings of one rehearsal, as far as it came."""

    release: str
    previous: str = ""
    missing_settings: tuple[str, ...] = ()
    """What the live deployment runs with and today's settings lack."""
    packages: tuple[PackageChange, ...] = ()
    """Packages that are not as in the live release; none when there is no such release."""
    proof: str = ""
    """What kept the rehearsal from the live data, or why there was none."""
    copy_bytes: int = 0
    tool: str = "none"
    past: str = ""
    """What was found of a database whose own note of its migrations is missing or wrong, in words."""
    pending: tuple[str, ...] = ()
    """The migrations that would run, in order."""
    command: str = ""
    """What would be run for them."""
    changes: tuple[Change, ...] = ()
    """What they, and then the new release's boot, change."""
    rows: tuple[Count, ...] = ()
    """Of every table, before and after."""
    nulls: tuple[Count, ...] = ()
    """Of the columns that stay and have more or fewer than before."""
    is_migrating: bool = False
    """Whether the data is changed, so that requests must wait."""
    migrates_at_boot: bool = False
    """Whether booting alone changes the data."""
    health: str = ""
    """What was healthy."""
    writes: tuple[str, ...] = ()
    """Places in its own source that the release would write, which is read-only, each with the line that helps."""
    durability: Durability | None = None
    """What a power cut may cost with the new release, None when nobody saw it use an SQLite database."""
    rollback: Way = Way.NONE
    rollback_words: str = ""
    times: Times = msgspec.field(default_factory=Times)

    @property
    def losses(self) -> tuple[Change, ...]:
        """The changes that take away what users made."""
        return tuple(change for change in self.changes if change.is_destructive)


def summary(report: Report) -> str:
    """The findings: one line when the data stays as it is, otherwise a line for each thing to know."""
    lines = [f"on a copy of {report.copy_bytes / _MIB:.1f} MiB: {report.health}"]
    warnings = report.durability.warnings if report.durability else ()
    if not report.is_migrating:
        return "\n".join((*lines, *report.writes, *warnings))
    lines += [report.past] if report.past else []
    lines += [f"{report.command}: {title}" for title in report.pending]
    lines += ["its boot changes the data"] if report.migrates_at_boot else []
    lines += [change.words for change in report.changes]
    lines += (*report.writes, *warnings)
    lines.append(f"requests will wait for about {report.times.hold:.0f} s")
    lines += [f"rollback: {report.rollback_words}"] if report.rollback is not Way.NONE else []
    return "\n".join(lines)


def package_changes(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[PackageChange, ...]:
    """What differs between two releases' packages, given as versions by name."""
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return tuple(PackageChange(name=name, before=before.get(name, ""), after=after.get(name, "")) for name in names)


def revisions_of(pending: Iterable[str]) -> tuple[str, ...]:
    """The revisions of migrations as a tool tells them: `3f2c add points` is 3f2c."""
    return tuple(words.partition(" ")[0] for words in pending)
