"""The database, and what makes a commit in SQLite outlive a power cut."""

from __future__ import annotations

from sqlite3 import Connection

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, event

BUSY_TIMEOUT_SECONDS = 5

db = SQLAlchemy()


def make_durable(engine: Engine) -> None:
    """Set each connection of `engine` to WAL, synchronous=FULL and a busy timeout, if its database is SQLite."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_connection)


def _set_up_connection(connection: Connection, _record: object) -> None:
    # The timeout comes first: turning WAL on may itself have to wait for another process.
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
