"""The order of a run: what is told of an interrupted step, what is undone, and what nobody undoes twice."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from bulletproof.domain.deployment import Kind
from bulletproof.domain.events import Event, StepFailed, StepStarted, StepUndone
from bulletproof.effects.interrupts import Interrupted
from bulletproof.engine.journal import Beginning, DeploymentRecord, Journal
from bulletproof.engine.pipeline import Failure, Outcomes, Phase, Pipeline, Step, Surroundings, recover, run
from bulletproof.errors import NeedsPerson

OUTCOMES = Outcomes(done="deployed", undone="undone", refused="refused")
BEGINNING = Beginning(
    kind=Kind.DEPLOY, pipeline="two", release=lambda number: f"{number}-x", revision="", title="", started_by="somebody"
)


class Told:
    """What was told; the first event of that step interrupts, as a Ctrl-C while its line is printed does."""

    def __init__(self, interrupting: str = "") -> None:
        self.events: list[tuple[type[Event], str]] = []
        self._interrupting = interrupting

    def __call__(self, event: Event) -> None:
        """Keep it, or interrupt."""
        step = getattr(event, "step", "")
        self.events.append((type(event), step))
        if (type(event), step) == (StepStarted, self._interrupting):
            raise Interrupted(2)


def around(told: Told) -> Surroundings:
    """Surroundings without a signal; every second looks at nothing."""
    return Surroundings(tell=told, clock=lambda: 0.0, shield=lambda: None, expose=lambda: None, make_room=lambda: False)


def test_an_interrupt_while_a_step_is_announced_is_told_as_its_failure() -> None:
    """Whoever follows the events sees every step that started end, and both steps are undone, the last one first."""
    world: list[str] = []
    journal = Journal.in_memory(lambda: "now")
    record = journal.record(journal.begin(BEGINNING).deployment.number)
    told = Told(interrupting="second")

    with pytest.raises(Failure) as failure:
        run(_two(world), None, record, around(told), OUTCOMES)

    assert (failure.value.step, failure.value.touched) == ("second", True)
    assert told.events[2:] == [
        (StepStarted, "second"),
        (StepFailed, "second"),
        (StepUndone, "second"),
        (StepUndone, "first"),
    ]
    assert world == ["did first", "undid second", "undid first"]
    assert record.phase() is Phase.CLOSED


class Disk:
    """A full disk: whoever writes fails until the room that was put by is free, which is there once."""

    def __init__(self) -> None:
        self.is_put_by = True

    def free(self) -> bool:
        """Free it; whether there was any."""
        had, self.is_put_by = self.is_put_by, False
        return had

    def write(self, _: None) -> str:
        """Write something."""
        if self.is_put_by:
            raise OSError(errno.ENOSPC, "No space left on device")
        return ""

    def clear(self, nothing: None) -> None:
        """As an undo, which writes something too."""
        self.write(nothing)


def _on(disk: Disk, before: Callable[[None], str], after: Callable[[None], str]) -> DeploymentRecord:
    """What a pipeline of two steps leaves, of which the first is undone by writing."""
    journal = Journal.in_memory(lambda: "now")
    record = journal.record(journal.begin(BEGINNING).deployment.number)
    steps = Pipeline("two", (Step("first", before, undo=disk.clear),), (Step("last", after),))
    with contextlib.suppress(Failure):
        run(steps, None, record, replace(around(Told()), make_room=disk.free), OUTCOMES)
    return record


def test_on_a_full_disk_what_was_put_by_is_for_the_way_back() -> None:
    """Not for the way forth: the undo, which writes as well, finds it free."""
    disk = Disk()
    record = _on(disk, disk.write, disk.write)
    assert (record.phase(), record.taken_back(), disk.is_put_by) == (Phase.CLOSED, frozenset({"first"}), False)


def test_on_a_full_disk_what_was_put_by_is_for_the_finish() -> None:
    """Where a step after the commit fails it is tried once more."""
    disk = Disk()
    assert _on(disk, lambda _: "", disk.write).phase() is Phase.CLOSED


def test_what_follows_a_commit_is_not_tried_for_ever() -> None:
    """With the room used up it is as it is."""
    tries: list[None] = []

    def fail(_: None) -> str:
        tries.append(None)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(NeedsPerson, match="last failed"):
        _on(Disk(), lambda _: "", fail)
    assert len(tries) == 2


def test_a_recovery_has_the_room_that_a_killed_run_put_by() -> None:
    """Before it undoes anything."""
    disk = Disk()
    journal = Journal.in_memory(lambda: "now")
    record = journal.record(journal.begin(BEGINNING).deployment.number)
    record.intend("first")
    steps = Pipeline("two", (Step("first", disk.write, undo=disk.clear),), ())
    recover(steps, None, record, replace(around(Told()), make_room=disk.free), OUTCOMES)
    assert (record.phase(), record.taken_back()) == (Phase.CLOSED, frozenset({"first"}))


def test_what_was_undone_to_the_end_is_not_undone_again() -> None:
    """A recovery of a killed undo goes on where it stood."""
    world: list[str] = []
    journal = Journal.in_memory(lambda: "now")
    record = journal.record(journal.begin(BEGINNING).deployment.number)
    for step in ("first", "second"):
        record.intend(step)
    record.undone("second")

    recover(_two(world), None, record, around(Told()), OUTCOMES)

    assert world == ["undid first"]
    assert record.phase() is Phase.CLOSED


def _two(world: list[str]) -> Pipeline[None]:
    def step(name: str) -> Step[None]:
        def do(_target: None) -> str:
            world.append(f"did {name}")
            return ""

        return Step(name, do, lambda _target: world.append(f"undid {name}"))

    return Pipeline("two", before=(step("first"), step("second")), after=())
