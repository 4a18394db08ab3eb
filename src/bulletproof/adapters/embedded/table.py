"""What a supervisor was asked to run and which processes that are, on disk, for the supervisor after it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from bulletproof.adapters.embedded import wire
from bulletproof.adapters.embedded.kernel import Identity
from bulletproof.domain.layout import Layout
from bulletproof.domain.process import Phase, ProcessSpec
from bulletproof.effects import durable
from bulletproof.errors import StepFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One process; what is secret of it is in its settings file and not here."""

    process: ProcessSpec
    token: str
    """Marks all that belongs to it."""
    main: Identity | None
    """The last main process; it may have ended since."""
    phase: Phase
    restarts: int
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All of them."""

    boot: str
    """The run of the machine that the processes belong to."""
    entries: tuple[Entry, ...]


def path(layout: Layout) -> Path:
    """Where the table lies; it is there exactly while there is something to supervise or somebody who does."""
    return layout.sockets / "children.json"


def read(file: Path) -> Table | None:
    """What the last supervisor left, None when it ended in order. Raises StepFailed when it cannot be understood."""
    try:
        return wire.decode(file.read_bytes(), Table)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise StepFailed(
            "supervisor-table-not-read",
            f"{file} does not say which processes run: {error}",
            hint=f"end the app's processes by hand, then: rm {file}",
        ) from error


def write(file: Path, table: Table) -> None:
    """Replace it, whole or not at all. Raises OSError, the disk being full for one."""
    durable.write_file(file, wire.encode(table), mode=0o600)
