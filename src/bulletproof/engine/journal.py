"""The journal: a durable record of each deployment's intents and outcome; what recovery and `releases` read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bulletproof.domain.deployment import Deployment, Kind, Live, Outcome
from bulletproof.domain.origin import Origin
from bulletproof.effects import durable, room
from bulletproof.effects.sqlite_glance import glance
from bulletproof.engine.pipeline import Phase
from bulletproof.errors import NeedsPerson

_SPARE_BYTES = 1 << 20
"""The records of an undo, each of which takes a few pages of the journal's log."""
VERSION = 1
"""Of the tables below, kept in the file's user_version."""

_TABLES = """
CREATE TABLE deployment (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL, pipeline TEXT NOT NULL, release TEXT NOT NULL, revision TEXT NOT NULL, title TEXT NOT NULL,
    previous_number INTEGER, previous_release TEXT, started_by TEXT NOT NULL, started_at TEXT NOT NULL
) STRICT;
CREATE TABLE record (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    deployment INTEGER NOT NULL REFERENCES deployment(number),
    kind TEXT NOT NULL, step TEXT NOT NULL, at TEXT NOT NULL, seconds REAL NOT NULL, words TEXT NOT NULL
) STRICT;
CREATE INDEX record_of_deployment ON record (deployment, kind);
"""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment as the journal knows it."""

    deployment: Deployment
    pipeline: str
    """The one whose way it goes, or went by the time it was killed."""
    title: str
    started_by: str
    """In words."""
    origin: Origin | None = None
    """The same as facts; None in what an older Bulletproof wrote."""
    ended_at: str = ""
    outcome: Outcome | None = None
    """None while it is not closed."""
    message: str = ""
    is_committed: bool = False


class Beginning(msgspec.Struct, frozen=True, kw_only=True):
    """What is known when a deployment begins; its number, and so its release's id, the journal gives."""

    kind: Kind
    pipeline: str
    release: Callable[[int], str]
    revision: str
    title: str
    started_by: str
    origin: Origin | None = None


