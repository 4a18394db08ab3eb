"""What a person types to bring the database of their own machine up to date, by what is in the project."""

from __future__ import annotations

import shlex
from collections.abc import Container

FLASK_MIGRATE = "flask_migrate"


def migrate_command(command: str, entry: str, files: Container[str], modules: Container[str]) -> str:
    """A shell command: the configured one, or that of the tool whose files are there; empty when there is none.

    `files` are paths from the project's folder, `modules` what can be imported.
    """
    if command:
        return command
    if "manage.py" in files:
        return "python manage.py migrate --noinput"
    if FLASK_MIGRATE in modules and "migrations/env.py" in files:
        return f"flask --app {shlex.quote(entry)} db upgrade"
    return "alembic upgrade head" if "alembic.ini" in files else ""
