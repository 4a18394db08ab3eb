"""A rehearsal: releases and migrations on a copy of the live data, in a cell from which nothing live can be reached."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from bulletproof.domain.account import Account
from bulletproof.domain.config import AppConfig
from bulletproof.domain.durability import Seen, connections_of
from bulletproof.domain.health import Answer
from bulletproof.domain.layout import Layout
from bulletproof.domain.past import Replay, Stage
from bulletproof.domain.process import Phase, ProcessSpec, ProcessState
from bulletproof.domain.public import Public
from bulletproof.domain.restore import RowChange
from bulletproof.domain.schema import Schema
from bulletproof.domain.system_libraries import blamed
from bulletproof.effects import durable
from bulletproof.effects.isolation import (
    Cell,
    end_at_once,
    heard,
    is_remapped,
    proof,
    start_in_cell,
    violations,
    why_not,
    would_write,
)
from bulletproof.effects.logs import tail
from bulletproof.effects.ownership import give, read_plain
from bulletproof.effects.probe import ask_socket
from bulletproof.effects.process import Running
from bulletproof.effects.sqlite_census import census, census_of
from bulletproof.effects.sqlite_copy import compare_rows, copy_database, is_same_database, refresh_copy, settle_copy
from bulletproof.effects.sqlite_journal import journal_mode, use_wal
from bulletproof.errors import StepFailed
from bulletproof.ports import REPLAY, Command, Manifest

_LOG_LINES = 15
_MIB = 1 << 20


class _ReplayedStage(msgspec.Struct, frozen=True, kw_only=True):
    revision: str
    heads: tuple[str, ...]
    statements: tuple[str, ...]


class _Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What `inside/migrate.py --replay` writes."""

    table: str
    stages: tuple[_ReplayedStage, ...]
    trouble: str


