"""Answer one question about a release, from inside: run by its own python, with its packages and nothing of ours.

`python answer.py QUESTION ANSWER SOURCE ARGUMENT…` writes JSON to the file ANSWER, whatever the app prints, and ends.
An answer with `error` says why there is no other. Where ANSWER is /dev/null the exit status tells it, and stderr why.
SETTING is the environment variable that leads to the database. It is never imported.
"""
# ruff: noqa: PLC0415, SLF001  each question needs other packages of the release, and Django says all in _meta

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Answer = dict[str, Any]


def revisions(ini: str, folder: str) -> Answer:
    """The migrations in the order in which they run, without running env.py; `folder` wins over the ini's."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    is_toml_read = "toml_file" in inspect.signature(Config).parameters  # since Alembic 1.16
    config = Config(ini, toml_file="pyproject.toml") if is_toml_read else Config(ini)
    if folder:
        config.set_main_option("script_location", folder.replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    found = reversed(list(scripts.walk_revisions()))
    folders = () if scripts.sourceless else {scripts.dir, *(scripts.version_locations or ())}
    return {
        "heads": sorted(scripts.get_heads()),
        "revisions": [_revision(scripts, one) for one in found],
        "folders": sorted(os.path.realpath(folder) for folder in folders),
    }


def models(entry: str, setting: str) -> Answer:
    """The tables that the app's models describe; `error` when the app would use another database than it is told."""
    with _flask_sqlalchemy(entry, setting) as found:
        return _tables(found)


def create(entry: str, setting: str) -> Answer:
    """Make the tables of the app's models, as `db.create_all()` does, in the database that it is told, or nowhere."""
    with _flask_sqlalchemy(entry, setting) as found:
        if found is not None:
            found.create_all()
            found.session.remove()
            found.engine.dispose()
        return _tables(found)


def django_migrations(entry: str, setting: str) -> Answer:
    """All migrations of a Django project, and which of them the database that it is told of still lacks, in order."""
    with _django(entry, setting) as connection:
        executor = _module("django.db.migrations.executor").MigrationExecutor(connection)
        loader = executor.loader
        conflicts = loader.detect_conflicts()
        if conflicts:
            ends = "; ".join(f"{app} ({', '.join(names)})" for app, names in sorted(conflicts.items()))
            raise RuntimeError(f"the migrations have several ends: {ends}; python manage.py makemigrations --merge")
        replaced = {key for one in loader.disk_migrations.values() for key in one.replaces}
        return {
            "migrations": [_django_migration(loader.graph.nodes[key]) for key in _in_order(loader.graph)],
            "known": sorted(set(loader.disk_migrations) | replaced),
            "pending": [[one.app_label, one.name] for one in _plan(executor, loader.graph.leaf_nodes())],
            "ends": sorted(loader.graph.leaf_nodes()),
            "others": [_other_database(one) for one in _module("django.db").connections.all() if one != connection],
        }


def django_models(entry: str, setting: str) -> Answer:
    """The tables that the models of all installed apps describe, save for those that Django does not look after."""
    with _django(entry, setting):
        router = _module("django.db").router
        every = _module("django.apps").apps.get_models(include_auto_created=True)
        ours = (one for one in every if one._meta.managed and not (one._meta.proxy or one._meta.swapped))
        return {
            "is_used": True,
            "tables": [_django_table(one) for one in ours if router.allow_migrate_model("default", one)],
        }


def django_migrate(entry: str, setting: str, *targets: str) -> Answer:
    """Migrate the database that it is told, or none: to each `app name` of the targets, and without any to the end."""
    with _django(entry, setting) as connection:
        call = _module("django.core.management").call_command
        for target in targets or ("",):  # without one it is all apps, to their ends
            call("migrate", *target.split(), interactive=False)
        executor = _module("django.db.migrations.executor").MigrationExecutor(connection)
        wanted = [(app, None if name == "zero" else name) for app, name in map(str.split, targets)]
        if left := _plan(executor, wanted or executor.loader.graph.leaf_nodes()):
            raise RuntimeError(f"migrate ended well, but {len(left)} migrations are left to do: {left[0]} is the first")
        connection.close()
        return {}


