"""Notes, inside a Python program, what it would write below its own source, and hinders nothing. Stand-alone.

It is copied as `sitecustomize.py` into a folder that comes first in PYTHONPATH, with its plan in `plan.json` beside it,
as `watch.py` is. It runs in the release's Python, which may be older than ours, and without this package.
"""
# ruff: noqa: ANN401, PTH100, PTH110, PTH118, PTH120, PTH123  (what CPython hands over; and no import of pathlib)

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import json
import os
import sys
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_MADE = ("os.mkdir", "os.rename", "os.symlink", "os.link")


class Notice:
    """The audit hook of one process and of those that it forks."""

    def __init__(self, here: str) -> None:
        with open(os.path.join(here, "plan.json"), encoding="utf-8") as file:
            plan = json.load(file)
        self._notes: str = plan["notes"]
        self._source = os.path.realpath(plan["source"])
        self._seen: set[str] = set()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note what the event would write; whatever goes wrong here is not the program's to know."""
        try:
            path = _written(event, arguments)
            if path is not None:
                self._note(os.path.realpath(os.fsdecode(path)))
        except Exception:  # noqa: BLE001, S110
            pass

    def _note(self, place: str) -> None:
        if not place.startswith(self._source + "/") or place in self._seen:
            return
        self._seen.add(place)
        file = os.open(self._notes, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, json.dumps(place[len(self._source) + 1 :]).encode() + b"\n")
        finally:
            os.close(file)


def _written(event: str, arguments: tuple[Any, ...]) -> Any:
    """The path that an event would write to; a folder or database that is there already is none."""
    if event == "open":
        path, _, flags = arguments
        return path if flags & _WRITES and not isinstance(path, int) else None
    if event == "sqlite3.connect":
        name = os.fsdecode(arguments[0])
        return None if name in ("", ":memory:") or name.startswith("file:") or os.path.exists(name) else name
    if event in _MADE:
        path = arguments[0] if event == "os.mkdir" else arguments[1]
        return None if os.path.lexists(path) else path
    return None


def _run_the_other(here: str) -> None:
    """Run the `sitecustomize` that we stand before, if there is one."""
    sys.path[:] = [entry for entry in sys.path if entry != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize")
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


def _listen(here: str) -> None:
    """Run connections.py, which lies beside us; what goes wrong in it is not the program's to know."""
    try:  # noqa: SIM105  contextlib is not loaded in every Python
        importlib.import_module("_bulletproof_connections").begin(here)
    except Exception:  # noqa: BLE001, S110
        pass


if __name__ == "sitecustomize":
    sys.addaudithook(Notice(os.path.dirname(os.path.abspath(__file__))))
    _listen(os.path.dirname(os.path.abspath(__file__)))
    _run_the_other(os.path.dirname(os.path.abspath(__file__)))
