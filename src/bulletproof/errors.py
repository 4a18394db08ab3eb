"""Every error that Bulletproof raises: a reference to look up, what happened, and the next command to type.

BulletproofError
├── UsageError            2  the command line or a configuration is wrong; nothing was touched
├── Refused               1  a check before the first effect said no; nothing was touched
├── Undone                3  a deployment failed and was undone; what served before still serves
├── NeedsPerson           4  the host could not be made whole by itself
├── LockHeld              5  another deployment holds the lock
├── RecoveryNeeded        6  a crash left something to finish, and this command may not do it
├── Unwatched             7  what was asked for goes on, and it is not known here how it ends
└── StepFailed            1  a step said why it could not be done; the pipeline decides what that means
"""

from __future__ import annotations

from typing import ClassVar


class BulletproofError(Exception):
    """Base of all errors that a person may see.

    `reference` is kebab-case and stable, `message` says what happened in plain words, `hint` is the next command
    (or sentence) that helps, `context` holds lines to show below the message, such as the end of a log.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, reference: str, message: str, *, hint: str = "", context: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.reference = reference
        self.message = message
        self.hint = hint
        self.context = context

    def __str__(self) -> str:
        return f"{self.reference}: {self.message}"


class UsageError(BulletproofError):
    """The command line or a configuration is wrong; nothing was touched."""

    exit_code = 2


class Refused(BulletproofError):
    """A check before the first effect said no; nothing was touched."""

    exit_code = 1


class StepFailed(BulletproofError):
    """A step could not be done; the pipeline undoes what came before it."""

    exit_code = 1


class Undone(BulletproofError):
    """A deployment failed and was undone; what served before still serves."""

    exit_code = 3


class NeedsPerson(BulletproofError):
    """The host could not be made whole by itself."""

    exit_code = 4


class LockHeld(BulletproofError):
    """Another deployment holds the lock."""

    exit_code = 5


class RecoveryNeeded(BulletproofError):
    """A crash left something to finish, and this command may not do it."""

    exit_code = 6


class Unwatched(BulletproofError):
    """What was asked for goes on at its host, and it is not known here how it ends."""

    exit_code = 7
