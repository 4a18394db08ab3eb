"""Run Alembic's migrations in one transaction, by a release's own python, with its packages and nothing of ours.

`python migrate.py SETTING HEAD MODULE ARGUMENT…` does what `python -m MODULE ARGUMENT…` does, and ends with its status,
or with 1 when the database that the environment variable SETTING leads to does not note HEAD afterwards.

Alembic takes SQLite for a database whose DDL has no transaction, since Python's driver begins one before INSERT, UPDATE
and DELETE alone: a migration that fails at its third operation leaves the first two and no note of them.

With `--stamp REVISION,…` before those the database notes these revisions first, in the same transaction. With
`--replay FILE` each migration's schema is written to FILE as JSON, and the end does not matter.

It is never imported.
"""
# ruff: noqa: PLC0415, ANN401, SLF001  alembic and SQLAlchemy are the release's

from __future__ import annotations

import contextlib
import json
import os
import runpy
import sqlite3
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEGACY_TRANSACTION_CONTROL = -1
"""What the sqlite3 module calls so since Python 3.12: `isolation_level` decides, as it did before."""


class ForeignKeyError(RuntimeError):
    """A migration leaves rows that refer to nothing."""


class Transaction:
    """The connection that the migrations run on, in one transaction from the first of them to the commit.

    `PRAGMA foreign_keys` is off in it, as sqlite.org/lang_altertable.html wants it for rebuilding a table: on, dropping
    the old table deletes what refers to it. Instead the references are checked before the commit.
    """

    def __init__(self, connection: Any) -> None:
        self._raw = connection.connection.dbapi_connection
        self._is_left = False
        self._broken: Counter[str] = Counter()
        dialect = connection.dialect
        dialect.do_begin = self._after(self.begin, dialect.do_begin)
        dialect.do_commit = self._after(self._check, dialect.do_commit)
        dialect.do_rollback = self._after(self._forget, dialect.do_rollback)

    def begin(self) -> None:
        """Begin it, once more after a commit; what the driver or the app itself has begun is still empty."""
        if self._is_left:
            return
        if hasattr(self._raw, "autocommit"):
            self._raw.autocommit = LEGACY_TRANSACTION_CONTROL
        self._raw.isolation_level = None
        self._raw.commit()
        self._ask("PRAGMA foreign_keys = OFF")
        self._ask("BEGIN IMMEDIATE")
        self._broken = self._violations()
        self._notice(_say_when_it_ends)

    @contextlib.contextmanager
    def left(self, block: Callable[[], Any]) -> Iterator[None]:
        """Alembic's `autocommit_block`, said aloud."""
        say(
            "a migration leaves the transaction (autocommit_block): what was done until here stays if a later one fails"
        )
        self._is_left = True
        with block():
            try:
                yield
            finally:
                self._is_left = False

    def _after(self, ours: Callable[[], None], plain: Callable[[Any], None]) -> Callable[[Any], None]:
        """What SQLAlchemy does, after `ours` when it does it to this connection and no other of the engine."""

        def done(connection: Any) -> None:
            if connection.dbapi_connection is self._raw:
                ours()
            plain(connection)

        return done

    def _check(self) -> None:
        """Raise ForeignKeyError when rows refer to nothing that did not when the transaction began."""
        self._forget()
        new = self._violations() - self._broken
        if new:
            raise ForeignKeyError("; ".join(f"{count} rows more: {words}" for words, count in sorted(new.items())))

    def _violations(self) -> Counter[str]:
        """How many rows of each table refer to a row that is not; names outlast a rebuilt table, row ids do not."""
        found: Counter[str] = Counter()
        for (table,) in self._ask("SELECT name FROM sqlite_master WHERE type = 'table'"):
            try:
                rows = self._ask(f"PRAGMA foreign_key_check({quoted(table)})")
            except sqlite3.OperationalError as error:  # a reference to a column that is no key, for one
                found[str(error)] += 1
            else:
                found.update(f"{table} refers to what is not in {parent}" for _, _, parent, _ in rows)
        return found

    def _forget(self) -> None:
        """From now on the transaction ends as it should."""
        self._notice(_say_nothing)

    def _notice(self, authorizer: Callable[..., int]) -> None:
        """SQLite asks the authorizer whenever a COMMIT or ROLLBACK is prepared, whoever does it."""
        if hasattr(self._raw, "set_authorizer"):
            self._raw.set_authorizer(authorizer)

    def _ask(self, statement: str) -> list[Any]:
        cursor = self._raw.cursor()
        try:
            cursor.execute(statement)
            return list(cursor.fetchall())
        finally:
            cursor.close()


def _say_when_it_ends(action: int, operation: str | None, *_: object) -> int:
    if action == sqlite3.SQLITE_TRANSACTION and operation != "BEGIN":
        say(f"a migration ends the transaction ({operation}): what was done until here stays if a later one fails")
    return sqlite3.SQLITE_OK


def _say_nothing(*_: object) -> int:
    return sqlite3.SQLITE_OK


