"""What an app is, told by its folder: entry, settings, database, migrations, health route; nothing of it is run."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import msgspec
from msgspec.structs import replace

from bulletproof.domain.entry import Candidate, EntrySearch, the_one
from bulletproof.domain.filled import database_places, filled_folders
from bulletproof.domain.frameworks import ASGI, DJANGO, FASTAPI, FLASK, WSGI, Framework, of_packages
from bulletproof.domain.procfile import Procfile
from bulletproof.domain.python_traits import (
    DatabaseUse,
    Sighting,
    database_use,
    has_route,
    health_route,
    imported_packages,
    sets_wal,
    settings_module,
)
from bulletproof.domain.source_paths import Names
from bulletproof.effects.dependencies import Dependencies, read_dependencies
from bulletproof.effects.env_file import EnvFile, read_env_file
from bulletproof.effects.git_marks import is_ignored, is_tracked
from bulletproof.effects.interpreter import running_interpreter
from bulletproof.effects.local_packages import Need, need_of
from bulletproof.effects.project import read_procfile
from bulletproof.effects.source import resolve
from bulletproof.effects.source_tree import SourceTree, find_entry, read_source, search_entry
from bulletproof.effects.sqlite_found import database_files, describe_database, is_database
from bulletproof.errors import BulletproofError, StepFailed

__all__ = ["DatabaseFound", "Findings", "Found", "GitFound", "detect", "find_entry"]

CONFIG_FILE = "bulletproof.toml"

_MIGRATIONS = (
    "migrations/env.py",
    "alembic/env.py",
    "*/migrations/env.py",
    "*/alembic/env.py",
    "src/*/migrations/env.py",
)
_DJANGO_MIGRATIONS = ("*/migrations/0*.py", "*/*/migrations/0*.py", "src/*/*/migrations/0*.py")
_IN_INSTANCE = ("flask_sqlalchemy", "flask_migrate")
"""What takes a relative path from Flask's instance folder, and not from where the process stands."""
_FILLED = ("uploads", "media", "static/uploads", "*/static/uploads", "*/uploads")
"""Where folders of users' files usually lie."""
_LOOKED_AT = 5
_NAMES_A_URL = re.compile(r"UR[IL]|DSN")
"""In a setting's name; without it what is handed to a driver of files is a path, and nothing that we could set."""
_LONGEST_NAME = 32
_CONTAINERS = (
    "Dockerfile",
    "Containerfile",
    "docker-compose.yml",
    "docker-compose.yaml",
    "compose.yml",
    "compose.yaml",
)


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was found, and where."""

    what: str
    where: str


class DatabaseFound(msgspec.Struct, frozen=True, kw_only=True):
    """The app's database, as far as its source and its dotenv files tell."""

    kind: str
    """Such as `sqlite`; empty when nothing tells."""
    setting: str
    """The environment variable that holds its URL; empty when the URL is written in the source."""
    where: str
    files: tuple[str, ...] = ()
    """SQLite databases that lie in the folder: somebody's data."""
    holds: tuple[str, ...] = ()
    """What each of them holds, in words."""
    used: str = ""
    """The one of them, or the file elsewhere, that the app opens by what its text says; empty when it does not tell."""
    tracked: tuple[str, ...] = ()
    """Those of them that git keeps."""
    links: tuple[str, ...] = ()
    """The file below the source that the app opens, when no setting tells it another."""


class GitFound(msgspec.Struct, frozen=True, kw_only=True):
    """The folder's git repository."""

    is_repository: bool
    is_env_tracked: bool = False
    is_config_ignored: bool = False
    problem: str = ""
    """Why the last commit cannot be deployed, in words."""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What `init` needs to know of an app, each with its reason."""

    folder: str
    name: Found
    entry: Found
    import_folder: str
    """The folder of the source that must be on Python's path for the entry: `src`, or empty for the source itself."""
    framework: Framework = FLASK
    """What the app is written with."""
    settings_module: Found | None = None
    """A Django project's settings, as the entry's own file names them."""
    packages: tuple[str, ...]
    """Names in the list or lock that is used, and the files it includes."""
    package_list: str = ""
    """That list, such as `uv.lock`."""
    unused_lists: tuple[str, ...] = ()
    """Others that lie beside it."""
    is_installed: bool = False
    """Whether the project itself is installed as a package."""
    requirements_problem: str
    """Why the packages cannot be installed from there, in words."""
    env: EnvFile | None
    """`.env`"""
    env_example: EnvFile | None
    """`.env.example`"""
    database: DatabaseFound | None
    journal: Found | None = None
    """That its SQLite database is not in WAL mode; None when it is, or when the app sees to it."""
    persistent: tuple[Found, ...] = ()
    """Folders below the source that users fill."""
    migrations: Found | None
    """Their folder; `what` is `flask-migrate`, `alembic` or `django`."""
    health: Found | None
    """The route made for a health check, or else what a framework answers by itself."""
    python: Found | None
    """The version that the project asks for."""
    git: GitFound
    procfile: Procfile | None = None


