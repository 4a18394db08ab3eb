"""The cache of builds: locks and pristine virtual environments, of which each app keeps the last few that it used."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bulletproof.effects import durable
from bulletproof.errors import StepFailed

_REMEMBERED = 100


class Use(msgspec.Struct, frozen=True):
    """That a build used a lock (by the digest of what it was made from) and an environment (by its key)."""

    lock: str
    environment: str


class BuildCache(msgspec.Struct, frozen=True, kw_only=True):
    """The cache in `folder`, shared by all apps; `app` is the one whose uses are noted."""

    folder: Path
    app: str
    lent: Path | None = None
    """The folder of another cache that is read and never written, for a build that nothing may be left of."""

    @property
    def environments(self) -> Path:
        """The folder of the pristine environments."""
        return self.folder / "venvs"

    def scratch(self, release: str) -> Path:
        """Where a build of a release works; its name is all that is needed to remove what a killed build left."""
        return self.environments / f".bp-build-{self.app}-{release}"

    def prepare(self) -> None:
        """Make the cache's folders."""
        for folder in (self.environments, self._locks, self._recent.parent):
            durable.make_folder(folder)

    def pristine(self, key: str) -> tuple[Path, ...]:
        """Where an environment may lie: the first is where it is made when it is in none of them."""
        return tuple(folder / "venvs" / key for folder in self._readable)

    def lock(self, inputs: str) -> str | None:
        """The lock that was made from these inputs; None when there is none."""
        for folder in self._readable:
            with contextlib.suppress(FileNotFoundError):
                return (folder / "locks" / f"{inputs}.txt").read_text(encoding="utf-8")
        return None

    def keep_lock(self, inputs: str, lock: str) -> None:
        """Keep a lock for the next build from the same inputs."""
        durable.write_file(self._locks / f"{inputs}.txt", lock)

    def note(self, use: Use) -> None:
        """Note a use as the latest: the order of the notes, and no clock, tells what was used last."""
        earlier = [one for one in _uses(self._recent) if one != use]
        durable.write_file(self._recent, msgspec.json.encode([*earlier, use][-_REMEMBERED:]))

    def prune(self, keep: int) -> int:
        """Remove all but the last `keep` that this app used and what other apps noted; say how many entries went.

        A build of another app that reads an entry which goes notices and makes it again.
        """
        recent = _uses(self._recent)[-keep:]
        durable.write_file(self._recent, msgspec.json.encode(recent))
        used = [use for file in self._recent.parent.glob("*.json") for use in _uses(file)]
        locks = {f"{use.lock}.txt" for use in used}
        doomed = [path for path in _visible(self._locks) if path.name not in locks]
        doomed += [path for path in _visible(self.environments) if path.name not in {use.environment for use in used}]
        for path in doomed:
            durable.remove_tree(path)
        return len(doomed)

    def size(self) -> int:
        """How many bytes the whole cache has, uv's downloads included."""
        return sum(_bytes_below(self.folder))

    @property
    def _readable(self) -> tuple[Path, ...]:
        return (self.folder,) if self.lent is None else (self.folder, self.lent)

    @property
    def _locks(self) -> Path:
        return self.folder / "locks"

    @property
    def _recent(self) -> Path:
        return self.folder / "recent" / f"{self.app}.json"


def _uses(file: Path) -> list[Use]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=list[Use])
    except FileNotFoundError:
        return []
    except msgspec.DecodeError as error:
        raise StepFailed("cache-damaged", f"{file} cannot be read: {error}", hint=f"rm {file}") from error


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _bytes_below(folder: Path) -> Iterator[int]:
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                yield (Path(parent) / name).lstat().st_blocks * 512
            except FileNotFoundError:  # another build is at work
                continue
