"""Backups: what one says of itself, the proof that it can be restored, and which are kept."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

import msgspec

from bulletproof.domain.config import Keep
from bulletproof.errors import Refused

_FRESH = timedelta(days=7)
FORMAT = 1
"""Of the manifest; a newer one is refused, not guessed at."""
_RELEASE = re.compile(r"\d{1,9}-[0-9A-Za-z]{1,64}")
MANIFEST, SEAL, PROOF = "manifest.json", "manifest.sha256", "verified.json"


class Reason(StrEnum):
    """Why a backup was made."""

    ASKED = "asked"
    SCHEDULE = "schedule"
    MIGRATION = "migration"
    """It is the database as it was when a deployment migrated it."""
    RESTORE = "restore"
    """It is what a restore replaced; nothing prunes it."""
    POINT = "point"
    """It is the database as it was at a point in time, from its replica."""


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a backup."""

    name: str
    size: int
    """Bytes of the file, packed or not."""
    sha256: str
    """Of the file as it lies in the backup."""
    unpacked: int
    """Bytes of what is in it; unpacking never makes more."""

    @property
    def is_packed(self) -> bool:
        """Whether it is compressed with zstd."""
        return self.name.endswith(".zst")


class BackupManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a backup is; sealed by its sha256, which lies beside it."""

    format: int
    app: str
    name: str
    """`b12`: counted on each host, never used twice."""
    reason: Reason
    deployment: int | None
    """The deployment that changed or replaced these data; None when none did."""
    begun_at: str = ""
    """When that deployment began, by its journal: two machines have deployments of the same number."""
    release: str
    """What was live."""
    revision: str
    settings: int
    """The deployment whose settings it ran with."""
    taken_at: str
    """When the data were so, UTC, ISO 8601; for people and to sort by days, never to tell which is newer."""
    taken_by: str
    database: Part | None
    """None when there was no database."""
    tables: dict[str, int]
    """The rows of each table."""
    migrations: tuple[str, ...]
    """What the database itself notes of its migrations."""
    damage: str = ""
    """What was wrong with the database when a restore replaced it."""
    archive: Part | None = None
    """The persistent folders, as a tar file."""
    folders: tuple[str, ...] = ()
    """The persistent folders in it."""
    files: int = 0
    """How many files are in them."""
    left_out: tuple[str, ...] = ()
    """What of the folders could not be read, or is no file, folder or symlink."""
    sqlite: str
    bulletproof: str

    @property
    def parts(self) -> tuple[Part, ...]:
        """All of its files."""
        return tuple(part for part in (self.database, self.archive) if part is not None)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(part.size for part in self.parts)

    @property
    def unpacked(self) -> int:
        """Bytes that a restore lays."""
        return sum(part.unpacked for part in self.parts)


class Proof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The last time that somebody tried whether a backup can be restored."""

    at: str
    seconds: float
    release: str
    """The release that was booted on it; empty when it did not come so far, or when there was none."""
    words: str
    """What was seen."""
    trouble: str = ""
    """Why it cannot be restored; empty when it can."""
    sha256: str
    """Of the manifest that was looked at."""


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """A backup on disk."""

    manifest: BackupManifest
    place: Path
    digest: str
    """sha256 of the manifest."""
    proof: Proof | None = None

    @property
    def name(self) -> str:
        """What a person types."""
        return self.manifest.name

    @property
    def is_proven(self) -> bool:
        """Whether it was restored for a trial, and worked."""
        return self.proof is not None and not self.proof.trouble


class Damaged(msgspec.Struct, frozen=True, kw_only=True):
    """What lies where a backup should."""

    name: str
    place: Path
    words: str


def number_of(name: str) -> int | None:
    """The number in a backup's name; None for what is no such name."""
    digits = name.removeprefix("b")
    return int(digits) if name.startswith("b") and digits.isdecimal() and digits.isascii() else None


def next_name(names: Iterable[str]) -> str:
    """A name that was never used: the newest backup is always kept, so there is always one to count from."""
    return f"b{1 + max((number_of(name) or 0 for name in names), default=0)}"


def outermost(names: Iterable[str]) -> tuple[str, ...]:
    """The folders that lie in no other one of them: with those all are taken, and none twice."""
    known = tuple(dict.fromkeys(names))
    return tuple(name for name in known if not any(name.startswith(f"{other}/") for other in known))


def sealed(manifest: BackupManifest) -> tuple[bytes, bytes]:
    """The manifest's file, and its seal's."""
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    return content, f"{hashlib.sha256(content).hexdigest()}  {MANIFEST}\n".encode()


def read_sealed(content: bytes, seal: bytes, called: str) -> tuple[BackupManifest, str]:
    """The manifest and its digest. Raises Refused in words for one that is not what was written."""
    digest = hashlib.sha256(content).hexdigest()
    if seal.decode(errors="replace").split()[:1] != [digest]:
        raise altered(called, "its manifest is not the one that was sealed")
    try:
        version = msgspec.json.decode(content, type=_Version).format
        if version > FORMAT:
            raise Refused(
                "backup-newer",
                f"{called} was made by a newer Bulletproof (format {version}, this one knows {FORMAT})",
                hint="pip install --upgrade bulletproof",
            )
        manifest = msgspec.json.decode(content, type=BackupManifest)
    except msgspec.MsgspecError as error:
        raise altered(called, f"its manifest cannot be understood: {error}") from error
    _require_sane(manifest, called)
    for part in manifest.parts:
        if part.name not in {"database.db", "database.db.zst", "files.tar", "files.tar.zst"} or part.unpacked < 0:
            raise altered(called, f"its manifest names a part {part.name!r}")
    return manifest, digest


