"""What the app depends on: the one list among all that a source may have, read; and the lock that is made of it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from bulletproof.domain import locks, wishes
from bulletproof.domain.locks import Index, Lock
from bulletproof.domain.wishes import PythonWish
from bulletproof.effects.requirements import REQUIREMENTS, Requirements, inside, read_requirements
from bulletproof.errors import StepFailed

UV_LOCK = "uv.lock"
PYLOCK = "pylock.toml"
POETRY_LOCK = "poetry.lock"
PIPFILE_LOCK = "Pipfile.lock"
PIPFILE = "Pipfile"
PYPROJECT = "pyproject.toml"

_ORDER = (UV_LOCK, PYLOCK, POETRY_LOCK, PIPFILE_LOCK, REQUIREMENTS, PYPROJECT)
"""A lock comes before a list, and what only one tool writes before what several do."""
_RENEWED_BY = {
    UV_LOCK: "uv lock",
    PYLOCK: "uv export --format pylock.toml --no-dev -o pylock.toml",
    POETRY_LOCK: "poetry lock",
    PIPFILE_LOCK: "pipenv lock",
}
_EXPORTED_BY = {
    POETRY_LOCK: "pipx run --spec 'poetry>=2' poetry lock",
}
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
"""As pip knows it in requirement files."""
_PACKAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Dependencies(msgspec.Struct, frozen=True, kw_only=True):
    """What the app depends on, as the one list or lock says that is used."""

    file: str
    """The list's name, such as `uv.lock`."""
    unused: tuple[str, ...] = ()
    """Other lists that lie beside it."""
    requirements: Requirements = msgspec.field(default_factory=Requirements)
    """Of a requirements.txt, or of what pyproject.toml asks for."""
    lock: Lock | None = None
    """Of another tool's lock, where it is converted here."""
    asked: tuple[str, ...] = ()
    """What the project itself asks for, which a lock must give."""
    pins: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """What another tool's lock gives: the versions by the normalised name."""
    needs_build: bool = False
    """Whether only a build of the project tells what it depends on."""
    places: tuple[str, ...] = ()
    """Folders and files of the source that are packages, as far as that is known before the lock is made."""
    pythons: tuple[PythonWish, ...] = ()
    indexes: tuple[Index, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The packages that it names."""
        entries = self.requirements.entries or self.asked or self.pins
        found = (match[0] for entry in entries if (match := _PACKAGE_NAME.match(entry)))
        return tuple(dict.fromkeys(found))

    @property
    def variables(self) -> frozenset[str]:
        """The `${NAME}`s in its addresses, which are settings."""
        texts = [content.decode(errors="replace") for content in self.requirements.contents.values()]
        return frozenset(_VARIABLE.findall(" ".join([*texts, *(index.url for index in self.indexes)])))

    def digest(self, *others: str) -> str:
        """sha256 over all that a lock of it is made from."""
        return self.requirements.digest(*others)

    def require_match(self, python: Mapping[str, str]) -> None:
        """Raise StepFailed `lock-outdated` when a lock does not give what the project asks for.

        `python` are the values for markers where they differ from this Python's.
        """
        if self.file not in _RENEWED_BY:
            return
        try:
            unmet = wishes.unmet(self.asked, self.pins, python)
        except ValueError as error:
            raise _unreadable(PYPROJECT, error) from error
        if unmet:
            raise StepFailed(
                "lock-outdated",
                f"{self.file} is older than the project's own list: it does not give {', '.join(unmet)}",
                hint=f"{_RENEWED_BY[self.file]}, commit it{self._or_another}, then: bulletproof deploy",
            )

    @property
    def _or_another(self) -> str:
        """What else helps where another list lies beside a lock that nobody keeps."""
        return f" (or delete it, and {self.unused[0]} is taken)" if self.unused else ""


def read_dependencies(source: Path) -> Dependencies:
    """Read the list that counts in a source: a lock before a list.

    Raises StepFailed: `requirements-missing` when there is none, `requirements-unusable`, `lock-unusable` or
    `pyproject-unusable` in words.
    """
    pyproject = _toml(source / PYPROJECT, "pyproject-unusable")
    present = [name for name in _ORDER if _is_there(source, name, pyproject)]
    if not present:
        raise _missing(source, pyproject)
    file, *unused = present
    # What pyproject.toml asks for is what its lock was made of, so it goes along with that and is not told as unused.
    others = tuple(name for name in unused if name != PYPROJECT)
    return _READERS[file](source, pyproject, others)


def _is_there(source: Path, name: str, pyproject: wishes.Table) -> bool:
    if name == PYPROJECT:
        return bool(wishes.project_dependencies(pyproject)) or wishes.has_dynamic_dependencies(pyproject)
    return (source / name).is_file()


def _missing(source: Path, pyproject: wishes.Table) -> StepFailed:
    commands = {
        "uv lock": wishes.table(pyproject, "tool", "uv"),
        "poetry lock": wishes.table(pyproject, "tool", "poetry"),
        "pipenv lock": (source / PIPFILE).is_file(),
    }
    command = next((command for command, is_used in commands.items() if is_used), f"pip freeze > {REQUIREMENTS}")
    return StepFailed(
        "requirements-missing",
        f"the source has no {REQUIREMENTS} or other list of packages, so nobody knows what the app needs",
        hint=f"{command}, commit it, then: bulletproof deploy",
    )


# --- each kind of list


def _of_requirements(source: Path, pyproject: wishes.Table, unused: tuple[str, ...]) -> Dependencies:
    requirements = read_requirements(source)
    _add_places(source, requirements, requirements.places)
    return Dependencies(
        file=REQUIREMENTS,
        unused=unused,
        requirements=requirements,
        places=tuple(requirements.places),
        pythons=_project_pythons(pyproject),
    )


def _of_pyproject(source: Path, pyproject: wishes.Table, unused: tuple[str, ...]) -> Dependencies:
    if wishes.table(pyproject, "tool", "uv", "sources"):
        raise StepFailed(
            "requirements-unusable",
            f"{PYPROJECT} says in [tool.uv.sources] where packages come from, which only uv can lock",
            hint=f"uv lock, commit {UV_LOCK}, then: bulletproof deploy",
        )
    requirements = Requirements(entries=wishes.project_dependencies(pyproject))
    needs_build = wishes.has_dynamic_dependencies(pyproject)
    if needs_build:
        _add_places(source, requirements, ["."])
    requirements.contents[PYPROJECT] = _relevant(pyproject)
    return Dependencies(
        file=PYPROJECT,
        unused=unused,
        requirements=requirements,
        needs_build=needs_build,
        pythons=_project_pythons(pyproject),
        indexes=wishes.uv_indexes(pyproject),
    )


def _of_uv(source: Path, pyproject: wishes.Table, unused: tuple[str, ...]) -> Dependencies:
    document = _toml(source / UV_LOCK, "lock-unusable")
    contents = {UV_LOCK: (source / UV_LOCK).read_bytes(), PYPROJECT: _relevant(pyproject)}
    wish = str(document.get("requires-python", ""))
    return Dependencies(
        file=UV_LOCK,
        unused=unused,
        requirements=Requirements(contents=contents),
        asked=tuple(wishes.project_dependencies(pyproject)),
        pins={name: tuple(versions) for name, versions in wishes.uv_pins(document).items()},
        pythons=(*_project_pythons(pyproject), *_wish(wish, UV_LOCK)),
        indexes=wishes.uv_indexes(pyproject),
    )


def _of_pylock(source: Path, pyproject: wishes.Table, unused: tuple[str, ...]) -> Dependencies:
    lock = _converted(source / PYLOCK, lambda: locks.read_pylock(_toml(source / PYLOCK, "lock-unusable")))
    return _of_lock(source, PYLOCK, lock, unused, pyproject, asked=wishes.project_dependencies(pyproject))


def _of_poetry(source: Path, pyproject: wishes.Table, unused: tuple[str, ...]) -> Dependencies:
    lock = _converted(
        source / POETRY_LOCK, lambda: locks.read_poetry_lock(_toml(source / POETRY_LOCK, "lock-unusable"))
    )
    asked = [*wishes.project_dependencies(pyproject), *wishes.poetry_dependencies(pyproject)]
    return _of_lock(source, POETRY_LOCK, lock, unused, pyproject, asked=asked)


def _of_pipfile(source: Path, pyproject: wishes.Table, unused: tuple[str, ...]) -> Dependencies:
    file = source / PIPFILE_LOCK
    lock = _converted(file, lambda: locks.read_pipfile_lock(json.loads(file.read_bytes())))
    asked = wishes.pipfile_dependencies(_toml(source / PIPFILE, "lock-unusable"))
    return _of_lock(source, PIPFILE_LOCK, lock, unused, pyproject, asked=asked)


_READERS: dict[str, Callable[[Path, wishes.Table, tuple[str, ...]], Dependencies]] = {
    UV_LOCK: _of_uv,
    PYLOCK: _of_pylock,
    POETRY_LOCK: _of_poetry,
    PIPFILE_LOCK: _of_pipfile,
    REQUIREMENTS: _of_requirements,
    PYPROJECT: _of_pyproject,
}


def _of_lock(
    source: Path, file: str, lock: Lock, unused: tuple[str, ...], pyproject: wishes.Table, *, asked: list[str]
) -> Dependencies:
    pins: dict[str, tuple[str, ...]] = {}
    for one in lock.pinned:
        name = wishes.normalised(one.name)
        pins[name] = (*pins.get(name, ()), one.version)
    places = [inside(source.resolve(), source.resolve(), one.place, where=file) for one in lock.pinned if one.place]
    return Dependencies(
        file=file,
        unused=unused,
        requirements=Requirements(contents={file: (source / file).read_bytes()}),
        lock=lock,
        asked=tuple(asked),
        pins=pins,
        places=tuple(places),
        pythons=(*_project_pythons(pyproject), *_wish(lock.requires_python, file)),
        indexes=lock.indexes,
    )


def _converted(file: Path, read: Callable[[], Lock]) -> Lock:
    try:
        return read()
    except ValueError as error:
        raise _unreadable(file.name, error) from error


def _unreadable(name: str, error: ValueError) -> StepFailed:
    hint = _EXPORTED_BY.get(name) if isinstance(error, locks.LockUnusableError) else _RENEWED_BY.get(name)
    return StepFailed(
        "lock-unusable",
        f"{name} cannot be used: {error}",
        hint=f"{hint or f'correct {name}'}, commit it, then: bulletproof deploy",
    )


def _add_places(source: Path, requirements: Requirements, places: Iterable[str]) -> None:
    """Let the lock depend on what packages of the source say they need."""
    for place in places:
        folder = source / place
        if folder.is_file():
            requirements.contents[place] = folder.read_bytes()
            continue
        for name in ("setup.py", "setup.cfg", *sorted(path.name for path in folder.glob("requirements*"))):
            if (folder / name).is_file():
                requirements.contents.setdefault(f"{place}/{name}", (folder / name).read_bytes())
        requirements.contents[f"{place}/{PYPROJECT}"] = _relevant(_toml(folder / PYPROJECT, "pyproject-unusable"))


def _relevant(pyproject: wishes.Table) -> bytes:
    """What of a pyproject.toml decides what is needed; a new version, or a setting of another tool, does not."""
    project = {name: value for name, value in wishes.table(pyproject, "project").items() if name in _DECISIVE}
    tables = (wishes.table(pyproject, "tool", "uv"), pyproject.get("dependency-groups"), pyproject.get("build-system"))
    return json.dumps([project, *tables], sort_keys=True, default=str).encode()


_DECISIVE = {"name", "dependencies", "optional-dependencies", "dynamic", "requires-python"}


# --- the Pythons that will do


def _project_pythons(pyproject: wishes.Table) -> tuple[PythonWish, ...]:
    poetry = wishes.table(pyproject, "tool", "poetry", "dependencies").get("python", "")
    return (*_wish(locks.specifier_of(poetry) if isinstance(poetry, str) else "", "tool.poetry in pyproject.toml"),)


def _wish(versions: str, asked_by: str) -> tuple[PythonWish, ...]:
    return (PythonWish(versions=versions, asked_by=asked_by),) if versions else ()


def _toml(file: Path, reference: str) -> wishes.Table:
    """A TOML document; empty when there is no such file. Raises StepFailed."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig")) if file.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise StepFailed(
            reference, f"{file.name} cannot be read: {error}", hint="correct it, then: bulletproof deploy"
        ) from error
