"""What the verbs that change what is live have in common: a session, an order, a result on the screen, an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from bulletproof.cli.render import choose_renderer
from bulletproof.cli.target import Target, open_session
from bulletproof.domain.config import AppConfig
from bulletproof.domain.deployment import Live, Outcome
from bulletproof.effects.interrupts import Interrupted
from bulletproof.engine.journal import Journal
from bulletproof.errors import BulletproofError, NeedsPerson, Refused, Undone, UsageError
from bulletproof.operations.activate import Result, Session, serving, words_of
from bulletproof.wiring import connect

EXIT_CODES = {
    Outcome.DEPLOYED: 0,
    Outcome.REFUSED: Refused.exit_code,
    Outcome.UNDONE: Undone.exit_code,
    Outcome.FAILED: NeedsPerson.exit_code,
}


def carry_out(
    target: Target, verb: str, act: Callable[[Session], Result], *, as_json: bool = False, wait_seconds: float = 0.0
) -> None:
    """Run `act` in a session, show it, and end the process with the exit code that its outcome means."""
    renderer = choose_renderer(target.app, as_json=as_json)
    try:
        with open_session(target, verb, renderer, wait_seconds=wait_seconds) as session:
            result = act(session)
            address = f"http://127.0.0.1:{session.host.proxy.port()}" if result.serving else ""
    except (BulletproofError, OSError, Interrupted) as cause:
        error = words_of(cause)
        renderer.failed(error, still_serving(target))
        sys.exit(error.exit_code)
    renderer.ended(result, address)
    sys.exit(UsageError.exit_code if isinstance(result.cause, UsageError) else EXIT_CODES[result.outcome])


def still_serving(target: Target) -> Live | None:
    """What serves; None when that cannot be found out either, since another error is being told already."""
    try:
        journal = Journal.read(target.layout.journal)
        if journal is None:
            return None
        return serving(connect(target.root, target.app, target.config or AppConfig(name=target.app)), journal)
    except (BulletproofError, OSError):
        return None
