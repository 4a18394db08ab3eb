"""Virtual environments: a lock from requirements, a pristine environment per lock, a copy of it for each release."""

from __future__ import annotations

import base64
import csv
import errno
import hashlib
from dataclasses import replace
from pathlib import Path

import msgspec

from bulletproof.domain.wishes import normalised
from bulletproof.effects import durable, tree
from bulletproof.effects.bound import run_bound
from bulletproof.effects.cache import BuildCache
from bulletproof.effects.dependencies import PYPROJECT, UV_LOCK, Dependencies
from bulletproof.effects.interpreter import Interpreter
from bulletproof.effects.requirements import is_guarded, locked, without_places
from bulletproof.effects.uv import Uv
from bulletproof.errors import StepFailed

_ATTEMPTS = 3
"""A pristine environment may be altered, or pruned by another app's build just now; twice in a row is no accident."""
_COMPILE_SECONDS = 600.0


class Blueprint(msgspec.Struct, frozen=True, kw_only=True):
    """What decides all that is in an environment."""

    python: Interpreter
    lock: str
    options: tuple[str, ...] = ()
    """Where its packages come from; no part of what it is, since hashes guard them."""

    @property
    def key(self) -> str:
        """The name of the environment in the cache."""
        parts = (self.lock, self.python.version, self.python.tag, str(self.python.path))
        return hashlib.sha256("\0\0".join(parts).encode()).hexdigest()


_PLACES = "# of the source itself: "
"""The lock's line that names the packages that are built from the source."""


def make_lock(uv: Uv, python: Interpreter, source: Path, dependencies: Dependencies, scratch: Path) -> str:
    """Pin everything that the dependencies lead to, with hashes; what is a lock already stays as it is.

    Packages of the source itself are named in a line of their own. `scratch` is a folder to work in. Raises StepFailed
    `dependencies-failed` in words.
    """
    pinned, found = without_places(_pinned(uv, python, source, dependencies, scratch))
    # Whether uv's own project is installed is for its need to say, as it is with every other list.
    found = [place for place in found if place != "." or dependencies.file != UV_LOCK]
    places = dict.fromkeys(dependencies.places or (Path(place).as_posix() for place in found))
    return f"{pinned}{_PLACES}{', '.join(places)}\n" if places else pinned


def places_of(lock: str) -> tuple[str, ...]:
    """The folders and files of the source that a lock names as packages."""
    named = [line.removeprefix(_PLACES) for line in lock.splitlines() if line.startswith(_PLACES)]
    return tuple(place for line in named for place in line.split(", "))


def remarks(lock: str) -> tuple[str, ...]:
    """What a lock says to people, such as that a server was added."""
    lines = (line for line in lock.splitlines() if line.startswith("# ") and not line.startswith(_PLACES))
    return tuple(line.removeprefix("# ") for line in lines)


def _pinned(uv: Uv, python: Interpreter, source: Path, dependencies: Dependencies, scratch: Path) -> str:
    requirements = dependencies.requirements
    if dependencies.lock is not None:
        needed = (one for one in dependencies.lock.needed(python.markers) if not one.place)
        return "".join(f"{one.line}\n" for one in needed)
    if dependencies.file == UV_LOCK:
        return _exported(uv, python, source)
    if requirements.is_hashed:
        return "".join(f"{entry}\n" for entry in requirements.entries)
    if dependencies.needs_build or dependencies.places:
        # A build may write beside what it builds.
        copy = scratch / "source"
        tree.copy_tree(source, copy)
        uv.lend(copy)
        return _compile(uv, python, dependencies.file, folder=copy)
    if requirements.contents.keys() == {PYPROJECT}:
        text = "".join(f"{entry}\n" for entry in requirements.entries)
        return _compile(uv, python, "-", folder=source, input_text=text)
    return _compile(uv, python, dependencies.file, folder=source)


