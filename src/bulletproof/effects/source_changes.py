"""Which Python files of a project were changed since one last looked, told by their times and sizes."""

from __future__ import annotations

import os
from pathlib import Path

_NOT_SOURCE = frozenset({"venv", "env", "node_modules", "__pycache__", "site-packages", "build", "dist"})
_ENVIRONMENT_MARK = "pyvenv.cfg"

_Stamp = tuple[int, int, int]


class SourceChanges:
    """The Python files below a folder, environments and what is hidden left out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = self._look()

    def since(self) -> tuple[str, ...]:
        """The paths, from the folder, of what was changed, made or removed since the last time this was asked."""
        before, self._seen = self._seen, self._look()
        paths = before.keys() | self._seen.keys()
        return tuple(sorted(path for path in paths if before.get(path) != self._seen.get(path)))

    def _look(self) -> dict[str, _Stamp]:
        found: dict[str, _Stamp] = {}
        for place, folders, files in os.walk(self._folder):
            if _ENVIRONMENT_MARK in files:
                folders.clear()
                continue
            folders[:] = [name for name in folders if not name.startswith(".") and name not in _NOT_SOURCE]
            for name in files:
                path = os.path.join(place, name)  # noqa: PTH118  a hundred thousand of them a minute
                if name.endswith(".py") and (stamp := _stamp(path)):
                    found[os.path.relpath(path, self._folder)] = stamp
        return found


def _stamp(path: str) -> _Stamp | None:
    try:
        told = os.stat(path)  # noqa: PTH116  as above
    except OSError:
        return None  # an editor puts a new file in its place at this moment
    return told.st_ino, told.st_mtime_ns, told.st_size
