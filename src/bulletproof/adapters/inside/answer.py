"""Answer one question about a release, from inside: run by its own python, with its packages and nothing of ours.

`python answer.py QUESTION ANSWER SOURCE ARGUMENT…` writes JSON to the file ANSWER, whatever the app prints, and ends.
An answer with `error` says why there is no other. Where ANSWER is /dev/null the exit status tells it, and stderr why.
SETTING is the environment variable that leads to the database. It is never imported.
"""
# ruff: noqa: PLC0415  each question needs other packages of the release

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
    from collections.abc import Iterator

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


QUESTIONS = {"revisions": revisions, "models": models, "create": create}


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
        traceback.print_exc()
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
    extensions = getattr(app, "extensions", None)
    extension: Any = extensions.get("sqlalchemy") if isinstance(extensions, dict) else None
    if not hasattr(extension, "create_all"):
        yield None
        return
    with app.app_context():
        url = extension.engine.url
        if url.get_backend_name() != "sqlite" or os.path.realpath(url.database or "") != os.path.realpath(told):
            raise NoAnswerError(url.render_as_string(hide_password=True))
        yield extension


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
