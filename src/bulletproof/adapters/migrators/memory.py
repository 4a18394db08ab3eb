"""What the last look at an app's migrations found, so that the release's python is not started for the same ones."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bulletproof.adapters.migrators.compare import Graph
from bulletproof.adapters.migrators.inside import Inside
from bulletproof.adapters.migrators.scripts import Scripts
from bulletproof.effects import durable

_CONFIGURATION = "pyproject.toml"


class _Note(msgspec.Struct, frozen=True, kw_only=True):
    folders: tuple[str, ...]
    """Where the migrations lie, seen from the source."""
    digest: str
    graph: Graph


def recall(file: Path, inside: Inside, scripts: Scripts) -> Graph | None:
    """What was noted of these very migrations; None when it was of others, or nothing that can be read."""
    with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
        note = msgspec.json.decode(file.read_bytes(), type=_Note)
        if note.digest == _digest(inside, scripts, note.folders):
            return note.graph
    return None


def note(file: Path, inside: Inside, scripts: Scripts, graph: Graph) -> None:
    """Note what was found, when it follows from the source and the lock of its packages alone."""
    source = inside.source.resolve()
    folders = tuple(Path(folder) for folder in graph.folders)
    if not (inside.manifest.lock and folders and all(folder.is_relative_to(source) for folder in folders)):
        return
    inner = tuple(str(folder.relative_to(source)) for folder in folders)
    durable.make_folder(file.parent)
    digest = _digest(inside, scripts, inner)
    durable.write_file(file, msgspec.json.encode(_Note(folders=inner, digest=digest, graph=graph)))


def _digest(inside: Inside, scripts: Scripts, folders: tuple[str, ...]) -> str:
    """Of all that tells what the migrations are: packages, configuration, and each file where they lie."""
    digest = hashlib.sha256(repr((inside.manifest.lock, inside.manifest.python, scripts)).encode())
    for name in sorted({scripts.ini, _CONFIGURATION, *_files(inside.source, folders)}):
        path = inside.source / name
        digest.update(repr((name, path.read_bytes() if path.is_file() else None)).encode())
    return digest.hexdigest()


def _files(source: Path, folders: tuple[str, ...]) -> Iterator[str]:
    """What lies there, without bytecode, which differs from release to release."""
    for folder in folders:
        for path in (source / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield str(path.relative_to(source))
