"""What every implementation of ports.Releases promises: the real one, and the fake that the model lane trusts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import workshop
from bulletproof.adapters.releases import BuiltReleases
from bulletproof.domain.source import Source
from bulletproof.errors import StepFailed
from bulletproof.ports import Releases
from fakes.releases import FakeReleases


@pytest.fixture(params=["real", "fake"])
def releases(request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Releases:
    """Releases of a host that has none."""
    if request.param == "fake":
        return FakeReleases()
    return workshop.shop(tmp_path / "root", base=tmp_path_factory.getbasetemp())


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """A small app."""
    return Source(folder=workshop.write(tmp_path / "app", workshop.APP_FILES), revision="files", title="First")


@pytest.fixture
def deploy(releases: Releases, source: Source) -> Callable[[str], None]:
    """Fetches and builds a release."""

    def fetch_and_build(release: str) -> None:
        releases.fetch(release, source, workshop.CONFIG)
        releases.build(release)

    return fetch_and_build


def test_a_fetched_release_is_told_of_but_does_not_exist(releases: Releases, source: Source) -> None:
    """Fetching says what the release will be; until it is built nobody can use it."""
    manifest = releases.fetch("1-aaa", source, workshop.CONFIG)
    assert (manifest.release, manifest.revision, manifest.title) == ("1-aaa", "files", "First")
    assert (manifest.entry, manifest.config, manifest.is_built) == ("app:app", workshop.CONFIG, False)
    assert releases.existing() == ()
    with pytest.raises(StepFailed, match="release-damaged"):
        releases.manifest("1-aaa")


def test_a_built_release_has_a_complete_manifest(releases: Releases, source: Source) -> None:
    """The manifest of a built release names its Python, its lock and its packages, and can be read again."""
    releases.fetch("1-aaa", source, workshop.CONFIG)
    manifest = releases.build("1-aaa")
    assert manifest.is_built
    assert manifest.python.startswith("3.")
    assert len(manifest.lock) == 64
    assert manifest.packages == 2
    assert manifest.gunicorn.partition(".")[0].isdecimal()
    assert releases.manifest("1-aaa") == manifest
    assert releases.existing() == ("1-aaa",)


def test_building_again_changes_nothing(releases: Releases, source: Source) -> None:
    """A second build of a release that is built answers the same manifest."""
    releases.fetch("1-aaa", source, workshop.CONFIG)
    assert releases.build("1-aaa") == releases.build("1-aaa")


def test_nothing_is_built_that_was_not_fetched(releases: Releases) -> None:
    """A build without its fetch fails in words."""
    with pytest.raises(StepFailed, match="release-damaged"):
        releases.build("1-aaa")
    assert releases.existing() == ()


def test_a_fetch_begins_anew(releases: Releases, source: Source) -> None:
    """A second fetch before the build replaces the first; a built release is never replaced."""
    releases.fetch("1-aaa", Source(folder=source.folder, revision="files", title="Old"), workshop.CONFIG)
    releases.fetch("1-aaa", source, workshop.CONFIG)
    assert releases.build("1-aaa").title == "First"
    with pytest.raises(StepFailed, match="release-exists"):
        releases.fetch("1-aaa", source, workshop.CONFIG)
    assert releases.manifest("1-aaa").title == "First"


def test_releases_are_listed_by_number(releases: Releases, deploy: Callable[[str], None]) -> None:
    """The tenth release comes after the ninth."""
    for release in ("10-aaa", "9-bbb"):
        deploy(release)
    assert releases.existing() == ("9-bbb", "10-aaa")


def test_discarding_is_final_and_idempotent(releases: Releases, source: Source, deploy: Callable[[str], None]) -> None:
    """A discarded release is not, whether it was built, fetched or never there; the others stay."""
    deploy("1-aaa")
    deploy("2-bbb")
    releases.fetch("3-ccc", source, workshop.CONFIG)
    for release in ("1-aaa", "1-aaa", "3-ccc", "4-ddd"):
        releases.discard(release)
    assert releases.existing() == ("2-bbb",)
    for release in ("1-aaa", "3-ccc"):
        with pytest.raises(StepFailed, match="release-damaged"):
            releases.build(release)
        with pytest.raises(StepFailed, match="release-damaged"):
            releases.manifest(release)
    deploy("1-aaa")
    assert releases.existing() == ("1-aaa", "2-bbb")


def test_current_names_the_live_release_until_it_is_gone(releases: Releases, deploy: Callable[[str], None]) -> None:
    """`current` follows the live release, and never names one that was discarded."""
    for release in ("1-aaa", "2-bbb"):
        deploy(release)
        releases.point_current_at(release, None)
    assert _current(releases) == "2-bbb"
    releases.discard("1-aaa")
    assert _current(releases) == "2-bbb"
    releases.discard("2-bbb")
    assert _current(releases) == ""


def _current(releases: Releases) -> str:
    if isinstance(releases, FakeReleases):
        return releases.current
    assert isinstance(releases, BuiltReleases)
    link = releases.layout.current
    assert link.is_symlink() == link.exists()
    return link.resolve().name if link.exists() else ""


def test_it_is_known_which_programs_a_release_has(releases: Releases, deploy: Callable[[str], None]) -> None:
    """Of its packages, of its source, and of the machine; a worker whose program is missing must never go live."""
    if isinstance(releases, FakeReleases):
        releases.missing = frozenset({"no-such-program", "none.py", "./none"})
    deploy("1-aaa")
    for program in ("gunicorn", "python", "sh", "/bin/sh", "app.py", "./app.py"):
        assert releases.has_program("1-aaa", program), program
    for program in ("no-such-program", "none.py", "./none"):
        assert not releases.has_program("1-aaa", program), program


def test_a_release_is_built_anew_and_exchanged_to_and_fro(releases: Releases, deploy: Callable[[str], None]) -> None:
    """Each of it can be done twice, and by whoever comes after a kill; nothing is left beside in the end."""
    deploy("1-aaa")
    before = releases.recorded("1-aaa")
    releases.exchange_back("1-aaa", 7)  # of an undo that comes before anything was built
    rebuilt = releases.rebuild("1-aaa", 7)
    assert releases.manifest("1-aaa") == before
    assert (rebuilt.lock, rebuilt.packages, rebuilt.entry) == (before.lock, before.packages, before.entry)
    for _ in range(2):
        releases.exchange("1-aaa", 7)
        assert releases.manifest("1-aaa") == rebuilt
    for _ in range(2):
        releases.exchange_back("1-aaa", 7)
        assert releases.manifest("1-aaa") == before
    releases.exchange("1-aaa", 7)
    for _ in range(2):
        releases.discard_rebuilt("1-aaa", 7)
        assert releases.manifest("1-aaa") == rebuilt
    releases.exchange_back("1-aaa", 7)
    assert releases.manifest("1-aaa") == rebuilt
    assert releases.existing() == ("1-aaa",)
    if isinstance(releases, BuiltReleases):
        assert [path.name for path in releases.layout.releases.iterdir()] == ["1-aaa"]
