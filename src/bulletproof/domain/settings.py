"""Settings: the environment variables that a person gives the app, and what Bulletproof lays over them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Settings = dict[str, str]

_FOR_BUILD = frozenset(
    {
        *("UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INSECURE_HOST"),
        *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_TRUSTED_HOST"),
    }
)
_FOR_BUILD_PREFIX = "UV_INDEX"

DATABASES = {
    "sqlite": "SQLite",
    "postgresql": "PostgreSQL",
    "postgres": "PostgreSQL",
    "mysql": "MySQL",
    "mariadb": "MariaDB",
    "oracle": "Oracle",
    "mssql": "SQL Server",
}
"""How databases are called, by the dialect in their URLs."""

NOT_YET_OURS = (
    "not looked after yet: releases are gated and undone, but there is no rehearsal and no copy of these data, and"
    " migrations are yours to run (bulletproof run -- COMMAND)"
)
"""What does not hold for an app whose database is not SQLite's."""


def not_looked_after(others: Iterable[str]) -> tuple[str, ...]:
    """A line for each database besides the one that is looked after."""
    return tuple(f"{other}: {NOT_YET_OURS}" for other in others)


RESERVED = "BULLETPROOF_"
"""Names that begin so are Bulletproof's own."""


def changed(settings: Mapping[str, str], values: Mapping[str, str], removed: Iterable[str]) -> Settings:
    """The settings with `values` set and `removed` unset."""
    gone = set(removed)
    return {key: value for key, value in sorted({**settings, **values}.items()) if key not in gone}


def is_for_build(name: str) -> bool:
    """Whether a setting tells where packages come from: the build gets it, the app does not."""
    return name in _FOR_BUILD or name.startswith(_FOR_BUILD_PREFIX)


def for_app(settings: Mapping[str, str]) -> Settings:
    """The settings that the app's processes get."""
    return {name: value for name, value in settings.items() if not is_for_build(name)}


def missing(today: Mapping[str, str], previously: Mapping[str, str]) -> tuple[str, ...]:
    """Names that the live deployment runs with and that today's settings lack."""
    return tuple(sorted(set(previously) - set(today)))


def other_database(given: str | None) -> str:
    """What a URL leads to that is not SQLite's, for people; empty when it is, or when nothing is given."""
    if database_url(given, "") is not None:
        return ""
    dialect = (given or "").partition(":")[0].partition("+")[0].lower()
    return DATABASES.get(dialect, "another database than SQLite")


def database_url(given: str | None, file: str) -> str | None:
    """The URL that points the app at its one database, or None when the app's own URL is not SQLite's.

    The dialect that the app asked for (`sqlite+aiosqlite`) is kept, only the path is ours.
    """
    scheme, separator, _ = (given or "sqlite://").partition("://")
    if not separator or scheme.split("+")[0] != "sqlite":
        return None
    return f"{scheme}:////{file.lstrip('/')}"
