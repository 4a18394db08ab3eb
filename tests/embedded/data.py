"""What a live database holds, to be compared before and after; and releases that migrate it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bulletproof.demo.ledger import duplicated_writes, lost_writes
from bulletproof.demo.traffic import Traffic
from live_app import LiveApp, branch
from migrating import revision

Rows = list[tuple[object, ...]]


def ask(file: Path, query: str) -> Rows:
    """Read from a database past the app."""
    ways = "mode=ro&immutable=1" if file.name == "database.db" else "mode=ro"  # a backup: nobody writes to it
    with contextlib.closing(sqlite3.connect(f"file:{file}?{ways}", uri=True, timeout=10)) as connection:
        return connection.execute(query).fetchall()


def change(app: LiveApp, statement: str) -> None:
    """Write into the live database past the app, as it serves."""
    with contextlib.closing(sqlite3.connect(app.database, timeout=10)) as connection, connection:
        connection.execute(statement)


@dataclass(frozen=True, slots=True)
class Data:
    """Schema and rows; users add rows all the while, and nobody changes or removes one."""

    schema: Rows
    rows: Mapping[str, frozenset[tuple[object, ...]]]

    @classmethod
    def of(cls, file: Path) -> Data:
        """As they are now."""
        tables = [str(name) for (name,) in ask(file, "SELECT name FROM sqlite_master WHERE type = 'table'")]
        return cls(
            schema=ask(file, "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2"),
            rows={table: frozenset(ask(file, f'SELECT * FROM "{table}"')) for table in tables},
        )

    def is_kept_in(self, file: Path) -> bool:
        """Whether the same schema and at least the same rows are there."""
        now = Data.of(file)
        return now.schema == self.schema and all(rows <= now.rows[table] for table, rows in self.rows.items())


def version(file: Path) -> str:
    """The migration that Alembic noted last."""
    [(name,)] = ask(file, "SELECT version_num FROM alembic_version")
    return str(name)


def remains(app: LiveApp) -> list[Path]:
    """Whatever a rehearsal or a migration may leave: the copy that was worked on, its sockets, half-made files."""
    layout = app.layout
    return [*app.leftovers(), *(layout.state / "rehearsal").glob("*"), *layout.sockets.glob("r[0-9]*")]


def snapshots(app: LiveApp) -> set[int]:
    """The deployments of which the database from before is kept; no snapshot is left that is not a backup."""
    assert not list(app.layout.snapshots.glob("*"))
    return set(_kept(app))


def kept(app: LiveApp, number: int) -> Path:
    """The database as it was before a deployment migrated it."""
    return _kept(app)[number]


def _kept(app: LiveApp) -> dict[int, Path]:
    manifests = [json.loads(path.read_bytes()) for path in app.layout.backups.glob("b*/manifest.json")]
    folder = app.layout.backups
    return {
        one["deployment"]: folder / one["name"] / "database.db" for one in manifests if one["reason"] == "migration"
    }


def set_aside(app: LiveApp, number: int) -> list[Path]:
    """What the undo of a deployment set aside."""
    return sorted(app.layout.database_aside.glob(f"{number}-*"))


def last_number(app: LiveApp) -> int:
    """The number of the last deployment."""
    return int(str(app.history()[-1]["number"]))


def assert_kept(app: LiveApp, traffic: Traffic, since: float) -> None:
    """No request failed since, and each acknowledged write is in the live database once."""
    report = traffic.report(since)
    assert report.failed == 0, report.failures
    tokens = traffic.acknowledged()
    assert tokens
    assert not lost_writes(tokens, app.database)
    assert not duplicated_writes(tokens, app.database)


def grow(app: LiveApp, *upgrade: str, name: str = "") -> str:
    """A commit with one more migration on top of what is checked out; its version and its table are named alike."""
    versions = sorted((app.folder / "migrations" / "versions").glob("*.py"))
    name = name or f"{len(versions) + 1:04}"
    steps = upgrade or (f'op.create_table("grown_{name}", sa.Column("id", sa.Integer, primary_key=True))',)
    text = revision(name, f"Growth {name}", f"{len(versions):04}", upgrade="\n    ".join(steps))
    files = {f"migrations/versions/{name}.py": text, "app/version.py": f'VERSION = "grown-{name}"\n'}
    return branch(app, files, title=f"Growth {name}")
