"""A renderer that also writes down what it is told, and the way back: from what was written to any renderer."""

from __future__ import annotations

import contextlib

import msgspec
from msgspec.structs import asdict

from bulletproof.cli.render import EVENT_NAMES, Renderer, exit_code_of
from bulletproof.domain.deployment import Live, Outcome
from bulletproof.domain.events import Event
from bulletproof.domain.layout import Layout
from bulletproof.effects.chronicle import Chronicle
from bulletproof.engine.journal import Entry
from bulletproof.errors import BulletproofError, LockHeld, NeedsPerson, RecoveryNeeded, Refused, Undone, UsageError
from bulletproof.operations.activate import Result, words_of

_KINDS = {kind.exit_code: kind for kind in (Refused, UsageError, Undone, NeedsPerson, LockHeld, RecoveryNeeded)}
_EVENTS = {name: kind for kind, name in EVENT_NAMES.items()}


class _Error(msgspec.Struct, frozen=True, kw_only=True):
    reference: str
    message: str
    hint: str
    context: tuple[str, ...]
    exit_code: int


class _Begun(msgspec.Struct, frozen=True, kw_only=True, tag="begun"):
    entry: Entry


class _TakenUp(msgspec.Struct, frozen=True, kw_only=True, tag="taken-up"):
    entry: Entry


class _Happened(msgspec.Struct, frozen=True, kw_only=True, tag="happened"):
    event: str
    values: dict[str, object]


class _Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    exit_code: int
    outcome: Outcome
    number: int
    release: str
    serving: Live | None
    seconds: float
    error: _Error | None
    warning: str
    troubles: tuple[str, ...]
    address: str


class _Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    error: _Error
    serving: Live | None


_Line = _Begun | _TakenUp | _Happened | _Ended | _Failed


class Recording:
    """Shows by another renderer, and keeps what a deployment of this app told. A Renderer itself."""

    def __init__(self, shown: Renderer, layout: Layout) -> None:
        self._shown = shown
        self._layout = layout
        self._chronicle: Chronicle | None = None

    def begun(self, entry: Entry) -> None:
        """From here on it is kept."""
        self._open(entry)
        self._keep(_Begun(entry=entry))
        self._shown.begun(entry)

    def taken_up(self, entry: Entry) -> None:
        """What becomes of it is kept where its deployer began to."""
        self._open(entry)
        self._keep(_TakenUp(entry=entry))
        self._shown.taken_up(entry)

    def event(self, event: Event) -> None:
        """Keep and show."""
        self._keep(_Happened(event=EVENT_NAMES[type(event)], values=asdict(event)))
        self._shown.event(event)

    def ended(self, result: Result, address: str) -> None:
        """Keep how it ended, and show it."""
        error = _error(words_of(result.cause)) if result.cause else None
        ended = _Ended(
            exit_code=exit_code_of(result),
            outcome=result.outcome,
            number=result.number,
            release=result.release,
            serving=result.serving,
            seconds=result.seconds,
            error=error,
            warning=result.warning,
            troubles=result.troubles,
            address=address,
        )
        self._keep(ended, is_last=True)
        self._shown.ended(result, address)

    def failed(self, error: BulletproofError, serving: Live | None) -> None:
        """Keep that it could not be ended, and show it."""
        self._keep(_Failed(error=_error(error), serving=serving), is_last=True)
        self._shown.failed(error, serving)

    def _open(self, entry: Entry) -> None:
        if self._chronicle is not None:
            self._chronicle.close()
        self._chronicle = None
        # A disk that takes no more of it costs no deployment: what happened is in the journal.
        with contextlib.suppress(OSError):
            self._chronicle = Chronicle(self._layout.events(entry.deployment.number))

    def _keep(self, line: _Line, *, is_last: bool = False) -> None:
        if self._chronicle is not None:
            self._chronicle.tell(msgspec.json.encode(line), is_last=is_last)


def show_again(line: bytes, renderer: Renderer) -> int | None:
    """Let a renderer show a line that was kept; the deployment's exit code when that was its end, None before.

    A line that cannot be read is left out: a killed deployer may have left half of one.
    """
    try:
        told = msgspec.json.decode(line, type=_Line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    match told:
        case _Begun(entry=entry):
            renderer.begun(entry)
        case _TakenUp(entry=entry):
            renderer.taken_up(entry)
        case _Happened(event=name, values=values) if name in _EVENTS:
            renderer.event(msgspec.convert(values, _EVENTS[name]))
        case _Ended():
            renderer.ended(_result(told), told.address)
            return told.exit_code
        case _Failed(error=error, serving=serving):
            renderer.failed(_as_raised(error), serving)
            return error.exit_code
        case _:
            pass
    return None


def _result(told: _Ended) -> Result:
    return Result(
        outcome=told.outcome,
        number=told.number,
        release=told.release,
        serving=told.serving,
        seconds=told.seconds,
        cause=_as_raised(told.error) if told.error else None,
        warning=told.warning,
        troubles=told.troubles,
    )


def _error(error: BulletproofError) -> _Error:
    return _Error(
        reference=error.reference,
        message=error.message,
        hint=error.hint,
        context=error.context,
        exit_code=error.exit_code,
    )


def _as_raised(error: _Error) -> BulletproofError:
    kind = _KINDS.get(error.exit_code, Refused)
    return kind(error.reference, error.message, hint=error.hint, context=error.context)
