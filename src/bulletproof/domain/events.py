"""What happened, as frozen values: the engine tells them, a renderer shows them."""

from __future__ import annotations

import msgspec


class StepStarted(msgspec.Struct, frozen=True, kw_only=True):
    """A step's intent is on disk and its effect begins."""

    step: str


class StepDone(msgspec.Struct, frozen=True, kw_only=True):
    """A step's effect is complete; `note` says in a few words what it did."""

    step: str
    seconds: float
    note: str = ""


class StepFailed(msgspec.Struct, frozen=True, kw_only=True):
    """A step could not be done."""

    step: str
    seconds: float
    reference: str
    message: str


class StepUndone(msgspec.Struct, frozen=True, kw_only=True):
    """A step's effect is gone again."""

    step: str
    seconds: float


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """The commit point is passed: from here the deployment only finishes."""


Event = StepStarted | StepDone | StepFailed | StepUndone | Committed
