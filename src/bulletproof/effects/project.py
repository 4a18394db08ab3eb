"""A project folder on disk: which configuration is its own, and what that says."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import NamedTuple

from bulletproof.domain.config import AppConfig
from bulletproof.domain.procfile import FILE_NAME as PROCFILE
from bulletproof.domain.procfile import Procfile, parse_procfile
from bulletproof.domain.toml import FILE_NAME, invalid_bytes, parse
from bulletproof.errors import UsageError

PYPROJECT = "pyproject.toml"
TABLE = ("tool", "bulletproof")

_LARGEST_BYTES = 1 << 20


class Project(NamedTuple):
    """A configured project; it unpacks as (config, folder, path)."""

    config: AppConfig
    folder: Path
    """The folder that holds the configuration: what is deployed."""
    path: Path
    """The configuration: `bulletproof.toml`, or a `pyproject.toml` with a `[tool.bulletproof]`."""


def find_project(folder: Path) -> Project:
    """The project that `folder` is or lies in.

    Parents are searched up to the git repository's root, without a repository up to the home folder (not in it), and
    elsewhere not at all: a stranger's file in `/tmp` must not say what is run. Raises UsageError: `folder-missing`,
    `folder-unreadable`, `config-missing`, `config-twice`, `config-unreadable` or `config-invalid`.
    """
    start = folder.resolve()
    if not start.is_dir():
        raise UsageError("folder-missing", f"{folder} is no folder", hint="cd into the folder of your app")
    try:
        found = ((candidate, find_config(candidate)) for candidate in _searched(start))
        nearest, path = next(((candidate, path) for candidate, path in found if path), (start, None))
    except OSError as error:
        words = f"{error.filename} cannot be read: {error.strerror}"
        raise UsageError("folder-unreadable", words, hint=f"ls -ld {error.filename}") from error
    if path:
        return Project(read_config(path), nearest, path)
    raise UsageError("config-missing", f"there is no {FILE_NAME} in {start} or above", hint="bulletproof init")


def find_config(folder: Path) -> Path | None:
    """The configuration that lies in this very folder; raises UsageError `config-twice` when there are two."""
    own, shared = folder / FILE_NAME, folder / PYPROJECT
    is_own, is_shared = own.exists() or own.is_symlink(), _has_table(shared)
    if is_own and is_shared:
        raise UsageError(
            "config-twice",
            f"{own} and [{'.'.join(TABLE)}] in {PYPROJECT} both configure this app",
            hint=f"move everything into {FILE_NAME} and delete the table",
        )
    return own if is_own else shared if is_shared else None


def read_config(path: Path) -> AppConfig:
    """What a configuration file says and, where it says nothing, the Procfile beside it.

    Raises UsageError `config-missing`, `config-unreadable`, `config-invalid` or `procfile-invalid`.
    """
    content = _read(path)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise invalid_bytes(content, error, path.name) from error
    procfile = read_procfile(path.parent)
    tables = procfile.tables if procfile else {}
    return parse(text, path.name, below=TABLE if path.name == PYPROJECT else (), beneath=tables)


def read_procfile(folder: Path) -> Procfile | None:
    """What the folder's Procfile says, None when it has none.

    Raises UsageError `config-unreadable`, `config-invalid` or `procfile-invalid`.
    """
    path = folder / PROCFILE
    if not path.is_file():
        return None
    content = _read(path)
    try:
        return parse_procfile(content.decode())
    except UnicodeDecodeError as error:
        raise invalid_bytes(content, error, path.name) from error


def _read(path: Path) -> bytes:
    """The file's bytes; only a plain file is opened, because a pipe would never end."""
    try:
        if path.is_file() and path.stat().st_size > _LARGEST_BYTES:
            raise UsageError("config-unreadable", f"{path} is larger than any configuration", hint=f"look into {path}")
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "no plain file"
            raise UsageError("config-unreadable", f"{path} is {kind}, not a configuration file", hint=f"ls -l {path}")
        return path.read_bytes()
    except FileNotFoundError as error:
        words = f"{path} is a link that leads nowhere" if path.is_symlink() else f"there is no {path}"
        raise UsageError("config-missing", words, hint="bulletproof init") from error
    except OSError as error:
        words = f"{path} cannot be read: {error.strerror}"
        raise UsageError("config-unreadable", words, hint=f"ls -l {path}") from error


def _has_table(path: Path) -> bool:
    """Whether a pyproject.toml has our table; one that is no TOML counts when it names the table."""
    text = path.read_text(encoding="utf-8-sig", errors="replace") if path.is_file() else ""
    if TABLE[1] not in text:
        return False
    try:
        tool = tomllib.loads(text).get(TABLE[0])
    except (ValueError, RecursionError):
        return f"[{'.'.join(TABLE)}" in text
    return isinstance(tool, dict) and TABLE[1] in tool


def _searched(folder: Path) -> tuple[Path, ...]:
    """The folders that may hold the configuration, nearest first."""
    lineage = (folder, *folder.parents)
    for count, candidate in enumerate(lineage, start=1):
        if (candidate / ".git").exists():
            return lineage[:count]
    home = _home()
    return lineage[: max(1, lineage.index(home))] if home in lineage else (folder,)


def _home() -> Path | None:
    try:
        return Path.home().resolve()
    except RuntimeError:  # the user has neither $HOME nor an entry in the password file
        return None
