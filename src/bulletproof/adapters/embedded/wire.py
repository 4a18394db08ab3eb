"""What goes over the control socket: one request, one answer, each a line of JSON."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import msgspec

from bulletproof.domain.process import ProcessSpec, ProcessState

STOPPING_REFERENCE = "supervisor-stopping"
"""The reference of the answer of a supervisor that was told to end and has not ended yet."""

T = TypeVar("T")


class Verb(StrEnum):
    """What a supervisor can be asked."""

    PING = "ping"
    START = "start"
    STOP = "stop"
    ASK_TO_STOP = "ask-to-stop"
    STATE = "state"
    NAMES = "names"
    SHUTDOWN = "shutdown"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One question or order."""

    verb: Verb
    name: str = ""
    """Of the process, for `stop`, `ask-to-stop` and `state`."""
    process: ProcessSpec | None = None
    """For `start`."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor says to it; with a `reference` it is a refusal in words."""

    state: ProcessState | None = None
    names: tuple[str, ...] = ()
    reference: str = ""
    message: str = ""


def encode(value: object) -> bytes:
    """One line of JSON, its newline included."""
    return msgspec.json.encode(value, enc_hook=_plain) + b"\n"


def decode(line: bytes, kind: type[T]) -> T:
    """The value of one line; raises msgspec.DecodeError when it is none of this kind."""
    return msgspec.json.decode(line, type=kind, dec_hook=_path)


def _plain(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} does not go over the wire")


def _path(kind: type, value: object) -> Path:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(f"{kind.__name__} does not go over the wire")