def _exported(uv: Uv, python: Interpreter, source: Path) -> str:
    """What a uv.lock pins, without what is for development only."""
    options = ("--frozen", "--no-dev", "--no-editable", "--no-header", "--no-annotate", "--quiet")
    where = ("--python", python.path, "--no-python-downloads")
    return uv.run_checked("export", "--format", "requirements.txt", *options, *where, folder=source).output


def add_server(
    uv: Uv, python: Interpreter, lock: str, server: str, scratch: Path, *, dependencies: Dependencies
) -> str:
    """The lock with the server's program added, which changes nothing of what was locked before.

    It is looked for where the app's own packages are.

    `scratch` is a folder to work in. Raises StepFailed `dependencies-failed` when nothing of it fits the lock.
    """
    constraints, options = scratch / "constraints.txt", scratch / "options.txt"
    durable.write_file(constraints, lock)
    durable.write_file(options, "".join(f"{option}\n" for option in dependencies.requirements.options))
    words = ("-", options, "--constraint", constraints)
    added = locked(_compile(uv, python, *words, folder=scratch, input_text=f"{server}\n"))
    before = locked(lock)
    blocks = [block for name, block in added.items() if name not in before]
    return f"{lock}# {server} was added: {dependencies.file} does not lead to it\n{''.join(blocks)}"


def lay_environment(uv: Uv, cache: BuildCache, blueprint: Blueprint, destination: Path, scratch: Path) -> None:
    """Lay a byte copy of the blueprint's pristine environment, which is made when it is missing or was altered.

    What is checked is the copy itself. Raises StepFailed `dependencies-failed` in words, and OSError.
    """
    places = cache.pristine(blueprint.key)
    for _ in range(_ATTEMPTS):
        for place in places:
            if _copied(place, destination):
                return
            durable.remove_tree(destination)
        _make_pristine(with_lent_downloads(uv, cache), blueprint, places[0], scratch)
    raise StepFailed("cache-damaged", f"{places[0]} changes while it is read", hint=f"rm -r '{cache.folder}'")


def with_lent_downloads(uv: Uv, cache: BuildCache) -> Uv:
    """The same uv with a copy of the downloads of the cache that ours is lent, since it writes where it reads."""
    if cache.lent is None or not (cache.lent / "uv").is_dir():
        return uv
    copy = cache.folder / "uv-lent"
    try:
        if not copy.exists():
            tree.copy_tree(cache.lent / "uv", copy)
            uv.lend(copy)
    except OSError:
        # Another build changes it just now, or something in it is not ours to read: all of it can be downloaded.
        durable.remove_tree(copy)
        return uv
    return replace(uv, cache=copy)


def compile_bytecode(python: Path, source: Path) -> None:
    """Compile the app's own modules; one that is no Python stays without bytecode, for it may never be imported.

    `python` is one of the machine's: what was built may have put anything in the place of its own.
    """
    argv = (python, "-I", "-S", "-m", "compileall", "-q", source)
    run_bound(argv, folder=source, environment={}, timeout_seconds=_COMPILE_SECONDS)


def versions(environment: Path) -> dict[str, str]:
    """The version of each installed package by its normalised name."""
    names = (path.name.removesuffix(".dist-info").rpartition("-") for path in _dist_infos(environment))
    return {normalised(name): version for name, _, version in names}


def has_module(folder: Path, module: str) -> bool:
    """Whether a folder has the Python module of this dotted name, as a file or as a package."""
    path = folder.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def site_packages(environment: Path) -> Path:
    """The folder of the installed packages. Raises StepFailed when the environment has none."""
    for found in sorted(environment.glob("lib/*/site-packages")):
        return found
    raise StepFailed("dependencies-failed", f"{environment} is no virtual environment")


