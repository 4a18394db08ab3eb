"""A source tree on disk: its Python files, read and never run, and the entry that they lead to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from bulletproof.domain.config import Server
from bulletproof.domain.entry import EntrySearch, search, the_one
from bulletproof.domain.python_module import BrokenModule, Module, read_module
from bulletproof.domain.static_files import may_name_static_files, static_folders
from bulletproof.effects.env_file import read_env_file
from bulletproof.errors import StepFailed

_ENVIRONMENTS = {"venv", "env", "node_modules", "__pycache__", "site-packages", "build", "dist"}
_NOT_SERVED = {"migrations", "tests", "test"}
_NO_MODULES = {"conftest.py", "setup.py", "noxfile.py"}
_ENVIRONMENT_MARK = "pyvenv.cfg"
_BYTES_READ = 4 << 20
"""About a hundred thousand lines, read in five seconds of CPU; of more than that the deepest are left out."""
_LARGEST_BYTES = 1 << 20


class SourceTree(msgspec.Struct, frozen=True, kw_only=True):
    """The Python files of a source that belong to the app itself, the topmost first."""

    modules: tuple[Module, ...]
    broken: tuple[BrokenModule, ...]


def find_entry(source: Path, server: Server) -> str:
    """The `module:object` or `module:factory()` that the server loads from this source tree.

    Raises StepFailed `entry-not-found`, `entry-ambiguous` or `server-mismatch`, each with the line to write.
    """
    found = the_one(search_entry(source, read_source(source)))
    if server is Server.GUNICORN and found.framework.server is not server:
        raise StepFailed(
            "server-mismatch",
            f"{found.entry} is an ASGI app ({found.framework.name}), which gunicorn cannot run",
            hint='write app.server = "uvicorn" into bulletproof.toml; or app.entry, if gunicorn can run it after all',
        )
    return found.entry


def find_static_folders(source: Path) -> dict[str, str]:
    """The folders of this source tree that hold static files, by the path under which the app makes them public.

    Raises StepFailed `source-unreadable`.
    """
    return static_folders(read_source(source, may_name_static_files).modules)


def search_entry(source: Path, tree: SourceTree) -> EntrySearch:
    """All entries that the tree offers; FLASK_APP in `.env`, then in `.flaskenv`, is the project's own word on it."""
    files = (read_env_file(source / ".env"), read_env_file(source / ".flaskenv"))
    wishes = (file.flask_app for file in files if file)
    return search(tree.modules, tree.broken, next(filter(None, wishes), ""))


def read_source(source: Path, is_wanted: Callable[[bytes], bool] = lambda _: True) -> SourceTree:
    """Read the app's own Python files; environments, migrations, tests and hidden folders are not looked into.

    Those that are not `is_wanted` by their bytes are not parsed, which takes most of the time. Raises StepFailed
    `source-unreadable`.
    """
    has_package = (source / "src" / "__init__.py").is_file()
    try:
        contents = dict(_contents(source))
    except OSError as error:
        words = f"{error.filename} cannot be read: {error.strerror}"
        raise StepFailed("source-unreadable", words, hint=f"ls -l {error.filename}") from error
    wanted = {path: content for path, content in contents.items() if is_wanted(content)}
    read = [read_module(path, content, has_source_package=has_package) for path, content in wanted.items()]
    return SourceTree(
        modules=tuple(one for one in read if isinstance(one, Module)),
        broken=tuple(one for one in read if isinstance(one, BrokenModule)),
    )


def _contents(source: Path) -> Iterator[tuple[str, bytes]]:
    """The files' bytes, the topmost first, as long as they are no more than an app has."""
    left = _BYTES_READ
    for path in sorted(_python_files(source), key=lambda path: (len(path.parts), path)):
        content = path.read_bytes()
        left -= len(content)
        if left < 0:
            return
        yield path.relative_to(source).as_posix(), content


def _python_files(source: Path) -> Iterator[Path]:
    for name, folders, files in os.walk(source):
        folder = Path(name)
        folders[:] = [one for one in folders if not _is_left_out(folder / one)]
        for file in files:
            path = folder / file
            is_ours = file.endswith(".py") and file.isprintable() and not _is_test(file)
            if is_ours and path.is_file() and path.stat().st_size <= _LARGEST_BYTES:
                yield path


def _is_left_out(folder: Path) -> bool:
    if folder.name.startswith(".") or not folder.name.isprintable() or folder.name in _ENVIRONMENTS | _NOT_SERVED:
        return True
    # What may not be looked into, such as the files of a database's container, cannot be imported either.
    return not os.access(folder, os.R_OK | os.X_OK) or (folder / _ENVIRONMENT_MARK).exists()


def _is_test(file: str) -> bool:
    return file in _NO_MODULES or file.startswith((".", "test_")) or file.endswith("_test.py")