def utc_now() -> str:
    """Now, UTC, as the journal writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Journal:
    """The journal in one SQLite file (WAL, synchronous=FULL: 0 of 200 power cuts lost a row, measured)."""

    def __init__(
        self, connection: sqlite3.Connection, now: Callable[[], str] = utc_now, spare: Path | None = None
    ) -> None:
        self._connection = connection
        self._now = now
        self._spare = spare

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Open the journal for writing, made when it is missing. Raises NeedsPerson for one that we cannot read."""
        durable.make_folder(path.parent, mode=0o700)
        if not path.exists():
            durable.write_file(path, b"", mode=0o600)
        connection = _connect(path, f"file:{_quoted(path)}?mode=rw")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        _prepare(connection, path)
        spare = _spare_of(path)
        if not room.is_tight(path.parent):
            room.keep_spare(spare, _SPARE_BYTES)
        return cls(connection, spare=spare)

    @classmethod
    def spend_spare(cls, path: Path) -> None:
        """Give back what the journal put by on a disk that is full; it is put by again when there is room."""
        room.spend_spare(_spare_of(path))

    @classmethod
    def read(cls, path: Path) -> Journal | None:
        """Open the journal for reading only; None when there is none yet."""
        if not path.exists():
            return None
        connection = _connect(path, f"file:{_quoted(path)}?mode=ro")
        if _version(connection, path) == 0:
            connection.close()
            return None
        return cls(connection)

    @classmethod
    def glance(cls, path: Path) -> Journal | None:
        """The journal as it is now; None when there is none yet. What comes later is not seen, and nothing is laid."""
        connection = _connect(path) if path.exists() else None
        return cls(connection) if connection and _version(connection, path) else None

    @classmethod
    def in_memory(cls, now: Callable[[], str]) -> Journal:
        """A journal for the model of a host: the same code over a database in memory."""
        connection = sqlite3.connect(":memory:", isolation_level=None)
        _prepare(connection, Path(":memory:"))
        return cls(connection, now)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def begin(self, beginning: Beginning) -> Entry:
        """Write that a deployment begins, and give it the next number."""
        live = self.live()
        with self._transaction():
            row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'deployment'").fetchone()
            number = (int(row[0]) if row else 0) + 1
            self._connection.execute(
                "INSERT INTO deployment VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    number,
                    beginning.kind,
                    beginning.pipeline,
                    beginning.release(number),
                    beginning.revision,
                    beginning.title,
                    live.number if live else None,
                    live.release if live else None,
                    beginning.started_by,
                    self._now(),
                ),
            )
            if beginning.origin is not None:
                # A record and no column: so a journal that an older Bulletproof began is as good, and it reads ours.
                words = msgspec.json.encode(beginning.origin).decode()
                self._connection.execute(
                    "INSERT INTO record (deployment, kind, step, at, seconds, words) VALUES (?, 'origin', '', ?, 0, ?)",
                    (number, self._now(), words),
                )
        return self.entry(number)

    def entry(self, number: int) -> Entry:
        """The deployment of that number. Raises NeedsPerson when there is none."""
        found = self._entries("WHERE number = ?", (number,))
        if not found:
            raise NeedsPerson("deployment-unknown", f"the journal has no deployment {number}")
        return found[0]

    def entries(self) -> tuple[Entry, ...]:
        """All deployments, oldest first."""
        return self._entries("ORDER BY number", ())

    def unfinished(self) -> Entry | None:
        """The deployment that was begun and not closed; there is at most one."""
        found = self._entries(
            "WHERE number NOT IN (SELECT deployment FROM record WHERE kind = 'close') ORDER BY number DESC LIMIT 1", ()
        )
        return found[0] if found else None

    def live(self) -> Live | None:
        """What the journal says is live: the last committed deployment that makes its release live."""
        lived = self.lived()
        return lived[-1] if lived else None

    def lived(self) -> tuple[Live, ...]:
        """All that were live since the app was last destroyed, oldest first, the live one last."""
        return _lived(self._entries("WHERE number IN (SELECT deployment FROM record WHERE kind = 'commit')", ()))

    def live_at(self, at: str) -> Live | None:
        """What was live at a time, given in UTC as `utc_now` writes it; None when nothing was."""
        before = "WHERE number IN (SELECT deployment FROM record WHERE kind = 'commit' AND at <= ?)"
        lived = _lived(self._entries(before, (at,)))
        return lived[-1] if lived else None

    def wants_running(self) -> bool:
        """Whether the last committed deployment left the app running, as opposed to stopped by a person."""
        found = self._entries(
            "WHERE number IN (SELECT deployment FROM record WHERE kind = 'commit') AND kind != 'repair'"
            " ORDER BY number DESC LIMIT 1",
            (),
        )
        return bool(found) and found[0].deployment.kind.makes_live

    def record(self, number: int) -> DeploymentRecord:
        """The records of one deployment."""
        return DeploymentRecord(self, number)

    def append(self, number: int, kind: str, step: str = "", *, seconds: float = 0.0, words: str = "") -> None:
        """Append one record; it is on disk when this returns.

        On a disk that became full meanwhile the space is used that was put by for it: an undo must come to its end.
        """
        try:
            self._insert(number, kind, step, seconds=seconds, words=words)
        except NeedsPerson as error:
            is_full = getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
            if not (is_full and self._spare is not None and room.spend_spare(self._spare)):
                raise
            self._insert(number, kind, step, seconds=seconds, words=words)

    def _insert(self, number: int, kind: str, step: str, *, seconds: float, words: str) -> None:
        with self._transaction():
            self._connection.execute(
                "INSERT INTO record (deployment, kind, step, at, seconds, words) VALUES (?, ?, ?, ?, ?, ?)",
                (number, kind, step, self._now(), seconds, words),
            )

    def records(self, number: int) -> tuple[tuple[str, str], ...]:
        """(kind, step) of a deployment's records in order."""
        rows = self._connection.execute(
            "SELECT kind, step FROM record WHERE deployment = ? ORDER BY sequence", (number,)
        )
        return tuple((str(kind), str(step)) for kind, step in rows)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._take_back()
            raise NeedsPerson(
                "journal-not-written", f"the journal could not be written: {error}", hint="bulletproof status"
            ) from error
        except BaseException:
            self._take_back()
            raise

    def _take_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _entries(self, clause: str, values: tuple[object, ...]) -> tuple[Entry, ...]:
        ordered = clause if "ORDER BY" in clause else f"{clause} ORDER BY number"
        rows = self._connection.execute(
            "SELECT number, kind,"  # noqa: S608  clauses are ours
            " ifnull((SELECT step FROM record WHERE deployment = number AND kind = 'turn' ORDER BY sequence DESC),"
            " pipeline), release, revision, title, previous_number, previous_release,"
            " started_by, started_at,"
            " (SELECT at FROM record WHERE deployment = number AND kind = 'close'),"
            " (SELECT step FROM record WHERE deployment = number AND kind = 'close'),"
            " (SELECT words FROM record WHERE deployment = number AND kind = 'close'),"
            " EXISTS (SELECT 1 FROM record WHERE deployment = number AND kind = 'commit'),"
            " (SELECT words FROM record WHERE deployment = number AND kind = 'origin')"
            f" FROM deployment {ordered}",
            values,
        ).fetchall()
        return tuple(_entry(row) for row in rows)


