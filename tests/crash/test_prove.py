"""A cross-section of the proof: faults at system calls of a real host, and that the harness sees what is planted."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from bulletproof.effects.isolation import why_no_namespaces
from bulletproof.prove import strace, sweep
from bulletproof.prove.host import Host, processes, scratch
from bulletproof.prove.hostile import CASES, Case
from bulletproof.prove.load import Load
from bulletproof.prove.scenarios import SCENARIOS

pytestmark = [
    pytest.mark.skipif(not strace.is_there(), reason="strace is not installed"),
    pytest.mark.skipif(
        bool(why_no_namespaces()), reason=f"the kernel lets this user make no cell: {why_no_namespaces()}"
    ),
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("prove"),
]


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """A folder for hosts, in memory."""
    with scratch() as folder:
        yield folder


@dataclass(frozen=True)
class Laid:
    """A host under load, and the faults that were recorded on it."""

    host: Host
    load: Load
    known: dict[str, list[sweep.Point]]

    @property
    def faults(self) -> sweep.Sweep:
        """Injects one after the other."""
        return sweep.Sweep(self.host, self.load)


@pytest.fixture(scope="module")
def laid(base: Path) -> Iterator[Laid]:
    """A host for the faults that a sound Bulletproof survives."""
    host = Host.lay(base / "sound")
    try:
        with host.load() as load:
            known = {name: sweep.points(name, sweep.record(host, SCENARIOS[name])) for name in ("deploy", "migrate")}
            yield Laid(host, load, known)
    finally:
        host.end()


def _bugs() -> list[object]:
    """Faults that broke a promise once: the step, the call, which of them there, and what happened to it."""
    found = {
        "an-undo-after-the-cutover-removed-the-link-to-the-former-release": ("verify", "fdatasync", 0, "KILL"),
        "done-but-not-told-was-taken-for-refused": ("prune", "write", -1, "EIO"),
    }
    return [pytest.param(*fault, id=name) for name, fault in found.items()]


@pytest.mark.parametrize(("step", "call", "position", "fault"), _bugs())
def test_what_broke_once_is_kept_whole(laid: Laid, step: str, call: str, position: int, fault: str) -> None:
    """Each bug that the proof has found, in a deployment that changes code alone."""
    wanted = (step, call, fault)
    found = [one for one in laid.known["deploy"] if (one.step, one.injection.call, one.injection.fault) == wanted]
    verdict = laid.faults.meet(found[position])[0]
    assert verdict.has_fired
    assert not verdict.problems


def test_a_start_after_all_was_killed_in_a_hold_needs_no_person(laid: Laid) -> None:
    """A found bug: what had died with its supervisor was taken for crashed, and the undo of the hold failed."""
    (case,) = [one for one in CASES if one.name == "everything killed in a hold"]
    assert not laid.faults.play(case, random.Random(1)).problems


def test_a_recovery_that_a_broken_disk_ends_is_tried_again(laid: Laid) -> None:
    """By itself, also by a supervisor in place of one that was killed, and again when the second one is killed too."""
    for pid, command, _ in processes(laid.host.layout.root):
        if "embedded.supervisor" in command:
            os.kill(pid, signal.SIGKILL)
    laid.host.must("deploy", "plain")  # which starts another supervisor, that knows nothing of our faults
    then = (strace.Injection("unlinkat", 1, "EIO"), strace.Injection("fsync", 2, "KILL"))
    kill = next(one for one in laid.known["deploy"] if (one.step, one.injection.fault) == ("start", "KILL"))
    verdicts = laid.faults.meet(replace(kill, then=then))
    assert [(verdict.fault, verdict.has_fired) for verdict in verdicts] == [
        ("KILL", True),
        ("EIO", True),
        ("KILL", True),
    ]
    assert not verdicts[0].problems


def test_a_release_that_is_rolled_back_to_migrates_as_well(laid: Laid) -> None:
    """A found bug of the oracle: what its migration adds was taken for too much, here after a fault in its undo."""
    for tag in ("grows", "plain"):
        laid.host.must("deploy", tag)
    full = sweep.Point("rollback", "", strace.Injection("mkdir", 2, "ENOSPC"))
    verdicts = [laid.faults.meet(full)[0], laid.faults.play(_ROLLBACK, random.Random(1))]
    assert [(verdict.outcome, verdict.problems) for verdict in verdicts] == [("old", ()), ("new", ())]


_ROLLBACK = Case("rollback", lambda stage: [stage.host.run("rollback")], frozenset({0}))


def test_a_cross_section_of_all_faults_breaks_no_promise(laid: Laid) -> None:
    """Kills, full and broken disks, evenly over the steps of a deployment with and without a migration."""
    chosen = sweep.sample([point for found in laid.known.values() for point in found], 24, seed=1)
    verdicts = [laid.faults.meet(point)[0] for point in chosen]
    assert [(verdict.name, verdict.problems) for verdict in verdicts if verdict.problems] == []
    assert sum(verdict.has_fired for verdict in verdicts) >= 20
