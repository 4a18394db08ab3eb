"""Off site: where backups go besides this machine, and what they are called there."""

from __future__ import annotations

import re

import msgspec

from bulletproof.domain.backup import MANIFEST, SEAL, Backup
from bulletproof.errors import UsageError

SENT = "offsite.json"
"""In a backup's folder: where it was sent."""
_FOLDER = re.compile(r"(b\d{1,9})-[0-9a-f]{12}")


class Connection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A place off site, with all that it takes to write there and to read it again; kept 0600."""

    url: str
    secrets: dict[str, str] = {}
    recipient: str = ""
    """Who can decrypt, as age calls it; empty when nothing is encrypted."""
    identity: str = ""
    """The secret key to that; without it nothing can be read back from here."""
    is_continuous: bool = False
    """Whether every change of the live database is sent there too, as it is made and not encrypted."""

    @property
    def is_encrypted(self) -> bool:
        """Whether only the holder of the key can read what lies there."""
        return bool(self.recipient)


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """That a backup lies off site."""

    called: str
    """The place, for people."""
    url: str
    folder: str
    at: str
    is_encrypted: bool
    verified_at: str = ""
    """When it was last fetched from there and was whole."""


def folder_of(app: str, backup: Backup) -> str:
    """The folder that a backup has off site: by its digest too, so that two machines never mix theirs."""
    return f"{app}/{backup.name}-{backup.digest[:12]}"


def name_of(folder: str) -> str | None:
    """The backup that a folder off site holds; None for any other."""
    found = _FOLDER.fullmatch(folder.rpartition("/")[2])
    return found[1] if found else None


def complete_folders(app: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """The folders of whole backups among the names off site, oldest first: the manifest is put there last."""
    found = {name.rpartition("/")[0] for name in names if plain(name.rpartition("/")[2]) == MANIFEST}
    ours = [folder for folder in found if folder.startswith(f"{app}/") and name_of(folder)]
    return tuple(sorted(ours, key=lambda folder: (int((name_of(folder) or "b0")[1:]), folder)))


def choose(folders: tuple[str, ...], wish: str) -> str:
    """The folder that a person means: by a backup's name, by the folder's, or the newest. Raises UsageError."""
    found = [folder for folder in folders if not wish or wish in {name_of(folder), folder.rpartition("/")[2]}]
    if not found:
        words = f"there is no backup {wish} off site" if wish else "there is no backup off site"
        raise UsageError("backup-unknown", words, hint="bulletproof backup list --off-site")
    if wish and len(found) > 1:
        raise UsageError(
            "backup-ambiguous",
            f"{len(found)} backups off site are called {wish}: they were made on different machines",
            context=tuple(folder.rpartition("/")[2] for folder in found),
            hint=f"bulletproof backup fetch {found[-1].rpartition('/')[2]}",
        )
    return found[-1]


def files_of(backup: Backup) -> tuple[str, ...]:
    """The files of a backup in the order in which they are sent: the manifest says that all the others are there."""
    return (*(part.name for part in backup.manifest.parts), SEAL, MANIFEST)


def plain(name: str) -> str:
    """A file's name without the mark that it is encrypted."""
    return name.removesuffix(".age")