def django_static(entry: str, fallback: str, source: str) -> Answer:
    """Collect a Django project's static files below its STATIC_ROOT, or in `fallback` when it names none.

    Tells the URL and the folder; `words` when they are kept outside of the source, where nothing is written to.
    """
    importlib.import_module(entry.partition(":")[0])  # with the settings that the app is served with
    _module("django").setup()
    settings = _module("django.conf").settings
    if not _module("django.apps").apps.is_installed("django.contrib.staticfiles"):
        return {}
    settings.STATIC_ROOT = str(settings.STATIC_ROOT or fallback)
    root = Path(settings.STATIC_ROOT).resolve()
    if not any(root.is_relative_to(Path(place).resolve()) for place in (source, fallback)):
        return {"words": f"collectstatic was not run: STATIC_ROOT {settings.STATIC_ROOT} lies outside of the source"}
    storage = _module("django.contrib.staticfiles.storage").staticfiles_storage
    if not isinstance(storage, _module("django.core.files.storage").FileSystemStorage):
        return {"words": f"collectstatic was not run: {storage.__class__.__name__} keeps the files elsewhere"}
    _module("django.core.management").call_command("collectstatic", interactive=False, verbosity=0)
    return {"url": str(settings.STATIC_URL or ""), "folder": str(root)}


def opens(entry: str, server: str, *paths: str) -> Answer:
    """The SQLite files that the app opens when it is loaded and asked for `paths`, and the folders that users fill.

    The file of its main database is in `main`, where its framework tells. `trouble` says why it could not be loaded;
    what was seen until then counts.
    """
    connected: list[str] = []

    def notice(event: str, words: tuple[Any, ...]) -> None:
        if event == "sqlite3.connect":
            connected.append(_file_of(words[0]))

    sys.addaudithook(notice)
    app, trouble = None, ""
    try:
        app = _load(entry)
    except (Exception, SystemExit) as error:  # noqa: BLE001  an app may raise anything, and it is told
        trouble = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
    main = [*_flask_databases(app), *_django_databases()]
    if app is not None and not main:
        _visit(app, server, paths)  # an app without either opens its database when it is asked for something
    # Where its framework tells of one that is no file of SQLite's, no other is the app's own.
    others = [] if main else [*_engines(), *connected, *_configured(app)]
    return {
        "main": _absolute(main),
        "others": _absolute(others),
        "folders": sorted(set(_absolute(_folders(app)))),
        "trouble": trouble,
    }


QUESTIONS: dict[str, Callable[..., Answer]] = {
    "opens": opens,
    "revisions": revisions,
    "models": models,
    "create": create,
    "django-migrations": django_migrations,
    "django-models": django_models,
    "django-migrate": django_migrate,
    "django-static": django_static,
}


_FOLDER_SETTINGS = (
    "UPLOAD_FOLDER",
    "UPLOADS_FOLDER",
    "UPLOAD_DIR",
    "UPLOAD_PATH",
    "UPLOADS_DEFAULT_DEST",
    "MEDIA_ROOT",
)
"""How Flask apps and their extensions call the folder that users fill."""


_DATABASE_ENDS = (".db", ".sqlite", ".sqlite3", ".db3")
_VISIT_SECONDS = 8


class _TooLongError(BaseException):
    """The app took too long to answer; not an Exception, which an app may catch."""


class NoAnswerError(Exception):
    """The app is not what the question supposes, in words."""