Choose = Callable[[Sequence[Candidate]], Candidate]
"""Lets a person say which of several apps is meant."""


def detect(folder: Path, *, entry: str | None = None, choose: Choose | None = None) -> Findings:
    """Look at everything in the folder; with `entry` that one is taken and not searched for.

    Where several apps could be meant, `choose` is asked; without it that is an error.
    Raises StepFailed `entry-not-found`, `entry-ambiguous` and `folder-unreadable`, and UsageError `procfile-invalid`.
    """
    try:
        return _detect(folder, entry, choose)
    except StepFailed as error:
        if error.reference == "entry-not-found":
            error.context += _words_of_containers(folder)
        raise
    except OSError as error:
        words = f"{error.filename} cannot be read: {error.strerror}"
        raise StepFailed("folder-unreadable", words, hint=f"ls -ld {error.filename}") from error


def _words_of_containers(folder: Path) -> tuple[str, ...]:
    """What is to be said of files that tell how the app runs elsewhere."""
    found = [name for name in _CONTAINERS if (folder / name).exists()]
    return (
        (f"not looked at: {', '.join(found)}; an app is run by its Python code here, in no container",) if found else ()
    )


def _detect(folder: Path, entry: str | None, choose: Choose | None) -> Findings:
    tree = read_source(folder)
    packages = imported_packages(tree.modules)
    env, example = read_env_file(folder / ".env"), read_env_file(folder / ".env.example")
    pyproject, procfile = _pyproject(folder), read_procfile(folder)
    told = Found(what=entry, where="--entry") if entry else _told_by(procfile)
    candidate = None if entry else _candidate(search_entry(folder, tree), told, choose)
    found = told or Found(what=candidate.entry if candidate else "", where=candidate.reason if candidate else "")
    framework = candidate.framework if candidate else of_packages(set(packages), found.what) or _plain(procfile)
    dependencies, problem = _dependencies(folder)
    found_names = Names.of(tree.modules, candidate.import_folder if candidate else "")
    database = _database(folder, tree, [file for file in (env, example) if file], packages, found_names)
    return Findings(
        folder=str(folder),
        name=_name(folder, pyproject),
        entry=found,
        import_folder=candidate.import_folder if candidate else "",
        framework=framework,
        settings_module=_settings_module(tree, found.what) if framework.package == DJANGO.package else None,
        packages=dependencies.names if dependencies else (),
        package_list=dependencies.file if dependencies else "",
        unused_lists=dependencies.unused if dependencies else (),
        is_installed=need_of(folder, found.what) is not Need.NONE or bool(dependencies and "." in dependencies.places),
        requirements_problem=problem,
        env=env,
        env_example=example,
        database=database,
        journal=_journal(folder, tree, database),
        persistent=_persistent(folder, tree, found_names),
        migrations=_django_migrations(folder) if framework.package == DJANGO.package else _migrations(folder, packages),
        health=_health(tree, framework),
        python=_python(folder, pyproject, dependencies),
        git=_git(folder),
        procfile=procfile,
    )


def _candidate(found: EntrySearch, told: Found | None, choose: Choose | None) -> Candidate | None:
    """What is to be loaded, as the source shows it; None when a person names something that it does not show."""
    if told is None and choose is not None and found.candidates and not found.chosen:
        return choose(found.candidates)
    if told is None:
        return the_one(found, hint="bulletproof init --entry MODULE:APP")
    return next((one for one in found.candidates if one.entry == told.what), None)


def _plain(procfile: Procfile | None) -> Framework:
    """What an app is whose framework nothing tells."""
    if procfile is None or not procfile.entry:
        return FLASK
    app = procfile.tables["app"]
    return ASGI if isinstance(app, dict) and app.get("server") == ASGI.server else WSGI


def _told_by(procfile: Procfile | None) -> Found | None:
    """The entry that a Procfile's `web:` line loads."""
    if procfile is None or not procfile.entry:
        return None
    line = next(one.line for one in procfile.meanings if one.line.name == "web")
    return Found(what=procfile.entry, where=f"Procfile:{line.number}")


def valid_name(wish: str) -> str:
    """The nearest name that an app can have; empty when nothing of the wish can be kept."""
    plain = unicodedata.normalize("NFKD", wish.casefold()).encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-z0-9]+", "-", plain).lstrip("-0123456789")[:_LONGEST_NAME].strip("-")
    return name if len(name) > 1 else f"{name}-app" if name else ""


