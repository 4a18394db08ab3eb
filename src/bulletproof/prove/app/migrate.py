"""Bring the database to what the app needs.

A release whose file `grows` says so adds a table of its own name to what is there, each time that it becomes live.
"""

import os
import pathlib
import sqlite3

connection = sqlite3.connect(os.environ["DATABASE_URL"].partition("///")[2], isolation_level=None)
connection.executescript(
    """
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS author (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS chart (
        id INTEGER PRIMARY KEY, title TEXT NOT NULL, author INTEGER NOT NULL REFERENCES author (id)
    );
    INSERT OR IGNORE INTO author VALUES (1, 'somebody');
    """
)
if pathlib.Path("grows").exists():
    tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name LIKE 'grown_%'").fetchone()[0]
    release = pathlib.Path.cwd().parent.name
    connection.execute(f'CREATE TABLE "grown_{tables + 1}_{release}" (id INTEGER PRIMARY KEY)')
connection.close()
