"""Deploy, rollback, restart, changed settings, start and stop: choose the pipeline, run it, say how it ended."""

from __future__ import annotations

import errno
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from bulletproof.domain.deployment import Kind, Live, Outcome, built_by, earlier_release, release_id
from bulletproof.domain.origin import Origin
from bulletproof.domain.process import PROXY, Phase, web_name
from bulletproof.domain.repair import Repairs
from bulletproof.effects.interrupts import Interrupted
from bulletproof.engine import pipeline as engine
from bulletproof.engine.journal import Beginning, Entry, Journal, utc_now
from bulletproof.engine.pipeline import Failure, Outcomes, Pipeline, Surroundings
from bulletproof.errors import BulletproofError, NeedsPerson, StepFailed, UsageError
from bulletproof.operations import pipelines
from bulletproof.operations.attempt import Attempt, Order
from bulletproof.operations.steps import verify_through_proxy
from bulletproof.operations.sweep import sweep
from bulletproof.operations.workers import troubles
from bulletproof.ports import Host

OUTCOMES = Outcomes(done=Outcome.DEPLOYED, undone=Outcome.UNDONE, refused=Outcome.REFUSED)


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """All that an operation works with: the host, its journal, and who watches. The lock is held."""

    host: Host
    journal: Journal
    around: Surroundings
    begun: Callable[[Entry], None]
    """Told of each deployment when it begins: to name it in the lock and on the screen."""
    taken_up: Callable[[Entry], None]
    """Told of a deployment that a crash left, before it is finished or undone."""
    started_by: str
    origin: Origin | None = None
    """The same, with what is known of it apart from what is claimed."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How a deployment ended and what serves now."""

    outcome: Outcome
    number: int
    release: str
    serving: Live | None
    seconds: float
    step: str = ""
    """The step that failed."""
    cause: BaseException | None = None
    warning: str = ""
    """Something that went wrong beside the deployment and changes nothing of it."""
    troubles: tuple[str, ...] = ()
    """What is wrong with the workers and timers of what serves, or with how the public gets it."""
    note: str = ""
    """Said instead of how it ended, when no deployment was needed."""


def activate(session: Session, order: Order) -> Result:
    """Make a release live as ordered; what should be serving and is not is brought back first.

    Raises UsageError for an order that cannot be begun, and NeedsPerson when the host could not be made whole.
    """
    recover(session)
    live = session.journal.live()
    if order.kind is not Kind.DEPLOY and live is None:
        raise UsageError("nothing-deployed", "this app was never deployed on this host", hint="bulletproof deploy")
    if order.kind is Kind.START and live is not None and session.journal.wants_running() and is_up(session.host, live):
        return nothing_to_do(live, "it serves already")
    serves = order.kind is not Kind.START and live is not None and bring_back(session, live)
    pipeline = choose(order, has_database=session.host.database.exists(), is_first=live is None, serves=serves)
    if order.kind is Kind.DEPLOY and order.backup and pipeline is not pipelines.FIRST:
        raise UsageError(
            "not-the-first",
            "there are data already, so nothing can begin with those of a backup",
            hint=f"bulletproof backup restore {order.backup}",
        )
    return _run(session, order, pipeline)


def stop(session: Session, kind: Kind = Kind.STOP) -> Result:
    """Stop the app, its proxy and its supervisor, so that they stay stopped; or, for DESTROY, remove it."""
    recover(session)
    return _run(session, Order(kind=kind), pipelines.DESTROY if kind is Kind.DESTROY else pipelines.STOP)


def repair(session: Session, repairs: Repairs) -> Result:
    """Mend what a diagnosis named; what serves is left as it is. Raises NeedsPerson when it cannot be made whole."""
    recover(session)
    return _run(session, Order(kind=Kind.REPAIR, repairs=repairs), pipelines.REPAIR)


def recover(session: Session) -> Entry | None:
    """Finish or undo what a killed deployment left; tells which it was. Does nothing on a whole host."""
    entry = session.journal.unfinished()
    if entry is not None:
        session.taken_up(entry)
        attempt = Attempt(host=session.host, deployment=entry.deployment, lived=session.journal.lived())
        record = session.journal.record(entry.deployment.number)
        engine.recover(pipelines.pipeline_named(entry.pipeline), attempt, record, session.around, OUTCOMES)
    sweep(session.host.layout)
    _rest(session)
    return session.journal.entry(entry.deployment.number) if entry else None


def bring_back(session: Session, live: Live) -> bool:
    """Whether the live release serves; after a reboot or a killed supervisor it is let serve again first.

    False when a person stopped it, or when it cannot be started any more: then nothing serves that could be kept.
    """
    if not session.journal.wants_running():
        return False
    session.host.supervisor.ensure_running()
    if is_up(session.host, live):
        return True
    result = _run(session, Order(kind=Kind.START), pipelines.START)
    if isinstance(result.cause, Interrupted):
        raise result.cause
    return result.outcome is Outcome.DEPLOYED


def is_up(host: Host, live: Live) -> bool:
    """Whether requests reach the live instance: it and the proxy run or soon will again, and the path leads there."""
    given_up = {Phase.ABSENT, Phase.FAILED, Phase.STOPPING}
    processes = (PROXY, web_name(live.number))
    return host.proxy.target() == live.number and not any(
        host.supervisor.state(name).phase in given_up for name in processes
    )


def serving(host: Host, journal: Journal) -> Live | None:
    """What serves, looked up and not only remembered; None when nothing does."""
    live = journal.live() if journal.wants_running() else None
    return live if live is not None and is_up(host, live) else None


