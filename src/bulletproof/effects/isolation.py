"""A program in a cell: what the kernel lets us keep it from, and how it is started there."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bulletproof.effects import cell
from bulletproof.effects.process import Running, run, spawn

_SYSTEM = ("/usr", "/etc")
"""What a Python program needs of the machine, read-only; /bin and /lib are links into /usr on every merged system."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What a program in it can reach; everything else does not exist for it."""

    mount_point: Path
    """An empty folder, hidden again when the program has ended."""
    read_only: tuple[Path, ...]
    writable: Mapping[Path, Path]
    """Folders outside to where they lie inside."""
    memory_bytes: int
    """For each process."""


def start_in_cell(
    cell_plan: Cell, argv: Sequence[str], *, folder: Path, environment: Mapping[str, str], log: Path
) -> Running:
    """Start the program; it and all that it starts die with us. Its output is appended to `log`."""
    return spawn(
        (sys.executable, "-I", "-S", cell.__file__),
        folder=Path("/"),
        environment={},
        input_text=_plan(cell_plan, argv, folder, environment),
        log=log,
    )


@functools.cache
def why_not() -> str:
    """Why the kernel lets us make no cell; empty when it does. Tried for real, once per process."""
    true = Path("/usr/bin/true")
    plan = Cell(mount_point=Path("/mnt"), read_only=(), writable={}, memory_bytes=1 << 30)
    tried = run(
        (sys.executable, "-I", "-S", cell.__file__),
        folder=Path("/"),
        input_text=_plan(plan, (str(true),), Path("/"), {}),
        timeout_seconds=20,
    )
    return "" if tried.status == 0 else tried.errors.strip() or f"a trial ended with status {tried.status}"


def _plan(plan: Cell, argv: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    return json.dumps(
        {
            "root": str(plan.mount_point),
            "read_only": [*_SYSTEM, *map(str, plan.read_only)],
            "writable": [[str(outside), str(inside)] for outside, inside in plan.writable.items()],
            "memory": plan.memory_bytes,
            "folder": str(folder),
            "argv": list(argv),
            "environment": dict(environment),
        }
    )
