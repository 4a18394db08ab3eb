"""Which backups are kept: what somebody may still need, the last ones, and the last of days, weeks and months."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bulletproof.domain.backup import (
    Backup,
    BackupManifest,
    Part,
    Proof,
    Reason,
    backups_to_remove,
    next_name,
    number_of,
    outermost,
    stalest,
)
from bulletproof.domain.config import Keep

_NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
_SIZE = 100


def backup(
    number: int,
    *,
    days_ago: float = 0.0,
    reason: Reason = Reason.ASKED,
    release: str = "1-abc",
    is_proven: bool = True,
) -> Backup:
    """One that was made so many days ago."""
    part = Part(name="database.db", size=_SIZE, sha256="", unpacked=_SIZE)
    manifest = BackupManifest(
        format=1,
        app="shop",
        name=f"b{number}",
        reason=reason,
        deployment=None,
        release=release,
        revision="",
        settings=1,
        taken_at=(_NOON - timedelta(days=days_ago)).isoformat(),
        taken_by="",
        database=part,
        tables={},
        migrations=(),
        sqlite="",
        bulletproof="",
    )
    proof = Proof(at="", seconds=0.0, release="", words="", sha256="d") if is_proven else None
    return Backup(manifest=manifest, place=Path("/b"), digest="d", proof=proof)


def kept(backups: list[Backup], keep: Keep, *releases: str, wanted_bytes: int = 0) -> list[str]:
    """The names of those that stay, where the disk needs so many bytes."""
    gone = backups_to_remove(backups, keep, releases, lambda freed: freed < wanted_bytes)
    assert len(set(gone)) == len(gone)
    return [one.name for one in backups if one.name not in gone]


def _keep(backups: int = 1, daily: int = 0, weekly: int = 0, monthly: int = 0) -> Keep:
    return Keep(backups=backups, daily=daily, weekly=weekly, monthly=monthly)


def test_the_last_ones() -> None:
    """Three, whatever they are for."""
    assert kept([backup(number) for number in range(1, 7)], _keep(3)) == ["b4", "b5", "b6"]


def test_the_last_of_each_day_week_and_month() -> None:
    """Of days that have one; a day without one costs none."""
    nightly = [backup(100 - day, days_ago=day) for day in range(90, -1, -1) if day != 2]
    assert kept(nightly, _keep(1, daily=3)) == ["b97", "b99", "b100"]
    assert kept(nightly, _keep(1, weekly=3)) == ["b88", "b95", "b100"]
    assert kept(nightly, _keep(1, monthly=3)) == ["b42", "b73", "b100"]
    twice = [backup(1, days_ago=0.2), backup(2, days_ago=0.1)]
    assert kept(twice, _keep(1, daily=5)) == ["b2"]


def test_what_a_restore_replaced_is_never_removed_and_takes_nobodys_place() -> None:
    """It counts neither as one of the last nor as one of a day."""
    some = [backup(1, reason=Reason.RESTORE, days_ago=400), backup(2), backup(3), backup(4, reason=Reason.RESTORE)]
    assert kept(some, _keep(1), wanted_bytes=10**9) == ["b1", "b3", "b4"]
    assert kept(some, _keep(2)) == ["b1", "b2", "b3", "b4"]


def test_a_point_in_time_takes_nobodys_place() -> None:
    """Neither among the last ones nor as that of a day; of points the last ones are kept, too."""
    some = [backup(1, days_ago=1.0), backup(2), *(backup(number, reason=Reason.POINT) for number in range(3, 6))]
    assert kept(some, _keep(2)) == ["b1", "b2", "b4", "b5"]
    assert kept(some, _keep(1, daily=2)) == ["b1", "b2", "b5"]


def test_the_newest_that_is_proven_stays() -> None:
    """However many came after it that are not."""
    some = [backup(1), backup(2), *(backup(number, is_proven=False) for number in range(3, 9))]
    assert kept(some, _keep(2), wanted_bytes=10**9) == ["b2", "b8"]


def test_the_newest_of_each_release_on_disk_stays() -> None:
    """A rollback to it may need the data that it had; of releases that are gone none is needed."""
    some = [backup(number, release=release) for number, release in enumerate(("a", "a", "b", "c", "c", "d"), 1)]
    assert kept(some, _keep(1), "a", "c", "d") == ["b2", "b5", "b6"]


def test_the_oldest_make_room() -> None:
    """Only as many as it takes, and none that is needed."""
    some = [backup(number, release="a") for number in range(1, 8)]
    assert kept(some, _keep(5), wanted_bytes=2 * _SIZE) == ["b3", "b4", "b5", "b6", "b7"]
    assert kept(some, _keep(5), wanted_bytes=4 * _SIZE) == ["b5", "b6", "b7"]
    assert kept(some, _keep(5), "a", wanted_bytes=10**9) == ["b7"]


@given(
    st.lists(st.tuples(st.sampled_from(Reason), st.sampled_from("abc"), st.booleans(), st.floats(0, 500)), max_size=25),
    st.builds(_keep, st.integers(1, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)),
    st.integers(0, 3000),
)
def test_nothing_that_is_needed_goes(made: list[tuple[Reason, str, bool, float]], keep: Keep, wanted: int) -> None:
    """Whatever the clock said, however full the disk is."""
    some = [
        backup(number, reason=reason, release=release, is_proven=is_proven, days_ago=days)
        for number, (reason, release, is_proven, days) in enumerate(made, 1)
    ]
    stay = kept(some, keep, "a", "b", wanted_bytes=wanted)
    counted = [one for one in some if one.manifest.reason not in {Reason.RESTORE, Reason.POINT}]
    needed = [some[-1:], counted[-1:], [one for one in counted if one.is_proven][-1:]]
    of_releases = [
        [one for one in some if one.manifest.release == release and one.manifest.reason is not Reason.POINT]
        for release in "ab"
    ]
    needed += [group[-1:] for group in of_releases]
    needed += [[one for one in group if one.is_proven][-1:] for group in of_releases]
    needed += [[one for one in some if one.manifest.reason is Reason.RESTORE]]
    assert {one.name for group in needed for one in group} <= set(stay)
    if wanted == 0:
        ordinary = [one.name for one in counted]
        assert set(ordinary[-keep.backups :]) <= set(stay)


def test_the_one_that_was_proven_longest_ago_is_tried_again() -> None:
    """One without a proof first; none when all are fresh."""

    def proven(number: int, days_ago: float) -> Backup:
        proof = Proof(at=(_NOON - timedelta(days=days_ago)).isoformat(), seconds=0, release="", words="", sha256="d")
        return replace(backup(number), proof=proof)

    assert stalest([], _NOON) is None
    assert stalest([proven(1, 6.9), proven(2, 0)], _NOON) is None
    found = stalest([proven(1, 8), proven(2, 30), proven(3, 9)], _NOON)
    assert found is not None
    assert found.name == "b2"
    found = stalest([proven(1, 8), backup(2, is_proven=False)], _NOON)
    assert found is not None
    assert found.name == "b2"


def test_names_count_on() -> None:
    """From the newest that is there; what is no backup does not count."""
    assert next_name([]) == "b1"
    assert next_name(["b2", "b10", "b9", ".bp-new-1", "bx", "c99", "b¹²"]) == "b11"
    assert [number_of(name) for name in ("b7", "b", "7", "b-7", "b7.", "b٣")] == [7, None, None, None, None, None]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("a", "a/b"), ("a",)),
        (("a/b", "a"), ("a",)),
        (("a", "ab", "a.b"), ("a", "ab", "a.b")),
        (("a/b", "a/c"), ("a/b", "a/c")),
        (("a", "a"), ("a",)),
    ],
)
def test_a_folder_in_another_is_taken_once(names: tuple[str, ...], found: tuple[str, ...]) -> None:
    """With the outer one."""
    assert outermost(names) == found
