"""The journal on a disk that is full: an undo must come to its end, and be on disk."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import workshop
from bulletproof.domain.deployment import Kind
from bulletproof.engine.journal import Beginning, DeploymentRecord, Journal
from bulletproof.engine.pipeline import Phase
from bulletproof.errors import NeedsPerson


def _fill(disk: Path) -> Path:
    """Leave not one block."""
    found = os.statvfs(disk)
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize)
    return ballast


@pytest.mark.root
def test_an_undo_is_recorded_on_a_full_disk() -> None:
    """Sixty records are written after the last block was taken; then it is told in words, and with space it goes on."""
    with workshop.small_disk(mebibytes=20) as disk:
        with closing(Journal.open(disk / "journal.db")) as journal:
            entry = journal.begin(_beginning())
            ballast = _fill(disk)
            record = journal.record(entry.deployment.number)
            for step in range(20):
                record.intend(f"step {step}")
                record.done(f"step {step}", 1.0, "words")
                record.undone(f"step {step}")
            record.close("undone", "as it was")
            assert not (disk / "spare").exists()
            with pytest.raises(NeedsPerson) as caught:
                _write_on(record)
            assert caught.value.reference == "journal-not-written"
            ballast.unlink()
            record.intend("more")
        with closing(Journal.open(disk / "journal.db")) as again:
            assert again.record(1).phase() is Phase.CLOSED
            assert len(again.record(1).taken_back()) == 20
            assert (disk / "spare").stat().st_size == 1 << 20
        with closing(sqlite3.connect(disk / "journal.db")) as whole:
            assert whole.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_journal_that_was_never_begun_is_none(tmp_path: Path) -> None:
    """A found bug: a deployer killed before the first table leaves an empty file, which nobody could read any more."""
    file = tmp_path / "journal.db"
    file.touch()
    assert (Journal.read(file), Journal.glance(file)) == (None, None)
    assert [path.name for path in tmp_path.iterdir()] == ["journal.db"]
    with closing(Journal.open(file)) as journal:
        journal.begin(_beginning())
    glanced = Journal.glance(file)
    assert glanced is not None
    assert len(glanced.entries()) == 1


def _write_on(record: DeploymentRecord) -> None:
    """More than what was put by can hold."""
    for _ in range(10_000):
        record.intend("more")


def _beginning() -> Beginning:
    return Beginning(
        kind=Kind.DEPLOY,
        pipeline="deploy",
        release=lambda number: f"{number}-abc",
        revision="abc",
        title="",
        started_by="test",
    )
