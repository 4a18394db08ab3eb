"""Room that is put by, and given back as far as it can be."""

from __future__ import annotations

from pathlib import Path

from bulletproof.effects import room


def test_what_cannot_be_removed_keeps_nothing_else(tmp_path: Path) -> None:
    """One that resists, here a folder among the files, and all others are gone."""
    place = tmp_path / "room"
    room.put_by(place)
    assert len(list(place.iterdir())) == 8
    (place / "file-00").mkdir()

    assert room.free(place, tmp_path / "never")
    assert [path.name for path in place.iterdir()] == ["file-00"]

    (place / "file-00").rmdir()
    assert room.free(place)
    assert not place.exists()
    assert not room.free(place)
