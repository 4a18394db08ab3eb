"""The journal mode that an app's configuration wants, and what a rehearsal saw of its durability."""

from __future__ import annotations

from msgspec.structs import replace

from bulletproof.domain.config import Journal
from bulletproof.domain.durability import Durability, durability
from bulletproof.operations.attempt import Attempt

_LATER = 'journal = "wal" leaves the live database as it is; the next deployment that migrates it puts it into WAL mode'


def use_wal_at_first(attempt: Attempt) -> str:
    """Put a database that never served into WAL mode if that is wanted; says so, or nothing. Idempotent.

    Its undo is that of the database itself. Raises StepFailed `database-not-wal`.
    """
    if not (_wants_wal(attempt) and attempt.database_setting and attempt.host.database.use_wal()):
        return ""
    return "in WAL mode"


def use_wal_on_copy(attempt: Attempt) -> None:
    """Put the copy that is to be swapped in into WAL mode if that is wanted. Raises StepFailed `database-not-wal`."""
    if _wants_wal(attempt):
        attempt.host.rehearsal.use_wal(attempt.number)


def durability_seen(attempt: Attempt) -> Durability | None:
    """What a power cut may cost, by what the release did on the copy; nothing runs on that."""
    seen = attempt.host.rehearsal.seen(attempt.number)
    found = durability(seen, workers=attempt.manifest.config.app.workers)
    if found is None or found.mode == "WAL" or not _wants_wal(attempt) or attempt.report.is_migrating:
        return found
    told = durability(seen, workers=1)  # the key is set, so nobody needs to be told to set it
    return replace(told or found, advice=(*found.advice, _LATER))


def _wants_wal(attempt: Attempt) -> bool:
    return attempt.manifest.config.database.journal is Journal.WAL
