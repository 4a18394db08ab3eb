"""What it costs to be asked for help: CPU time of `bulletproof --help` beside that of the bare interpreter."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.command import run, shell_environment
from bench.ours import PROGRAM
from bulletproof.errors import BulletproofError

RUNS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Startup:
    """Medians of RUNS runs, user and system time together."""

    help_cpu_seconds: float
    python_cpu_seconds: float
    """`python -c pass` with the same interpreter and its site-packages."""


def measure_startup(folder: Path) -> Startup:
    """Run both in turn; a first run of each, which may have to write bytecode, does not count."""
    helps = []
    bare = []
    for _ in range(RUNS + 1):
        helps.append(_cpu_seconds((PROGRAM, "--help"), folder))
        bare.append(_cpu_seconds((sys.executable, "-c", "pass"), folder))
    return Startup(help_cpu_seconds=median(helps[1:]), python_cpu_seconds=median(bare[1:]))


def _cpu_seconds(argv: tuple[str, ...], folder: Path) -> float:
    finished = run(argv, folder=folder, environment=shell_environment())
    if finished.status != 0:
        raise BulletproofError("bench-not-prepared", f"{argv[0]} ended with {finished.status}: {finished.errors}")
    return finished.cpu_seconds