def _name(folder: Path, pyproject: Mapping[str, object]) -> Found:
    declared = pyproject.get("name")
    if isinstance(declared, str) and (name := valid_name(declared)):
        return Found(what=name, where="pyproject.toml")
    return Found(what=valid_name(folder.resolve().name) or "app", where="the folder's name")


def _settings_module(tree: SourceTree, entry: str) -> Found | None:
    """What the file that the server loads says, which need not be what manage.py says."""
    name = entry.partition(":")[0]
    modules = sorted(tree.modules, key=lambda module: (module.name != name, module.name != "manage"))
    sighting = next(filter(None, map(settings_module, modules[:2])), None)
    return Found(what=sighting.what, where=sighting.where) if sighting else None


def _health(tree: SourceTree, framework: Framework) -> Found | None:
    """The app's own route, or FastAPI's description of itself where there is no front page to ask for."""
    if route := health_route(tree.modules):
        return Found(what=route.what, where=route.where)
    if framework is FASTAPI and not has_route(tree.modules, "/"):
        return Found(what="/openapi.json", where="FastAPI answers it by itself; a route /up can ask the database too")
    return None


def _dependencies(folder: Path) -> tuple[Dependencies | None, str]:
    """What the app depends on, and why that cannot be installed."""
    try:
        found = read_dependencies(folder)
        found.require_match(running_interpreter().markers)
    except BulletproofError as error:
        return None, _in_words(error)
    return found, "" if found.names or found.needs_build or found.places else f"{found.file} names no package"


def _database(
    folder: Path, tree: SourceTree, files_told: list[EnvFile], packages: Mapping[str, Sighting], found_names: Names
) -> DatabaseFound | None:
    """What the source says, and what the dotenv files add: they hold the URL that the app really gets."""
    use = database_use(tree.modules)
    told = {name: (kind, file.name) for file in reversed(files_told) for name, kind in file.databases.items()}
    setting = use.setting if use else next(iter(told), "")
    is_path = use is not None and not use.kind and not told and not _NAMES_A_URL.search(setting)
    if not setting or is_path:
        by_itself = None if use and use.kind else _opened_by_itself(folder, tree, found_names)
        if by_itself or not use:
            return by_itself
    kind, where = told.get(setting, ("", ""))
    kind = kind or (use.kind if use else "")
    found = DatabaseFound(kind=kind, setting=setting, where=f"{use.path}:{use.line}" if use else where)
    if kind not in {"", "sqlite"}:
        return found
    written = [file.sqlite_files.get(setting, "") for file in files_told]
    is_in_instance = any(one in packages for one in _IN_INSTANCE)
    links = () if setting else _links(tree, found_names, use, is_in_instance=is_in_instance)
    name = next(filter(None, (*written, use.file if use else "", *links)), "")
    return _with_files(replace(found, links=links), folder, name, is_in_instance=is_in_instance)


def _journal(folder: Path, tree: SourceTree, database: DatabaseFound | None) -> Found | None:
    """What is to be said of the journal mode: only where neither the file nor the source has WAL."""
    if database is None or database.kind != "sqlite" or sets_wal(tree.modules):
        return None
    used = folder / database.used
    mode = describe_database(used).mode if database.used and used.is_file() else ""
    if mode == "WAL":
        return None
    return Found(what=mode or "no WAL", where=f"{database.used} is so" if mode else "the source sets none")


def _with_files(found: DatabaseFound, folder: Path, name: str, *, is_in_instance: bool) -> DatabaseFound:
    """The same with the databases that lie in the folder; `name` is what the URL says."""
    files = sorted(database_files(folder))
    names = tuple(file.relative_to(folder).as_posix() for file in files)
    return replace(
        found,
        files=names,
        holds=tuple(describe_database(file).words for file in files),
        used=_used(folder, name, files, is_in_instance=is_in_instance),
        tracked=tuple(name for name in names if _is_repository(folder) and is_tracked(folder, name)),
    )


def _opened_by_itself(folder: Path, tree: SourceTree, names: Names) -> DatabaseFound | None:
    """The one file below the source that is opened without any URL, as by `sqlite3.connect`; None for several."""
    seen = {one.what: one.where for one in database_places(tree.modules, names, relative_to="")}
    if len(seen) != 1:
        return None
    ((place, where),) = seen.items()
    found = DatabaseFound(kind="sqlite", setting="", where=where, links=(place,))
    return _with_files(found, folder, place, is_in_instance=False)


def _links(tree: SourceTree, names: Names, use: DatabaseUse | None, *, is_in_instance: bool) -> tuple[str, ...]:
    """The one file below the source that the place in question opens; none when it cannot be told."""
    base = "/".join(filter(None, (names.import_folder, "instance"))) if is_in_instance else ""
    seen = list(database_places(tree.modules, names, relative_to=base))
    here = [one for one in seen if use and (one.path, one.line) == (use.path, use.line)]
    places = dict.fromkeys(one.what for one in here or seen)
    return tuple(places) if len(places) == 1 else ()


