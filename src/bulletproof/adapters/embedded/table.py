"""What a supervisor was asked to run and which processes that are, on disk, for the supervisor after it."""

from __future__ import annotations

import errno
from pathlib import Path

import msgspec

from bulletproof.adapters.embedded import wire
from bulletproof.adapters.embedded.kernel import Identity
from bulletproof.domain.layout import Layout
from bulletproof.domain.process import Phase, ProcessSpec
from bulletproof.effects import durable, room
from bulletproof.errors import StepFailed

_SPARE_BYTES = 256 << 10
"""For the table, the folder of an instance's socket, and the beginning of its log."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One process; what is secret of it is in its settings file and not here."""

    process: ProcessSpec
    token: str
    """Marks all that belongs to it."""
    main: Identity | None
    """The last main process; it may have ended since."""
    phase: Phase
    restarts: int
    words: str


class Table(msgspec.Struct, frozen=True, kw_only=True):
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
    """Replace it, whole or not at all. Raises OSError.

    Once, a full disk is no hindrance: an undo in the middle of a hold must be able to start what served before.
    """
    content = wire.encode(table)
    try:
        durable.write_file(file, content, mode=0o600)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT} or not room.spend_spare(_spare(file)):
            raise
        durable.write_file(file, content, mode=0o600)
        return
    room.keep_spare(_spare(file), _SPARE_BYTES)


def remove(file: Path) -> None:
    """Make it so that there is none, and nothing that was kept for it."""
    durable.remove(file)
    room.spend_spare(_spare(file))


def _spare(file: Path) -> Path:
    """Space that is kept for the day when the disk is full."""
    return file.with_name("spare")
