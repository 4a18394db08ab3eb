"""What brings a database to the schema of a release: Alembic, Django, a command, its models' tables, or nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import msgspec

from bulletproof.adapters.migrators import django, memory
from bulletproof.adapters.migrators.compare import (
    Graph,
    Models,
    compare_models,
    compare_revisions,
    misfits,
    statements,
)
from bulletproof.adapters.migrators.inside import ANSWER, MIGRATE, Inside
from bulletproof.adapters.migrators.scripts import Scripts, find_packaged_scripts, find_scripts
from bulletproof.domain.account import Account
from bulletproof.domain.layout import Layout
from bulletproof.domain.schema import Schema
from bulletproof.domain.settings import NOT_YET_OURS, for_app, not_looked_after, other_database
from bulletproof.domain.static_files import Collected
from bulletproof.domain.system_libraries import blamed
from bulletproof.effects import durable
from bulletproof.effects.process import last_lines
from bulletproof.effects.sqlite_census import census
from bulletproof.effects.sqlite_file import Reading, read_schema, read_whole
from bulletproof.errors import Refused, StepFailed
from bulletproof.ports import REPLAY, Command, Manifest, SchemaState

_FLASK_SQLALCHEMY = "flask_sqlalchemy"
_CREATE_ALL = "db.create_all()"
_NOTES = "alembic_version"

TIMEOUT_SECONDS = 120.0
"""An import takes seconds, and the migrations of an empty database hardly more: what lasts longer hangs."""

T = TypeVar("T")


def collect_static(
    data: Path, account: Account | None, folder: Path, manifest: Manifest, settings: Mapping[str, str]
) -> Collected:
    """What a framework collects of a release's static files while it is built in `folder`; only Django does.

    `data` is where the app's data lie, which it does not get to see; `account` is whom it runs as. Raises StepFailed
    `static-not-collected` with the last lines.
    """
    inside = Inside(
        manifest=manifest,
        source=folder / "source",
        venv=folder / "venv",
        home=data,
        settings=for_app(settings),
        timeout_seconds=TIMEOUT_SECONDS,
        account=account,
    )
    return django.collect_static(inside, folder / "collected") if django.is_used(inside) else Collected()


class _Found(msgspec.Struct, frozen=True):
    """A release's migrations."""

    scripts: Scripts
    graph: Graph


