"""Order and durability: runs steps, undoes them, recovers; does not know what a deployment is."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

import msgspec

from bulletproof.domain.events import Committed, Event, StepDone, StepFailed, StepStarted, StepUndone
from bulletproof.errors import BulletproofError, NeedsPerson

T = TypeVar("T")
Tell = Callable[[Event], None]


class Phase(StrEnum):
    """Where a deployment stands by its records."""

    OPEN = "open"
    """Not committed: a recovery undoes it."""
    COMMITTED = "committed"
    """The commit point is passed: a recovery finishes it."""
    CLOSED = "closed"


class Record(Protocol):
    """One deployment's part of the journal; what is written is on disk when the call returns."""

    def intend(self, step: str) -> None:
        """The step's effect may happen from now on."""

    def done(self, step: str, seconds: float, note: str) -> None:
        """The step's effect is complete. For people: recovery never relies on it."""

    def commit(self) -> None:
        """The commit point."""

    def close(self, outcome: str, message: str) -> None:
        """Nothing is left to do."""

    def turn(self, pipeline: str) -> None:
        """From here on it goes the way of another pipeline, and a recovery does too."""

    def undone(self, step: str) -> None:
        """The step's effect is gone again, and no recovery may undo it once more."""

    def phase(self) -> Phase:
        """Where it stands, read from disk."""

    def intended(self) -> frozenset[str]:
        """The steps whose effect may have happened."""

    def taken_back(self) -> frozenset[str]:
        """The steps that were undone to the end."""


class Step(msgspec.Struct, Generic[T], frozen=True):
    """A named effect and its inverse.

    `do` returns a few words on what it did. `undo` makes it so that the effect is not: idempotent, tolerant of an
    effect that never happened, and able to run in another process that knows only the journal. The name is on disk
    and never changes.
    """

    name: str
    do: Callable[[T], str]
    undo: Callable[[T], None] | None = None


class Pipeline(msgspec.Struct, Generic[T], frozen=True):
    """Steps around a commit point: a failure `before` it undoes, `after` it there is only finishing."""

    name: str
    before: tuple[Step[T], ...]
    after: tuple[Step[T], ...]
    fork: Fork[T] | None = None


