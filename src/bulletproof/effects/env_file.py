"""A dotenv file: which names it sets; of their values only what kind they are ever leaves this module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bulletproof.domain.python_traits import database_kind, sqlite_file
from bulletproof.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvFile:
    """A dotenv file as far as anybody may see it."""

    name: str
    names: tuple[str, ...] = ()
    """The settings in their order."""
    empty: tuple[str, ...] = ()
    """Those that have no value."""
    databases: Mapping[str, str] = field(default_factory=dict)
    """The settings that hold a database's URL, and its kind."""
    sqlite_files: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Where the URL of an SQLite database leads."""
    flask_app: str = field(default="", repr=False)
    """What it sets FLASK_APP to: a place in the source, and no secret."""
    problem: str = ""
    """Why it cannot be read, in words."""


def read_env_file(path: Path) -> EnvFile | None:
    """Read a dotenv file as a first deployment would; None when there is no file of this name."""
    from bulletproof.effects.dotenv import read_dotenv  # noqa: PLC0415  36 ms for what most commands never need

    if not path.is_file():
        return None
    try:
        values = read_dotenv(path)
    except UsageError as error:
        return EnvFile(name=path.name, problem=error.message)
    return EnvFile(
        name=path.name,
        names=tuple(values),
        empty=tuple(name for name, value in values.items() if not value),
        databases={name: kind for name, value in values.items() if (kind := database_kind(value))},
        sqlite_files={name: file for name, value in values.items() if (file := sqlite_file(value))},
        flask_app=values.get("FLASK_APP", ""),
    )
