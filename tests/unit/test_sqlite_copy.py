"""Closing a copy of a database."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulletproof.effects.sqlite_copy import settle_copy
from bulletproof.errors import StepFailed


def test_a_copy_that_cannot_be_closed_is_told_without_a_traceback(tmp_path: Path) -> None:
    """Found by an EIO at the ftruncate of its -wal: people were shown where in our code it happened."""
    copy = tmp_path / "copy.db"
    copy.write_bytes(b"no database at all, but a page of other words " * 100)
    with pytest.raises(StepFailed) as caught:
        settle_copy(copy)
    assert caught.value.reference == "database-not-copied"
    assert caught.value.context == ("file is not a database",)
