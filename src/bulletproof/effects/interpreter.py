"""Which Python a release is built with."""

from __future__ import annotations

import json
import re
import sys
import sysconfig
import tomllib
from pathlib import Path

import msgspec

from bulletproof.domain.wishes import PythonWish, python_of_runtime
from bulletproof.effects.process import run_checked
from bulletproof.effects.uv import Uv
from bulletproof.errors import StepFailed

_ASK = "import json, sys, sysconfig; print(json.dumps([sys.version.split()[0], sysconfig.get_config_var('SOABI')]))"
_PINNED = ".python-version"
_RUNTIME = "runtime.txt"
_REQUIRED = "requires-python in pyproject.toml"


class Interpreter(msgspec.Struct, frozen=True, kw_only=True):
    """A Python of this machine, no virtual environment."""

    path: Path
    version: str
    """Such as `3.11.7`."""
    tag: str
    """Its ABI and platform, such as `cpython-311-x86_64-linux-gnu`: what decides which wheels fit."""

    @property
    def markers(self) -> dict[str, str]:
        """The values of a requirement's markers that are this Python's own."""
        return {"python_version": ".".join(self.version.split(".")[:2]), "python_full_version": self.version}


def choose_interpreter(uv: Uv, source: Path, wishes: tuple[PythonWish, ...] = ()) -> Interpreter:
    """The Python that the source asks for in .python-version, runtime.txt or requires-python, and that fits `wishes`.

    Ours when it may be that one. Nothing is downloaded. Raises StepFailed when this machine has none that fits.
    """
    pinned, asked_by = _pinned(source)
    required = _allowed(source)
    wishes = (*(PythonWish(versions=one, asked_by=_REQUIRED) for one in (required,) if one), *wishes)
    allowed = ",".join(wish.versions for wish in wishes)
    chosen = running_interpreter()
    if pinned is not None and not _is(chosen.version, pinned):
        chosen = _find(uv, source, pinned, asked_by=asked_by)
    elif pinned is None and not _fits(chosen.version, allowed):
        chosen = _find(uv, source, allowed, asked_by=", ".join(dict.fromkeys(wish.asked_by for wish in wishes)))
    misfit = next((wish for wish in wishes if not _fits(chosen.version, wish.versions)), None)
    if misfit is not None:
        where = misfit.asked_by.rpartition(" in ")[2]
        raise StepFailed(
            "python-missing",
            f"{asked_by} asks for Python {pinned}, and {where} requires {misfit.versions}",
            hint=f"correct {asked_by}, then: bulletproof deploy",
        )
    return chosen


def running_interpreter() -> Interpreter:
    """The Python below the virtual environment that we run in."""
    version = sys.version.split()[0]
    named = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    path = named if named.exists() else Path(sys.executable)
    return Interpreter(path=path, version=version, tag=str(sysconfig.get_config_var("SOABI")))


def _pinned(source: Path) -> tuple[str | None, str]:
    """The one Python that the source asks for, and where; .python-version has the last word."""
    file = source / _PINNED
    if file.is_file():
        lines = (line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines())
        return next((line for line in lines if line and not line.startswith("#")), None), _PINNED
    runtime = source / _RUNTIME
    text = runtime.read_text(encoding="utf-8", errors="replace") if runtime.is_file() else ""
    return python_of_runtime(text) or None, _RUNTIME


def _allowed(source: Path) -> str:
    """What pyproject.toml says of the Pythons that will do; nothing when it does not."""
    file = source / "pyproject.toml"
    if not file.is_file():
        return ""
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {}).get("requires-python", "")
        _fits("3", said)
    except (ValueError, AttributeError, TypeError) as error:
        raise StepFailed(
            "pyproject-unusable", f"pyproject.toml cannot be read: {error}", hint="correct it, then: bulletproof deploy"
        ) from error
    return str(said)


def _fits(version: str, allowed: str) -> bool:
    """Whether a version is one of the allowed (PEP 440); raises ValueError when that is no list of versions."""
    from packaging.specifiers import SpecifierSet  # noqa: PLC0415 (20 ms, which only a build should pay)

    return SpecifierSet(allowed).contains(version, prereleases=True)


def _is(version: str, pinned: str) -> bool:
    return bool(re.fullmatch(r"\d+(\.\d+)*", pinned)) and f"{version}.".startswith(f"{pinned}.")


def _find(uv: Uv, source: Path, wish: str, *, asked_by: str) -> Interpreter:
    found = uv.run("python", "find", "--system", "--no-project", "--no-python-downloads", "--", wish, folder=source)
    path = Path(found.output.strip())
    if found.status != 0 or not path.is_absolute():
        raise StepFailed(
            "python-missing",
            f"the app asks for Python {wish} ({asked_by}), and this machine has none",
            hint="install that Python (uv python install, apt, pyenv), then: bulletproof deploy",
        )
    answer = run_checked(
        (path, "-I", "-c", _ASK), folder=source, reference="python-missing", failure=f"{path} does not run"
    )
    version, tag = json.loads(answer.output)
    return Interpreter(path=path, version=version, tag=str(tag))