class CellRehearsal:
    """The port Rehearsal; each deployment's scratch is named after its number, so any process can remove it."""

    def __init__(
        self, layout: Layout, database: Path, public: Callable[[], Public], account: Account | None = None
    ) -> None:
        self._layout = layout
        self._account = account
        self._database = database
        self._public = public
        self._running: Running | None = None
        self._cell: Cell | None = None

    def why_not(self) -> str:
        """Why the kernel lets us make no cell; empty when it does."""
        return why_not()

    def proof(self) -> str:
        """What keeps a rehearsed release from the live data."""
        return proof()

    def prepare(self, number: int) -> int:
        """Lay a consistent copy of the live database; returns its bytes, 0 when there is none or an empty file.

        It is laid twice: as what may become the snapshot, and as what is worked on. Raises StepFailed.
        """
        scratch = self._layout.rehearsal(number)
        for folder in (scratch / "data", scratch / "root", self._sockets(number), self._layout.snapshots):
            durable.make_folder(folder, mode=0o700)
        for folder in (scratch / "data", self._sockets(number)):
            give(folder, self._account)
        if not self._database.exists() or not self._database.stat().st_size:
            return 0
        size = copy_database(self._database, self._layout.snapshot(number))
        settle_copy(self._layout.snapshot(number))
        refresh_copy(self._layout.snapshot(number), self.copy(number))
        return size

    def rewind(self, number: int, timeout_seconds: float) -> None:
        """Make the copy equal to the snapshot again, writing only what differs."""
        self.end(number)
        for suffix in ("-wal", "-shm", "-journal"):
            durable.remove(self.copy(number).with_name(self.copy(number).name + suffix))
        refresh_copy(self._layout.snapshot(number), self.copy(number), timeout_seconds=timeout_seconds)

    def run(self, number: int, manifest: Manifest, command: Command, timeout_seconds: float) -> None:
        """Run a command on the copy to its end. Raises StepFailed `migration-failed` or `migration-too-slow`."""
        self._start(number, manifest, command.argv, command.folder, command.environment, command.reads)
        assert self._running is not None  # noqa: S101  just started
        status = self._running.wait(timeout_seconds)
        self.end(number)
        if status is None:
            words = f"`{command.words}` of release {manifest.release} did not end within {timeout_seconds:.0f} seconds"
            raise StepFailed(
                "migration-too-slow",
                words,
                context=self.log_tail(number, _LOG_LINES),
                hint="make it smaller, or let requests wait longer: `seconds` under [hold] in bulletproof.toml",
            )
        if status != 0:
            log = self.log_tail(number, _LOG_LINES)
            words, hint = blamed(f"`{command.words}` of release {manifest.release} ended with status {status}", log)
            raise StepFailed("migration-failed", words, context=log, hint=hint)

    def make(self, number: int, manifest: Manifest, command: Command, timeout_seconds: float) -> Schema:
        """What a command makes in a cell whose data folder is empty. Raises StepFailed `migration-failed`."""
        try:
            if self._run_beside(number, manifest, command, timeout_seconds) != 0:
                words = f"`{command.words}` of release {manifest.release} failed on an empty database"
                raise StepFailed("migration-failed", words, context=self.log_tail(number, _LOG_LINES))
            return census(self._beside(number) / self._database.name)
        finally:
            durable.remove_tree(self._beside(number))

    def _beside(self, number: int) -> Path:
        """A data folder of its own beside the copy's."""
        return self._layout.rehearsal(number) / "replay"

    def _run_beside(self, number: int, manifest: Manifest, command: Command, timeout_seconds: float) -> int | None:
        """Run a command where the data folder is empty; None when it did not end in time."""
        data = self._beside(number)
        durable.remove_tree(data)
        durable.make_folder(data, mode=0o700)
        give(data, self._account)
        self._start(number, manifest, command.argv, command.folder, command.environment, command.reads, data=data)
        assert self._running is not None  # noqa: S101  just started
        status = self._running.wait(timeout_seconds)
        self.end(number)
        return status

    def replay(self, number: int, manifest: Manifest, command: Command, timeout_seconds: float) -> Replay:
        """Run a migrator's replay in a cell whose data folder is empty. Raises StepFailed when it wrote nothing."""
        data = self._beside(number)
        status = self._run_beside(number, manifest, command, timeout_seconds)
        try:
            told = msgspec.json.decode(read_plain(data / REPLAY) or b"", type=_Replayed)
        except msgspec.DecodeError as error:
            how = "did not end in time" if status is None else f"ended with status {status}"
            words = f"replaying the migrations of release {manifest.release} on an empty database {how}"
            raise StepFailed("migration-failed", words, context=self.log_tail(number, _LOG_LINES)) from error
        finally:
            durable.remove_tree(data)
        stages = (
            Stage(revision=one.revision, heads=one.heads, schema=census_of(one.statements)) for one in told.stages
        )
        return Replay(stages=tuple(stages), table=told.table, trouble=told.trouble)

    def boot(self, number: int, manifest: Manifest, process: ProcessSpec, settings: Mapping[str, str]) -> None:
        """Start the release's web process in the cell, where the live paths hold the copy. Raises StepFailed."""
        durable.remove(self._sockets(number) / "web.sock")
        self._start(number, manifest, process.argv, process.folder, {**settings, **process.environment})

    def ask(self, number: int, path: str, timeout_seconds: float) -> Answer:
        """GET a path of the rehearsed instance as the proxy would."""
        socket = self._sockets(number) / "web.sock"
        return ask_socket(socket, path, self._public(), timeout_seconds=timeout_seconds)

    def state(self, number: int) -> ProcessState:  # noqa: ARG002  there is one at a time
        """Whether the rehearsed instance runs, or how it ended."""
        status = self._running.status() if self._running else None
        if self._running is not None and status is None:
            return ProcessState(name="rehearsal", phase=Phase.RUNNING)
        return ProcessState(name="rehearsal", phase=Phase.FAILED, words=f"exited with status {status}")

    def log_tail(self, number: int, lines: int) -> tuple[str, ...]:
        """The last lines that was printed on it."""
        return tail(self._log(number), lines)

    def end(self, number: int) -> None:
        """End what runs on the copy. Raises StepFailed `rehearsal-not-isolated` when it reached for anything else."""
        self._end()
        if self.copy(number).exists():
            settle_copy(self.copy(number))
        reached = violations(self._cell) if self._cell is not None else ()
        if reached:
            raise StepFailed(
                "rehearsal-not-isolated",
                "on the copy of the data the release reached for something else, which was refused",
                context=(*reached, *self.log_tail(number, _LOG_LINES)),
                hint="what it must read to boot can be named in `allow` under [rehearsal] in bulletproof.toml",
            )

    def would_write(self, number: int) -> tuple[str, ...]:  # noqa: ARG002  there is one at a time
        """The places in its own source that what ran last would have written, relative to it."""
        return would_write(self._cell) if self._cell is not None else ()

    def seen(self, number: int) -> Seen:
        """How what ran last used the copy, which nobody uses any more."""
        notes = heard(self._cell) if self._cell is not None else ()
        return Seen(journal=journal_mode(self.copy(number)), connections=connections_of(notes))

    def use_wal(self, number: int) -> None:
        """The copy, which nobody uses, is in WAL mode. Raises StepFailed `database-not-wal`."""
        use_wal(self.copy(number))

    def lay(self, number: int, file: Path) -> None:
        """Make the copy equal to a database file that nobody uses."""
        self.end(number)
        for suffix in ("-wal", "-shm", "-journal"):
            durable.remove(self.copy(number).with_name(self.copy(number).name + suffix))
        refresh_copy(file, self.copy(number))

    def compare(self, number: int, file: Path) -> tuple[RowChange, ...]:
        """What a restore of that file would do to the rows of today's data, which the snapshot holds."""
        return msgspec.json.decode(compare_rows(self._layout.snapshot(number), file), type=tuple[RowChange, ...])

    def look(self, number: int) -> Schema:
        """The copy's schema and what a look through its rows finds. Raises StepFailed `database-not-whole`."""
        try:
            return census(self.copy(number))
        except sqlite3.DatabaseError as error:
            raise StepFailed("database-not-whole", f"the copy of the database is damaged: {error}") from error

    def is_changed(self, number: int) -> bool:
        """Whether the copy holds anything else than when it was laid."""
        snapshot, copy = self._layout.snapshot(number), self.copy(number)
        if not (snapshot.exists() and copy.exists()):
            return snapshot.exists() or copy.exists()
        return not is_same_database(snapshot, copy)

    def copy(self, number: int) -> Path:
        """The copy's file."""
        return self._layout.rehearsal(number) / "data" / self._database.name

    def discard(self, number: int) -> None:
        """Nothing of it runs, and its scratch is gone; idempotent, and able to run in another process."""
        self._end()
        self._cell = None
        durable.remove_tree(self._layout.rehearsal(number))
        durable.remove_tree(self._sockets(number))

    def _start(
        self,
        number: int,
        manifest: Manifest,
        argv: tuple[str, ...],
        folder: Path,
        environment: Mapping[str, str],
        reads: tuple[Path, ...] = (),
        *,
        data: Path | None = None,
    ) -> None:
        """Start it where the live paths lead to the copy, or to `data` instead."""
        data = data or self._layout.rehearsal(number) / "data"
        if self.copy(number).exists():
            give(self.copy(number), self._account)
        if not self._log(number).exists():
            durable.write_file(self._log(number), b"", mode=0o640)
            give(self._log(number), self._account)
        self._cell = self._plan(number, manifest.release, manifest.config, reads, data)
        self._running = start_in_cell(
            self._cell,
            tuple(self._inside(number, word, data) for word in argv),
            folder=folder,
            environment={name: self._inside(number, value, data) for name, value in environment.items()},
            log=self._log(number),
        )

    def _end(self) -> None:
        """Without a word before: nobody's request is in it, and a database must bear that anyway (0.4-0.7 s saved)."""
        if self._running is not None:
            end_at_once(self._running)
            self._running = None

    def _inside(self, number: int, words: str, folder: Path) -> str:
        """Words that name live paths, as they must be said in the cell: where no path is remapped, the copy's own."""
        if is_remapped():
            return words
        data = words.replace(str(self._layout.data), str(folder))
        return data.replace(str(self._layout.instance(number)), str(self._sockets(number)))

    def _plan(self, number: int, release: str, config: AppConfig, reads: tuple[Path, ...], data: Path) -> Cell:
        layout = self._layout
        interpreter = (layout.venv(release) / "bin" / "python").resolve()
        allowed = tuple(Path(path) for path in config.rehearsal.allow)
        return Cell(
            mount_point=layout.rehearsal(number) / "root",
            read_only=(layout.release(release), interpreter.parents[1], *reads, *allowed),
            writable={data: layout.data, self._sockets(number): layout.instance(number)},
            overlaid=self._filled_by_users(number, config),
            noticed=(layout.source(release), layout.rehearsal(number) / "noticed"),
            database=(layout.data if is_remapped() else data) / self._database.name,
            memory_bytes=config.rehearsal.memory_mib * _MIB,
            account=self._account,
        )

    def _filled_by_users(self, number: int, config: AppConfig) -> dict[Path, Path]:
        """The persistent folders as they are, or as a restore would make them; in a plan new ones are not there yet."""
        layout = self._layout
        laid = layout.replaced(number) / "new"
        places = {name: (laid / name, layout.data / name, layout.persistent / name) for name in config.app.persistent}
        found = {name: next((one for one in some if one.is_dir()), None) for name, some in places.items()}
        return {outside: layout.data / name for name, outside in found.items() if outside is not None}

    def _sockets(self, number: int) -> Path:
        return self._layout.sockets / f"r{number}"

    def _log(self, number: int) -> Path:
        return self._layout.rehearsal_log(number)
