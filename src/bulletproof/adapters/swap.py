"""A migrated copy in the live database's place, and what was there back again: SQLite files, always the same inode."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from pathlib import Path

from bulletproof.domain.layout import Layout
from bulletproof.effects import durable, room
from bulletproof.effects.openers import openers_of
from bulletproof.effects.ownership import take_over
from bulletproof.effects.sqlite_copy import is_same_database, refresh_copy
from bulletproof.effects.sqlite_seized import Seized, room_to_put
from bulletproof.errors import StepFailed

_SUFFIXES = ("", "-wal", "-shm", "-journal")
_MIB = 1 << 20
_PUT_BACK_SECONDS = 10.0
"""How long an undo waits for somebody who opened the database meanwhile."""


class SqliteSwap:
    """The port Swap over one file, or over the file that a symlink leads to."""

    def __init__(self, layout: Layout, file: Path) -> None:
        self._layout = layout
        self._file = file
        self._seized: Seized | None = None

    def openers(self, besides: frozenset[int]) -> tuple[str, ...]:
        """Who has the database open: a shell, a cron job, a notebook; not we, nor `besides` and what they started."""
        real = self._file.resolve()
        files = [real.with_name(real.name + suffix) for suffix in _SUFFIXES]
        return tuple(str(opener) for opener in openers_of(files, besides=besides))

    def seize(self, patience_seconds: float) -> None:
        """Have the database alone; an empty one is made where there is none.

        Raises StepFailed `database-in-use`, naming who has it open, and `database-not-reachable`.
        """
        try:
            self._seized = Seized.seize(self._file, patience_seconds=patience_seconds)
        except StepFailed as error:
            error.context = self.openers(frozenset())
            raise

    def snapshot(self, number: int, timeout_seconds: float) -> int:
        """Copy the seized database as deployment `number`'s snapshot; returns its bytes. Raises StepFailed.

        What an earlier copy under that name has already is not written again.
        """
        durable.make_folder(self._layout.snapshots, mode=0o700)
        size = refresh_copy(self._file.resolve(), self._layout.snapshot(number), timeout_seconds=timeout_seconds)
        self._held().require_held()  # or somebody may have written while it was copied
        return size

    def put(self, copy: Path, check: Callable[[], None]) -> None:
        """Give the seized database the content of `copy`, whole or not at all; `check` may raise to end it.

        A large one is let go of by this already, and so is any when it fails; `release` is due in any case. Room for
        the way back is put by first, so that a disk which is full until then does not hinder it.
        """
        seized = self._held()
        seized.require_held()
        self._put_room_by(copy)
        seized.put(copy, check)

    def release(self) -> None:
        """Let others have it; idempotent."""
        if self._seized is not None:
            self._seized.release()
            self._seized = None

    def put_back(self, number: int, used: Path | None = None) -> str:
        """Give the database the content of the snapshot again; what it holds otherwise is set aside, never deleted.

        Returns where it was set aside; empty when nothing had changed. It takes the place on the disk of `used`, the
        copy that was put and is of no more use. Idempotent. Raises StepFailed.
        """
        snapshot = self._layout.snapshot(number)
        if not snapshot.exists():
            raise StepFailed("snapshot-missing", f"the snapshot {snapshot} is not there", hint="bulletproof status")
        self.release()
        room.free(*self._layout.rooms)
        self.seize(_PUT_BACK_SECONDS)
        try:
            if is_same_database(self._file.resolve(), snapshot):
                return ""
            place = self._set_aside(number, used)
            if snapshot.stat().st_size:
                self._held().put(snapshot, lambda: None)
            else:  # there was none; SQLite's own copy of nothing would be a database without tables
                self._held().require_held()
                durable.remove(self._file.resolve().with_name(f"{self._file.resolve().name}-journal"))
                refresh_copy(snapshot, self._file.resolve())
            return str(place)
        finally:
            self.release()

    def discard(self, number: int) -> None:
        """Make it so that deployment `number` has no snapshot."""
        for suffix in _SUFFIXES:
            snapshot = self._layout.snapshot(number)
            durable.remove(snapshot.with_name(snapshot.name + suffix))

    def set_aside(self, number: int) -> Path:
        """Move the snapshot to where nothing deletes it; says where. Idempotent."""
        place = self._layout.database_aside / f"{number}-replaced.db"
        durable.make_folder(place.parent, mode=0o700)
        if self._layout.snapshot(number).exists():
            durable.rename(self._layout.snapshot(number), place)
        return place

    def numbers(self) -> tuple[int, ...]:
        """The deployments that have a snapshot, oldest first."""
        found = self._layout.snapshots.glob("*.db") if self._layout.snapshots.is_dir() else ()
        return tuple(sorted(int(path.stem) for path in found if path.stem.isdecimal()))

    def _put_room_by(self, copy: Path) -> None:
        """For `put_back`: what SQLite writes to put the snapshot in its place. What is set aside takes the copy's."""
        real, (ours, beside) = self._file.resolve(), self._layout.rooms
        size = room_to_put(real, copy)
        durable.make_folder(self._layout.state, mode=0o700)
        try:
            is_on_one_disk = self._layout.state.stat().st_dev == real.parent.stat().st_dev
            room.put_more_by(ours if is_on_one_disk else beside, size)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            needed = f"the way back from replacing the database takes {size / _MIB:.1f} MiB"
            raise StepFailed("database-not-replaced", f"the disk is full: {needed}") from error

    def _held(self) -> Seized:
        """Raises StepFailed `database-not-held` when it was not seized."""
        if self._seized is None:
            raise StepFailed("database-not-held", "the database was not had alone when it was needed")
        return self._seized

    def _set_aside(self, number: int, used: Path | None) -> Path:
        """Copy what the database holds to where nothing deletes it, under a name that is free."""
        folder = self._layout.database_aside
        durable.make_folder(folder, mode=0o700)
        unfinished = folder / f".bp-aside-{number}.db"  # that of a call which was killed is as good a place
        if used is not None:
            take_over(used, unfinished)
        try:
            refresh_copy(self._file.resolve(), unfinished)
        except BaseException:
            durable.remove(unfinished)  # on a disk that is full it would be in the way of whoever tries again
            raise
        names = (f"{number}-migrated{'' if again == 1 else f'-{again}'}.db" for again in itertools.count(1))
        place = next(folder / name for name in names if not (folder / name).exists())
        durable.rename(unfinished, place)
        return place
