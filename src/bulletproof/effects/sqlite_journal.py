"""The journal mode of an SQLite file: what its header says, and how it gets into WAL mode."""

from __future__ import annotations

import sys
from pathlib import Path

from bulletproof.effects.process import run, run_checked

_SECONDS = 60.0
_PATIENCE_SECONDS = 5
"""How long a connection of the app's may keep the file locked; to change the mode takes an instant."""
_WAL = b"\2\2"
# A process of its own: when it closes the file, no lock of ours on it falls (POSIX locks belong to process and file).
_USE = f"""
import sqlite3, sys
try:
    connection = sqlite3.connect(sys.argv[1], timeout={_PATIENCE_SECONDS}, isolation_level=None)
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.close()
except sqlite3.Error as error:
    sys.exit(str(error))
sys.exit(0 if mode == "wal" else f"SQLite leaves it in the mode {{mode}}")
"""
_EMPTY = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=1, isolation_level=None)
(busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
connection.close()
sys.exit(busy)
"""
"""Writers wait for no longer than that second; whoever reads goes on."""


def journal_mode(file: Path) -> str:
    """`WAL` or `DELETE`, as the header of a file says that we have no lock on; empty when there is no database.

    Only bytes 18 and 19 tell (sqlite.org/fileformat2.html, 1.3): any mode without WAL belongs to a connection.
    """
    try:
        with file.open("rb") as opened:
            header = opened.read(20)
    except FileNotFoundError:
        return ""
    if not header:
        return ""
    return "WAL" if header[18:] == _WAL else "DELETE"


def use_wal(file: Path) -> None:
    """Put the database into WAL mode, where it stays, also with the app's connections open; idempotent.

    Raises StepFailed `database-not-wal`.
    """
    if journal_mode(file) == "WAL":
        return
    run_checked(
        (sys.executable, "-I", "-S", "-c", _USE, file),
        folder=file.parent,
        reference="database-not-wal",
        failure=f"the database {file} could not be put into WAL mode",
        timeout_seconds=_SECONDS,
    )


def empty_wal(file: Path) -> bool:
    """Move what its -wal holds into the database, and empty it; False when somebody reads from it all the time."""
    return (
        run((sys.executable, "-I", "-S", "-c", _EMPTY, file), folder=file.parent, timeout_seconds=_SECONDS).status == 0
    )
