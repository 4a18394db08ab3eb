"""Whether a virtual environment is still what was installed: each package's RECORD names its files and their sizes."""

from __future__ import annotations

import csv
from pathlib import Path

_NO_SIZE = -1


def damaged_packages(venv: Path) -> tuple[str, ...]:
    """The files that are missing, or have another size than was installed, relative to the packages' folder.

    Their digests are not computed: reading all of them takes seconds, which no regular check may cost.
    """
    found: list[str] = []
    for folder in venv.glob("lib/python*/site-packages"):
        for record in sorted(folder.glob("*.dist-info/RECORD")):
            found += _damaged(folder, record)
    return tuple(found)


def _damaged(folder: Path, record: Path) -> list[str]:
    with record.open(newline="", encoding="utf-8") as file:
        rows = [(row[0], int(row[2]) if len(row) > 2 and row[2] else _NO_SIZE) for row in csv.reader(file) if row]  # noqa: PLR2004
    return [name for name, size in rows if not _is_as_installed(folder / name, size)]


def _is_as_installed(path: Path, size: int) -> bool:
    try:
        found = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        # Bytecode is made and removed as Python likes.
        return path.suffix == ".pyc"
    return size in {_NO_SIZE, found}
