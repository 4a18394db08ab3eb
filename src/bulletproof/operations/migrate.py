"""Migrate: requests wait, the data is kept as it was, a migrated copy takes its place; and all the way back."""

from __future__ import annotations

from msgspec.structs import replace

from bulletproof.domain.process import Phase, web_name
from bulletproof.domain.report import DRAIN_SECONDS, MARGIN_SECONDS
from bulletproof.engine.journal import Journal
from bulletproof.errors import StepFailed
from bulletproof.operations.attempt import Attempt
from bulletproof.operations.durability import use_wal_on_copy
from bulletproof.operations.gate import pass_gate
from bulletproof.operations.rehearse import boot_on_copy, migrate_copy
from bulletproof.operations.steps import candidate, drain, instance_process

_SEIZE_SECONDS = 5.0
"""How long we wait for somebody who has the database open when it is to be ours alone."""
_STREAM_SECONDS = 1.0
"""Most requests are answered by then; a hold that waits for nothing else is not made longer by it."""
_UNHURRIED_SECONDS = 3600.0
_MIB = 1 << 20
_FIRST_STEP = "openers"
"""Only a deployment that migrates has it."""


def migrates_now(journal: Journal) -> int | None:
    """The deployment that has the data to itself, from its look for other openers to its end; None if there is none."""
    entry = journal.unfinished()
    if entry is None or _FIRST_STEP not in journal.record(entry.deployment.number).intended():
        return None
    return entry.deployment.number


def refuse_openers(attempt: Attempt) -> str:
    """Refuse while anybody but the app has the database open: what they write meanwhile could not be kept."""
    host = attempt.host
    pids = (host.supervisor.state(name).pid for name in host.supervisor.names())
    if openers := host.swap.openers(frozenset(pid for pid in pids if pid is not None)):
        raise StepFailed(
            "database-in-use",
            "the database is to be migrated, and others than the app have it open",
            context=openers,
            hint="end them, then repeat the command",
        )
    return "only the app has the database open"


def hold_requests(attempt: Attempt) -> str:
    """From here requests wait at the parking relay; those in flight are finished, and the old release is stopped.

    The deadline for all that follows begins. Raises StepFailed `drain-too-slow`: nothing was signalled then.
    """
    host, manifest, report = attempt.host, attempt.manifest, attempt.report
    most = manifest.config.hold.seconds - report.times.way_back - MARGIN_SECONDS
    attempt.found.hold_until = host.clock() + most
    host.proxy.hold()
    previous = attempt.deployment.previous
    if previous is None:
        return ""
    patience = min(manifest.config.drain.seconds, most - report.times.hold + DRAIN_SECONDS)
    if left := _drained(attempt, previous.number, patience):
        raise StepFailed(
            "drain-too-slow",
            f"{left} requests in flight did not end within {patience:.0f} seconds, and the others cannot wait longer",
            hint="deploy again at a quieter time",
        )
    host.supervisor.stop(web_name(previous.number))
    return f"requests wait, for at most {most:.0f} s"


def _drained(attempt: Attempt, number: int, patience: float) -> int:
    """How many requests outlast it; what never ends by itself, such as a websocket, is ended first."""
    host, begun = attempt.host, attempt.host.clock()
    if not drain(host, number, seconds=min(_STREAM_SECONDS, patience)):
        return 0
    host.proxy.end_streams()
    return drain(host, number, seconds=max(0.0, patience - (host.clock() - begun)))


def resume_requests(attempt: Attempt) -> None:
    """What was live before serves again, with the data it had; the requests that waited are answered."""
    host, previous = attempt.host, attempt.deployment.previous
    host.proxy.let_in()
    if previous is None or host.proxy.target() == previous.number:
        return
    manifest = host.releases.manifest(previous.release)
    name = web_name(previous.number)
    if host.supervisor.state(name).phase is not Phase.RUNNING:
        host.supervisor.stop(name)  # what died with the whole host waits to be run again, as if it had crashed
        host.supervisor.start(instance_process(attempt, manifest, previous.number))
    crashes = host.supervisor.state(name).restarts
    resumed = replace(candidate(host, manifest, previous.number), crashes=crashes)
    try:
        pass_gate(resumed, manifest.config.health, host.clock, host.sleep)
    finally:
        # Healthy or not, it is all there is: an error is a better answer than none.
        host.proxy.route_to(previous.number)


def take_snapshot(attempt: Attempt) -> str:
    """Have the database alone, and keep it as it is. Raises StepFailed `database-in-use`."""
    swap = attempt.host.swap
    swap.seize(min(_SEIZE_SECONDS, seconds_left(attempt)))
    size = swap.snapshot(attempt.number, seconds_left(attempt))
    return f"{size / _MIB:.1f} MiB, nobody else has it open"


def discard_snapshot(attempt: Attempt) -> None:
    """Others may have the database, and there is no snapshot."""
    attempt.host.swap.release()
    attempt.host.swap.discard(attempt.number)


def migrate_work_copy(attempt: Attempt) -> str:
    """Migrate a copy of the snapshot as it was rehearsed, kept from everything live as it was there."""
    rehearsal, number, report = attempt.host.rehearsal, attempt.number, attempt.report
    rehearsal.rewind(number, seconds_left(attempt))
    if attempt.found.migration is not None:
        migrate_copy(attempt, attempt.found.migration, seconds_left(attempt))
    if report.migrates_at_boot:
        boot_on_copy(attempt, attempt.manifest)
    use_wal_on_copy(attempt)
    return report.command or "by booting it once"


def discard_work_copy(attempt: Attempt) -> None:
    """The work copy is not."""
    attempt.host.rehearsal.discard(attempt.number)


def swap_data(attempt: Attempt) -> str:
    """The live database gets the work copy's content, while we still have it alone."""
    swap = attempt.host.swap
    swap.put(attempt.host.rehearsal.copy(attempt.number), lambda: refuse_late(attempt))
    swap.release()
    return ""


def put_snapshot_back(attempt: Attempt) -> None:
    """The database holds again what it held before; what it holds now is set aside."""
    attempt.host.swap.put_back(attempt.number, attempt.host.rehearsal.copy(attempt.number))


def refuse_late(attempt: Attempt) -> None:
    """Raise StepFailed `hold-too-long` when the undo must begin."""
    seconds_left(attempt)


def seconds_left(attempt: Attempt) -> float:
    """What is left until the undo must begin. Raises StepFailed `hold-too-long` when nothing is."""
    until = attempt.found.hold_until
    if until is None:
        return _UNHURRIED_SECONDS
    left = until - attempt.host.clock()
    if left <= 0:
        raise StepFailed(
            "hold-too-long",
            "the migration took longer than it did on the copy, and requests cannot wait longer",
            hint="bulletproof deploy at a quieter time, or more `seconds` under [hold] in bulletproof.toml",
        )
    return left
