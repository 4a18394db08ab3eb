"""Maintenance on disk: a link to a folder with the answers; the proxy looks for it at every request."""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec

from bulletproof.domain.maintenance import ALLOWED, Maintenance, answers
from bulletproof.effects import durable

LINK = "maintenance"
_RECORD = "record.json"


def read(place: Path) -> Maintenance | None:
    """What is in force; None when the app is open to the public."""
    try:
        return msgspec.json.decode((place / LINK / _RECORD).read_bytes(), type=Maintenance)
    except FileNotFoundError:
        return None


def write(place: Path, wish: Maintenance | None) -> None:
    """Make it what is in force, from one instant on."""
    name = f"{LINK}-{secrets.token_hex(4)}"
    if wish is None:
        durable.remove(place / LINK)
    else:
        with durable.new_folder(place / name) as folder:
            _fill(folder, wish)
        durable.replace_symlink(place / LINK, name)
    for other in place.glob(f"{LINK}-*"):
        if wish is None or other.name != name:
            durable.remove_tree(other)


def _fill(folder: Path, wish: Maintenance) -> None:
    for file, content in answers(wish).items():
        durable.write_file(folder / file, content)
    durable.write_file(folder / _RECORD, msgspec.json.encode(wish), mode=0o600)
    durable.make_folder(folder / ALLOWED)
    for address in wish.allowed:
        durable.write_file(folder / ALLOWED / address, "")
