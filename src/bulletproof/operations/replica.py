"""The replica in a deployment, which has the database alone while it changes it; and a point in time from it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Protocol

import msgspec

from bulletproof.domain.backup import Backup, Reason
from bulletproof.domain.deployment import Live
from bulletproof.domain.process import is_replica
from bulletproof.domain.replica import as_written
from bulletproof.engine.journal import utc_now
from bulletproof.errors import BulletproofError
from bulletproof.operations.attempt import Attempt
from bulletproof.operations.workers import is_served_by, pause_workers, resume_workers, stop_all
from bulletproof.ports import Backups, Host, Taking


class Points(Protocol):
    """What a replica keeps."""

    def lay(self, moment: datetime, file: Path) -> datetime:
        """Lay the database as it was at the newest point that is not after `moment`, and tell that point."""


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Whose data a point in time were."""

    live: Live | None = None
    """What was live then; None on a machine on which nothing was."""
    revision: str = ""
    compress: bool = False


def pause_background(attempt: Attempt) -> str:
    """The old release's workers and timers stop, then the replica, which has sent by then what they wrote."""
    words = pause_workers(attempt)
    stop_all(attempt.host, _running(attempt.host))
    return words


def resume_background(attempt: Attempt) -> None:
    """Exactly the old release's workers and timers run, and the replica, if its site serves."""
    resume_workers(attempt)
    host, previous = attempt.host, attempt.deployment.previous
    if previous is None or not is_served_by(host, previous.number):
        return
    if trouble := _replicate(host):
        host.chronicle(f"{utc_now()} deployment {attempt.number}: {trouble}".replace("\n", " "))


def tend_replica(attempt: Attempt) -> str:
    """What sends the database's changes away runs as it is wished now, or not at all.

    Nothing here undoes a deployment that is done: what fails is told.
    """
    return _replicate(attempt.host)


def _replicate(host: Host) -> str:
    """Have the one wished for run, and no other; why that could not be."""
    try:
        wanted = host.replica.process()
        stop_all(host, [name for name in _running(host) if wanted is None or name != wanted.name])
        if wanted is not None:
            host.supervisor.start(wanted)
    except (BulletproofError, OSError) as error:
        words, hint = (error.message, error.hint) if isinstance(error, BulletproofError) else (str(error), "")
        return f"the database is not replicated: {words}{f' ({hint})' if hint else ''}"
    return ""


def _running(host: Host) -> list[str]:
    return [name for name in host.supervisor.names() if is_replica(name)]


def fetch_point(
    backups: Backups, points: Points, moment: datetime, owner: Owner, file: Path
) -> tuple[Backup, datetime]:
    """Make a backup of the database as it was at the newest point that is not after `moment`, and tell that point.

    `file` is a place in a private folder. Raises Refused and StepFailed in words.
    """
    point = points.lay(moment, file)
    backup = backups.take(
        Taking(
            reason=Reason.POINT,
            release=owner.live.release if owner.live else "",
            revision=owner.revision,
            settings=owner.live.number if owner.live else 0,
            taken_at=as_written(point),
            taken_by=f"the replica, for {as_written(moment)}",
            folders={},
            database=file,
            compress=owner.compress,
        )
    )
    return backup, point
