"""Rehearse: the release boots on a copy of the live data and passes its gate there, before anything live is touched."""

from __future__ import annotations

import functools

import msgspec

from bulletproof.domain.schema import Change
from bulletproof.domain.web import web_process
from bulletproof.errors import StepFailed
from bulletproof.operations.attempt import Attempt
from bulletproof.operations.gate import Candidate, pass_gate

_MIB = 1 << 20


def rehearse_on_copy(attempt: Attempt) -> str:
    """Boot the release where it reaches nothing but a copy of the data; refuse it when it fails there.

    Raises StepFailed as the gate does, `migration-pending` when its boot alone changes the schema, and
    `boot-loses-data` when it takes rows or values away.
    """
    host, number = attempt.host, attempt.number
    if reason := host.rehearsal.why_not():
        return f"skipped: {reason}"
    size = host.rehearsal.prepare(number)
    _boot(attempt)
    words = pass_gate(_candidate(attempt), attempt.manifest.config.health, host.clock, host.sleep)
    changes = host.rehearsal.changes(number)
    host.rehearsal.discard(number)
    _refuse(changes)
    noticed = "; ".join(f"its boot {change.words}" for change in changes)
    return f"on a copy of {size / _MIB:.1f} MiB: {words}{'; ' if noticed else ''}{noticed}"


def _refuse(changes: tuple[Change, ...]) -> None:
    """Booting alone may add rows; it may not change the schema, nor take away what users made."""
    hint = "deploy a release that leaves the data alone when it boots"
    if schema := [change.words for change in changes if not change.is_data]:
        raise StepFailed(
            "migration-pending",
            f"only to boot the release would change the live database ({'; '.join(schema)}), and Bulletproof cannot yet"
            " undo that",
            hint=hint,
        )
    if lost := [change.words for change in changes if change.is_destructive]:
        raise StepFailed("boot-loses-data", f"only to boot the release {'; '.join(lost)}", hint=hint)


def discard_rehearsal(attempt: Attempt) -> None:
    """The copy and whatever runs on it are not."""
    attempt.host.rehearsal.discard(attempt.number)


def _boot(attempt: Attempt) -> None:
    manifest = attempt.manifest
    # One worker is as good as three to see whether the release boots and answers.
    alone = msgspec.structs.replace(manifest.config, app=msgspec.structs.replace(manifest.config.app, workers=1))
    process = web_process(
        attempt.host.layout,
        attempt.number,
        manifest.release,
        alone,
        manifest.entry,
        gunicorn=manifest.gunicorn,
        database=attempt.database_setting,
    )
    attempt.host.rehearsal.boot(attempt.number, process, attempt.settings)


def _candidate(attempt: Attempt) -> Candidate:
    rehearsal, number = attempt.host.rehearsal, attempt.number
    return Candidate(
        release=attempt.deployment.release,
        ask=functools.partial(rehearsal.ask, number),
        state=functools.partial(rehearsal.state, number),
        log_tail=functools.partial(rehearsal.log_tail, number),
        where=", rehearsed on a copy of the data,",
    )