class Migrators:
    """The port Migrator: finds for each release, by its source and packages, which tool makes its schema.

    The live database is only read, by a process of our own. Whatever loads code of the release is told of a scratch
    database with the live one's tables and no rows, save for the one run of `create` that makes one where none is.
    """

    def __init__(
        self,
        layout: Layout,
        file: Path,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        account: Account | None = None,
    ) -> None:
        self._layout = layout
        self._account = account
        self._file = file
        self._timeout_seconds = timeout_seconds

    def state(self, manifest: Manifest, settings: Mapping[str, str]) -> SchemaState:
        """Compare what the release needs with what the live database has, touching neither.

        A database that is not SQLite's is not looked into. Raises StepFailed: `several-heads`,
        `several-migration-folders`, `schema-differs`, `migrations-not-readable`,
        `app-not-loaded`, `setting-ignored`, `database-not-supported`, or why the database
        cannot be read.
        """
        if kind := other_database(settings.get(manifest.config.database.setting)):
            return SchemaState(tool="none", elsewhere=kind)
        inside = self._inside(manifest, settings)
        if own := manifest.config.migrations.command:
            return SchemaState(tool="command", pending=(own,))
        if django.is_used(inside):
            return django.state(inside, self._file, self._live())
        if found := self._migrations(inside):
            return compare_revisions(found.scripts.tool, found.graph, self._live())
        live = self._live() if inside.has(_FLASK_SQLALCHEMY) else None
        return _compare_models(inside, _models(inside, live.statements if live else ()), live)

    def upgrade(self, manifest: Manifest, settings: Mapping[str, str], stamp: tuple[str, ...] = ()) -> Command | None:
        """What brings the database at the live path to what the release needs; None when it has no such tool.

        With `stamp`, which only Alembic knows, the database notes these revisions first.
        It takes the database from the environment alone. Raises StepFailed as `state` does of the release.
        """
        inside = self._inside(manifest, settings)
        return self._upgrade(inside, self._migrations(inside), stamp)

    def make_all(self, manifest: Manifest, settings: Mapping[str, str]) -> Command | None:
        """`db.create_all()` of a Flask-SQLAlchemy app."""
        return self._create_all(self._inside(manifest, settings))

    def replay(self, manifest: Manifest, settings: Mapping[str, str]) -> Command | None:
        """What runs Alembic's migrations on an empty database, and writes down the schema after each."""
        inside = self._inside(manifest, settings)
        found = self._migrations(inside)
        if found is None:
            return None
        (head,) = found.graph.heads
        return self._alembic(inside, head, found.scripts.upgrade, "--replay", str(self._file.with_name(REPLAY)))

    def downgrade(self, manifest: Manifest, settings: Mapping[str, str], older: Manifest) -> Command | None:
        """What brings it, with this release's migrations, to where `older` ends; None when that cannot be.

        Raises StepFailed as `state` does of either release.
        """
        inside, before = self._inside(manifest, settings), self._inside(older, settings)
        if _is_django(inside) and _is_django(before):
            return django.downgrade(inside, self._file, before)
        found, target = self._migrations(inside), self._migrations(before)
        if found is None or target is None:
            return None
        (head,) = target.graph.heads
        way = found.graph.way_back(head)
        if way is None or not all(one.is_reversible for one in way):
            return None
        return self._alembic(inside, head, found.scripts.downgrade(head))

    def misfits(self, manifest: Manifest, settings: Mapping[str, str], schema: Schema) -> tuple[str, ...]:
        """In words, why the release's models cannot work with a database of this schema; empty when they can.

        The app is loaded, told of a database with the same tables and no rows. Raises StepFailed `app-not-loaded`,
        `setting-ignored`, `database-not-supported`.
        """
        inside = self._inside(manifest, settings)
        return misfits(_models(inside, (*statements(schema), *self._notes(inside, schema))), schema)

    def create(self, manifest: Manifest, settings: Mapping[str, str]) -> str:
        """Make the release's database where none is, look at it afresh, and make it durable.

        Raises StepFailed, besides the reasons of `state`: `database-exists`, `migration-failed` with the last lines,
        `database-not-made`, `migration-incomplete`. What was made until then is the caller's to remove.
        """
        if kind := other_database(settings.get(manifest.config.database.setting)):
            return f"{kind}: {NOT_YET_OURS}"
        if self._is_there():
            raise StepFailed("database-exists", f"{self._file} exists, and only a new database is made this way")
        inside = self._inside(manifest, settings)
        found = self._migrations(inside)
        # Before anything is made: with a scratch database it is seen whether the app uses the one that it is told of.
        models = _models(inside)
        others = django.state(inside, self._file, None).others if _is_django(inside) else ()
        command = self._upgrade(inside, found)
        durable.make_folder(self._file.parent, mode=0o700)  # an app may make its own when it boots
        if command is None or (command.words == _CREATE_ALL and not models.tables):
            return "no database"
        self._run(inside, command)
        if manifest.config.migrations.command and not self._is_there():
            return f"{command.words} ended well, and made no database"
        made = self._made(command.words, lambda live: self._lacking(inside, found, models, live))
        return "\n".join((made, *not_looked_after(others)))

    def _notes(self, inside: Inside, schema: Schema) -> tuple[str, ...]:
        """What notes the release's own end in a scratch, so that an app that migrates when loaded does nothing."""
        found = self._migrations(inside) if _NOTES in schema.tables else None
        heads = found.graph.heads if found else ()
        return tuple(f"INSERT INTO {_NOTES} VALUES ('{head}')" for head in heads)  # noqa: S608  as Alembic names them

    def _inside(self, manifest: Manifest, settings: Mapping[str, str]) -> Inside:
        return Inside(
            manifest=manifest,
            source=self._layout.source(manifest.release),
            venv=self._layout.venv(manifest.release),
            home=self._layout.data,
            settings=settings,
            timeout_seconds=self._timeout_seconds,
            account=self._account,
        )

    def _is_there(self) -> bool:
        return self._file.exists() and self._file.stat().st_size > 0

    def _live(self) -> Reading | None:
        return _in_a_step(read_schema, self._file) if self._is_there() else None

    def _migrations(self, inside: Inside) -> _Found | None:
        """The release's migrations; None when it has none that count. Raises StepFailed when they have several ends."""
        if inside.manifest.config.migrations.command or django.is_used(inside):
            return None
        has_flask_migrate = inside.has("flask_migrate")
        scripts = find_scripts(inside.source, has_flask_migrate=has_flask_migrate)
        if scripts is None and has_flask_migrate:
            scripts = find_packaged_scripts(inside.source, inside.manifest.entry, inside.venv)
        if scripts is None:
            return None
        graph = self._graph(inside, scripts)
        if len(graph.heads) > 1:
            ends = " and ".join(str(one) for one in graph.revisions if one.revision in graph.heads)
            raise StepFailed(
                "several-heads",
                f"the migrations of release {inside.manifest.release} have several ends: {ends}",
                hint=scripts.merge,
            )
        return _Found(scripts, graph) if graph.revisions else None

    def _graph(self, inside: Inside, scripts: Scripts) -> Graph:
        noted = self._layout.cache / "migrations" / f"{self._layout.app}.json"
        told = inside.told_of(self._file)  # whoever cannot be told is refused before anything of it is run
        if graph := memory.recall(noted, told, scripts):
            return graph
        with inside.aside() as (scratch, _):
            graph = scratch.ask("revisions", Graph, scripts.ini, scripts.folder)
        memory.note(noted, inside, scripts, graph)
        return graph

    def _upgrade(self, inside: Inside, found: _Found | None, stamp: tuple[str, ...] = ()) -> Command | None:
        if own := inside.manifest.config.migrations.command:
            return inside.told_of(self._file).command(own, "/bin/sh", "-c", own)
        if found:
            (head,) = found.graph.heads
            command = self._alembic(
                inside, head, found.scripts.upgrade, *(("--stamp", ",".join(stamp)) if stamp else ())
            )
            return replace(command, words=f"{found.scripts.stamp(stamp)} && {command.words}") if stamp else command
        if django.is_used(inside):
            return django.upgrade(inside, self._file)
        return self._create_all(inside)

    def _create_all(self, inside: Inside) -> Command | None:
        if not inside.has(_FLASK_SQLALCHEMY):
            return None
        question = (inside.python, str(ANSWER), "create", os.devnull, str(inside.source))
        argv = (*question, inside.manifest.entry, inside.setting)
        return inside.told_of(self._file).command(_CREATE_ALL, *argv, reads=(ANSWER,))

    def _alembic(self, inside: Inside, head: str, words: tuple[str, ...], *options: str) -> Command:
        """Alembic in one transaction, at whose end the database must note `head`."""
        argv = (inside.python, str(MIGRATE), *options, inside.setting, head, *words)
        return inside.told_of(self._file).command(" ".join(words), *argv, reads=(MIGRATE,))

    def _lacking(self, inside: Inside, found: _Found | None, models: Models, live: Reading) -> tuple[str, ...]:
        """What is still to be done to a database that was just made; nobody but the command knows what it should do."""
        if inside.manifest.config.migrations.command:
            return ()
        if django.is_used(inside):
            state = django.state(inside, self._file, live)
        elif found:
            state = compare_revisions(found.scripts.tool, found.graph, live)
        else:
            state = _compare_models(inside, models, live)
        return (*state.pending, *state.unknown)

    def _run(self, inside: Inside, command: Command) -> None:
        completed = inside.run(command, "migration-failed")
        if completed.status != 0:
            log = last_lines(completed.errors or completed.output)
            words = f"{command.words} ended with status {completed.status} in release {inside.manifest.release}"
            words, hint = blamed(words, log)
            raise StepFailed("migration-failed", words, context=log, hint=hint)

    def _made(self, words: str, lacking: Callable[[Reading], tuple[str, ...]]) -> str:
        """Believe no exit status: there is a whole database, and nothing is left to be done to it."""
        if not self._is_there():
            raise StepFailed("database-not-made", f"{words} ended well, but there is no database at {self._file}")
        live = _in_a_step(read_whole, self._file)
        if left := lacking(live):
            raise StepFailed(
                "migration-incomplete", f"{words} ended well, but the database does not fit: {'; '.join(left)}"
            )
        durable.sync_tree(self._file.parent)
        return f"{words} made {len(live.tables)} tables"


def _models(inside: Inside, statements: tuple[str, ...] = ()) -> Models:
    """The app's models, where it has such that can be asked."""
    if django.is_used(inside):
        return django.models(inside, statements)
    if not inside.has(_FLASK_SQLALCHEMY):
        return Models(is_used=False)
    with inside.aside(statements) as (scratch, _):
        return scratch.ask("models", Models, inside.manifest.entry, inside.setting)


def _is_django(inside: Inside) -> bool:
    """Whether Django migrates the release's database, and no command of its own."""
    return not inside.manifest.config.migrations.command and django.is_used(inside)


def _compare_models(inside: Inside, models: Models, live: Reading | None) -> SchemaState:
    if not models.is_used:
        return SchemaState(tool="none")
    with inside.aside(live.statements if live else ()) as (_, scratch):
        return compare_models(models, live, census(scratch))


def _in_a_step(read: Callable[[Path], T], file: Path) -> T:
    try:
        return read(file)
    except Refused as error:
        raise StepFailed(error.reference, error.message, hint=error.hint, context=error.context) from error
