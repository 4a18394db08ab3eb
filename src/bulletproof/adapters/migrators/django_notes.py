"""Read what Django noted in a SQLite file, by a process of its own, and print it as one line of JSON.

Stand-alone, and never imported: `python -I django_notes.py FILE PATIENCE_SECONDS`. It opens the file in the way that
leaves the least traces, as `sqlite_reader.py` does.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

from bulletproof.effects.sqlite_reader import answer


def _noted(connection: sqlite3.Connection) -> dict[str, Any]:
    rows = connection.execute("SELECT app, name FROM django_migrations ORDER BY id").fetchall()
    return {"noted": [list(row) for row in rows]}


if __name__ == "__main__":
    print(json.dumps(answer(Path(sys.argv[1]), float(sys.argv[2]), _noted)))  # noqa: T201
