"""Whether a virtual environment is still what was installed: each package's RECORD names its files and their sizes."""

from __future__ import annotations

import base64
import csv
import hashlib
from collections.abc import Iterator
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


def count_packages(venv: Path) -> int:
    """How many packages are installed."""
    return sum(1 for _ in venv.glob("lib/python*/site-packages/*.dist-info"))


def altered_packages(venv: Path) -> tuple[str, ...]:
    """The same by their digests: every byte is read, which takes a second for each 100 MiB. Raises OSError."""
    found: list[str] = []
    for folder in venv.glob("lib/python*/site-packages"):
        for record in sorted(folder.glob("*.dist-info/RECORD")):
            found += _altered(folder, record)
    return tuple(found)


def _altered(folder: Path, record: Path) -> Iterator[str]:
    with record.open(newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            if len(row) > 1 and row[1] and not _is_as_recorded(folder / row[0], row[1]):
                yield row[0]


def _is_as_recorded(path: Path, recorded: str) -> bool:
    algorithm, _, digest = recorded.partition("=")
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, algorithm).digest()
    except (FileNotFoundError, NotADirectoryError):
        return path.suffix == ".pyc"
    return base64.urlsafe_b64encode(found).decode().rstrip("=") == digest


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
