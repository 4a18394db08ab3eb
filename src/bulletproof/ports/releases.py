"""The releases on disk, the settings that each begins with, and what mends both."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import msgspec

from bulletproof.domain.config import AppConfig
from bulletproof.domain.repair import Change, Note
from bulletproof.domain.settings import Settings
from bulletproof.domain.source import Source

NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a release is, as written in its release.json when it was fetched and completed when it was built."""

    release: str
    revision: str
    title: str
    config: AppConfig
    entry: str
    """`module:object` or `module:factory()`, as found or configured."""
    python: str = ""
    """The interpreter's version that it was built with."""
    lock: str = ""
    """sha256 of its lock of requirements."""
    dependencies: str = ""
    """The list that the lock was made from, such as `uv.lock`."""
    remarks: tuple[str, ...] = ()
    """What a person should know of its build, such as `built shop 1.2.0`."""
    packages: int = 0
    gunicorn: str = ""
    """Version of gunicorn in it, empty when there is none."""
    is_built: bool = False


class Releases(Protocol):
    """The immutable releases on disk."""

    def fetch(self, release: str, source: Source, config: AppConfig) -> Manifest:
        """Lay the source tree of a new release; whole or not at all. Raises StepFailed in words."""

    def build(self, release: str, settings: Mapping[str, str] = NO_SETTINGS) -> Manifest:
        """Make its virtual environment and bytecode, then seal it. Raises StepFailed with the builder's last lines.

        Of the settings those count that lead to packages, such as UV_INDEX_URL; no value is kept or told.
        """

    def discard(self, release: str) -> None:
        """Make it so that the release is not; also what a killed fetch or build left of it."""

    def manifest(self, release: str) -> Manifest:
        """What the release is. Raises StepFailed when it is missing or not whole."""

    def history(self, release: str) -> str:
        """The commits that its own comes after, by `domain.history`; empty when nobody knows."""

    def existing(self) -> tuple[str, ...]:
        """The ids of all releases that are on disk and built."""

    def recorded(self, release: str) -> Manifest:
        """What was written of it when it was built, whatever became of it since. Raises StepFailed."""

    def rebuild(self, release: str, number: int, settings: Mapping[str, str] = NO_SETTINGS) -> Manifest:
        """Build it anew from its own source and lock, beside it and named after deployment `number`.

        Raises StepFailed with the builder's last lines.
        """

    def exchange(self, release: str, number: int) -> None:
        """What deployment `number` rebuilt is the release, from one instant on; the former one stays. Idempotent."""

    def exchange_back(self, release: str, number: int) -> None:
        """The release is what it was before deployment `number`; idempotent, and able to run in another process."""

    def discard_rebuilt(self, release: str, number: int) -> None:
        """Nothing is left beside the release of what deployment `number` rebuilt or replaced; idempotent."""

    def has_program(self, release: str, program: str) -> bool:
        """Whether a command of the built release would find it: in its packages, its source, or on the machine."""

    def packages(self, release: str) -> Mapping[str, str]:
        """The versions of its packages by their names, as it is locked. Raises StepFailed when it is missing."""

    def notes(self, release: str) -> tuple[str, ...]:
        """What a person should know of how the release was built, such as a server that was added."""

    def cache_bytes(self) -> int:
        """What the cache of builds takes of the disk, which the next build makes again."""

    def empty_cache(self) -> None:
        """Remove all of it, downloads included; idempotent."""

    def prune_cache(self) -> int:
        """Remove what only older builds could use again; returns how many entries went."""

    def point_current_at(self, release: str, former: str | None) -> None:
        """Let the proxy give out the static files of this release, and where it has none, of the former one.

        People see by the same link which release is live.
        """


class SettingsStore(Protocol):
    """The settings, 0600 and outside every release; each deployment has a copy of its own."""

    def today(self) -> Settings:
        """What the next deployment takes; empty when nothing was ever set."""

    def write(self, settings: Settings) -> None:
        """Replace what the next deployment takes."""

    def freeze(self, number: int, settings: Settings) -> None:
        """Write deployment `number`'s own copy."""

    def frozen(self, number: int) -> Settings:
        """Deployment `number`'s own copy; empty when there is none."""

    def discard(self, number: int) -> None:
        """Make it so that the copy is not."""

    def numbers(self) -> tuple[int, ...]:
        """The deployments that have a copy."""


class Mender(Protocol):
    """Owners, modes, files of ours and logs, and the notes of how they were before they were mended."""

    def found(self, changes: tuple[Change, ...]) -> tuple[Change, ...]:
        """How each of these is now; what is gone is none of them. Raises OSError."""

    def make(self, change: Change) -> None:
        """Make it so, following no link; idempotent. Raises OSError, and Refused `place-not-plain`."""

    def keep(self, number: int, note: Note) -> None:
        """Deployment `number`'s note is on disk when this returns."""

    def kept(self, number: int) -> Note | None:
        """That note; None when it was not written yet, or is not needed any more."""

    def forget(self, number: int) -> None:
        """Make it so that the note is not; idempotent."""

    def damage(self, release: str) -> tuple[str, ...]:
        """The files of its packages that are not what was installed."""

    def rotate(self, log: str) -> None:
        """Let a log begin anew, with its end kept beside it; idempotent."""