class Fork(msgspec.Struct, Generic[T], frozen=True):
    """Where a pipeline may give way to another one, which begins with the same steps up to and with `after`."""

    after: str
    choose: Callable[[T], Pipeline[T] | None]
    """Asked once, when that step is done; None is to go on."""


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What a run needs besides its steps."""

    tell: Tell
    clock: Callable[[], float]
    """Monotonic seconds."""
    shield: Callable[[], None]
    """From now on a signal may not interrupt us."""
    expose: Callable[[], None]
    """From now on it may again; raises for one that came meanwhile."""
    make_room: Callable[[], bool]
    """Give free on the disk what was put by for the way to an end; False when there was nothing."""


class Failure(Exception):
    """A step failed and everything was undone; `touched` tells whether there was anything to undo."""

    def __init__(self, step: str, cause: BaseException, *, touched: bool) -> None:
        super().__init__(step)
        self.step = step
        self.cause = cause
        self.touched = touched


def run(pipeline: Pipeline[T], target: T, record: Record, around: Surroundings, outcomes: Outcomes) -> None:
    """Run the pipeline to its end.

    Raises Failure when a step failed and all was undone, NeedsPerson when the undo or a step after the commit point
    failed; the journal is left open then, and a recovery tries again.
    """
    way = _Way(pipeline, target, record, around)
    try:
        around.expose()
        way.go()
        around.shield()
        record.commit()
    except BaseException as cause:
        around.shield()
        # A commit may have reached the disk although its call failed: what the disk says decides.
        if record.phase() is not Phase.COMMITTED:
            around.make_room()
            touched = _undo(way.pipeline, target, record, around)
            record.close(outcomes.undone if touched else outcomes.refused, f"{way.step}: {_words(cause)}")
            raise Failure(way.step, cause, touched=touched) from cause
    around.tell(Committed())
    _finish(way.pipeline, target, record, around, outcomes)


def recover(pipeline: Pipeline[T], target: T, record: Record, around: Surroundings, outcomes: Outcomes) -> None:
    """Finish or undo what a killed run left; may itself be killed at any point and run again."""
    around.shield()
    around.make_room()
    match record.phase():
        case Phase.OPEN:
            touched = _undo(pipeline, target, record, around)
            record.close(outcomes.undone if touched else outcomes.refused, "the deployer was killed")
        case Phase.COMMITTED:
            _finish(pipeline, target, record, around, outcomes)
        case Phase.CLOSED:
            pass


class Outcomes(msgspec.Struct, frozen=True, kw_only=True):
    """The words that a closing record uses."""

    done: str
    undone: str
    refused: str


class _Way(Generic[T]):
    """The steps before the commit point, as they are gone: which pipeline it is by now, and at which step."""

    def __init__(self, pipeline: Pipeline[T], target: T, record: Record, around: Surroundings) -> None:
        self.pipeline = pipeline
        self.step = ""
        self._target = target
        self._record = record
        self._around = around

    def go(self) -> None:
        """All of them, in order."""
        index = 0
        while index < len(self.pipeline.before):
            step = self.pipeline.before[index]
            self.step = step.name
            _do(step, self._target, self._record, self._around)
            self._take_turn()
            index += 1

    def _take_turn(self) -> None:
        """Go the other way from here, if this is where it forks; which way is on disk before its first step."""
        fork = self.pipeline.fork
        other = fork.choose(self._target) if fork is not None and fork.after == self.step else None
        if other is not None:
            self._record.turn(other.name)
            self.pipeline = other


def _do(step: Step[T], target: T, record: Record, around: Surroundings) -> None:
    """One step: its intent is on disk before its effect begins."""
    begun = around.clock()
    record.intend(step.name)
    try:
        around.tell(StepStarted(step=step.name))
        note = step.do(target)
    except BaseException as cause:
        reference = cause.reference if isinstance(cause, BulletproofError) else "interrupted"
        around.tell(
            StepFailed(step=step.name, seconds=around.clock() - begun, reference=reference, message=_words(cause))
        )
        raise
    seconds = around.clock() - begun
    record.done(step.name, seconds, note)
    around.tell(StepDone(step=step.name, seconds=seconds, note=note))


def _undo(pipeline: Pipeline[T], target: T, record: Record, around: Surroundings) -> bool:
    """Undo in reverse whatever may have happened; tells whether there was anything.

    What was undone to the end is never undone again: once the old release serves, putting its data back a second time
    would lose what was written since.
    """
    intended, taken_back = record.intended(), record.taken_back()
    touched = False
    for step in reversed(pipeline.before):
        if step.undo is None or step.name not in intended:
            continue
        touched = True
        if step.name in taken_back:
            continue
        begun = around.clock()
        try:
            step.undo(target)
        except Exception as cause:
            raise NeedsPerson(
                "undo-failed",
                f"undoing the step {step.name} failed: {_words(cause)}",
                hint="bulletproof recover",
            ) from cause
        record.undone(step.name)
        around.tell(StepUndone(step=step.name, seconds=around.clock() - begun))
    return touched


def _finish(pipeline: Pipeline[T], target: T, record: Record, around: Surroundings, outcomes: Outcomes) -> None:
    """What follows the commit point; each step tolerates that it was done already."""
    for step in pipeline.after:
        try:
            _do_at_last(step, target, record, around)
        except Exception as cause:
            raise NeedsPerson(
                "not-finished",
                f"the deployment is committed, but its step {step.name} failed: {_words(cause)}",
                hint="bulletproof recover",
            ) from cause
    record.close(outcomes.done, "")


def _do_at_last(step: Step[T], target: T, record: Record, around: Surroundings) -> None:
    """A step after the commit point; where it fails, once more with the room that was put by, if it is still there."""
    try:
        _do(step, target, record, around)
    except Exception:
        if not around.make_room():
            raise
        _do(step, target, record, around)


def _words(cause: BaseException) -> str:
    if isinstance(cause, BulletproofError):
        return cause.message
    return str(cause) or type(cause).__name__
