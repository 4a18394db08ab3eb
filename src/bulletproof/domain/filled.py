"""Places below the source that an app writes to: folders that users fill, and a database that no setting moves."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from bulletproof.domain.config import AppConfig
from bulletproof.domain.python_module import Module
from bulletproof.domain.python_traits import Sighting
from bulletproof.domain.source_paths import Names, assignments, place_below

_FOLDER = re.compile(
    r"(.*_)?(UPLOADS?|MEDIA)_(FOLDER|DIR|DIRECTORY|PATH|ROOT|DEST)|UPLOADS_DEFAULT_DEST|FILE_UPLOAD_ROOT"
)
"""How apps and extensions call the folder that users fill."""
_URI_KEY = "SQLALCHEMY_DATABASE_URI"
_CONNECTING = {"create_engine", "create_async_engine"}


def filled_folders(modules: Sequence[Module], names: Names) -> Iterator[Sighting]:
    """The folders below the source that a configuration names as filled by users, and Flask's instance folder."""
    for module in modules:
        for name, value in assignments(module):
            if _FOLDER.fullmatch(name.upper()) and (place := place_below(value, module, names)):
                yield Sighting(what=place, path=module.path, line=value.lineno)
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and node.attr == "instance_path":
                place = "/".join(filter(None, (names.import_folder, "instance")))
                yield Sighting(what=place, path=module.path, line=node.lineno)


def database_places(modules: Sequence[Module], names: Names, *, relative_to: str) -> Iterator[Sighting]:
    """The files below the source that are handed to a database's library, whatever an environment variable says.

    `relative_to` is the folder that Flask-SQLAlchemy takes a relative URL from.
    """
    for module in modules:
        for node in ast.walk(module.tree):
            for value, base in _opened(node, relative_to):
                if place := place_below(value, module, names, relative_to=base):
                    yield Sighting(what=place, path=module.path, line=value.lineno)


def _opened(node: ast.AST, relative_to: str) -> Iterator[tuple[ast.expr, str]]:
    match node:
        case ast.Assign(targets=[target], value=value) if _is_uri(target):
            yield value, relative_to
        case ast.keyword(arg="SQLALCHEMY_DATABASE_URI", value=value):
            yield value, relative_to
        case ast.Dict(keys=keys, values=values):
            found = {key.value: one for key, one in zip(keys, values, strict=True) if isinstance(key, ast.Constant)}
            if _URI_KEY in found:
                yield found[_URI_KEY], relative_to
            if {"ENGINE", "NAME"} <= found.keys() and "sqlite3" in ast.unparse(found["ENGINE"]):
                yield found["NAME"], ""
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[first, *_]) if name in _CONNECTING:
            yield first, ""
        case ast.Call(func=ast.Attribute(value=ast.Name(id="sqlite3" | "aiosqlite"), attr="connect"), args=[first, *_]):
            yield first, ""


def _is_uri(target: ast.expr) -> bool:
    match target:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Subscript(slice=ast.Constant(value=name)):
            return bool(name == _URI_KEY)
    return False


def lines_for_writes(config: AppConfig, places: Sequence[str]) -> tuple[str, ...]:
    """For each place that a release would write in its own source, the line of bulletproof.toml that helps."""
    folders = {str(PurePosixPath(place).parent): place for place in places if not _is_database(place)}
    lines = []
    for folder, place in folders.items():
        if folder == ".":
            lines.append(f"it writes {place} into its own source, which is read-only: let it write into a folder")
            continue
        listed = json.dumps([*config.app.persistent, folder])
        lines.append(f"it writes {place} into its own source, which is read-only: app.persistent = {listed}")
    for place in filter(_is_database, places):
        listed = json.dumps([*config.database.links, place])
        lines.append(f"it makes a database {place} in its own source, which is read-only: database.links = {listed}")
    return tuple(lines)


def lines_for_folders(config: AppConfig, folders: Sequence[str]) -> tuple[str, ...]:
    """For each folder that users fill and that is not persistent yet, the line of bulletproof.toml that helps."""
    kept = config.app.persistent
    lost = [one for one in folders if not any(PurePosixPath(one).is_relative_to(other) for other in kept)]
    listed = json.dumps([*kept, *lost])
    return tuple(
        f"users fill {one}, which lies in the source and is read-only there: app.persistent = {listed}" for one in lost
    )


def _is_database(place: str) -> bool:
    return PurePosixPath(place).suffix in {".db", ".db3", ".sqlite", ".sqlite3"}