class DeploymentRecord:
    """One deployment's part of the journal, as the pipeline needs it."""

    def __init__(self, journal: Journal, number: int) -> None:
        self._journal = journal
        self._number = number

    def intend(self, step: str) -> None:
        """The step's effect may happen from now on."""
        self._journal.append(self._number, "intend", step)

    def done(self, step: str, seconds: float, note: str) -> None:
        """The step's effect is complete."""
        self._journal.append(self._number, "done", step, seconds=seconds, words=note)

    def commit(self) -> None:
        """The commit point."""
        self._journal.append(self._number, "commit")

    def close(self, outcome: str, message: str) -> None:
        """Nothing is left to do."""
        self._journal.append(self._number, "close", outcome, words=message)

    def turn(self, pipeline: str) -> None:
        """From here on it goes the way of another pipeline."""
        self._journal.append(self._number, "turn", pipeline)

    def undone(self, step: str) -> None:
        """The step's effect is gone again, for good."""
        self._journal.append(self._number, "undone", step)

    def phase(self) -> Phase:
        """Where the deployment stands."""
        kinds = {kind for kind, _ in self._journal.records(self._number)}
        if "close" in kinds:
            return Phase.CLOSED
        return Phase.COMMITTED if "commit" in kinds else Phase.OPEN

    def intended(self) -> frozenset[str]:
        """The steps whose effect may have happened."""
        return self._steps("intend")

    def taken_back(self) -> frozenset[str]:
        """The steps that were undone to the end."""
        return self._steps("undone")

    def _steps(self, wanted: str) -> frozenset[str]:
        return frozenset(step for kind, step in self._journal.records(self._number) if kind == wanted)


def _lived(committed: tuple[Entry, ...]) -> tuple[Live, ...]:
    ends = [index for index, entry in enumerate(committed) if entry.deployment.kind is Kind.DESTROY]
    return tuple(
        Live(number=entry.deployment.number, release=entry.deployment.release)
        for entry in committed[ends[-1] + 1 if ends else 0 :]
        if entry.deployment.kind.makes_live
    )


def _entry(row: tuple[object, ...]) -> Entry:
    number, kind, pipeline, release, revision, title, previous_number, previous_release = row[:8]
    started_by, started_at, ended_at, outcome, message, is_committed, origin = row[8:]
    previous = Live(number=previous_number, release=str(previous_release)) if isinstance(previous_number, int) else None
    return Entry(
        deployment=Deployment(
            number=int(str(number)),
            kind=Kind(str(kind)),
            release=str(release),
            revision=str(revision),
            previous=previous,
            started_at=str(started_at),
        ),
        pipeline=str(pipeline),
        title=str(title),
        started_by=str(started_by),
        origin=msgspec.json.decode(str(origin), type=Origin) if origin else None,
        ended_at=str(ended_at or ""),
        outcome=Outcome(str(outcome)) if outcome else None,
        message=str(message or ""),
        is_committed=bool(is_committed),
    )


def _spare_of(path: Path) -> Path:
    return path.with_name("spare")


def _connect(path: Path, uri: str = "") -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10.0) if uri else glance(path)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise NeedsPerson(
            "journal-unreadable",
            f"the journal {path} cannot be read: {error}",
            hint="bulletproof status --help",
        ) from error
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    if _version(connection, path) == 0:
        connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")


def _version(connection: sqlite3.Connection, path: Path) -> int:
    with closing(connection.execute("PRAGMA user_version")) as cursor:
        version = int(cursor.fetchone()[0])
    if version > VERSION:
        raise NeedsPerson(
            "journal-newer",
            f"the journal {path} was written by a newer Bulletproof (version {version}, this one knows {VERSION})",
            hint="pip install --upgrade bulletproof",
        )
    return version


def _quoted(path: Path) -> str:
    """The path as an SQLite URI wants it."""
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
