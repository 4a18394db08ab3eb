"""Releases in memory: what is fetched, what is built, and which of them shall fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from bulletproof.domain.config import AppConfig
from bulletproof.domain.source import Source
from bulletproof.errors import StepFailed
from bulletproof.ports import NO_SETTINGS, Manifest


@dataclass
class FakeReleases:
    """ports.Releases without a disk; it says what its callers may rely on, and nothing of how a build goes."""

    fetched: dict[str, Manifest] = field(default_factory=dict)
    """Laid but not yet built."""
    built: dict[str, Manifest] = field(default_factory=dict)
    histories: dict[str, str] = field(default_factory=dict)
    beside: dict[tuple[str, int], Manifest] = field(default_factory=dict)
    """What was built anew, or replaced, by its release and the deployment's number."""
    current: str = ""
    missing: frozenset[str] = frozenset()
    """Programs that no release has."""
    failures: dict[str, StepFailed] = field(default_factory=dict)
    """Errors by the name of the method that raises them, after its work was half done."""

    def fetch(self, release: str, source: Source, config: AppConfig) -> Manifest:
        """Lay the source tree of a new release."""
        if release in self.built:
            raise StepFailed("release-exists", f"there is a release {release} already")
        self.fetched.pop(release, None)
        self._fail("fetch")
        manifest = Manifest(
            release=release,
            revision=source.revision,
            title=source.title,
            config=config,
            entry=config.app.entry or "app:app",
        )
        self.fetched[release] = manifest
        self.histories[release] = source.history
        return manifest

    def build(self, release: str, settings: Mapping[str, str] = NO_SETTINGS) -> Manifest:  # noqa: ARG002  the port's
        """Build what was fetched; once built it stays as it is."""
        if release in self.built:
            return self.built[release]
        if release not in self.fetched:
            raise _damaged(release)
        self._fail("build")
        made = replace(
            self.fetched.pop(release), python="3.11.7", lock="0" * 64, packages=2, gunicorn="23.0.0", is_built=True
        )
        self.built[release] = made
        return made

    def history(self, release: str) -> str:
        """The commits that its own comes after."""
        return self.histories.get(release, "")

    def discard(self, release: str) -> None:
        """Forget the release, fetched or built."""
        self.fetched.pop(release, None)
        self.built.pop(release, None)
        if self.current == release:
            self.current = ""

    def manifest(self, release: str) -> Manifest:
        """What a built release is."""
        if release not in self.built:
            raise _damaged(release)
        return self.built[release]

    def recorded(self, release: str) -> Manifest:
        """What a built release is; nothing is damaged here."""
        return self.manifest(release)

    def rebuild(self, release: str, number: int, settings: Mapping[str, str] = NO_SETTINGS) -> Manifest:  # noqa: ARG002
        """Build it again, beside."""
        self._fail("rebuild")
        self.beside[release, number] = replace(self.manifest(release), remarks=(str(number),))
        return self.beside[release, number]

    def exchange(self, release: str, number: int) -> None:
        """Both take each other's place."""
        if str(number) not in self.built[release].remarks:
            self._swap(release, number)

    def exchange_back(self, release: str, number: int) -> None:
        """They are where they were."""
        if (release, number) in self.beside and str(number) in self.built[release].remarks:
            self._swap(release, number)

    def discard_rebuilt(self, release: str, number: int) -> None:
        """Forget what lies beside."""
        self.beside.pop((release, number), None)

    def _swap(self, release: str, number: int) -> None:
        self.built[release], self.beside[release, number] = self.beside[release, number], self.built[release]

    def cache_bytes(self) -> int:
        """There is no cache."""
        return 0

    def empty_cache(self) -> None:
        """There is none."""

    def existing(self) -> tuple[str, ...]:
        """The built releases by their numbers."""
        return tuple(sorted(self.built, key=lambda release: (int(release.partition("-")[0]), release)))

    def packages(self, release: str) -> dict[str, str]:
        """What a built release has."""
        self.manifest(release)
        return {"gunicorn": "23.0.0"}

    def has_program(self, release: str, program: str) -> bool:  # noqa: ARG002  the port's
        """Whether it is none of those that are missing."""
        return program not in self.missing

    def notes(self, release: str) -> tuple[str, ...]:  # noqa: ARG002  the port's
        """Nothing needs to be known."""
        return ()

    def prune_cache(self) -> int:
        """There is no cache."""
        return 0

    def point_current_at(self, release: str, former: str | None) -> None:  # noqa: ARG002  the port's
        """Remember which release is for people to look at."""
        self.current = release

    def _fail(self, method: str) -> None:
        if method in self.failures:
            raise self.failures[method]


def _damaged(release: str) -> StepFailed:
    return StepFailed("release-damaged", f"release {release} cannot be used: it is not there")
