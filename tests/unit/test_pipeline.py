"""The order of a run: what is told of an interrupted step, what is undone, and what nobody undoes twice."""

from __future__ import annotations

import pytest

from bulletproof.domain.deployment import Kind
from bulletproof.domain.events import Event, StepFailed, StepStarted, StepUndone
from bulletproof.effects.interrupts import Interrupted
from bulletproof.engine.journal import Beginning, Journal
from bulletproof.engine.pipeline import Failure, Outcomes, Phase, Pipeline, Step, Surroundings, recover, run

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
    return Surroundings(tell=told, clock=lambda: 0.0, shield=lambda: None, expose=lambda: None)


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
