"""What the doctor tells of an app, and what lies on its disk."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from live_app import Event, LiveApp

LOOK = r"%p\t%y %m %U:%G %s %T@ %C@\n"
"""For find(1): each path, and what kind it is, its mode, owner, group, bytes, and when it and its name changed."""


def examined(app: LiveApp, *words: str) -> dict[str, Event]:
    """What `doctor` tells of each thing that is wrong."""
    done = app.run("doctor", "--json", *words)
    assert done.out, done
    return {one["name"]: one for one in json.loads(done.out)["diagnoses"]}


def only(app: LiveApp, name: str) -> Event:
    """The one thing that this diagnosis tells."""
    (found,) = examined(app, "--only", name).values()
    return found


def on_disk(*places: Path) -> dict[str, str]:
    """All that lies below, each with owner, mode, size and times."""
    told = subprocess.run(["find", *places, "-printf", LOOK], check=True, capture_output=True, text=True).stdout
    return dict(line.split("\t") for line in told.splitlines())


def changed(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[str, str]]:
    """What came, went, or is not as it was."""
    paths = sorted(before.keys() | after.keys())
    pairs = {path: (before.get(path, "not there"), after.get(path, "not there")) for path in paths}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}