def say(words: str) -> None:
    """Tell whoever reads the command's output, whatever the app has put in the place of its streams."""
    with contextlib.suppress(OSError):
        os.write(2, f"{words}\n".encode())


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def let_alembic_be_transactional(stamp: tuple[str, ...] = (), replay: Replay | None = None) -> list[Any]:
    """Whatever env.py asks for, run its migrations in one transaction; gives a list that its contexts will be in.

    With `stamp` the database notes these revisions and no other before the first of them; `replay` is told of each.
    """
    from alembic.runtime.migration import MigrationContext

    kind: Any = MigrationContext
    contexts: list[Any] = []
    plain = kind.__init__

    def begin(context: Any, dialect: Any, connection: Any, opts: Any, environment_context: Any = None) -> None:
        # A context without an environment is not env.py's: an app may look at its own revision when it boots.
        if dialect.name != "sqlite" or environment_context is None:
            plain(context, dialect, connection, opts, environment_context)
            return
        transaction = Transaction(connection)
        if connection.in_transaction():  # as SQLAlchemy sees it; the driver may have begun none
            transaction.begin()
        ours: dict[str, Any] = {"transactional_ddl": True, "transaction_per_migration": False}
        if replay is not None:
            ours["on_version_apply"] = (*(opts.get("on_version_apply") or ()), replay.note)
        plain(context, dialect, connection, {**opts, **ours}, environment_context)
        block, run = context.autocommit_block, context.run_migrations
        context.autocommit_block = lambda: transaction.left(block)
        context.run_migrations = lambda **words: _run_migrations(context, run, words, stamp, replay)
        contexts.append(context)

    kind.__init__ = begin
    return contexts


def _run_migrations(
    context: Any, run: Callable[..., None], words: dict[str, Any], stamp: tuple[str, ...], replay: Replay | None
) -> None:
    """Run them in env.py's transaction, or in one of our own where env.py has begun none."""
    connection = context.connection
    with contextlib.nullcontext() if connection.in_transaction() else connection.begin():
        if stamp:
            _note_only(context, stamp)
        with replay.running() if replay else contextlib.nullcontext():
            run(**words)


def _note_only(context: Any, revisions: tuple[str, ...]) -> None:
    """What `alembic stamp` does, also where the note names a revision that the scripts do not know."""
    context._ensure_version_table()
    context.connection.execute(context._version.delete())
    for revision in revisions:
        context.connection.execute(context._version.insert().values(version_num=revision))


class Replay:
    """The schema after each migration, as the statements that make it."""

    def __init__(self, file: str) -> None:
        self._file = Path(file)
        self._is_running = False
        self._stages: list[dict[str, Any]] = []
        self._table = "alembic_version"

    def note(self, *, ctx: Any, step: Any, heads: Any, **_: Any) -> None:
        """Alembic's `on_version_apply`: a migration was done."""
        self._table = ctx.version_table
        cursor = ctx.connection.connection.dbapi_connection.cursor()
        cursor.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type <> 'table', rowid")
        statements = [row[0] for row in cursor.fetchall()]
        cursor.close()
        self._stages.append({"revision": step.up_revision_id, "heads": sorted(heads), "statements": statements})

    def write(self, trouble: str) -> None:
        """For whoever asked for it; `trouble` is why it did not come to the end."""
        told = {"table": self._table, "stages": self._stages, "trouble": trouble}
        self._file.write_text(json.dumps(told), encoding="utf-8")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The migrations run, and what makes tables is one of them."""
        self._is_running = True
        try:
            yield
        finally:
            self._is_running = False

    def keep_the_database_empty(self) -> None:
        """An app that makes all its tables when it is loaded leaves nothing to do for the migrations."""
        with contextlib.suppress(ImportError):
            from sqlalchemy import MetaData

            plain, kind = MetaData.create_all, MetaData

            def make(*values: Any, **named: Any) -> None:
                if self._is_running:
                    plain(*values, **named)

            setattr(kind, "create_all", make)  # noqa: B010  mypy does not let a method be replaced


def check_note(setting: str, table: str, head: str) -> None:
    """Believe no exit status. Raises SystemExit when the database notes anything but `head`."""
    file = Path("/" + os.environ[setting].partition("://")[2].lstrip("/"))
    try:
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True)) as connection:
            noted = [row[0] for row in connection.execute(f"SELECT version_num FROM {quoted(table)}")]  # noqa: S608
    except sqlite3.OperationalError as error:
        noted = [f"nothing ({error})"]
    if noted != [head]:
        raise SystemExit(f"the migrations ended well, but {file} notes {' and '.join(noted) or 'nothing'}, not {head}")


def main(*words: str) -> None:
    """Run the module, look at what it did, and end at once, with whatever threads the app has started."""
    stamp: tuple[str, ...] = ()
    replay: Replay | None = None
    if words[0] == "--stamp":
        stamp, words = tuple(words[1].split(",")), words[2:]
    elif words[0] == "--replay":
        replay, words = Replay(words[1]), words[2:]
        replay.keep_the_database_empty()
    setting, head, module, *arguments = words
    here = str(Path(__file__).parent)
    sys.path[:] = [str(Path.cwd()), *(path for path in sys.path if path != here)]
    sys.argv[:] = [module, *arguments]
    status = 0
    try:
        contexts = let_alembic_be_transactional(stamp, replay)
        _run(module)
        if replay:
            replay.write("")
        else:
            check_note(setting, contexts[-1].version_table if contexts else "alembic_version", head)
    except SystemExit as error:
        status = _told(error.code)
    except BaseException as error:  # noqa: BLE001  a migration may raise anything, and it is told
        status = 1
        traceback.print_exc()
        if replay:
            replay.write(next(iter(str(error).strip().splitlines()), type(error).__name__))
        if "database is locked" in str(error):
            say("a migration reaches the database through op.get_bind() alone: another connection waits for ever")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # an app may have put anything in their place
            stream.flush()
    os._exit(status)


def _run(module: str) -> None:
    """Do what `python -m` does; raises whatever it raises, save for an end that is none of trouble."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        if error.code:
            raise


def _told(code: Any) -> int:
    """The exit status that Python makes of what sys.exit() was given."""
    if isinstance(code, int):
        return code
    say(str(code))
    return 1


if __name__ == "__main__":
    main(*sys.argv[1:])
