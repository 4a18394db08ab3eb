"""Where a release keeps its Alembic migrations, and the commands that a person would use for them."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bulletproof.errors import StepFailed

_DEEP = 3
"""How many folders below the source migrations are looked for, when they are not where they usually are."""


class Scripts(msgspec.Struct, frozen=True, kw_only=True):
    """A release's migrations; paths are seen from its source."""

    tool: str
    """`flask-migrate` or `alembic`."""
    ini: str
    folder: str = ""
    """The folder of the scripts, when it is not the one that the ini names."""

    @property
    def upgrade(self) -> tuple[str, ...]:
        """What runs all migrations: a module of Python and its arguments."""
        if self.tool == "flask-migrate":
            return ("flask", "db", "upgrade", *self._directory)
        return ("alembic", "-c", self.ini, "upgrade", "head")

    def downgrade(self, revision: str) -> tuple[str, ...]:
        """What takes back all migrations after `revision`, in the same form."""
        if self.tool == "flask-migrate":
            return ("flask", "db", "downgrade", *self._directory, revision)
        return ("alembic", "-c", self.ini, "downgrade", revision)

    def stamp(self, revisions: tuple[str, ...]) -> str:
        """What a person would type to have these revisions noted, and nothing run."""
        program = "flask db" if self.tool == "flask-migrate" else f"alembic -c {self.ini}"
        return f"{program} stamp --purge {' '.join(revisions)}"

    @property
    def _directory(self) -> tuple[str, ...]:
        return () if self.folder == "migrations" else ("--directory", self.folder)

    @property
    def merge(self) -> str:
        """What joins several ends."""
        return "flask db merge heads" if self.tool == "flask-migrate" else "alembic merge heads"


def find_scripts(source: Path, *, has_flask_migrate: bool) -> Scripts | None:
    """The migrations of the app in `source`: the usual places first, then anywhere; None when there are none.

    Raises StepFailed when several folders could be meant.
    """
    usual = source / "migrations"
    if has_flask_migrate and _holds_scripts(usual) and ((usual / "alembic.ini").is_file() or not _has_ini(source)):
        return Scripts(tool="flask-migrate", ini="migrations/alembic.ini", folder="migrations")
    if _has_ini(source):
        return Scripts(tool="alembic", ini="alembic.ini")
    folders = sorted(str(folder.relative_to(source)) for folder in _folders(source) if _holds_scripts(folder))
    if len(folders) > 1:
        raise StepFailed(
            "several-migration-folders",
            f"there are migrations in {' and in '.join(folders)}, and nothing says which are the app's",
            hint=f"git mv {folders[0]} migrations",
        )
    if not folders:
        return None
    tool = "flask-migrate" if has_flask_migrate else "alembic"
    return Scripts(tool=tool, ini=f"{folders[0]}/alembic.ini", folder=folders[0])


def find_packaged_scripts(source: Path, entry: str, venv: Path) -> Scripts | None:
    """The migrations of Flask-Migrate in the installed package that the entry's file has its app from, if there are.

    Where it imports several packages that have some, nothing says which are the app's, and none are taken.
    """
    folders = [
        folder
        for site in venv.glob("lib/python*/site-packages")
        for package in sorted(_imported_packages(source, entry.partition(":")[0]))
        if _holds_scripts(folder := site / package / "migrations")
    ]
    if len(folders) != 1:
        return None
    place = os.path.relpath(folders[0], source)
    return Scripts(tool="flask-migrate", ini=f"{place}/alembic.ini", folder=place)


def _imported_packages(source: Path, module: str) -> set[str]:
    """What the module's file imports from, by the first part of the name; of one that lies elsewhere its own."""
    path = module.replace(".", "/")
    places = (f"{path}.py", f"src/{path}.py", f"{path}/__init__.py", f"src/{path}/__init__.py")
    file = next((source / place for place in places if (source / place).is_file()), None)
    if file is None:
        return {module.partition(".")[0]}
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError):  # it is told when it is loaded
        return set()
    imported = [one.name for node in nodes if isinstance(node, ast.Import) for one in node.names]
    imported += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.partition(".")[0] for name in imported}


def _has_ini(source: Path) -> bool:
    """Whether Alembic is configured in the source's own folder."""
    pyproject = source / "pyproject.toml"
    text = pyproject.read_text(encoding="utf-8", errors="replace") if pyproject.is_file() else ""
    return (source / "alembic.ini").is_file() or "[tool.alembic]" in text


def _holds_scripts(folder: Path) -> bool:
    return (folder / "env.py").is_file() and ((folder / "alembic.ini").is_file() or (folder / "versions").is_dir())


def _folders(source: Path) -> Iterator[Path]:
    """The folders of the source, without hidden ones, other people's packages, and what symlinks lead to."""
    for name, folders, _ in os.walk(source):
        depth = len(Path(name).relative_to(source).parts)
        folders[:] = [one for one in folders if not one.startswith(".") and one != "node_modules" and depth < _DEEP]
        yield from (Path(name) / one for one in folders)
