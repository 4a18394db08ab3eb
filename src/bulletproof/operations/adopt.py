"""Adopt: what an app's users made before its first deployment comes along; the originals stay where they are."""

from __future__ import annotations

from collections.abc import Iterator

from bulletproof.domain.backup import outermost
from bulletproof.domain.filled import lines_for_folders
from bulletproof.errors import StepFailed
from bulletproof.operations.attempt import Attempt
from bulletproof.operations.durability import use_wal_at_first
from bulletproof.ports import Origin

_MIB = 1 << 20
_COPIES = 4
"""Of the database: the adopted one, and the rehearsal's and a migration's of that."""


def adopt_data(attempt: Attempt) -> str:
    """Copy the database that the app opens where it was developed, if there is one, and what lies in its folders.

    Raises StepFailed `origin-unknown` when there are databases and nobody can tell which is the app's, and
    `database-not-found`, `database-not-copied`, `disk-low`.
    """
    order, host = attempt.ordered, attempt.host
    source, persistent = order.source, attempt.manifest.config.app.persistent
    if source is None:
        return ""
    if order.backup:
        return _adopt_backup(attempt, persistent)
    filled = host.adoption.fill(source.folder, persistent) if persistent else 0
    lines = [f"{filled} files of {', '.join(persistent)} copied into the data folder"] if filled else []
    origin = _origin(attempt)
    if origin.file is not None:
        _check_space(attempt, origin)
        attempt.found.adopted = host.adoption.take(attempt.number, origin.file)
        lines += filter(None, (use_wal_at_first(attempt),))
    lines += lines_for_folders(attempt.manifest.config, origin.folders)
    return "\n".join((*_words(origin), *lines)) or "none to take over"


def _adopt_backup(attempt: Attempt, persistent: tuple[str, ...]) -> str:
    """Begin with the data of a backup: what another machine had, or this one before it was made anew."""
    host, number = attempt.host, attempt.number
    backup = host.backups.get(attempt.ordered.backup)
    lines = [f"backup {backup.name} of {backup.manifest.taken_at[:19].replace('T', ' ')} UTC"]
    if backup.manifest.database:
        host.backups.make_place(host.layout.restored(number))
        lines.append(host.backups.lay_database(backup, host.layout.restored(number)))
        origin = host.adoption.describe(host.layout.restored(number))
        _check_space(attempt, origin)
        attempt.found.adopted = host.adoption.take(number, origin.file or host.layout.restored(number))
        lines += filter(None, (use_wal_at_first(attempt),))
    names = tuple(name for name in backup.manifest.folders if name in outermost(persistent))
    if names:
        _require_empty(attempt, names)
        links = attempt.manifest.config.database.links
        count = host.backups.lay_folders(backup, host.layout.replaced(number) / "new", links)
        host.backups.exchange(number, names)
        lines.append(f"{count:,} file{'s' * (count != 1)} of {', '.join(names)}")
    return ", ".join(lines)


def _require_empty(attempt: Attempt, names: tuple[str, ...]) -> None:
    """Raise StepFailed for a persistent folder with something in it, which the backup's would take the place of."""
    for name in names:
        folder = attempt.host.layout.data / name
        if folder.is_dir() and any(not path.is_symlink() for path in folder.rglob("*") if not path.is_dir()):
            raise StepFailed("folder-not-empty", f"{folder} has something in it already", hint=f"mv {folder} elsewhere")


def leave_data(attempt: Attempt) -> None:
    """The adopted database is not, neither whole nor in part: no request ever reached it, and the original is there."""
    attempt.host.rehearsal.discard(attempt.number)
    attempt.host.backups.exchange_back(attempt.number)
    attempt.host.backups.discard_replaced(attempt.number)
    attempt.host.adoption.discard(attempt.number)
    attempt.host.database.remove()


def _origin(attempt: Attempt) -> Origin:
    """The database to adopt: the one that a person named, none if they said so, or the one that the app opens."""
    order, adoption = attempt.ordered, attempt.host.adoption
    assert order.source is not None  # noqa: S101  whoever calls has looked
    if order.has_new_database or not _is_sqlite(attempt):
        return Origin()
    if order.database is not None:
        return adoption.describe(order.database)
    settings = attempt.host.settings.frozen(attempt.number)
    origin = adoption.find(attempt.number, attempt.manifest, order.source.folder, settings)
    if origin.file is None and not origin.opens and origin.others:
        why = f" ({origin.trouble})" if origin.trouble else ""
        raise StepFailed(
            "origin-unknown",
            f"there are databases in {order.source.folder}, and the app does not tell which it opens{why}",
            context=origin.others,
            hint="bulletproof deploy --database FILE, or --new-database to begin without data",
        )
    return origin


def _is_sqlite(attempt: Attempt) -> bool:
    return bool(attempt.database_setting)


def _check_space(attempt: Attempt, origin: Origin) -> None:
    free, needed = attempt.host.resources().free_disk, _COPIES * origin.size
    if free < needed:
        raise StepFailed(
            "disk-low",
            f"{free // _MIB} MiB of disk are free, and the copies of {origin.file} need {needed // _MIB + 1} MiB",
            hint="free some, then: bulletproof deploy",
        )


def _words(origin: Origin) -> Iterator[str]:
    if origin.file is not None:
        yield f"{origin.file} copied ({origin.words}); it stays as it is, and is not used any more"
    elif origin.opens and origin.others:
        yield f"the app opens {origin.opens}, which has no tables or is not there: a new database"
    for user in origin.users:
        yield f"still open there, and what it writes from now on is not here: {user}"
    yield from (f"not used: {other}" for other in origin.others)
