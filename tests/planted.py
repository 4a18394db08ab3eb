"""Planted bugs: a module of Bulletproof with one line changed, imported beside the real one.

A test that proves a promise must fail over a planted bug; otherwise the test proves nothing.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import shutil
import sys
import sysconfig
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType


@dataclass(frozen=True)
class Bug:
    """One change of one module's source."""

    name: str
    module: str
    old: str
    new: str

    def __str__(self) -> str:
        return self.name


class _Planter(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from its changed source."""

    def __init__(self, bug: Bug) -> None:
        self._bug = bug
        spec = importlib.util.find_spec(bug.module)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin).read_text(encoding="utf-8")
        assert source.count(bug.old) == 1, f"{bug.name}: its text stands {source.count(bug.old)} times in {bug.module}"
        self._code = compile(source.replace(bug.old, bug.new), spec.origin, "exec")

    def find_spec(
        self, fullname: str, path: object = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        return importlib.machinery.ModuleSpec(fullname, self) if fullname == self._bug.module else None

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)  # noqa: S102  the point of a planted bug


@contextmanager
def planted(bug: Bug | None, fresh: tuple[str, ...]) -> Iterator[None]:
    """While entered, importing the packages `fresh` gives them anew, with the bug in them (or without one)."""
    planter = _Planter(bug) if bug else None
    before = {name: module for name, module in sys.modules.items() if name.startswith(fresh)}
    for name in before:
        del sys.modules[name]
    if planter:
        sys.meta_path.insert(0, planter)
    try:
        yield
    finally:
        if planter:
            sys.meta_path.remove(planter)
        for name in [name for name in sys.modules if name.startswith(fresh)]:
            del sys.modules[name]
        sys.modules.update(before)
        for name, module in before.items():
            parent, _, child = name.rpartition(".")
            if parent in sys.modules:
                setattr(sys.modules[parent], child, module)


def interpreter_with(bug: Bug, folder: Path) -> str:
    """An interpreter that imports a copy of Bulletproof with that bug in it, and all else as ours does."""
    source = folder / "src"
    package = importlib.util.find_spec("bulletproof")
    assert package is not None
    assert package.origin is not None
    shutil.copytree(Path(package.origin).parent, source / "bulletproof")
    file = source.joinpath(*bug.module.split(".")).with_suffix(".py")
    text = file.read_text(encoding="utf-8")
    assert text.count(bug.old) == 1, f"{bug}: its text stands {text.count(bug.old)} times in {bug.module}"
    file.write_text(text.replace(bug.old, bug.new), encoding="utf-8")
    venv.create(folder / "venv", symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    (packages / "planted.pth").write_text(f"{source}\n{sysconfig.get_path('purelib')}\n")
    return str(folder / "venv" / "bin" / Path(sys.executable).name)
