"""The command that a person would type is told by the project's files."""

from __future__ import annotations

import pytest

from bulletproof.domain.migrating_by_hand import FLASK_MIGRATE, migrate_command


@pytest.mark.parametrize(
    ("command", "files", "modules", "expected"),
    [
        ("make migrate", {"manage.py"}, set(), "make migrate"),
        ("", {"manage.py", "alembic.ini"}, set(), "python manage.py migrate --noinput"),
        ("", {"migrations/env.py", "alembic.ini"}, {FLASK_MIGRATE}, "flask --app 'shop:create_app()' db upgrade"),
        ("", {"migrations/env.py", "alembic.ini"}, set(), "alembic upgrade head"),
        ("", {"migrations/env.py"}, set(), ""),
    ],
    ids=["configured", "django", "flask", "alembic", "none"],
)
def test_the_command(command: str, files: set[str], modules: set[str], expected: str) -> None:
    """What is configured goes first."""
    assert migrate_command(command, "shop:create_app()", files, modules) == expected
