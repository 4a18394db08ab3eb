"""A consistent copy of a live SQLite file, made by a process of its own so that it can be ended at any moment."""

from __future__ import annotations

import sys
from pathlib import Path

from bulletproof.effects.process import run_checked

_SECONDS = 3600.0
_COPY = """
import os, sqlite3, sys
source, copy = sys.argv[1:]
live = sqlite3.connect("file:" + source.replace("%", "%25").replace("?", "%3f").replace("#", "%23") + "?mode=ro",
                       uri=True, timeout=30)
made = sqlite3.connect(copy)
# All pages in one step: with fewer, a busy writer makes it begin anew for ever (1,231 times in 25 s, measured).
live.backup(made, pages=-1)
live.close()
made.close()
"""


def copy_database(source: Path, copy: Path) -> int:
    """Copy a database that others may be writing to; returns the copy's size in bytes.

    It holds everything that was committed before it began. Raises StepFailed (`database-not-copied`).
    """
    run_checked(
        (sys.executable, "-I", "-S", "-c", _COPY, source.absolute(), copy),
        folder=copy.parent,
        reference="database-not-copied",
        failure=f"the database {source} could not be copied",
        timeout_seconds=_SECONDS,
    )
    return copy.stat().st_size
