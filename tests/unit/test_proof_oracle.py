"""What the proof's oracle calls a leftover."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from bulletproof.domain.layout import Layout
from bulletproof.prove import oracle

GONE, OTHER_GONE = "opt/shop/releases/.bp-gone-1c59", "opt/shop/releases/.bp-gone-88af"
ROOM = "var/lib/bulletproof/shop/room/file-1"
LIVE = "opt/shop/releases/3-abc"
BEFORE = oracle.World(
    number=3,
    release="3-abc",
    committed=(),
    files=frozenset({LIVE}),
    schema=(),
    rows={},
    processes={},
    restored=0,
)


def _with(*files: str) -> oracle.World:
    return replace(BEFORE, files=frozenset({LIVE, *files}))


@pytest.mark.parametrize("left", [GONE, ROOM, "opt/shop/releases/4-def", "var/lib/shop/app.db.new"])
def test_what_was_not_there_before_is_left_over(left: str) -> None:
    """Also what a later command would sweep: where nothing was deleted, a fault in a deletion is no excuse."""
    assert oracle._leftovers(BEFORE, _with(left), 0) == [f"left over: {left}"]


def test_what_an_earlier_fault_left_may_be_swept_in_part() -> None:
    """A deletion that is begun again gives new names; whatever else came or went is told."""
    assert oracle._leftovers(_with(GONE, ROOM), _with(OTHER_GONE), 0) == []
    assert oracle._leftovers(_with(GONE), _with("opt/shop/odd"), 0) == ["left over: opt/shop/odd"]
    assert oracle._leftovers(_with(GONE), replace(BEFORE, files=frozenset()), 0) == [f"gone: {LIVE}"]


def test_a_new_deployment_adds_one_of_each_kind() -> None:
    """Two releases of one deployment are one too many; what a prune could not delete is for the next one."""
    one, two = "opt/shop/releases/4-def", "opt/shop/releases/5-def"
    assert oracle._leftovers(BEFORE, _with(one, GONE, OTHER_GONE), 1) == []
    assert oracle._leftovers(BEFORE, _with(one, two), 1) == ["one opt/shop/releases/#-def too many"]


def test_what_is_left_in_the_end_is_left_for_ever(tmp_path: Path) -> None:
    """After a deployment without a fault, by what lies on the disk."""
    layout = Layout(tmp_path, "shop", tmp_path / "run")
    layout.release("3-abc").mkdir(parents=True)
    assert oracle.unswept(layout) == []

    (layout.releases / ".bp-gone-1c59").mkdir()
    (layout.state / "room").mkdir(parents=True)
    assert sorted(oracle.unswept(layout)) == [
        f"left for ever: {GONE}",
        "left for ever: var/lib/bulletproof/shop/room",
    ]


def test_a_backup_that_could_not_be_deleted_whole_may_lie_beside_the_others(tmp_path: Path) -> None:
    """Until the next command; whatever else lies there is none of ours."""
    layout = Layout(tmp_path, "shop", tmp_path / "run")
    (layout.backups / ".bp-gone-1c59").mkdir(parents=True)
    (layout.backups / "odd").mkdir()
    assert oracle._backups(layout, 0) == ["left beside the backups: odd"]