def _compile(uv: Uv, python: Interpreter, *words: str | Path, folder: Path, input_text: str | None = None) -> str:
    options = ("--generate-hashes", "--no-header", "--no-sources", "--no-python-downloads", "--quiet")
    argv = ("pip", "compile", *options, "--python", python.path, *words)
    return uv.run_checked(*argv, folder=folder, input_text=input_text).output


def _copied(entry: Path, destination: Path) -> bool:
    try:
        recorded = (entry / "digest").read_text(encoding="utf-8")
        return tree.copy_tree(entry / "venv", destination) == recorded
    except FileNotFoundError:
        return False


def _is_whole(entry: Path) -> bool:
    try:
        return tree.tree_digest(entry / "venv") == (entry / "digest").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False


def _make_pristine(uv: Uv, blueprint: Blueprint, entry: Path, scratch: Path) -> None:
    """Build the environment in scratch and move it in place, over an altered one, whole or not at all."""
    made = scratch / "entry"
    durable.remove_tree(made)
    durable.make_folder(made)
    uv.lend(made)
    _install(uv, blueprint, made / "venv", scratch)
    altered = _altered(made / "venv")
    if altered:
        uv.run_checked("cache", "clean", *altered, folder=scratch)
        durable.remove_tree(made / "venv")
        _install(uv, blueprint, made / "venv", scratch)
    if altered and _altered(made / "venv"):
        raise StepFailed("dependencies-failed", f"{', '.join(altered)} is not what its own list of files says")
    uv.take_back(made)
    tree.seal(made / "venv")
    durable.write_file(made / "digest", tree.tree_digest(made / "venv"))
    durable.sync_tree(made)
    _place(made, entry)


def _place(made: Path, entry: Path) -> None:
    """Move a new environment where the altered one is, unless another build was faster: theirs is as good."""
    if not _is_whole(entry):
        durable.remove_tree(entry)
    try:
        durable.rename(made, entry)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise


def _install(uv: Uv, blueprint: Blueprint, environment: Path, scratch: Path) -> None:
    lock, options = scratch / "lock.txt", scratch / "options.txt"
    durable.write_file(lock, blueprint.lock)
    durable.write_file(options, "".join(f"{option}\n" for option in blueprint.options))
    python = ("--python", blueprint.python.path, "--no-python-downloads")
    uv.run_checked("venv", "--quiet", "--relocatable", "--no-project", *python, environment, folder=scratch)
    hashes = "--require-hashes" if is_guarded(blueprint.lock) else "--verify-hashes"
    # A hash tells a package better than the index that it comes from.
    indexes = ("--index-strategy", "unsafe-best-match") if is_guarded(blueprint.lock) else ()
    how = ("--quiet", hashes, "--link-mode", "copy", "--compile-bytecode", "--no-sources", *indexes)
    where = ("--python", environment / "bin" / "python")
    uv.run_checked("pip", "sync", *how, *where, lock, options, folder=scratch)


def _altered(environment: Path) -> list[str]:
    """The packages of which a file is not what their RECORD says (PEP 376); uv does not look at its unpacked cache."""
    return [_package(info) for info in _dist_infos(environment) if not _is_as_recorded(info)]


def _package(info: Path) -> str:
    return info.name.removesuffix(".dist-info").rpartition("-")[0]


def _is_as_recorded(info: Path) -> bool:
    with (info / "RECORD").open(encoding="utf-8", newline="") as file:
        return all(_is_file_as_recorded(info.parent, row) for row in csv.reader(file) if len(row) > 1 and row[1])


def _is_file_as_recorded(folder: Path, row: list[str]) -> bool:
    algorithm, _, recorded = row[1].partition("=")
    try:
        with (folder / row[0]).open("rb") as file:
            digest = hashlib.file_digest(file, algorithm).digest()
    except FileNotFoundError:
        return False
    return base64.urlsafe_b64encode(digest).decode().rstrip("=") == recorded


def _dist_infos(environment: Path) -> list[Path]:
    return sorted(site_packages(environment).glob("*.dist-info"))
