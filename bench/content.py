"""What stands in the database before the load: the same on both sides."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

CHARTS = 50_000


def fill(database: Path) -> None:
    """Give the app's database one user with CHARTS charts, about as much as a small site has after some years."""
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        user = connection.execute("INSERT INTO user (username, password_hash) VALUES ('archive', 'none')").lastrowid
        connection.executemany(
            "INSERT INTO chart (owner_id, title, numbers, created) VALUES (?, ?, ?, '2026-01-01 00:00:00')",
            ((user, f"archived-{number}", f"[{number}, {number + 1}, {number + 2}]") for number in range(CHARTS)),
        )