def main(question: str, file: str, source: str, *arguments: str) -> None:
    """Ask, write the answer in one rename, and end at once, with whatever the app has started."""
    here = str(Path(__file__).parent)
    sys.path[:] = [source, *(path for path in sys.path if path != here)]
    try:
        answer = QUESTIONS[question](*arguments)
    except NoAnswerError as error:
        answer = {"error": str(error), "kind": "setting-ignored"}
    except SystemExit as error:
        answer = {"error": f"it called sys.exit({error.code!r})"}
    except BaseException as error:  # noqa: BLE001  an app may raise anything, and it is told
        _print_trouble(error)
        first, *_ = str(error).strip().splitlines() or [""]
        answer = {"error": f"{type(error).__name__}: {first}", "kind": _kind(error)}
    if file == os.devnull:
        _tell(answer)
    else:
        Path(f"{file}.new").write_text(json.dumps(answer), encoding="utf-8")
        Path(f"{file}.new").replace(file)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # an app may have put anything in their place
            stream.flush()
    if file != os.devnull and os.getpgrp() == os.getpid():  # as whoever wants an answer runs it: a group of our own
        os.killpg(0, signal.SIGKILL)
    os._exit(1 if "error" in answer else 0)


def _print_trouble(error: BaseException) -> None:
    """Its traceback as far as it leads through the app: how we and the import system came there helps nobody."""
    told = traceback.TracebackException.from_exception(error)
    trouble: traceback.TracebackException | None = told
    while trouble is not None:
        frames = [one for one in trouble.stack if one.filename != __file__ and not one.filename.startswith("<frozen ")]
        trouble.stack = traceback.StackSummary.from_list(frames)
        trouble = trouble.__cause__ or trouble.__context__
    with contextlib.suppress(Exception):  # an app may have put anything in its place
        sys.stderr.write("".join(told.format()))


def _tell(answer: Answer) -> None:
    """Say on stderr why there is no answer, whatever the app has put in its place."""
    if "error" in answer:
        with contextlib.suppress(OSError):
            os.write(2, f"{answer['error']}\n".encode())


def _kind(error: BaseException) -> str:
    is_ours = isinstance(error, ModuleNotFoundError) and error.name in {"alembic", "alembic.config"}
    return "tool-missing" if is_ours else ""


def _revision(scripts: Any, revision: Any) -> Answer:  # noqa: ANN401  alembic is the release's
    needed = revision.dependencies or ()
    before = revision.down_revision or ()
    names = [*((before,) if isinstance(before, str) else before), *((needed,) if isinstance(needed, str) else needed)]
    parents = [parent.revision for name in names for parent in scripts.get_revisions(name)]
    return {
        "revision": revision.revision,
        "parents": parents,
        "title": revision.doc,
        "is_reversible": _is_reversible(revision.module),
    }


def _is_reversible(module: Any) -> bool:  # noqa: ANN401  a migration's
    """Whether a migration can be taken back: its downgrade does something, or there is nothing to take back."""
    try:
        tree = ast.parse(inspect.getsource(module))
    except OSError:  # compiled alone, so nobody knows
        return False
    bodies = {node.name: node.body for node in tree.body if isinstance(node, ast.FunctionDef)}
    upgrade, downgrade = bodies.get("upgrade", []), bodies.get("downgrade", [])
    if any(isinstance(statement, ast.Raise) for statement in downgrade):
        return False
    return any(map(_does_something, downgrade)) or not any(map(_does_something, upgrade))


def _does_something(statement: ast.stmt) -> bool:
    """Whether it is more than `pass`, `...`, a docstring or a bare `return`."""
    if isinstance(statement, ast.Return):
        return not (statement.value is None or isinstance(statement.value, ast.Constant))
    is_value = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return not is_value and not isinstance(statement, ast.Pass)


@contextlib.contextmanager
def _flask_sqlalchemy(entry: str, setting: str) -> Iterator[Any]:
    """The app's Flask-SQLAlchemy within its context, proved to use the database it is told; None when it has none."""
    told = "/" + os.environ[setting].partition("://")[2].lstrip("/")  # read before the app can change it
    app = _load(entry)
    extension = _extension(app)
    if not hasattr(extension, "create_all"):
        yield None
        return
    with app.app_context():
        url = extension.engine.url
        if url.get_backend_name() != "sqlite" or os.path.realpath(url.database or "") != os.path.realpath(told):
            raise NoAnswerError(url.render_as_string(hide_password=True))
        yield extension


