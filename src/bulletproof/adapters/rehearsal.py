"""A rehearsal: the release boots on a copy of the live data, in a cell from which nothing live can be reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from bulletproof.domain.health import Answer
from bulletproof.domain.layout import Layout
from bulletproof.domain.process import Phase, ProcessSpec, ProcessState
from bulletproof.domain.schema import Change, Schema, differences
from bulletproof.effects import durable
from bulletproof.effects.isolation import Cell, start_in_cell, why_not
from bulletproof.effects.logs import tail
from bulletproof.effects.probe import ask_socket
from bulletproof.effects.process import Running
from bulletproof.effects.sqlite_census import census
from bulletproof.effects.sqlite_copy import copy_database

_STOP_SECONDS = 3.0
_MEMORY_BYTES = 2 << 30
"""For each process of the rehearsed app: far more than a web worker needs, far less than would harm the live one."""


class CellRehearsal:
    """Rehearsals of one app; each deployment's scratch is named after its number, so any process can remove it."""

    def __init__(self, layout: Layout, database: Path, public_host: Callable[[], str]) -> None:
        self._layout = layout
        self._database = database
        self._public_host = public_host
        self._running: Running | None = None
        self._before: Schema | None = None

    def why_not(self) -> str:
        """Why the kernel lets us make no cell; empty when it does."""
        return why_not()

    def prepare(self, number: int) -> int:
        """Lay a consistent copy of the live database; returns its bytes, 0 when there is none.

        Raises StepFailed when the copy fails.
        """
        scratch = self._layout.rehearsal(number)
        for folder in (scratch / "data", scratch / "root", self._sockets(number)):
            durable.make_folder(folder, mode=0o700)
        if not self._database.exists():
            return 0
        size = copy_database(self._database, self._copy(number))
        self._before = census(self._copy(number))
        return size

    def boot(self, number: int, process: ProcessSpec, settings: Mapping[str, str]) -> None:
        """Start the release's web process in the cell, where the live paths hold the copy. Raises StepFailed."""
        layout = self._layout
        interpreter = Path(process.argv[0]).resolve()
        cell = Cell(
            mount_point=layout.rehearsal(number) / "root",
            read_only=(process.folder.parent, interpreter.parents[1]),
            writable={layout.rehearsal(number) / "data": layout.data, self._sockets(number): layout.instance(number)},
            memory_bytes=_MEMORY_BYTES,
        )
        self._running = start_in_cell(
            cell,
            process.argv,
            folder=process.folder,
            environment={**settings, **process.environment},
            log=self._log(number),
        )

    def ask(self, number: int, path: str, timeout_seconds: float) -> Answer:
        """GET a path of the rehearsed instance as the proxy would."""
        socket = self._sockets(number) / "web.sock"
        return ask_socket(socket, path, host=self._public_host(), timeout_seconds=timeout_seconds)

    def state(self, number: int) -> ProcessState:  # noqa: ARG002  there is one at a time
        """Whether the rehearsed instance runs, or how it ended."""
        status = self._running.status() if self._running else None
        if self._running is not None and status is None:
            return ProcessState(name="rehearsal", phase=Phase.RUNNING)
        return ProcessState(name="rehearsal", phase=Phase.FAILED, words=f"exited with status {status}")

    def log_tail(self, number: int, lines: int) -> tuple[str, ...]:
        """The last lines that it printed."""
        return tail(self._log(number), lines)

    def changes(self, number: int) -> tuple[Change, ...]:
        """End the instance, and tell what its boot changed in the copy."""
        self._end()
        return differences(self._before or Schema(tables={}), census(self._copy(number)))

    def discard(self, number: int) -> None:
        """Nothing of it runs, and its scratch is gone; idempotent, and able to run in another process."""
        self._end()
        durable.remove_tree(self._layout.rehearsal(number))
        durable.remove_tree(self._sockets(number))

    def _end(self) -> None:
        if self._running is not None:
            self._running.end(patience_seconds=_STOP_SECONDS)
            self._running = None

    def _copy(self, number: int) -> Path:
        return self._layout.rehearsal(number) / "data" / self._database.name

    def _sockets(self, number: int) -> Path:
        return self._layout.sockets / f"r{number}"

    def _log(self, number: int) -> Path:
        return self._layout.rehearsal_log(number)
