"""Plan: prepare and rehearse a deployment as it would be, and tell what was found; nothing live is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from bulletproof.domain.deployment import Deployment, Kind, Live, release_id
from bulletproof.domain.report import Report
from bulletproof.domain.source import Source
from bulletproof.effects import lock
from bulletproof.effects.processes import family_of
from bulletproof.engine.journal import Journal, utc_now
from bulletproof.engine.pipeline import Pipeline, Step
from bulletproof.errors import BulletproofError, LockHeld, RecoveryNeeded
from bulletproof.operations.activate import choose, words_of
from bulletproof.operations.attempt import Attempt, Order
from bulletproof.operations.pipelines import preparation
from bulletproof.operations.rehearse import discard_rehearsal, outset
from bulletproof.ports import Host


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployment would do, or why it would be refused."""

    report: Report
    """As far as the rehearsal came."""
    title: str = ""
    """Of the commit."""
    adopts: str = ""
    """What a first deployment would take over of the app's life before, in words."""
    serving: str = ""
    """The release that serves now, and whose requests would wait."""
    notes: tuple[tuple[str, str], ...] = ()
    """What each step said, by its name."""
    step: str = ""
    """The step at which it would be refused."""
    error: BulletproofError | None = None


def next_deployment(journal: Journal | None, source: Source) -> Deployment:
    """The deployment that `deploy` would begin now. Raises RecoveryNeeded when it would first have to recover."""
    entries = journal.entries() if journal else ()
    unfinished = journal.unfinished() if journal else None
    if unfinished is not None:
        raise RecoveryNeeded(
            "recovery-needed",
            f"deployment {unfinished.deployment.number} was left unfinished, and what it leads to decides what is live",
            hint="bulletproof recover",
        )
    number = entries[-1].deployment.number + 1 if entries else 1
    return Deployment(
        number=number,
        kind=Kind.DEPLOY,
        release=release_id(number, source.revision),
        revision=source.revision,
        previous=journal.live() if journal else None,
        started_at=utc_now(),
    )


def require_quiet(host: Host) -> None:
    """Raise LockHeld while a deployment runs: what it leads to is not known yet. The lock is not touched."""
    holder = lock.peek(host.layout.lock)
    if holder is not None and family_of(holder.pid) is not None:
        raise LockHeld(
            "lock-held",
            f"what would be deployed onto is changed just now by {holder.in_words()}",
            hint="bulletproof plan again, when that has ended",
        )


def make_plan(
    host: Host, deployment: Deployment, order: Order, serving: Live | None, tell: Callable[[str], None]
) -> Plan:
    """Do all that a deployment does before it touches what is live; `tell` is told of each step that begins.

    `host` is one on which only that can be done. What would be refused is found, and not raised.
    """
    attempt = Attempt(host=host, deployment=deployment, order=order)
    is_first = deployment.previous is None
    pipeline = choose(order, has_database=host.database.exists(), is_first=is_first, serves=serving is not None)
    notes: list[tuple[str, str]] = []
    step, error = "", None
    try:
        for one in _prepared(pipeline, attempt):
            step = one.name
            tell(step)
            notes.append((step, one.do(attempt)))
    except (BulletproofError, OSError) as cause:
        error = words_of(cause)
    finally:
        discard_rehearsal(attempt)
    return Plan(
        adopts=attempt.found.adopted,
        report=attempt.found.report or outset(attempt),
        title=order.source.title if order.source else "",
        serving=serving.release if serving else "",
        notes=tuple(notes),
        step=step if error else "",
        error=error,
    )


def _prepared(pipeline: Pipeline[Attempt], attempt: Attempt) -> Iterator[Step[Attempt]]:
    """The steps of a preparation, one after the other; a first deployment that finds data goes on with theirs."""
    done: list[str] = []
    for step in preparation(pipeline):
        yield step
        done.append(step.name)
    if pipeline.fork and pipeline.fork.after == done[-1] and (other := pipeline.fork.choose(attempt)):
        yield from preparation(other)[len(done) :]
