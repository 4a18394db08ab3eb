"""Django's migrations: what a release needs, what the database noted, and the way there and back.

The project is loaded as its server loads it, by the entry, so its settings are those that it is served with. All that
only looks does so in a scratch database with the live one's tables and Django's own note of what was applied.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bulletproof.adapters.migrators.compare import Models
from bulletproof.adapters.migrators.inside import ANSWER, Inside
from bulletproof.domain.settings import DATABASES, database_url
from bulletproof.domain.static_files import Collected
from bulletproof.effects.process import last_lines, run
from bulletproof.effects.sqlite_file import PATIENCE_SECONDS, Reading
from bulletproof.errors import StepFailed
from bulletproof.ports import Command, SchemaState

TOOL = "django"

_NOTES = Path(__file__).with_name("django_notes.py")
_TABLE = "django_migrations"
_MARK = "DJANGO_SETTINGS_MODULE"
_READ_SECONDS = 60.0
_UPGRADE = "python manage.py migrate --noinput"

Key = tuple[str, str]
"""An app's label and a migration's name."""


class _Migration(msgspec.Struct, frozen=True, kw_only=True):
    key: Key
    is_reversible: bool
    replaces: tuple[Key, ...] = ()


class _Other(msgspec.Struct, frozen=True, kw_only=True):
    """A database besides the default one."""

    alias: str
    kind: str
    """`sqlite`, or what Django calls another."""
    name: str
    """Its file, or its name on a server."""

    @property
    def words(self) -> str:
        return f"{self.alias} ({DATABASES.get(self.kind, self.kind)}, {self.name})"


class _Project(msgspec.Struct, frozen=True, kw_only=True):
    """All migrations of a release, each after those that it needs."""

    migrations: tuple[_Migration, ...]
    known: tuple[Key, ...]
    """Besides those, what a squashed migration replaces."""
    pending: tuple[Key, ...]
    ends: tuple[Key, ...]
    others: tuple[_Other, ...] = ()

    @property
    def keys(self) -> frozenset[Key]:
        """The migrations by name."""
        return frozenset(one.key for one in self.migrations)


class _Notes(msgspec.Struct, frozen=True, kw_only=True):
    outcome: str
    words: str = ""
    noted: tuple[Key, ...] = ()


def is_used(inside: Inside) -> bool:
    """Whether the release is a Django project: the package is there, and a file that sets it up."""
    module = inside.manifest.entry.partition(":")[0].replace(".", "/")
    files = ("manage.py", f"{module}.py", f"src/{module}.py")
    return inside.has("django") and any(_mentions(inside.source / file) for file in files)


def state(inside: Inside, file: Path, live: Reading | None) -> SchemaState:
    """What the database at `file`, which holds `live`, lacks, and what it has had that the release does not know.

    Raises StepFailed `schema-unknown` when there are tables and no note, `database-in-release` when another database
    than the default one would be gone with the release, and what `Inside.ask` raises.
    """
    noted = _noted(file, live) if live else ()
    project = _project(inside, (*live.statements, *map(_note, noted)) if live else ())
    for other in project.others:
        _require_outside(inside, other)
    # The notes of an app that was uninstalled stay for ever, and say nothing about the age of the data.
    apps = {app for app, _ in project.known}
    unknown = tuple(key for key in noted if key not in project.known and key[0] in apps)
    return SchemaState(
        tool=TOOL,
        current=tuple(map(_words, noted[-1:])),
        pending=() if unknown else tuple(map(_words, project.pending)),
        unknown=tuple(map(_words, unknown)),
        others=tuple(other.words for other in project.others),
    )


def models(inside: Inside, statements: tuple[str, ...] = ()) -> Models:
    """The tables of all installed apps."""
    with inside.aside(statements) as (scratch, _):
        return scratch.ask("django-models", Models, inside.manifest.entry, inside.setting)


def upgrade(inside: Inside, file: Path) -> Command:
    """What brings the database at `file` to the end of all migrations, and believes it only when it looked."""
    return _migrate(inside, file, _UPGRADE)


def downgrade(inside: Inside, file: Path, older: Inside) -> Command | None:
    """What takes back what `older` does not have; None when something of it cannot be taken back, or is not plain."""
    project, target = _project(inside), _project(older)
    extra = [one for one in project.migrations if one.key not in target.keys]
    # A squashed migration has another name for the same tables: to take it back would drop them.
    is_plain = target.keys <= project.keys and not any(one.replaces for one in extra)
    if not (extra and is_plain and all(one.is_reversible for one in extra)):
        return None
    ends = dict(target.ends)
    apps = dict.fromkeys(one.key[0] for one in reversed(extra))
    targets = tuple(f"{app} {ends.get(app, 'zero')}" for app in apps)
    words = " && ".join(f"python manage.py migrate {one} --noinput" for one in targets)
    return _migrate(inside, file, words, *targets)


def collect_static(inside: Inside, fallback: Path) -> Collected:
    """Run collectstatic, into `fallback` when the project names no folder. Raises StepFailed `static-not-collected`.

    Told of a scratch database, if its database is SQLite's at all.
    """
    with _told_of_scratch(inside) as told:
        arguments = (inside.manifest.entry, str(fallback), str(inside.source))
        return told.ask("django-static", Collected, *arguments, writes=(fallback.parent,))


@contextmanager
def _told_of_scratch(inside: Inside) -> Iterator[Inside]:
    if database_url(inside.settings.get(inside.setting), "") is None:
        yield inside
    else:
        with inside.aside() as (told, _):
            yield told


def _migrate(inside: Inside, file: Path, words: str, *targets: str) -> Command:
    question = (inside.python, str(ANSWER), "django-migrate", os.devnull, str(inside.source))
    argv = (*question, inside.manifest.entry, inside.setting, *targets)
    return inside.told_of(file).command(words, *argv, reads=(ANSWER,))


def _project(inside: Inside, statements: tuple[str, ...] = ()) -> _Project:
    with inside.aside(statements) as (scratch, _):
        return scratch.ask("django-migrations", _Project, inside.manifest.entry, inside.setting)


def _require_outside(inside: Inside, other: _Other) -> None:
    """Refuse a database that lies in the release itself, where no other release finds it and nobody may write."""
    if other.kind != "sqlite" or other.name == ":memory:" or other.name.startswith("file:memorydb"):
        return
    if not Path(os.path.realpath(other.name)).is_relative_to(inside.source.resolve()):
        return
    place = (
        Path(other.name).relative_to(inside.source) if Path(other.name).is_relative_to(inside.source) else other.name
    )
    folder = Path(place).parent
    raise StepFailed(
        "database-in-release",
        f"release {inside.manifest.release}: the database {other.alias} is {place} in the source, so each release would"
        " have its own, and could not write to it",
        hint=f'app.persistent = ["{folder}"] in bulletproof.toml'
        if folder != Path()
        else 'give it a folder of its own, such as data/, and write app.persistent = ["data"] into bulletproof.toml',
    )


def _noted(file: Path, live: Reading) -> tuple[Key, ...]:
    """What Django noted as applied, in its order."""
    noted = _read_notes(file) if _TABLE in live.tables else ()
    tables = [name for name in live.tables if name != _TABLE]
    if tables and not noted:
        raise StepFailed(
            "schema-unknown",
            f"the database has tables ({', '.join(tables[:3])}) and no note of which migrations made them",
            hint="python manage.py migrate --fake APP NAME, once you are sure which migration its tables are of",
        )
    return noted


def _read_notes(file: Path) -> tuple[Key, ...]:
    argv = (sys.executable, "-I", _NOTES, os.path.realpath(file), str(PATIENCE_SECONDS))
    completed = run(argv, folder=Path("/"), timeout_seconds=_READ_SECONDS)
    if completed.status != 0:
        words = f"{file} could not be read: the reader ended with status {completed.status}"
        raise StepFailed("database-not-reachable", words, context=last_lines(completed.errors))
    notes = msgspec.json.decode(completed.output, type=_Notes)
    if notes.outcome != "read":
        raise StepFailed("database-not-reachable", f"{file} cannot be read: {notes.words}", hint=f"ls -l {file.parent}")
    return notes.noted


def _note(key: Key) -> str:
    """The statement that notes a migration in a scratch database."""
    app, name = (part.replace("'", "''") for part in key)
    return f"INSERT INTO {_TABLE} (app, name, applied) VALUES ('{app}', '{name}', '2000-01-01 00:00:00')"  # noqa: S608


def _words(key: Key) -> str:
    return ".".join(key)


def _mentions(file: Path) -> bool:
    return file.is_file() and _MARK in file.read_text(encoding="utf-8", errors="replace")
