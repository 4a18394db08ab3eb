"""Off site: backups are sent away from this machine, and restored from there to see that they could be."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Protocol

from bulletproof.domain.backup import Backup
from bulletproof.domain.offsite import Connection, Sent, choose, complete_folders, files_of, folder_of, name_of, plain
from bulletproof.effects.age import decrypt, encrypt
from bulletproof.effects.depot import Depot
from bulletproof.engine.journal import utc_now
from bulletproof.errors import StepFailed, UsageError
from bulletproof.ports import Backups

_PROBE = b"This file shows that backups can be written here and read again; it is removed at once.\n"


class Store(Protocol):
    """The files of backups as they lie on this machine."""

    def receive(self, name: str, folder: Path) -> Backup:
        """Make what lies in a folder the backup of that name. Raises Refused, and UsageError when there is another."""

    def note_sent(self, backup: Backup, sent: Sent) -> None:
        """Write down where it lies off site."""

    def sent(self, backup: Backup) -> Sent | None:
        """Where it lies off site; None when it does not."""


def try_connection(depot: Depot, connection: Connection, app: str, scratch: Path) -> None:
    """Write a file there, read it again and remove it. Raises StepFailed in words."""
    probe, back = scratch / "probe", scratch / "back"
    probe.write_bytes(_PROBE)
    name = f"{app}/probe-{scratch.name}"
    try:
        _put(depot, connection, probe, name, scratch)
        # What only another machine has the key to can be read only there.
        if connection.identity or not connection.is_encrypted:
            _get(depot, connection, name, back, scratch)
    except BaseException:
        with contextlib.suppress(StepFailed):  # why it cannot be used is told, and not that it cannot be tidied
            depot.remove(_encrypted(connection, name))
        raise
    depot.remove(_encrypted(connection, name))
    if back.exists() and back.read_bytes() != _PROBE:
        raise StepFailed("offsite-failed", f"{depot.called} gave back something else than was put there")


def send(backups: Store, depot: Depot, connection: Connection, backup: Backup, scratch: Path) -> Sent:
    """Put a backup off site, its manifest last. Raises StepFailed `offsite-failed` in words."""
    folder = folder_of(backup.manifest.app, backup)
    for file in files_of(backup):
        _put(depot, connection, backup.place / file, f"{folder}/{file}", scratch)
    sent = Sent(
        called=depot.called,
        url=connection.url,
        folder=folder,
        at=utc_now(),
        is_encrypted=connection.is_encrypted,
    )
    backups.note_sent(backup, sent)
    return sent


def fetch(backups: Store, depot: Depot, connection: Connection, app: str, wish: str, scratch: Path) -> Backup:
    """Bring a backup from off site to this machine, whole or not at all. Raises UsageError, StepFailed, Refused."""
    folder = choose(folders_at(depot, connection, app), wish)
    name = name_of(folder)
    assert name is not None  # noqa: S101  only such folders are chosen
    place = scratch / name
    download(depot, connection, folder, place, scratch)
    return backups.receive(name, place)


def folders_at(depot: Depot, connection: Connection, app: str) -> tuple[str, ...]:
    """The folders of whole backups off site, oldest first; where they are encrypted, nothing else counts."""
    names = depot.names(app)
    sealed = tuple(name for name in names if name.endswith(".age"))
    return complete_folders(app, sealed if connection.is_encrypted else names)


def download(depot: Depot, connection: Connection, folder: str, place: Path, scratch: Path) -> None:
    """Get all files of a folder off site, decrypted. Raises StepFailed, and UsageError without the key."""
    place.mkdir(mode=0o700)
    for name in depot.names(folder):
        if connection.is_encrypted and not name.endswith(".age"):
            continue
        file = plain(name.rpartition("/")[2])
        if name.endswith(".age") and not connection.identity:
            raise UsageError(
                "identity-missing",
                "what lies off site is encrypted, and the key to it is not on this machine",
                hint="bulletproof backup connect URL --key-file FILE",
            )
        _get(depot, connection, f"{folder}/{file}", place / file, scratch, is_encrypted=name.endswith(".age"))


def unsent(store: Store, backups: Backups, url: str) -> tuple[Backup, ...]:
    """The whole backups that do not lie at that place yet, oldest first."""
    whole = (backup for backup in backups.all() if isinstance(backup, Backup))
    return tuple(backup for backup in whole if (sent := store.sent(backup)) is None or sent.url != url)


def _put(depot: Depot, connection: Connection, file: Path, name: str, scratch: Path) -> None:
    if not connection.is_encrypted:
        depot.put(file, name)
        return
    sealed = scratch / "sealed"
    encrypt(file, sealed, [connection.recipient])
    try:
        depot.put(sealed, _encrypted(connection, name))
    finally:
        sealed.unlink(missing_ok=True)


def _get(
    depot: Depot, connection: Connection, name: str, file: Path, scratch: Path, *, is_encrypted: bool | None = None
) -> None:
    if is_encrypted is None:
        is_encrypted = connection.is_encrypted
    if not is_encrypted:
        depot.get(name, file)
        return
    sealed = scratch / "sealed"
    depot.get(f"{name}.age", sealed)
    try:
        decrypt(sealed, file, connection.identity)
    finally:
        sealed.unlink(missing_ok=True)


def _encrypted(connection: Connection, name: str) -> str:
    return f"{name}.age" if connection.is_encrypted else name
