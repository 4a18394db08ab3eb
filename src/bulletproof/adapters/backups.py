"""Backups as folders: built under another name, sealed, and there or not there in one instant."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote

import msgspec
from msgspec.structs import replace

from bulletproof import __version__
from bulletproof.domain.account import Account
from bulletproof.domain.backup import (
    FORMAT,
    MANIFEST,
    PROOF,
    SEAL,
    Backup,
    BackupManifest,
    Damaged,
    Part,
    Proof,
    altered,
    differences_of_rows,
    next_name,
    number_of,
    read_sealed,
    sealed,
)
from bulletproof.domain.layout import Layout
from bulletproof.domain.offsite import SENT, Sent
from bulletproof.effects import durable
from bulletproof.effects.ownership import share
from bulletproof.effects.packing import (
    Archived,
    Mismatch,
    check_file,
    describe_file,
    pack_file,
    pack_folders,
    require_no_mount,
    unpack_file,
    unpack_folders,
)
from bulletproof.effects.sqlite_copy import copy_database, settle_copy
from bulletproof.effects.sqlite_file import Reading, read_everything
from bulletproof.errors import Refused, UsageError
from bulletproof.ports import Taking

T = TypeVar("T")

_DATABASE, _ARCHIVE = "database.db", "files.tar"
_NEW, _OLD = "new", "old"
_MANIFEST_BYTES = 16 << 20
"""More than any manifest has; a larger file is none."""


class FolderBackups:
    """The port Backups; `now` tells the time in UTC."""

    def __init__(self, layout: Layout, file: Path, now: Callable[[], str], user: Account | None = None) -> None:
        self._layout = layout
        self._user = user
        self._file = file
        self._now = now

    def take(self, wish: Taking) -> Backup:
        """Make a backup of the live data, or of what the wish names. Raises StepFailed, Refused and OSError."""
        durable.make_folder(self._layout.backups, mode=0o700)
        name = next_name(path.name for path in self._layout.backups.iterdir())
        with durable.new_folder(self._layout.backups / name, mode=0o700) as building:
            taken_at = wish.taken_at or self._now()
            database, reading, damage = self._take_database(wish, building)
            # The files after the database, so that a file is there for every row that tells of one.
            archived = self._take_folders(wish, building)
            content, seal = sealed(
                BackupManifest(
                    format=FORMAT,
                    app=self._layout.app,
                    name=name,
                    reason=wish.reason,
                    deployment=wish.deployment,
                    begun_at=wish.begun_at,
                    release=wish.release,
                    revision=wish.revision,
                    settings=wish.settings,
                    taken_at=taken_at,
                    taken_by=wish.taken_by,
                    database=database,
                    tables=reading.counts if reading else {},
                    migrations=reading.migrations if reading else (),
                    damage=damage,
                    archive=archived.part if archived else None,
                    folders=archived.folders if archived else (),
                    files=archived.files if archived else 0,
                    left_out=archived.left_out if archived else (),
                    sqlite=sqlite3.sqlite_version,
                    bulletproof=__version__,
                )
            )
            durable.write_file(building / MANIFEST, content, mode=0o600)
            durable.write_file(building / SEAL, seal, mode=0o600)
        return self.get(name)

    def all(self) -> tuple[Backup | Damaged, ...]:
        """What lies there, oldest first."""
        if not self._layout.backups.is_dir():
            return ()
        names = (path.name for path in self._layout.backups.iterdir() if number_of(path.name) is not None)
        return tuple(map(self._read, sorted(names, key=lambda name: number_of(name) or 0)))

    def get(self, name: str) -> Backup:
        """The backup of that name. Raises UsageError when there is none, Refused when it is not what was written."""
        place = self._layout.backups / name
        if number_of(name) is None or not place.is_dir():
            raise UsageError("backup-unknown", f"there is no backup {name}", hint="bulletproof backup list")
        return self._open(place)

    def _read(self, name: str) -> Backup | Damaged:
        place = self._layout.backups / name
        try:
            return self._open(place)
        except (Refused, OSError) as error:
            words = error.message if isinstance(error, Refused) else str(error)
            return Damaged(name=name, place=place, words=words)

    def _open(self, place: Path) -> Backup:
        try:
            content, seal = _small(place / MANIFEST), _small(place / SEAL)
        except FileNotFoundError as error:
            raise altered(place.name, f"its {Path(error.filename or MANIFEST).name} is not there") from error
        manifest, digest = read_sealed(content, seal, place.name)
        self._require_own(place.name, manifest)
        return Backup(manifest=manifest, place=place, digest=digest, proof=_proof(place, digest))

    def _require_own(self, name: str, manifest: BackupManifest) -> None:
        if manifest.app != self._layout.app:
            raise Refused("backup-foreign", f"{name} is a backup of {manifest.app}", hint="bulletproof backup list")
        if manifest.name != name:
            raise altered(name, f"it says that it is {manifest.name}")

    def _trusted_part(self, name: str, place: Path, part: Part) -> None:
        try:
            check_file(place, part)
        except Mismatch as error:
            raise altered(name, str(error)) from error

    def make_place(self, file: Path) -> None:
        """The folder that the file is to be laid in is there, and nothing lies where the file will."""
        durable.make_folder(file.parent, mode=0o700)
        durable.remove(file)

    def check(self, backup: Backup) -> None:
        """Read every byte of it. Raises Refused when one is not what was written."""
        for part in backup.manifest.parts:
            self._trusted_part(backup.name, backup.place, part)

    def lay_database(self, backup: Backup, target: Path) -> str:
        """Lay its database at `target`, which is not there yet, and read it through; tells what it holds.

        Raises Refused when it is not what was written, and then nothing is left there.
        """
        part = backup.manifest.database
        if part is None:
            raise Refused("backup-empty", f"{backup.name} has no database in it", hint="bulletproof backup list")
        try:
            self._trusted(backup, lambda: unpack_file(backup.place, part, target))
            reading = read_everything(target)
            _require(backup, differences_of_rows(backup.manifest.tables, reading.counts))
        except BaseException:
            durable.remove(target)
            raise
        tables, rows = len(reading.tables), sum(reading.counts.values())
        return f"{tables} table{'s' * (tables != 1)}, {rows:,} row{'s' * (rows != 1)}"

    def lay_folders(self, backup: Backup, target: Path, links: tuple[str, ...] = ()) -> int:
        """Lay its persistent folders in the new folder `target`, durable; says how many files. Raises Refused.

        Those of `links` that lie in them lead to the live database, as the app finds it there.
        """
        part, names = backup.manifest.archive, backup.manifest.folders
        if part is None:
            return 0
        durable.remove_tree(target)  # what a trial that was killed has left
        durable.make_folder(target, mode=0o700)
        plain = target / ".plain"
        try:
            count = self._trusted(backup, lambda: unpack_folders(backup.place, part, plain, target, names))
            durable.remove(plain)
            wanted = backup.manifest.files
            _require(backup, "" if count == wanted else f"it has {count} files, not {wanted}")
            self._link_database(target, names, links)
            for name in names:
                share(target / name, self._user)
            durable.sync_tree(target)
        except BaseException:
            durable.remove_tree(target)
            raise
        return count

    def _link_database(self, target: Path, names: tuple[str, ...], links: tuple[str, ...]) -> None:
        for link in links:
            place = target / link
            is_free = place.is_symlink() or not place.exists()
            if any(link.startswith(f"{name}/") for name in names) and is_free and place.parent.is_dir():
                durable.replace_symlink(place, self._file)

    def note_proof(self, backup: Backup, proof: Proof) -> None:
        """Write down what a trial found."""
        durable.write_file(backup.place / PROOF, msgspec.json.encode(proof) + b"\n", mode=0o600)

    def open_at(self, place: Path) -> Backup:
        """A backup of this app that lies in a folder elsewhere, named as it is. Raises Refused."""
        return self._open(place)

    def receive(self, name: str, folder: Path) -> Backup:
        """Make what lies in a folder the backup of that name, if it is one. Raises Refused, UsageError and OSError."""
        if (self._layout.backups / name).exists():
            words = f"there is a backup {name} on this machine already"
            raise UsageError("backup-exists", words, hint=f"bulletproof backup verify {name}")
        durable.make_folder(self._layout.backups, mode=0o700)
        with durable.new_folder(self._layout.backups / name, mode=0o700) as building:
            manifest, _ = read_sealed(_small(folder / MANIFEST), _small(folder / SEAL), name)
            self._require_own(name, manifest)
            for file in (MANIFEST, SEAL, *(part.name for part in manifest.parts)):
                durable.copy_file(folder / file, building / file, mode=0o600)
            for part in manifest.parts:
                self._trusted_part(name, building, part)
        return self.get(name)

    def note_sent(self, backup: Backup, sent: Sent) -> None:
        """Write down where it lies off site."""
        durable.write_file(backup.place / SENT, msgspec.json.encode(sent) + b"\n", mode=0o600)

    def note_verified(self, name: str, folder: str, at: str) -> None:
        """Write down that what lies off site in that folder was whole, if the backup is still here."""
        found = next((one for one in self.all() if isinstance(one, Backup) and one.name == name), None)
        sent = self.sent(found) if found else None
        if found is not None and sent is not None and sent.folder == folder:
            self.note_sent(found, replace(sent, verified_at=at))

    def sent(self, backup: Backup) -> Sent | None:
        """Where it lies off site; None when it does not."""
        try:
            return msgspec.json.decode(_small(backup.place / SENT), type=Sent)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    def discard(self, name: str) -> None:
        """Make it so that the backup is not; idempotent."""
        if number_of(name) is not None:
            durable.remove_tree(self._layout.backups / name)

    def free_bytes(self) -> int:
        """What the disk has left for backups."""
        places = (self._layout.backups, *self._layout.backups.parents)
        return shutil.disk_usage(next(place for place in places if place.exists())).free

    # --- the folders of users: today's out, the backup's in, and back

    def refuse_unmovable(self, names: tuple[str, ...]) -> None:
        """Raise StepFailed for a persistent folder that cannot be exchanged."""
        for name in names:
            require_no_mount(self._layout.data / name)

    def exchange(self, number: int, names: tuple[str, ...]) -> None:
        """Put the folders that were laid for deployment `number` where today's are, which stay beside; idempotent."""
        place = self._layout.replaced(number)
        durable.make_folder(place / _OLD, mode=0o700)
        for name in names:
            today, new, old = self._layout.data / name, place / _NEW / name, place / _OLD / quote(name, safe="")
            if not _is_there(today) and not _is_there(old):
                durable.make_folder(today)
            if not _is_there(old):
                durable.rename(today, old)
            if _is_there(new):
                durable.rename(new, today)

    def exchange_back(self, number: int) -> None:
        """Today's folders are where they were; idempotent, and able to run in another process."""
        place = self._layout.replaced(number)
        for name, old in self.replaced(number).items():
            today, new = self._layout.data / name, place / _NEW / name
            if _is_there(today):
                durable.make_folder(new.parent, mode=0o700)
                durable.rename(today, new)
            durable.rename(old, today)

    def replaced(self, number: int) -> Mapping[str, Path]:
        """The folders that deployment `number` took out of the data, by their names."""
        place = self._layout.replaced(number) / _OLD
        return {unquote(path.name): path for path in sorted(place.iterdir())} if place.is_dir() else {}

    def discard_replaced(self, number: int) -> None:
        """Make it so that nothing of them is left; idempotent."""
        durable.remove_tree(self._layout.replaced(number))

    # --- making one

    def _take_database(self, wish: Taking, building: Path) -> tuple[Part | None, Reading | None, str]:
        """Lay the copy and look through it; what is wrong with it is told when the wish permits that."""
        copy = building / _DATABASE
        if wish.database is not None:
            _link(wish.database, copy)
        elif wish.has_database and self._file.exists() and self._file.stat().st_size:
            copy_database(self._file, copy)
            settle_copy(copy)
        if not copy.exists() or not copy.stat().st_size:
            durable.remove(copy)
            return None, None, ""
        copy.chmod(0o600)
        # Looked through by a process of its own, and digested here: at once, as a machine with two processors can.
        with ThreadPoolExecutor(1) as beside:
            looking = beside.submit(_look, copy, may_be_damaged=wish.may_be_damaged)
            part = _pack_database(copy, compress=wish.compress)
            reading, damage = looking.result()
        if part.is_packed:
            durable.remove(copy)
        return part, reading, damage

    def _take_folders(self, wish: Taking, building: Path) -> Archived | None:
        there = {name: path for name, path in wish.folders.items() if path.is_dir()}
        return pack_folders(there, building, _ARCHIVE, compress=wish.compress, reader=self._user) if there else None

    def _trusted(self, backup: Backup, read: Callable[[], T]) -> T:
        """What reading gives. Raises Refused where it meets anything else than what was written."""
        try:
            return read()
        except Mismatch as error:
            raise altered(backup.name, str(error)) from error


def _look(copy: Path, *, may_be_damaged: bool) -> tuple[Reading | None, str]:
    try:
        return read_everything(copy), ""
    except Refused as error:
        if not may_be_damaged:
            raise
        return None, error.message


def _pack_database(copy: Path, *, compress: bool) -> Part:
    return pack_file(copy, copy.parent, _DATABASE, compress=True) if compress else describe_file(copy)


def _require(backup: Backup, trouble: str) -> None:
    if trouble:
        raise altered(backup.name, trouble)


def _link(source: Path, copy: Path) -> None:
    """The same file under another name, where the disk can do that; nobody writes to it any more."""
    try:
        copy.hardlink_to(source)
    except OSError:
        durable.copy_file(source, copy, mode=0o600)


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _small(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MANIFEST_BYTES)


def _proof(place: Path, digest: str) -> Proof | None:
    """What the last trial found; what cannot be read, or is of another manifest, proves nothing."""
    try:
        proof = msgspec.json.decode(_small(place / PROOF), type=Proof)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    return proof if proof.sha256 == digest else None
