"""A person's own checks: an address, a command, a function of the app's, or a visit in steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from bulletproof import effects
from bulletproof.domain.check import Seen, Unseen
from bulletproof.domain.command import shell_argv
from bulletproof.domain.config import AppConfig, OwnCheck, Step
from bulletproof.domain.own import filled, seen_of_command, trouble_with_step, trouble_with_url
from bulletproof.effects.process import last_lines, run
from bulletproof.effects.visit import Visitor, fetch, look_at
from bulletproof.errors import StepFailed
from bulletproof.operations.checks.ground import STOPPED, Check, Ground

_CALLER = Path(effects.__file__).with_name("own_call.py")
_VISIT_SECONDS, _LEAST_SECONDS = 10.0, 0.2
"""For all steps of a visit together, and for the last of them: to check a password takes its time by intention."""
_SPARE_SECONDS = 1.0
"""So that one that is too slow fails in its own words."""


class _Answer(msgspec.Struct, frozen=True):
    is_good: bool
    words: str


def own_checks(config: AppConfig) -> dict[str, Check]:
    """Those of a configuration, by their names."""
    own = {
        name: Check(look=_look(one), severity=one.severity, patience_seconds=one.timeout_seconds + _SPARE_SECONDS)
        for name, one in config.check.own.items()
    }
    visits = {
        name: Check(look=_visit(steps), patience_seconds=_VISIT_SECONDS + _SPARE_SECONDS)
        for name, steps in config.check.visit.items()
    }
    return own | visits


def _look(check: OwnCheck) -> Callable[[Ground], Seen]:
    act = _ask if check.url else _run if check.command else _call

    def look(ground: Ground) -> Seen:
        if not ground.status.wants_running:
            return STOPPED
        try:
            return act(ground, check)
        except StepFailed as error:
            if error.reference != "program-too-slow":
                raise
            return Seen(words=f"it did not end within {check.timeout_seconds:g} seconds", is_good=False)

    return look


def _ask(ground: Ground, check: OwnCheck) -> Seen:
    url = check.url or ""
    if url.startswith("/"):
        proxy = ground.host.proxy
        page = look_at(url, proxy.port(), proxy.public(), timeout_seconds=check.timeout_seconds)
    else:
        page = fetch(url, timeout_seconds=check.timeout_seconds)
    words = trouble_with_url(check, page)
    if words:
        return Seen(words=f"{url}: {words}", is_good=False, hint="bulletproof logs")
    days = "" if page.certificate_days is None else f", certificate for {page.certificate_days:.0f} days"
    return Seen(words=f"{url} answered {page.status} after {page.seconds * 1000:.0f} ms{days}")


def _run(ground: Ground, check: OwnCheck) -> Seen:
    done = run(
        ground.host.as_app(shell_argv(check.command or "")),
        folder=ground.host.layout.source(ground.manifest.release),
        environment=ground.environment,
        timeout_seconds=check.timeout_seconds,
    )
    return seen_of_command(done.status, done.output, done.errors)


def _call(ground: Ground, check: OwnCheck) -> Seen:
    release = ground.manifest.release
    done = run(
        ground.host.as_app((str(ground.host.layout.venv(release) / "bin" / "python"), str(_CALLER), check.entry or "")),
        folder=ground.host.layout.source(release),
        environment=ground.environment,
        timeout_seconds=check.timeout_seconds,
    )
    try:
        answer = msgspec.json.decode(done.output, type=_Answer)
    except msgspec.MsgspecError:
        words = (last_lines(done.errors, 1) or ("",))[0]
        raise Unseen(f"{check.entry} ended with status {done.status} and told nothing: {words}") from None
    if answer.is_good:
        return Seen(words=f"{check.entry} is content")
    return Seen(words=answer.words, is_good=False)


def _visit(steps: tuple[Step, ...]) -> Callable[[Ground], Seen]:
    def look(ground: Ground) -> Seen:
        if not ground.status.wants_running:
            return STOPPED
        proxy = ground.host.proxy
        visitor, until = Visitor(proxy.port(), proxy.public()), time.monotonic() + _VISIT_SECONDS
        for number, step in enumerate(steps, 1):
            left = max(_LEAST_SECONDS, until - time.monotonic())
            if step.send:
                page = visitor.send(step.path, filled(step.send, ground.settings), timeout_seconds=left)
            else:
                page = visitor.get(step.path, timeout_seconds=left)
            if words := trouble_with_step(step, page):
                words = f"step {number}, {step.path}: {words}"
                return Seen(words=words, is_good=False, hint="bulletproof logs")
        return Seen(words=f"{len(steps)} steps went as they should")

    return look