def _extension(app: Any) -> Any:  # noqa: ANN401  Flask-SQLAlchemy is the release's
    """The app's Flask-SQLAlchemy; before 3.0 the app holds a state that has it. None when it has none."""
    extensions = getattr(app, "extensions", None)
    held = extensions.get("sqlalchemy") if isinstance(extensions, dict) else None
    return held if hasattr(held, "create_all") else getattr(held, "db", None)


@contextlib.contextmanager
def _django(entry: str, setting: str) -> Iterator[Any]:
    """The connection of the Django project that the entry sets up, proved to lead to the database it is told."""
    told = "/" + os.environ[setting].partition("://")[2].lstrip("/")  # read before the project can change it
    importlib.import_module(entry.partition(":")[0])  # with the settings that the app is served with
    _module("django").setup()  # once more is harmless, and the entry may leave it to its server
    connection = _module("django.db").connection
    name = str(connection.settings_dict["NAME"])
    if connection.vendor != "sqlite" or os.path.realpath(name) != os.path.realpath(told):
        raise NoAnswerError(f"{connection.vendor} {name}")
    yield connection


def _file_of(name: Any) -> str:  # noqa: ANN401  whatever is given to sqlite3.connect
    """The file of a name as SQLite reads it, where the process stands now; empty for one in memory."""
    text = os.fsdecode(name)
    if text.startswith("file:"):
        from urllib.parse import unquote, urlsplit

        parts = urlsplit(text)
        text = "" if "mode=memory" in parts.query else unquote(parts.path)
    return "" if text in {"", ":memory:"} else str(Path.cwd() / text)


def _flask_databases(app: Any) -> list[str]:  # noqa: ANN401  whatever the app is
    """The one database of Flask-SQLAlchemy that has no bind key."""
    with contextlib.suppress(Exception), app.app_context():
        return [_file_of_url(_extension(app).engine.url)]
    return []


def _django_databases() -> list[str]:
    """Django's default database."""
    with contextlib.suppress(Exception):
        connection = sys.modules["django.db"].connection
        return [str(connection.settings_dict["NAME"]) if connection.vendor == "sqlite" else ""]
    return []


def _engines() -> list[str]:
    """The databases of SQLAlchemy's engines, whoever holds them."""
    base = sys.modules.get("sqlalchemy.engine.base")
    kind: Any = getattr(base, "Engine", None)
    if kind is None:
        return []
    import gc

    return [_file_of_url(one.url) for one in gc.get_objects() if type(one) is kind]


def _file_of_url(url: Any) -> str:  # noqa: ANN401  SQLAlchemy is the release's
    return _file_of(url.database or "") if url.get_backend_name() == "sqlite" else ""


def _visit(app: Any, server: str, paths: tuple[str, ...]) -> None:  # noqa: ANN401  whatever the app is
    """Ask the app for each path as its server would, whatever it answers, for a few seconds at most."""
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(_VISIT_SECONDS)
    try:
        for path in paths:
            with contextlib.suppress(Exception):
                _ask_asgi(app, path) if server == "uvicorn" else _ask_wsgi(app, path)
    except _TooLongError:
        pass
    finally:
        signal.alarm(0)


def _give_up(*_: object) -> None:
    raise _TooLongError


def _ask_wsgi(app: Any, path: str) -> None:  # noqa: ANN401  whatever the app is
    from wsgiref.util import setup_testing_defaults

    environ: dict[str, Any] = {"PATH_INFO": path}
    setup_testing_defaults(environ)
    for _ in app(environ, lambda *_: lambda _: None):
        pass


def _ask_asgi(app: Any, path: str) -> None:  # noqa: ANN401  whatever the app is
    import asyncio

    async def send(_: Any) -> None:  # noqa: ANN401
        started.set()

    async def ask() -> None:
        lifespan = asyncio.ensure_future(app({"type": "lifespan", "asgi": {"version": "3.0"}}, waiting.get, send))
        waiting.put_nowait({"type": "lifespan.startup"})
        with contextlib.suppress(Exception):
            await asyncio.wait_for(started.wait(), 2.0)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        with contextlib.suppress(Exception):
            await asyncio.wait_for(app(scope, _request, send), 2.0)
        lifespan.cancel()

    async def _request() -> Answer:
        return {"type": "http.request", "body": b"", "more_body": False}

    waiting: Any = asyncio.Queue()
    started = asyncio.Event()
    asyncio.run(ask())


