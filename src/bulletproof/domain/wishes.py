"""What a project's own list asks for, and whether a lock still gives it that."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from bulletproof.domain.locks import Index, specifier_of

if TYPE_CHECKING:
    from packaging.requirements import Requirement

Table = Mapping[str, object]


class PythonWish(msgspec.Struct, frozen=True, kw_only=True):
    """Which Pythons will do, and who says so."""

    versions: str
    """As PEP 440 writes it, such as `>=3.11`."""
    asked_by: str


def normalised(name: str) -> str:
    """A package's name as PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def table(document: Table, *names: str) -> Table:
    """A table of a TOML document by its path; empty when there is none."""
    found: object = document
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def texts(value: object) -> list[str]:
    """The texts of a list; none when it is no list."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def project_dependencies(pyproject: Table) -> list[str]:
    """What `[project] dependencies` asks for."""
    return texts(table(pyproject, "project").get("dependencies"))


def has_dynamic_dependencies(pyproject: Table) -> bool:
    """Whether only a build of the project can tell what it depends on."""
    return "dependencies" in texts(table(pyproject, "project").get("dynamic"))


def poetry_dependencies(pyproject: Table) -> list[str]:
    """What `[tool.poetry.dependencies]` asks for, as far as it can be said as PEP 508 says it."""
    found = table(pyproject, "tool", "poetry", "dependencies")
    return list(_spelled({name: wish for name, wish in found.items() if normalised(name) != "python"}))


def pipfile_dependencies(pipfile: Table) -> list[str]:
    """What `[packages]` of a Pipfile asks for."""
    return list(_spelled(table(pipfile, "packages")))


def _spelled(wishes: Table) -> Iterator[str]:
    """A table of names and versions as requirements; of one with conditions or from elsewhere the name, or nothing."""
    for name, wish in wishes.items():
        if isinstance(wish, str):
            yield f"{name}{specifier_of(wish)}"
        elif isinstance(wish, Mapping) and not wish.keys() & {
            "markers",
            "python",
            "optional",
            "platform",
            "sys_platform",
        }:
            version = wish.get("version", "")
            yield f"{name}{specifier_of(version) if isinstance(version, str) else ''}"


def unmet(wishes: Iterable[str], pins: Mapping[str, Iterable[str]], python: Mapping[str, str]) -> list[str]:
    """The wishes that a lock does not give: it lacks the package, or has another version.

    `pins` are the locked versions by normalised name, of one that is not from an index the empty text; `python` are
    the values for markers where they differ from this Python's. Raises ValueError for what is no requirement.
    """
    from packaging.requirements import Requirement  # noqa: PLC0415 (20 ms, which only a build should pay)

    return [wish for wish in wishes if not _is_met(Requirement(wish), pins, python)]


def _is_met(wish: Requirement, pins: Mapping[str, Iterable[str]], python: Mapping[str, str]) -> bool:
    if wish.marker is not None and not wish.marker.evaluate({**python, "extra": ""}):
        return True
    versions = list(pins.get(normalised(wish.name), ()))
    return any(not version or wish.specifier.contains(version, prereleases=True) for version in versions)


def uv_pins(lock: Table) -> dict[str, list[str]]:
    """The versions of each package in a uv.lock by its normalised name."""
    found: dict[str, list[str]] = {}
    packages = lock.get("package")
    for package in packages if isinstance(packages, list) else ():
        version = package.get("version", "")
        found.setdefault(normalised(str(package.get("name", ""))), []).append(str(version))
    return found


def uv_indexes(pyproject: Table) -> tuple[Index, ...]:
    """The indexes with names that `[[tool.uv.index]]` tells of."""
    indexes = table(pyproject, "tool", "uv").get("index")
    named = [one for one in indexes if isinstance(one, Mapping)] if isinstance(indexes, list) else []
    return tuple(Index(name=str(one["name"]), url=str(one["url"])) for one in named if {"name", "url"} <= one.keys())


def python_of_runtime(text: str) -> str:
    """The version that a runtime.txt names, such as `python-3.11.4`; empty when it names none."""
    found = re.match(r"\s*(?:python-)?(\d+(?:\.\d+)*)\s*$", text)
    return found.group(1) if found else ""


def has_entry_points(pyproject: Table) -> bool:
    """Whether a project declares commands or other entry points, which exist only when it is installed."""
    project, poetry = table(pyproject, "project"), table(pyproject, "tool", "poetry")
    declared = [project.get(name) for name in ("scripts", "gui-scripts", "entry-points")]
    dynamic = {"scripts", "gui-scripts", "entry-points"} & set(texts(project.get("dynamic")))
    return bool(any(declared) or dynamic or poetry.get("scripts") or poetry.get("plugins"))


def package_folders(pyproject: Table) -> Iterator[str]:
    """The folders in which a project's packages lie, as far as it says so for its build."""
    setuptools = table(pyproject, "tool", "setuptools")
    yield from (str(folder) for folder in table(setuptools, "package-dir").values())
    yield from texts(table(setuptools, "packages", "find").get("where"))
    included = table(pyproject, "tool", "poetry").get("packages")
    for one in included if isinstance(included, list) else ():
        yield str(one.get("from", "")) if isinstance(one, Mapping) else ""
    for package in texts(table(pyproject, "tool", "hatch", "build", "targets", "wheel").get("packages")):
        yield package.rpartition("/")[0]