def _persistent(folder: Path, tree: SourceTree, names: Names) -> tuple[Found, ...]:
    """The folders that users fill: as the configuration says, and as a folder of such a name that git does not keep."""
    found = {one.what: one.where for one in filled_folders(tree.modules, names)}
    for pattern in _FILLED:
        for place in sorted(folder.glob(pattern)):
            if place.is_dir() and not place.is_symlink() and not _keeps_all(folder, place):
                found.setdefault(place.relative_to(folder).as_posix(), "not kept by git, so users fill it")
    return tuple(
        Found(what=one, where=where)
        for one, where in found.items()
        if not any(one != other and PurePosixPath(one).is_relative_to(other) for other in found)
    )


def _keeps_all(folder: Path, place: Path) -> bool:
    """Whether there is nothing in the folder that git does not keep."""
    files = [path for path in place.rglob("*") if path.is_file()]
    if not _is_repository(folder):
        return not files
    return all(is_tracked(folder, path.relative_to(folder).as_posix()) for path in files[:_LOOKED_AT])


def _is_repository(folder: Path) -> bool:
    try:
        return resolve(folder, worktree=True).revision != "files"
    except BulletproofError:
        return False


def _used(folder: Path, name: str, files: list[Path], *, is_in_instance: bool) -> str:
    """The database that a name in a URL leads to, if it is there; without one the only one that lies in the folder."""
    places = (folder / "instance" / name, folder / name) if is_in_instance else (folder / name,)
    here = [place for place in places if name and is_database(place)]
    if not here and len(files) == 1:
        here = files
    if not here:
        return ""
    return here[0].relative_to(folder).as_posix() if here[0].is_relative_to(folder) else str(here[0])


def _migrations(folder: Path, packages: Mapping[str, Sighting]) -> Found | None:
    tool = "flask-migrate" if "flask_migrate" in packages else "alembic"
    for pattern in _MIGRATIONS:
        for script in sorted(folder.glob(pattern)):
            place = script.parent.relative_to(folder)
            if not place.parts[0].startswith(".") and "alembic" in script.read_text(encoding="utf-8", errors="replace"):
                return Found(what=tool, where=place.as_posix())
    return None


def _django_migrations(folder: Path) -> Found:
    """Where the project's own apps keep theirs; those that it has installed bring some too."""
    scripts = sorted(path for pattern in _DJANGO_MIGRATIONS for path in folder.glob(pattern))
    places = dict.fromkeys(
        path.parent.relative_to(folder).as_posix() for path in scripts if "site-packages" not in path.parts
    )
    several = f"{len(places)} apps" if places else "installed apps"
    return Found(what="django", where=next(iter(places)) if len(places) == 1 else several)


def _pyproject(folder: Path) -> Mapping[str, object]:
    """The `[project]` of pyproject.toml; empty when it has none or is broken, which is for its own tools to say."""
    path = folder / "pyproject.toml"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig")) if path.is_file() else {}
    except (ValueError, RecursionError):
        return {}
    project = document.get("project")
    return project if isinstance(project, dict) else {}


def _python(folder: Path, pyproject: Mapping[str, object], dependencies: Dependencies | None) -> Found | None:
    for name in (".python-version", "runtime.txt"):
        path = folder / name
        lines = path.read_text(encoding="utf-8-sig", errors="replace").split() if path.is_file() else []
        if lines:
            return Found(what=lines[0].removeprefix("python-"), where=name)
    asked = pyproject.get("requires-python")
    if isinstance(asked, str) and asked.strip():
        return Found(what=asked, where="pyproject.toml")
    wish = next(iter(dependencies.pythons if dependencies else ()), None)
    return Found(what=wish.versions, where=wish.asked_by) if wish else None


def _git(folder: Path) -> GitFound:
    """What git says of the folder; what it cannot say is a finding too, since the first deployment asks the same."""
    problem = ""
    try:
        if resolve(folder).revision == "files":
            return GitFound(is_repository=False)
    except BulletproofError as error:
        if error.reference != "no-commits":
            return GitFound(is_repository=True, problem=_in_words(error))
        problem = _in_words(error)
    return GitFound(
        is_repository=True,
        is_env_tracked=is_tracked(folder, ".env"),
        is_config_ignored=is_ignored(folder, CONFIG_FILE),
        problem=problem,
    )


def _in_words(error: BulletproofError) -> str:
    """An error that only a deployment would stop at, with what helps."""
    return f"{error.message}: {error.hint}" if error.hint else error.message
