"""A fresh app over a freshly migrated SQLite file, and browsers for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask_migrate import upgrade

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from form_client import PROJECT, Browser  # noqa: E402  (the line above makes both importable from any folder)

from app import create_app, db  # noqa: E402


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """An environment with a database file that does not exist yet."""
    return {"SECRET_KEY": "only for tests", "DATABASE_URL": f"sqlite:///{tmp_path / 'app.db'}"}


@pytest.fixture
def app(settings: dict[str, str]) -> Iterator[Flask]:
    """The app over a migrated database."""
    app = create_app(settings)
    app.test_client_class = Browser
    with app.app_context():
        upgrade(str(PROJECT / "migrations"))
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def browser(app: Flask) -> Browser:
    """A browser without a session."""
    return app.test_client()


@pytest.fixture
def other_browser(app: Flask) -> Browser:
    """Somebody else's browser, without a session too."""
    return app.test_client()
