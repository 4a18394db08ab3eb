"""What brings a database to the schema of a release: its Alembic migrations, its models' tables, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from bulletproof.adapters.migrators.compare import Graph, Models, compare_models, compare_revisions
from bulletproof.adapters.migrators.inside import Inside
from bulletproof.adapters.migrators.scripts import Scripts, find_scripts
from bulletproof.domain.layout import Layout
from bulletproof.effects import durable
from bulletproof.effects.process import last_lines
from bulletproof.effects.sqlite_file import Reading, read_schema, read_whole
from bulletproof.errors import Refused, StepFailed
from bulletproof.ports import Manifest, SchemaState

TIMEOUT_SECONDS = 120.0
"""An import takes seconds, and the migrations of an empty database hardly more: what lasts longer hangs."""

T = TypeVar("T")


class Migrators:
    """The port Migrator: finds for each release, by its source and packages, which tool makes its schema.

    The live database is only read, by a process of our own. Whatever loads code of the release is told of a scratch
    database with the live one's tables and no rows, save for the one run of `create` that makes one where none is.
    """

    def __init__(self, layout: Layout, file: Path, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._layout = layout
        self._file = file
        self._timeout_seconds = timeout_seconds

    def state(self, manifest: Manifest, settings: Mapping[str, str]) -> SchemaState:
        """Compare what the release needs with what the live database has, touching neither.

        Raises StepFailed: `several-heads`, `several-migration-folders`, `schema-unknown`, `migrations-not-readable`,
        `app-not-loaded`, `setting-ignored`, `database-not-supported`, or why the database cannot be read.
        """
        inside = self._inside(manifest, settings)
        if found := _migrations(inside):
            scripts, graph = found
            return compare_revisions(scripts.tool, graph, self._live())
        if not inside.has("flask_sqlalchemy"):
            return SchemaState(tool="none")
        live = self._live()
        return compare_models(_models(inside, live.statements if live else ()), live)

    def create(self, manifest: Manifest, settings: Mapping[str, str]) -> str:
        """Make the release's database where none is, look at it afresh, and make it durable.

        Raises StepFailed, besides the reasons of `state`: `database-exists`, `migration-failed` with the last lines,
        `database-not-made`, `migration-incomplete`. What was made until then is the caller's to remove.
        """
        if self._is_there():
            raise StepFailed("database-exists", f"{self._file} exists, and only a new database is made this way")
        inside = self._inside(manifest, settings)
        found = _migrations(inside)
        # Before anything is made: with a scratch database it is seen whether the app uses the one that it is told of.
        models = _models(inside) if inside.has("flask_sqlalchemy") else Models(is_used=False)
        if found:
            return self._run_migrations(inside, *found)
        return self._create_tables(inside) if models.tables else "no database"

    def _inside(self, manifest: Manifest, settings: Mapping[str, str]) -> Inside:
        return Inside(
            manifest=manifest,
            source=self._layout.source(manifest.release),
            venv=self._layout.venv(manifest.release),
            home=self._layout.data,
            settings=settings,
            timeout_seconds=self._timeout_seconds,
        )

    def _is_there(self) -> bool:
        return self._file.exists() and self._file.stat().st_size > 0

    def _live(self) -> Reading | None:
        return _in_a_step(read_schema, self._file) if self._is_there() else None

    def _run_migrations(self, inside: Inside, scripts: Scripts, graph: Graph) -> str:
        command = " ".join(scripts.upgrade)
        durable.make_folder(self._file.parent, mode=0o700)
        completed = inside.run("-m", *scripts.upgrade, reference="migration-failed", doing=command)
        if completed.status != 0:
            raise StepFailed(
                "migration-failed",
                f"{command} ended with status {completed.status} in release {inside.manifest.release}",
                context=last_lines(completed.errors or completed.output),
            )
        return self._made(command, lambda live: compare_revisions(scripts.tool, graph, live))

    def _create_tables(self, inside: Inside) -> str:
        durable.make_folder(self._file.parent, mode=0o700)
        models = inside.ask("create", Models, inside.manifest.entry, str(self._file))
        return self._made("db.create_all()", lambda live: compare_models(models, live))

    def _made(self, command: str, compare: Callable[[Reading], SchemaState]) -> str:
        """Believe no exit status: there is a whole database, and nothing is left to be done to it."""
        if not self._is_there():
            raise StepFailed("database-not-made", f"{command} ended well, but there is no database at {self._file}")
        live = _in_a_step(read_whole, self._file)
        state = compare(live)
        if not state.fits:
            left = "; ".join((*state.pending, *state.unknown))
            raise StepFailed("migration-incomplete", f"{command} ended well, but the database does not fit: {left}")
        durable.sync_tree(self._file.parent)
        return f"{command} made {len(live.tables)} tables"


def _migrations(inside: Inside) -> tuple[Scripts, Graph] | None:
    """The release's migrations; None when it has none. Raises StepFailed when they have several ends."""
    scripts = find_scripts(inside.source, has_flask_migrate=inside.has("flask_migrate"))
    if scripts is None:
        return None
    with inside.aside() as (scratch, _):
        graph = scratch.ask("revisions", Graph, scripts.ini, scripts.folder)
    if len(graph.heads) > 1:
        ends = " and ".join(str(one) for one in graph.revisions if one.revision in graph.heads)
        raise StepFailed(
            "several-heads",
            f"the migrations of release {inside.manifest.release} have several ends: {ends}",
            hint=scripts.merge,
        )
    return (scripts, graph) if graph.revisions else None


def _models(inside: Inside, statements: tuple[str, ...] = ()) -> Models:
    with inside.aside(statements) as (scratch, file):
        return scratch.ask("models", Models, inside.manifest.entry, str(file))


def _in_a_step(read: Callable[[Path], T], file: Path) -> T:
    try:
        return read(file)
    except Refused as error:
        raise StepFailed(error.reference, error.message, hint=error.hint, context=error.context) from error
