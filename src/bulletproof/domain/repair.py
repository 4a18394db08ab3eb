"""What a repair changes of the host, and what it writes down beforehand so that all of it can be taken back."""

from __future__ import annotations

import msgspec


class Permission(msgspec.Struct, frozen=True, kw_only=True, tag="permission"):
    """Whose a file or a folder is, and who may read and write it; the ids are numbers, since names may be gone."""

    path: str
    owner: int
    group: int
    mode: int
    is_folder: bool = False


class Text(msgspec.Struct, frozen=True, kw_only=True, tag="text"):
    """What a file of ours holds, such as a unit of systemd."""

    path: str
    text: str


Change = Permission | Text


class Repairs(msgspec.Struct, frozen=True, kw_only=True):
    """All that one deployment mends."""

    changes: tuple[Change, ...] = ()
    rebuilds: tuple[str, ...] = ()
    """Releases that are built anew beside themselves and exchanged."""
    releases: tuple[str, ...] = ()
    """Releases that are removed; each can be built again from its revision."""
    has_cache: bool = False
    """Whether the cache of builds is emptied, which the next build makes again."""
    logs: tuple[str, ...] = ()
    """Logs that are rotated."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return self == NOTHING


NOTHING = Repairs()


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """How it was before, and what is still to be done once that is committed; on disk before the first effect."""

    before: tuple[Change, ...]
    repairs: Repairs
