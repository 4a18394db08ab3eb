"""What of a release's source leads into the data: folders that users fill, files that the app opens as its database."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import msgspec

from bulletproof.domain.account import Account
from bulletproof.domain.config import AppConfig
from bulletproof.domain.layout import Layout
from bulletproof.effects import durable, tree
from bulletproof.effects.ownership import share
from bulletproof.errors import StepFailed


class DataLinks(msgspec.Struct, frozen=True):
    """The links of an app's releases."""

    layout: Layout
    user: Account | None
    """Whose what users made is, when we are root."""

    def lay(self, source: Path, config: AppConfig, moving: Path) -> None:
        """Lay them in an unsealed source. What it ships of a persistent folder becomes the first content of that.

        It is copied to `moving` first, a free place in the data. Raises StepFailed `persistent-unusable`, and OSError.
        """
        for name in config.database.links:  # shipped in git, which no release uses
            _remove_database(source / name)
        self._link_persistent(source, config.app.persistent, moving)
        self._link_database(source, config)

    def _link_persistent(self, source: Path, names: tuple[str, ...], moving: Path) -> None:
        """Let each persistent folder of the source be a link into the data, where what users made outlives releases."""
        for path in _checked(names, source):
            shipped, kept = source / path, self.layout.persistent / path
            is_new = not kept.exists()
            if shipped.is_dir() and not _has_something(kept):
                _move(shipped, kept, moving)
            durable.make_folder(kept, mode=0o750)
            for place in (*reversed(path.parents[:-1]), path) if is_new else ():
                share(self.layout.persistent / place, self.user)
            durable.remove_tree(shipped)
            durable.make_folder(shipped.parent)
            durable.replace_symlink(shipped, self.layout.data / path)

    def _link_database(self, source: Path, config: AppConfig) -> None:
        """Let each file that the app opens as its database be a link to the one in the data."""
        for name in config.database.links:
            inside = any(PurePosixPath(name).is_relative_to(one) for one in config.app.persistent)
            place = (self.layout.persistent if inside else source) / name
            if inside and place.exists() and not place.is_symlink():
                raise StepFailed(
                    "persistent-unusable",
                    f"`{name}` cannot be a link to the database: {place} is a file already",
                    hint=f"sqlite3 {place} .tables; move it away if it is not used, then: bulletproof deploy",
                )
            durable.make_folder(place.parent)
            durable.replace_symlink(place, self.layout.data / config.database.file)


def _move(shipped: Path, kept: Path, moving: Path) -> None:
    """Copy a folder to its place in the data, where it appears whole."""
    durable.make_folder(kept.parent, mode=0o750)
    durable.make_folder(moving.parent, mode=0o750)
    durable.remove_tree(moving)
    tree.copy_tree(shipped, moving)
    durable.sync_tree(moving)
    durable.rename(moving, kept)


def _checked(names: tuple[str, ...], source: Path) -> list[PurePosixPath]:
    """The persistent folders as paths; raises StepFailed for one that cannot be a folder of its own in the source."""
    paths = [PurePosixPath(name) for name in names]
    for path in paths:
        in_source = [source / part for part in (path, *path.parents)[:-1]]
        is_inside_another = any(other in path.parents for other in paths)
        if is_inside_another or any(part.is_symlink() or part.is_file() for part in in_source):
            raise StepFailed(
                "persistent-unusable",
                f"`{path}` cannot be a persistent folder of the source",
                hint="correct `persistent` in bulletproof.toml, then: bulletproof deploy",
            )
    return paths


def _remove_database(file: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        durable.remove(file.with_name(file.name + suffix))


def _has_something(kept: Path) -> bool:
    return kept.is_symlink() or (kept.exists() and (not kept.is_dir() or any(kept.iterdir())))
