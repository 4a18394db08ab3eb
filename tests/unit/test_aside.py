"""Data that are set aside: by one rename, or within a disk of their own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bulletproof.effects.aside import set_aside


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on another disk than the test's own."""
    folder = Path(tempfile.mkdtemp(prefix="bp-aside-", dir="/dev/shm"))
    if folder.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one disk only")
    yield folder
    shutil.rmtree(folder)


def test_data_move_by_a_rename(tmp_path: Path) -> None:
    """And a second time nothing happens."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "app.db").write_text("rows")
    for _ in range(2):
        assert set_aside(tmp_path / "data", tmp_path / "place", "set-aside-", "1") is None
    assert (tmp_path / "place" / "app.db").read_text() == "rows"
    assert not (tmp_path / "data").exists()


def test_data_on_a_disk_of_their_own_stay_on_it(tmp_path: Path, other_disk: Path) -> None:
    """Out of the app's sight; one that was killed in the middle goes on, and what lies there from earlier stays."""
    data, place = other_disk, tmp_path / "place"
    for name in ("app.db", "set-aside-1/app.db", "set-aside-2/uploads/a", "b", "lost+found/c"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(name)
    for _ in range(2):
        assert set_aside(data, place, "set-aside-", "2") == data / "set-aside-2"
    left = {str(file.relative_to(data)) for file in data.rglob("*") if file.is_file()}
    moved = {"set-aside-2/app.db", "set-aside-2/uploads/a", "set-aside-2/b"}
    assert left == {"set-aside-1/app.db", "lost+found/c", *moved}
