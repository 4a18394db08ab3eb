"""The health gate: ask an instance until it was healthy so many times in a row, or say why not."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from bulletproof.domain.config import Health
from bulletproof.domain.health import Answer, GateProgress, falls_back_to_root
from bulletproof.domain.process import Phase, ProcessState
from bulletproof.domain.reason import reason_in
from bulletproof.domain.system_libraries import blamed
from bulletproof.errors import StepFailed

POLL_SECONDS = 0.05
_REASON_LINES = 100
_LOG_LINES = 15
_REFUSED_HOST = 'a Django answers 400 when ALLOWED_HOSTS lacks the host: add "{}" to it; otherwise '


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An instance at the gate."""

    release: str
    ask: Callable[[str, float], Answer]
    """GET a path as the proxy would: (path, time-out in seconds)."""
    state: Callable[[], ProcessState]
    log_tail: Callable[[int], tuple[str, ...]]
    host: str = "127.0.0.1"
    """What it is asked by."""
    where: str = ""
    """Words for where it stands, when that is not the live host."""
    crashes: int = 0
    """How often it had crashed before it came to the gate, which says nothing of it now."""


def pass_gate(candidate: Candidate, health: Health, clock: Callable[[], float], sleep: Callable[[float], None]) -> str:
    """Returns words on what was healthy.

    Raises StepFailed: `crashed-at-boot` when it ended, `health-gate-failed` when it was not healthy so many times in a
    row before the deadline. Not to be able to measure is not healthy.
    """
    begun = clock()
    deadline = begun + health.deadline_seconds
    paths = health.paths or ("/up",)
    progress = GateProgress()
    while True:
        _refuse_crashed(candidate)
        path, answer = _ask_all(candidate, paths, min(health.timeout_seconds, deadline - clock()))
        progress = progress.after(path, answer)
        if falls_back_to_root(health.paths, answer):
            paths = ("/",)
        if progress.passed >= health.passes:
            return f"{', '.join(paths)} healthy {health.passes} times in a row"
        if clock() + POLL_SECONDS >= deadline:
            raise _not_healthy(candidate, progress, clock() - begun)
        sleep(POLL_SECONDS)


def _ask_all(candidate: Candidate, paths: tuple[str, ...], timeout_seconds: float) -> tuple[str, Answer]:
    """One round: every path must answer well; the first that did not speaks for the round."""
    for path in paths:
        answer = candidate.ask(path, max(POLL_SECONDS, timeout_seconds))
        if not answer.is_healthy:
            break
    return path, answer


def _refuse_crashed(candidate: Candidate) -> None:
    state = candidate.state()
    if state.restarts > candidate.crashes or state.phase is not Phase.RUNNING:
        log = candidate.log_tail(_REASON_LINES)
        seen = f"the app of release {candidate.release}{candidate.where} {state.words or 'does not run'}"
        words, hint = blamed(seen, log, f"bulletproof logs {candidate.release}")
        # A server that ends says more after the reason than what is shown.
        reason = reason_in(log) if words == seen else ""
        raise StepFailed(
            "crashed-at-boot", f"{words}: {reason}" if reason else words, context=log[-_LOG_LINES:], hint=hint
        )


def _not_healthy(candidate: Candidate, progress: GateProgress, seconds: float) -> StepFailed:
    refused = _REFUSED_HOST.format(candidate.host) if progress.is_refused_host else ""
    return StepFailed(
        "health-gate-failed",
        f"release {candidate.release}{candidate.where} was not healthy within {seconds:.0f} seconds: {progress.last}",
        context=candidate.log_tail(_LOG_LINES),
        hint=f"{refused}bulletproof logs {candidate.release}",
    )
