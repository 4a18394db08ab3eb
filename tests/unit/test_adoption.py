"""What an app had before its first deployment is copied whole or not at all, over nothing, and only read."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from bulletproof.adapters.adoption import CheckoutAdoption
from bulletproof.domain.layout import Layout
from bulletproof.effects.sqlite_found import database_files, describe_database
from bulletproof.errors import StepFailed


@pytest.fixture
def adoption(tmp_path: Path) -> CheckoutAdoption:
    """The port over a root of its own."""
    layout = Layout(root=tmp_path / "root", app="shop", runtime=tmp_path / "run")
    return CheckoutAdoption(layout, layout.data / "app.db")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A database with two rows."""
    path = tmp_path / "checkout" / "app.db"
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (1), (2)")
    return path


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_database_is_copied_while_somebody_writes(adoption: CheckoutAdoption, file: Path) -> None:
    """What was committed is there, what was not is not; the log of the original is not needed any more."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as writer:
        writer.execute("INSERT INTO t VALUES (3)")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO t VALUES (4)")
        adoption.take(1, file)
    assert _names(adoption.database.parent) == ["app.db"]
    with contextlib.closing(sqlite3.connect(adoption.database)) as copy:
        assert copy.execute("SELECT x FROM t").fetchall() == [(1,), (2,), (3,)]


def test_a_damaged_database_leaves_nothing(adoption: CheckoutAdoption, file: Path) -> None:
    """It is refused in words, and no part of it lies where the live database will."""
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    file.write_bytes(content)
    with pytest.raises(StepFailed) as caught:
        adoption.take(1, file)
    assert caught.value.reference == "database-not-copied"
    assert _names(adoption.database.parent) == []


def test_folders_are_filled_over_nothing(adoption: CheckoutAdoption, file: Path, tmp_path: Path) -> None:
    """A file that is there already stays; databases, what lies beside them, and links are left out."""
    uploads = file.parent / "uploads" / "inner"
    uploads.mkdir(parents=True)
    for name in ("one", "two"):
        (uploads / name).write_text("of the checkout")
    (uploads / "link").symlink_to(tmp_path)
    (uploads / "x.db").write_bytes(file.read_bytes())
    (uploads / "x.db-wal").write_text("log")
    kept = adoption.layout.persistent / "uploads" / "inner"
    kept.mkdir(parents=True)
    (kept / "one").write_text("of a user")
    assert adoption.fill(file.parent, ("uploads", "missing")) == 1
    assert {path.name: path.read_text() for path in kept.iterdir()} == {"one": "of a user", "two": "of the checkout"}
    assert adoption.fill(file.parent, ("uploads",)) == 0


def test_a_named_file_that_is_no_database(adoption: CheckoutAdoption, tmp_path: Path) -> None:
    """It is refused by its name."""
    (tmp_path / "text.db").write_text("no database")
    with pytest.raises(StepFailed, match="database-not-found"):
        adoption.describe(tmp_path / "text.db")


def test_databases_are_described_and_nothing_is_laid_beside_them(file: Path) -> None:
    """Rows and tables of one in WAL mode that nobody has open; hidden folders and environments are not looked into."""
    for place in (".hidden", "env", "node_modules"):
        (file.parent / place).mkdir()
        (file.parent / place / "other.db").write_bytes(file.read_bytes())
    (file.parent / "env" / "pyvenv.cfg").touch()
    before = _names(file.parent)
    assert list(database_files(file.parent)) == [file]
    assert describe_database(file).words.startswith("2 rows in 1 table, 8 KiB, written ")
    assert _names(file.parent) == before
