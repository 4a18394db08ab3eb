"""What happened, as frozen values: the engine tells them, a renderer shows them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted:
    """A step's intent is on disk and its effect begins."""

    step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """A step's effect is complete; `note` says in a few words what it did."""

    step: str
    seconds: float
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailed:
    """A step could not be done."""

    step: str
    seconds: float
    reference: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepUndone:
    """A step's effect is gone again."""

    step: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """The commit point is passed: from here the deployment only finishes."""


Event = StepStarted | StepDone | StepFailed | StepUndone | Committed