def _configured(app: Any) -> list[str]:  # noqa: ANN401  whatever the app is
    """What its configuration names as a database's file: `app.config["DATABASE"]`."""
    config = getattr(app, "config", None)
    values = [str(value) for name, value in config.items() if "DATABASE" in name] if isinstance(config, dict) else []
    return [_file_of(value) for value in values if value.endswith(_DATABASE_ENDS) and ":" not in value]


def _folders(app: Any) -> list[str]:  # noqa: ANN401  whatever the app is
    """The folders that its configuration says users fill: UPLOAD_FOLDER and the like, and Django's MEDIA_ROOT."""
    found = []
    config = getattr(app, "config", None)
    for name, value in config.items() if isinstance(config, dict) else ():
        if isinstance(value, (str, os.PathLike)) and name.endswith(_FOLDER_SETTINGS) and os.fspath(value):
            found.append(os.fspath(value))
    with contextlib.suppress(Exception):
        found.append(str(sys.modules["django.conf"].settings.MEDIA_ROOT))
    return found


def _absolute(paths: list[str]) -> list[str]:
    return list(dict.fromkeys(os.path.realpath(path) for path in paths if path))


def _module(name: str) -> Any:  # noqa: ANN401  django is the release's
    return importlib.import_module(name)


def _plan(executor: Any, targets: list[Any]) -> list[Any]:  # noqa: ANN401  django is the release's
    """The migrations that have to be done, or undone, until the database is at the targets."""
    return [migration for migration, _ in executor.migration_plan(targets)]


def _in_order(graph: Any) -> list[tuple[str, str]]:  # noqa: ANN401  django is the release's
    """Every migration after those that it needs."""
    return list(dict.fromkeys(key for leaf in sorted(graph.leaf_nodes()) for key in graph.forwards_plan(leaf)))


def _django_migration(migration: Any) -> Answer:  # noqa: ANN401  django is the release's
    return {
        "key": [migration.app_label, migration.name],
        "is_reversible": all(map(_can_be_undone, migration.operations)),
        "replaces": migration.replaces,
    }


def _other_database(connection: Any) -> Answer:  # noqa: ANN401  django is the release's
    return {"alias": connection.alias, "kind": connection.vendor, "name": str(connection.settings_dict["NAME"])}


def _can_be_undone(operation: Any) -> bool:  # noqa: ANN401  django is the release's
    """Whether an operation, and each that it is made of, has a way back."""
    inner = getattr(operation, "database_operations", ())
    return bool(operation.reversible) and all(map(_can_be_undone, inner))


def _django_table(model: Any) -> list[Any]:  # noqa: ANN401  django is the release's
    columns = [one.column for one in model._meta.local_concrete_fields if not getattr(one, "generated", False)]
    return [model._meta.db_table, columns]


def _load(entry: str) -> Any:  # noqa: ANN401  whatever the app is
    """The object that `module:object` or `module:factory(…)` names; a factory's arguments may be literals."""
    module, _, expression = entry.partition(":")
    node = ast.parse(expression or "app", mode="eval").body
    found = importlib.import_module(module)
    if not isinstance(node, ast.Call):
        return _named(found, ast.unparse(node))
    positional = [ast.literal_eval(argument) for argument in node.args]
    named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
    return _named(found, ast.unparse(node.func))(*positional, **named)


def _named(found: Any, name: str) -> Any:  # noqa: ANN401  whatever the app is
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _tables(found: Any) -> Answer:  # noqa: ANN401  Flask-SQLAlchemy is the release's
    tables = () if found is None else found.metadata.sorted_tables
    return {
        "is_used": found is not None,
        # What is computed is not told of a table in a database either (PRAGMA table_info).
        "tables": [[one.name, [column.name for column in one.columns if not column.computed]] for one in tables],
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
