"""Packages that the source itself is or has: built as wheels from a copy, and installed into one release alone."""

from __future__ import annotations

import re
import tomllib
from enum import Enum
from pathlib import Path

from bulletproof.domain import wishes
from bulletproof.effects import durable, tree
from bulletproof.effects.interpreter import Interpreter
from bulletproof.effects.uv import Uv, failure
from bulletproof.errors import StepFailed

_READS_METADATA = re.compile(
    rb"\b(?:importlib\.metadata|importlib_metadata|pkg_resources)\b|from importlib import .*metadata"
)
_LARGEST_BYTES = 1 << 20
_IMPORT_FOLDERS = {"", ".", "src"}
"""Where an app's modules are found without being installed."""


class Need(Enum):
    """Whether the project itself is to be an installed package."""

    NONE = "its modules are found without"
    SOFT = "it declares entry points, or its code asks for the metadata of packages, which may be its own"
    HARD = "its entry or its packages lie where they are not found otherwise"


def need_of(source: Path, entry: str) -> Need:
    """Whether the project of a source has to be installed, so that its entry works; none when it cannot be."""
    try:
        pyproject = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, ValueError):
        return Need.NONE
    if not wishes.table(pyproject, "build-system") or not _has_name(pyproject):
        return Need.NONE
    is_elsewhere = bool(set(wishes.package_folders(pyproject)) - _IMPORT_FOLDERS)
    if is_elsewhere or not _is_importable(source, entry.partition(":")[0]):
        return Need.HARD
    return Need.SOFT if wishes.has_entry_points(pyproject) or _reads_metadata(source) else Need.NONE


def install_local(
    uv: Uv, python: Interpreter, release: Path, places: tuple[str, ...], scratch: Path
) -> tuple[str, ...]:
    """Build the packages at these places of a release's source and install them, without what they depend on.

    Tells what was built. Nothing is written into the source: what is built is a copy in `scratch`. Raises StepFailed
    `local-package-failed`, or as `Uv.run_checked` does.
    """
    copy, wheels = scratch / "source", scratch / "wheels"
    for folder in (copy, wheels):
        durable.remove_tree(folder)
    tree.copy_tree(release / "source", copy)
    durable.make_folder(wheels)
    for place in places:
        if place.endswith(".whl"):
            durable.copy_file(copy / place, wheels / Path(place).name)
        else:
            uv.lend(copy, wheels)
            _build(uv, python, copy, place, wheels)
            uv.take_back(copy, wheels)
    built = [wheel.name.split("-")[:2] for wheel in sorted(wheels.glob("*.whl"))]
    how = ("--quiet", "--no-deps", "--no-index", "--offline", "--link-mode", "copy", "--compile-bytecode")
    where = ("--python", release / "venv" / "bin" / "python", "--find-links", wheels)
    words = [f"{name}=={version}" for name, version in built]
    uv.lend(release / "venv")
    uv.run_checked("pip", "install", *how, *where, *words, folder=scratch)
    uv.take_back(release / "venv")
    return tuple(f"built {wishes.normalised(name)} {version}" for name, version in built)


def _build(uv: Uv, python: Interpreter, copy: Path, place: str, wheels: Path) -> None:
    """Build one wheel, by what is downloaded already if that will do."""
    how = ("--wheel", "--no-sources", "--no-python-downloads", "--out-dir", wheels, "--python", python.path)
    words = ("build", *how, copy / place)
    if uv.run("--offline", *words, folder=copy).status == 0:
        return
    completed = uv.run(*words, folder=copy)
    if completed.status != 0:
        found = failure(uv.without_secrets(completed.errors or completed.output))
        is_ours = found.reference == "dependencies-failed" and "could not be" in found.message
        raise StepFailed(
            "local-package-failed" if is_ours else found.reference,
            f"the package `{place}` of the source could not be built" if is_ours else found.message,
            context=found.context,
            hint=f"uv build {place}" if is_ours else found.hint,
        )


def _has_name(pyproject: wishes.Table) -> bool:
    is_application = wishes.table(pyproject, "tool", "poetry").get("package-mode") is False
    names = (wishes.table(pyproject, "project").get("name"), wishes.table(pyproject, "tool", "poetry").get("name"))
    return any(names) and not is_application


def _is_importable(source: Path, module: str) -> bool:
    parts = module.split(".")
    places = (folder.joinpath(*parts) for folder in (source, source / "src"))
    return any(place.with_suffix(".py").is_file() or place.is_dir() for place in places)


def _reads_metadata(source: Path) -> bool:
    files = (path for path in source.rglob("*.py") if path.is_file() and path.stat().st_size <= _LARGEST_BYTES)
    return any(_READS_METADATA.search(path.read_bytes()) for path in files)
