"""A release seen from inside: its own python, run with its own packages, told of the database that we choose."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import msgspec

from bulletproof.domain.account import Account
from bulletproof.domain.settings import database_url
from bulletproof.domain.system_libraries import blamed
from bulletproof.domain.web import surroundings
from bulletproof.effects import durable
from bulletproof.effects.isolation import Cell, end_at_once, is_remapped, start_in_cell
from bulletproof.effects.logs import tail
from bulletproof.effects.ownership import give, read_plain
from bulletproof.effects.process import Completed, last_lines, run
from bulletproof.errors import StepFailed
from bulletproof.ports import Command, Manifest

ANSWER = Path(__file__).parents[1] / "inside" / "answer.py"
MIGRATE = ANSWER.with_name("migrate.py")

_TROUBLES = {
    "revisions": ("migrations-not-readable", "reading the migrations"),
    "models": ("app-not-loaded", "loading the app"),
    "django-migrations": ("migrations-not-readable", "reading the migrations"),
    "django-models": ("app-not-loaded", "loading the app"),
    "django-static": ("static-not-collected", "collecting the static files"),
}
"""By question: the reference of its failure, and what was being done."""

_LOG_LINES = 15

T = TypeVar("T")


class _Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an answer that says why there is no other."""

    error: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """A release and what its python is run with."""

    manifest: Manifest
    source: Path
    venv: Path
    home: Path
    settings: Mapping[str, str] = field(repr=False)
    timeout_seconds: float
    account: Account | None = None
    """As whom it runs, when we are root."""
    scratch: Path | None = None
    """Of an app whose database is a link into the data: the folder that lies there instead, in a cell."""

    def has(self, package: str) -> bool:
        """Whether the release has a package, by its import name."""
        return any(self.venv.glob(f"lib/python*/site-packages/{package}/__init__.py"))

    @property
    def python(self) -> str:
        """The release's python."""
        return str(self.venv / "bin" / "python")

    @property
    def setting(self) -> str:
        """The environment variable that tells the app of its database."""
        return self.manifest.config.database.setting

    def told_of(self, file: Path) -> Inside:
        """The same, told of this database. Raises StepFailed when the app's database is not SQLite's."""
        url = database_url(self.settings.get(self.setting), str(file))
        if url is None:
            raise StepFailed(
                "database-not-supported",
                f"{self.setting} leads to a database that is not SQLite's, which cannot be looked after yet",
                hint=f"bulletproof env unset {self.setting}",
            )
        return replace(self, settings={**self.settings, self.setting: url})

    @contextmanager
    def aside(self, statements: tuple[str, ...] = ()) -> Iterator[tuple[Inside, Path]]:
        """The same, told of a scratch database that `statements` made, and that file; both are gone afterwards.

        Raises StepFailed when the app's database is not SQLite's.
        """
        with _temporary_folder(self.account) as folder:
            is_linked = bool(self.manifest.config.database.links) and is_remapped()
            file = folder / (self.manifest.config.database.file if is_linked else "scratch.db")
            told = self.told_of(self.home / file.name if is_linked else file)
            with closing(sqlite3.connect(file)) as connection:
                for statement in statements:
                    connection.execute(statement)
                connection.commit()
            give(file, self.account)
            yield (replace(told, scratch=folder) if is_linked else replace(told, home=folder)), file

    def command(self, words: str, *argv: str | Path, reads: tuple[Path, ...] = ()) -> Command:
        """A program that runs as the app is served; a .env file in its source has no say here either."""
        ours = {"FLASK_APP": self.manifest.entry, "FLASK_SKIP_DOTENV": "1"}
        return Command(
            words=words,
            argv=tuple(map(str, argv)),
            folder=self.source,
            environment={**self.settings, **surroundings(self.source, self.venv, self.home), **ours},
            reads=reads,
        )

    def run(self, command: Command, reference: str, writes: tuple[Path, ...] = ()) -> Completed:
        """Run it here and now. Raises StepFailed(reference) when it takes longer than it may."""
        if self.scratch is not None:
            return self._run_in_cell(self.scratch, command, reference, writes)
        try:
            return run(
                self.account.argv(command.argv) if self.account else command.argv,
                folder=command.folder,
                environment=command.environment,
                timeout_seconds=self.timeout_seconds,
            )
        except StepFailed as error:
            if error.reference != "program-too-slow":
                raise
            words = f"{command.words} did not end within {self.timeout_seconds:.0f} seconds and was killed"
            raise self._failed(reference, words) from error

    def _run_in_cell(self, scratch: Path, command: Command, reference: str, writes: tuple[Path, ...]) -> Completed:
        """The same where the scratch lies in the place of the data."""
        with _temporary_folder(None) as folder:
            durable.make_folder(folder / "root")
            python = Path(self.python).resolve()
            cell = Cell(
                mount_point=folder / "root",
                read_only=(self.source.parent, python.parents[1], ANSWER.parent),
                writable={scratch: self.home, **{path: path for path in writes}},
                memory_bytes=self.manifest.config.rehearsal.memory_mib << 20,
                account=self.account,
            )
            running = start_in_cell(
                cell, command.argv, folder=command.folder, environment=command.environment, log=folder / "log"
            )
            try:
                status = running.wait(self.timeout_seconds)
            finally:
                end_at_once(running)
            said = "\n".join(tail(folder / "log", _LOG_LINES))
        if status is None:
            words = f"{command.words} did not end within {self.timeout_seconds:.0f} seconds and was killed"
            raise self._failed(reference, words)
        return Completed(argv=command.argv, status=status, output="", errors=said)

    def ask(self, question: str, kind: type[T], *arguments: str, writes: tuple[Path, ...] = ()) -> T:
        """Ask `inside/answer.py`, which answers in a file and may write in `writes`.

        Raises StepFailed when there is no answer, saying why.
        """
        reference, doing = _TROUBLES[question]
        with _temporary_folder(self.account) as folder:
            file = folder / "answer.json"
            completed = self.run(
                self.command(doing, self.python, ANSWER, question, file, self.source, *arguments),
                reference,
                (folder, *writes),
            )
            answer = read_plain(file) or b""
        context = last_lines(completed.errors)
        if not answer:
            raise self._failed(reference, f"{doing} ended the process with status {completed.status}", context)
        trouble = msgspec.json.decode(answer, type=_Trouble)
        if trouble.kind == "setting-ignored":
            raise self._setting_ignored(trouble.error)
        if trouble.kind == "tool-missing":
            raise self._failed("migration-tool-missing", "the source holds migrations, but Alembic is not installed")
        if trouble.error:
            raise self._failed(reference, f"{doing} failed: {trouble.error}", context)
        return msgspec.json.decode(answer, type=kind)

    def _failed(self, reference: str, words: str, context: tuple[str, ...] = ()) -> StepFailed:
        words, hint = blamed(f"release {self.manifest.release}: {words}", context)
        return StepFailed(reference, words, context=context, hint=hint)

    def _setting_ignored(self, url: str) -> StepFailed:
        return StepFailed(
            "setting-ignored",
            f"release {self.manifest.release}: the app does not take the address of its database from {self.setting},"
            f" but uses {url}",
            hint=f'let its configuration read os.environ["{self.setting}"]',
        )


@contextmanager
def _temporary_folder(account: Account | None) -> Iterator[Path]:
    """A private folder for the time being; what an app's stray process puts there later does not matter to us."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="bulletproof-", ignore_cleanup_errors=True)
    except OSError as error:
        raise StepFailed("scratch-not-made", f"no temporary folder could be made: {error.strerror or error}") from error
    with folder as name:
        give(Path(name), account)
        yield Path(name)
