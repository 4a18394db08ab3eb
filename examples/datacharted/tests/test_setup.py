"""What the app needs to boot, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from form_client import PROJECT
from flask import Flask
from flask_migrate import check
from sqlalchemy import make_url, text

from app import create_app, db


@pytest.mark.parametrize("settings", [{}, {"SECRET_KEY": ""}])
def test_boot_without_a_secret_key(settings: dict[str, str]) -> None:
    """Without SECRET_KEY the app does not boot, and says which variable is missing and how to make it."""
    with pytest.raises(RuntimeError, match=r"SECRET_KEY is not set.*export SECRET_KEY="):
        create_app(settings)


def test_boot_leaves_the_database_alone(settings: dict[str, str], tmp_path: Path) -> None:
    """Booting neither creates a database file nor anything beside it: only migrations do."""
    create_app(settings)
    assert list(tmp_path.iterdir()) == []


def test_default_database() -> None:
    """Without DATABASE_URL the database is app_dev.db in the folder of run.py."""
    app = create_app({"SECRET_KEY": "only for tests"})
    with app.app_context():
        assert Path(db.engine.url.database) == PROJECT / "app_dev.db"


def test_example_settings_name_the_default() -> None:
    """.env.example shows the database that the app takes without being told."""
    lines = (PROJECT / ".env.example").read_text().splitlines()
    assert "DATABASE_URL=sqlite:///app_dev.db" in lines
    assert make_url("sqlite:///app_dev.db").database == "app_dev.db"


def test_connections_are_durable(app: Flask) -> None:
    """Each connection is in WAL with synchronous=FULL (2) and waits 5 seconds for a lock."""
    with app.app_context():
        asked = {
            name: db.session.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "busy_timeout")
        }
    assert asked == {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 5000}


def test_migrations_make_the_models(app: Flask) -> None:
    """The migrations lead to exactly the tables that the models describe: `flask db check` finds nothing to add."""
    with app.app_context():
        check(str(PROJECT / "migrations"))


def test_requirements_are_pinned() -> None:
    """Every requirement is pinned to one version, so that a release built twice is the same."""
    lines = [line for line in (PROJECT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert lines
    assert all("==" in line for line in lines)