def _require_sane(manifest: BackupManifest, called: str) -> None:
    """Raise Refused for what no backup of ours says, and what would lead somewhere else."""
    try:
        is_aware = datetime.fromisoformat(manifest.taken_at).tzinfo is not None
    except ValueError:
        is_aware = False
    if not is_aware:
        raise altered(called, f"it says that it was taken at {manifest.taken_at!r}")
    if manifest.release and not _RELEASE.fullmatch(manifest.release):
        raise altered(called, f"it says that it is of a release {manifest.release!r}")
    for folder in manifest.folders:
        if folder.startswith("/") or any(part in {"", ".", ".."} for part in folder.split("/")) or "\0" in folder:
            raise altered(called, f"it names a folder {folder!r}")


class _Version(msgspec.Struct):
    format: int


def altered(called: str, why: str) -> Refused:
    """The error for a backup that is not what was written."""
    return Refused("backup-altered", f"{called} is damaged or was altered: {why}", hint="bulletproof backup list")


def differences_of_rows(said: dict[str, int], found: dict[str, int]) -> str:
    """In words, where the rows of a backup's tables are not what its manifest says; empty when they are."""
    names = sorted(name for name in said.keys() | found.keys() if said.get(name) != found.get(name))
    return "; ".join(f"{name} has {_rows(found.get(name))}, not {_rows(said.get(name))}" for name in names)


def is_fresh(at: str, now: datetime) -> bool:
    """Whether something was looked at so lately that it need not be again."""
    return now - datetime.fromisoformat(at) < _FRESH


def stalest(backups: Sequence[Backup], now: datetime) -> Backup | None:
    """The backup whose proof is the oldest, or that has none; None when all were proven lately."""
    due = [one for one in backups if one.proof is None or not is_fresh(one.proof.at, now)]
    return min(due, key=lambda one: one.proof.at if one.proof else "", default=None)


def backups_to_remove(
    backups: Sequence[Backup], keep: Keep, releases: Iterable[str], needs_space: Callable[[int], bool]
) -> tuple[str, ...]:
    """Which backups go, the oldest first.

    `backups` are all of them, oldest first. Kept are the last ones, and the last of each day, week and month, as the
    configuration says; of these again the oldest go while the disk needs space, which `needs_space` tells when so many
    bytes are freed. Never removed is what somebody may still need: what a restore replaced, the newest, the newest that
    is proven, and of each of the `releases` on disk the newest and the newest that is proven. A point in time, which
    can be fetched again, takes nobody's place: as many of them are kept as of the others.
    """
    needed = _needed(backups, releases)
    points = [backup for backup in backups if backup.manifest.reason is Reason.POINT]
    wanted = needed | {one.name for some in (_counted(backups), points) for one in some[-keep.backups :]}
    for count, form in ((keep.daily, "%Y-%m-%d"), (keep.weekly, "%G-%V"), (keep.monthly, "%Y-%m")):
        wanted |= _last_of_each(backups, form, count)
    removed = [backup for backup in backups if backup.name not in wanted]
    freed = sum(backup.manifest.size for backup in removed)
    for backup in backups:
        if backup.name in wanted - needed and needs_space(freed):
            removed.append(backup)
            freed += backup.manifest.size
    return tuple(backup.name for backup in removed)


def _needed(backups: Sequence[Backup], releases: Iterable[str]) -> set[str]:
    made = [backup for backup in backups if backup.manifest.reason is not Reason.POINT]  # a point is of older data
    ordinary = _counted(backups)
    proven = [backup for backup in ordinary if backup.is_proven]
    of_releases = [[backup for backup in made if backup.manifest.release == release] for release in releases]
    good = [[backup for backup in some if backup.is_proven] for some in of_releases]
    newest = [some[-1].name for some in (backups, made, ordinary, proven, *of_releases, *good) if some]
    return {*newest, *(backup.name for backup in backups if backup.manifest.reason is Reason.RESTORE)}


def _counted(backups: Sequence[Backup]) -> list[Backup]:
    return [backup for backup in backups if backup.manifest.reason not in {Reason.RESTORE, Reason.POINT}]


def _last_of_each(backups: Sequence[Backup], form: str, count: int) -> set[str]:
    """The last backup of each of the last `count` periods that have one; `form` names a period (strftime(3))."""
    last = {
        datetime.fromisoformat(backup.manifest.taken_at).strftime(form): backup.name for backup in _counted(backups)
    }
    return set(list(last.values())[len(last) - min(count, len(last)) :])


def _rows(count: int | None) -> str:
    return "no such table" if count is None else f"{count:,} rows"
