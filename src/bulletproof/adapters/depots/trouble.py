"""What can go wrong off site: tried again where that may help, and told in words."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from bulletproof.errors import StepFailed

Done = TypeVar("Done")

PAUSES = (1.0, 4.0)
"""Seconds before the second and the third try."""


class Trouble(Exception):
    """Why a try failed, and what a person can type about it; `may_pass` when another try could go well."""

    def __init__(self, why: str, *, hint: str = "", context: tuple[str, ...] = (), may_pass: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint
        self.context = context
        self.may_pass = may_pass


def tried(doing: str, action: Callable[[], Done], *, pauses: tuple[float, ...] | None = None) -> Done:
    """What the action gives back, tried once more after each of `pauses` (seconds) while that may help.

    Raises StepFailed `offsite-failed`: that `doing` failed, and why.
    """
    left = list(PAUSES if pauses is None else pauses)
    while True:
        try:
            return action()
        except Trouble as trouble:
            if not trouble.may_pass or not left:
                words = f"{doing}: {trouble.why}"
                raise StepFailed("offsite-failed", words, hint=trouble.hint, context=trouble.context) from trouble
            time.sleep(left.pop(0))


def putting(name: str, place: str) -> str:
    """What failed when a file could not be put there."""
    return f"`{name}` could not be put into {place}"


def getting(name: str, place: str) -> str:
    """What failed when a file could not be got back."""
    return f"`{name}` could not be got from {place}"


def listing(place: str) -> str:
    """What failed when the names could not be had."""
    return f"{place} could not be listed"


def removing(name: str, place: str) -> str:
    """What failed when a file could not be removed."""
    return f"`{name}` could not be removed from {place}"
