"""Planted bugs that show in time: by a clock that jumps, cut power, or writes between a kill and its recovery."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bulletproof.prove import clock, disk, strace, sweep
from bulletproof.prove.host import Host, scratch
from bulletproof.prove.hostile import DONE, Case
from bulletproof.prove.scenarios import SCENARIOS
from planted import Bug, interpreter_with

pytestmark = [
    pytest.mark.skipif(not strace.is_there(), reason="strace is not installed"),
    pytest.mark.timeout(600),
]

_WALL_CLOCK = Bug(
    "wall-clock deadline",
    "bulletproof.wiring.__init__",
    "        clock=time.monotonic,\n",
    "        clock=time.time,\n",
)
_NOT_SYNCED = Bug(
    "success before fsync",
    "bulletproof.engine.journal",
    '        connection.execute("PRAGMA synchronous=FULL")\n',
    '        connection.execute("PRAGMA synchronous=OFF")\n',
)
_RESUMED_EARLY = Bug(
    "resume before commit",
    "bulletproof.operations.pipelines",
    "_SWAP, _START, _GATE),\n        after=(_CUTOVER, _ADOPT,",
    "_SWAP, _START, _GATE, _CUTOVER, _VERIFY),\n        after=(_ADOPT,",
)
_MOST = 6
"""Kills that it may survive before it counts as not found."""


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder for the copy and its host."""
    with scratch() as folder:
        yield folder


def test_a_deadline_by_the_wall_clock_is_caught(base: Path) -> None:
    """The clock jumps at the start, and the deadline of the hold, or of the gate, seems to be over."""
    host = Host.lay(base / "host", python=interpreter_with(_WALL_CLOCK, base / "planted"))
    case = Case("clock", lambda stage: [clock.run(stage.host, 10, "start")], frozenset({DONE}))
    try:
        with host.load() as load:
            problems = " ".join(sweep.Sweep(host, load).play(case, random.Random(1)).problems)
        assert re.search("hold-too-long|not healthy within 0 seconds", problems), problems
    finally:
        host.end()


@pytest.mark.skipif(not disk.namespace(["true"]), reason="only root can cut the power of a disk of its own")
def test_a_success_that_is_not_on_disk_is_caught(base: Path) -> None:
    """The power is cut as soon as it said that it is done.

    A folder that is not synced does not show here: on an ext4 the next sync of whatever file writes it as well, and in
    a deployment there is always a next one. `tests/crash/test_power_cut.py` shows that one, by the single write.
    """
    python = interpreter_with(_NOT_SYNCED, base / "planted")
    argv = (python, "-P", "-m", "bulletproof.prove", "--only", "disk/power cut", "--rounds", "24")
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 1
    words = "it said that it is done|is live|the schema is not|afterwards|start ended with"
    assert re.search(words, ended.stdout), ended.stdout + ended.stderr


def test_a_resume_before_the_commit_is_caught(base: Path) -> None:
    """What the new release acknowledged before the kill is lost when the snapshot is put back."""
    host = Host.lay(base / "host", python=interpreter_with(_RESUMED_EARLY, base / "planted"))
    try:
        known = sweep.points("migrate", sweep.record(host, SCENARIOS["migrate"]), [strace.KILL])
        found = [point for point in known if point.step == "verify"][:_MOST]
        with host.load() as load:
            faults = sweep.Sweep(host, load)
            problems = next(filter(None, (faults.meet(point)[0].problems for point in found)), ())
        assert "lost" in " ".join(problems) or "gone" in " ".join(problems), problems
    finally:
        host.end()