def nothing_to_do(live: Live | None, note: str) -> Result:
    """The result of an order that needed no deployment; `note` says why."""
    return Result(
        outcome=Outcome.DEPLOYED, number=0, release=live.release if live else "", serving=live, seconds=0.0, note=note
    )


def choose(order: Order, *, has_database: bool, is_first: bool, serves: bool) -> Pipeline[Attempt]:
    """The pipeline for an order: what exists already, and whether anything serves, decides."""
    if order.kind is Kind.RESTORE:
        return pipelines.RESTORE if serves else pipelines.COLD_RESTORE
    if order.kind is Kind.DEPLOY and is_first and not has_database:
        return pipelines.FIRST
    if order.kind is Kind.DEPLOY:
        return pipelines.DEPLOY if serves else pipelines.COLD
    return pipelines.ACTIVATE if serves else pipelines.START


def _run(session: Session, order: Order, pipeline: Pipeline[Attempt]) -> Result:
    begun = session.around.clock()
    if order.kind.makes_live:
        # It outlives us: should we be killed from here on, it finishes or undoes what we began.
        session.host.supervisor.ensure_running()
    entry = session.journal.begin(_beginning(session, order, pipeline))
    session.begun(entry)
    attempt = Attempt(host=session.host, deployment=entry.deployment, lived=session.journal.lived(), order=order)
    outcome, step = Outcome.DEPLOYED, ""
    cause: BaseException | None = None
    try:
        engine.run(pipeline, attempt, session.journal.record(attempt.number), session.around, OUTCOMES)
        if order.kind.makes_live:
            verify_through_proxy(attempt)
    except StepFailed as failed:
        # Committed, drained, and yet the site does not answer: never an exit 0 over that.
        outcome, step, cause = Outcome.FAILED, "verify", failed
    except Failure as failure:
        outcome = Outcome.UNDONE if failure.touched else Outcome.REFUSED
        step, cause = failure.step, failure.cause
    _rest(session)
    served = serving(session.host, session.journal)
    result = Result(
        outcome=outcome,
        number=attempt.number,
        release=attempt.deployment.release,
        serving=served,
        troubles=(*troubles(session.host, served), *session.host.proxy.notes()) if served else (),
        seconds=session.around.clock() - begun,
        step=step,
        cause=cause,
    )
    return result if order.kind is Kind.DESTROY else _chronicle(session, order, result)


def _chronicle(session: Session, order: Order, result: Result) -> Result:
    """Write the deployment into the log for people; the journal has it already, so a full disk is only worth a word."""
    try:
        session.host.chronicle(_line(session, order, result))
    except OSError as error:
        return replace(result, warning=f"the deployment log could not be written: {error}")
    return result


def _rest(session: Session) -> None:
    """End the supervisor of an app that is not to run: last of all, because until then it takes care of our death."""
    if not session.journal.wants_running():
        session.host.supervisor.shutdown()


def _line(session: Session, order: Order, result: Result) -> str:
    """A deployment in the deployment log."""
    why = f" at {result.step}: {words_of(result.cause).message}" if result.cause else ""
    return (
        f"{utc_now()} deployment {result.number} ({order.kind} {result.release}) by {session.started_by}:"
        f" {result.outcome} in {result.seconds:.1f} s{why}".replace("\n", " ")
    )


def _beginning(session: Session, order: Order, pipeline: Pipeline[Attempt]) -> Beginning:
    source = order.source
    release = order.release or _live_release(session)
    # From the journal and not from the release, which may be damaged: it must be possible to stop and destroy it.
    known = session.journal.entry(built_by(release)) if release and not source else None
    return Beginning(
        kind=order.kind,
        pipeline=pipeline.name,
        release=lambda number: release_id(number, source.revision) if source else release,
        revision=source.revision if source else (known.deployment.revision if known else ""),
        title=source.title if source else (known.title if known else ""),
        started_by=session.started_by,
        origin=session.origin,
    )


def _live_release(session: Session) -> str:
    live = session.journal.live()
    return live.release if live else ""


def rollback_target(journal: Journal, wish: str) -> str:
    """The release to roll back to: the one asked for, or the one that was live before. Raises UsageError in words."""
    everything = journal.lived()
    lived = [live.release for live in everything]
    if not lived:
        raise UsageError("nothing-deployed", "this app was never deployed on this host", hint="bulletproof deploy")
    if not wish:
        if earlier := earlier_release(everything):
            return earlier
        raise UsageError("no-earlier-release", f"no release older than {lived[-1]} was ever live")
    found = sorted({release for release in lived if release == wish or wish in release.split("-", 1)})
    if len(found) != 1:
        raise UsageError(
            "release-unknown",
            f"{wish} names {len(found) or 'none'} of the releases that were live",
            hint="bulletproof releases",
        )
    return found[0]


def words_of(cause: BaseException | None) -> BulletproofError:
    """The error to show for whatever made a step fail."""
    match cause:
        case BulletproofError():
            return cause
        case Interrupted():
            return StepFailed("interrupted", f"{cause} before it was committed", hint="bulletproof status")
        case OSError(errno=errno.ENOSPC):
            return StepFailed("disk-full", "the disk is full", hint="free some space and deploy again")
        case OSError():
            return StepFailed("system-error", f"the system refused: {cause}")
        case _:
            return NeedsPerson(
                "internal-error", f"{type(cause).__name__}: {cause}", hint="report this with --json output"
            )
