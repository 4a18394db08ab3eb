"""The virtual environment in which an app is worked on: the project's own, or one that is made of its list."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bulletproof.effects import durable
from bulletproof.effects.dependencies import read_dependencies
from bulletproof.effects.interpreter import choose_interpreter
from bulletproof.effects.requirements import locked
from bulletproof.effects.scratch import scratch_folder
from bulletproof.effects.uv import find_uv
from bulletproof.effects.venv import add_server, has_module, make_lock, places_of, site_packages
from bulletproof.errors import UsageError

OWN = ".venv"


def find_environment(folder: Path, server: str) -> Path | None:
    """The environment of the project in `folder` that has the server; None when it has none at all.

    Raises UsageError `server-missing` for one of the project's that lacks it: nobody changes what a person made.
    """
    for environment in _environments(folder):
        if has_module(site_packages(environment), server):
            return environment
        if environment.parent == folder:
            words = f"{environment.name} has no {server}, with which the app is run where it is deployed"
            raise UsageError("server-missing", words, hint=f"{environment.name}/bin/python -m pip install {server}")
    return None


def make_environment(folder: Path, server: str, downloads: Path) -> Path:
    """Make the project's own, with what a deployment would install. Raises StepFailed `dependencies-failed`."""
    environment = folder / OWN
    dependencies = read_dependencies(folder)
    uv = replace(find_uv(downloads), variables=dependencies.variables, indexes=dependencies.indexes)
    python = choose_interpreter(uv, folder, dependencies.pythons)
    with scratch_folder("bulletproof-dev-") as scratch:
        lock = make_lock(uv, python, folder, dependencies, scratch)
        if server not in locked(lock):
            lock = add_server(uv, python, lock, server, scratch, dependencies=dependencies)
        file = scratch / "lock.txt"
        durable.write_file(file, lock)
        try:
            uv.run_checked("venv", "--quiet", "--python", python.path, environment, folder=folder)
            there = ("--quiet", "--python", environment / "bin" / "python")
            uv.run_checked("pip", "install", *there, "-r", file, folder=folder)
            for place in places_of(lock):
                uv.run_checked("pip", "install", *there, "--no-deps", "--editable", place, folder=folder)
        except BaseException:
            durable.remove_tree(environment)
            raise
    return environment


def _environments(folder: Path) -> Iterator[Path]:
    active = os.environ.get("VIRTUAL_ENV", "")
    for place in (folder / OWN, folder / "venv", *((Path(active),) if active else ())):
        if (place / "bin" / "python").exists() and (place / "pyvenv.cfg").exists():
            yield place
