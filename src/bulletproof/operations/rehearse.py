"""Rehearse: migration, new release and old release on a copy of the live data, before anything live is touched."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from bulletproof.domain.filled import lines_for_writes
from bulletproof.domain.report import (
    MARGIN_SECONDS,
    STOP_SECONDS,
    PackageChange,
    Report,
    Times,
    Way,
    package_changes,
    revisions_of,
    summary,
)
from bulletproof.domain.schema import Schema, differences, null_counts, row_counts
from bulletproof.domain.web import database_setting, web_process
from bulletproof.errors import StepFailed
from bulletproof.operations.attempt import Attempt, Migration
from bulletproof.operations.durability import durability_seen, use_wal_on_copy
from bulletproof.operations.gate import Candidate, pass_gate
from bulletproof.operations.past import explain_failure, settle_past
from bulletproof.operations.preflight import missing_settings
from bulletproof.ports import Manifest

T = TypeVar("T")

_UNHURRIED_SECONDS = 3600.0
"""For a migration while nothing serves, so that nobody waits for it."""


def rehearse_on_copy(attempt: Attempt) -> str:
    """Do on a copy what would be done live, and note what it does to the data; refuse what must not be done.

    Raises StepFailed as the gate does, and `rehearsal-not-possible`, `migration-failed`, `migration-too-slow`,
    `schema-newer`, `schema-unknown`, `data-loss`, `hold-too-long`, `rehearsal-not-isolated`.
    """
    host, number = attempt.host, attempt.number
    if kind := attempt.found.schema.elsewhere:
        return _go_without(attempt, f"its database is {kind}, of which no copy is made yet; the gate alone decides")
    if reason := host.rehearsal.why_not():
        return _go_without(attempt, reason)
    try:
        report = find_out(attempt)
    finally:
        if attempt.found.report is not None:
            host.keep_report(number, msgspec.json.encode(attempt.found.report))
    refuse(report, attempt)
    if not report.is_migrating:
        discard_rehearsal(attempt)
    return summary(report)


def discard_rehearsal(attempt: Attempt) -> None:
    """The copies and whatever runs on them are not."""
    attempt.host.rehearsal.discard(attempt.number)
    attempt.host.swap.discard(attempt.number)


def outset(attempt: Attempt) -> Report:
    """What is known of a deployment without a copy of the data."""
    previous, schema = attempt.deployment.previous, attempt.found.schema
    return Report(
        release=attempt.deployment.release,
        previous=previous.release if previous else "",
        missing_settings=missing_settings(attempt),
        packages=_changed_packages(attempt),
        tool=schema.tool,
        pending=schema.pending,
    )


def find_out(attempt: Attempt) -> Report:
    """Rehearse, and tell what was found. Raises StepFailed for what does not even work on the copy.

    What was found until then is noted in the attempt.
    """
    _lay_copy(attempt)
    before = attempt.host.rehearsal.look(attempt.number)
    attempt.found.schema, past = settle_past(attempt, before)
    attempt.found.report = replace(attempt.report, past=past, pending=attempt.found.schema.pending)
    migrated = _try_migration(attempt, before)
    _try_boot(attempt, before, migrated)
    _try_way_back(attempt, before)
    return attempt.report


def _changed_packages(attempt: Attempt) -> tuple[PackageChange, ...]:
    previous, releases = attempt.deployment.previous, attempt.host.releases
    if previous is None:
        return ()
    try:
        return package_changes(releases.packages(previous.release), releases.packages(attempt.deployment.release))
    except StepFailed:
        return ()  # the new one is not built yet; or the live one is damaged, which must not keep out its successor


def _lay_copy(attempt: Attempt) -> None:
    rehearsal = attempt.host.rehearsal
    size, seconds = _timed(attempt, lambda: rehearsal.prepare(attempt.number))
    attempt.found.report = replace(outset(attempt), proof=rehearsal.proof(), copy_bytes=size, times=Times(copy=seconds))


def _try_migration(attempt: Attempt, before: Schema) -> Schema:
    """Migrate the copy if it must be; tells what it holds then."""
    try:
        migration, seconds = _migrate(attempt)
    except StepFailed as failure:
        attempt.found.schema, past = explain_failure(attempt, before, failure)
        attempt.found.report = replace(attempt.report, past=past)
        attempt.host.rehearsal.rewind(attempt.number, _UNHURRIED_SECONDS)
        migration, seconds = _migrate(attempt)
    attempt.found.migration = migration
    if migration:
        use_wal_on_copy(attempt)
    after = attempt.host.rehearsal.look(attempt.number) if migration else before
    report, schema = attempt.report, attempt.found.schema
    attempt.found.report = replace(
        _compared(report, before, after),
        pending=schema.pending or (schema.unknown if migration else ()),
        command=migration.command.words if migration else "",
        is_migrating=migration is not None,
        times=replace(report.times, migrate=seconds),
    )
    return after


def _try_boot(attempt: Attempt, before: Schema, migrated: Schema) -> None:
    """Boot the release on the migrated copy, and see whether that alone changes anything."""
    rehearsal, number, is_migrated = attempt.host.rehearsal, attempt.number, attempt.found.migration is not None
    health, seconds = _timed(attempt, lambda: boot_on_copy(attempt, attempt.manifest))
    after = rehearsal.look(number)
    migrates_at_boot = after != migrated or (not is_migrated and rehearsal.is_changed(number))
    report = attempt.report
    attempt.found.report = replace(
        _compared(report, before, after),
        is_migrating=is_migrated or migrates_at_boot,
        migrates_at_boot=migrates_at_boot,
        health=health,
        writes=lines_for_writes(attempt.manifest.config, rehearsal.would_write(number)),
        times=replace(report.times, boot=seconds, previous_boot=seconds),
    )
    if migrates_at_boot:
        use_wal_on_copy(attempt)
        _boot_again(attempt)
    attempt.found.report = replace(attempt.report, durability=durability_seen(attempt))


def _try_way_back(attempt: Attempt, before: Schema) -> None:
    report = attempt.report
    way, words, seconds = _way_back(attempt, before) if report.is_migrating else _same_data(attempt)
    times = replace(report.times, previous_boot=seconds or report.times.boot)
    attempt.found.report = replace(report, rollback=way, rollback_words=words, times=times)


def _compared(report: Report, before: Schema, after: Schema) -> Report:
    """The report with what is different between two looks at the copy."""
    return replace(
        report,
        changes=differences(before, after),
        rows=row_counts(before, after),
        nulls=null_counts(before, after),
    )


def _boot_again(attempt: Attempt) -> None:
    """Boot once more, as it will live: on data that its first boot changed already."""
    try:
        boot_on_copy(attempt, attempt.manifest)
    except StepFailed as error:
        raise StepFailed(
            "boots-only-once",
            f"release {attempt.manifest.release} changes the data when it boots, and does not boot again on what it"
            f" made of them: {error.message}",
            context=error.context,
            hint="let it look first whether there is anything to change, or put the change into a migration",
        ) from error


def refuse(report: Report, attempt: Attempt) -> None:
    """Raise StepFailed for what a person must allow or change first."""
    config, order = attempt.manifest.config, attempt.ordered
    revisions = revisions_of(report.pending)
    allowed = set(config.migrations.allow_data_loss)
    is_allowed = order.may_lose_data or (bool(revisions) and allowed.issuperset(revisions))
    # What the live release does whenever it boots was allowed when it was deployed: it must come back after a reboot.
    is_allowed = is_allowed or report.release == report.previous
    if report.losses and not is_allowed:
        what = "; ".join(change.words for change in report.losses)
        raise StepFailed(
            "data-loss",
            f"release {report.release} would take away what users made: {what}",
            context=tuple(change.words for change in report.changes),
            hint=f"if that is meant: --allow-data-loss{_or_in_the_configuration(revisions)}",
        )
    most = config.hold.seconds - report.times.way_back - MARGIN_SECONDS
    if report.is_migrating and is_serving(attempt) and report.times.hold > most:
        raise StepFailed(
            "hold-too-long",
            f"requests would wait {report.times.hold:.0f} seconds for the migration; they may wait {most:.0f}"
            f" (`seconds` under [hold], less {report.times.way_back + MARGIN_SECONDS:.0f} for the way back)",
            hint="make the migration smaller, or let requests wait longer: `seconds` under [hold] in bulletproof.toml",
        )


def _or_in_the_configuration(revisions: tuple[str, ...]) -> str:
    """The line that allows what these migrations lose, whoever deploys them; none for what booting loses."""
    listed = ", ".join(f'"{revision}"' for revision in revisions)
    return f", or allow_data_loss = [{listed}] under [migrations] in bulletproof.toml" if revisions else ""


def is_serving(attempt: Attempt) -> bool:
    """Whether requests are served now, and would have to wait."""
    return attempt.host.proxy.target() is not None


def boot_on_copy(attempt: Attempt, manifest: Manifest, number: int | None = None) -> str:
    """Boot a release on the copy with the settings of deployment `number`, pass its gate, and end it.

    Tells what was healthy. Raises StepFailed as the gate does.
    """
    rehearsal = attempt.host.rehearsal
    settings = attempt.host.settings.frozen(number or attempt.number)
    # One worker is as good as three to see whether the release boots and answers.
    alone = replace(manifest.config, app=replace(manifest.config.app, workers=1))
    process = web_process(
        attempt.host.layout,
        attempt.number,
        manifest.release,
        alone,
        manifest.entry,
        gunicorn=manifest.gunicorn,
        database=database_setting(settings, attempt.host.layout, manifest.config),
    )
    rehearsal.boot(attempt.number, manifest, process, settings)
    try:
        return pass_gate(_candidate(attempt, manifest), manifest.config.health, attempt.host.clock, attempt.host.sleep)
    except StepFailed as error:
        error.context += lines_for_writes(manifest.config, rehearsal.would_write(attempt.number))
        raise
    finally:
        rehearsal.end(attempt.number)


def migrate_copy(attempt: Attempt, migration: Migration, timeout_seconds: float) -> None:
    """Run a migration on the copy. Raises StepFailed."""
    attempt.host.rehearsal.run(attempt.number, migration.manifest, migration.command, timeout_seconds)


def _migrate(attempt: Attempt) -> tuple[Migration | None, float]:
    """Bring the copy to what the release needs; tells how, if anything had to be done, and how long it took."""
    schema = attempt.found.schema
    if schema.unknown:
        return _go_back(attempt)
    manifest = attempt.manifest
    is_due = bool(schema.pending or schema.stamp)
    command = attempt.host.migrator.upgrade(manifest, attempt.settings, schema.stamp) if is_due else None
    if command is None:
        return None, 0.0
    migration = Migration(manifest=manifest, command=command)
    _, seconds = _timed(attempt, lambda: migrate_copy(attempt, migration, _patience_seconds(attempt)))
    if schema.tool == "command" and not attempt.host.rehearsal.is_changed(attempt.number):
        return None, 0.0  # nobody but the command itself can tell whether it has something to do: it had not
    return migration, seconds


def _go_back(attempt: Attempt) -> tuple[Migration | None, float]:
    """The data has migrations that the release does not know: its code alone, or the live release's down migration."""
    manifest, unknown = attempt.manifest, ", ".join(attempt.found.schema.unknown)
    why = _trouble_on_copy(attempt, manifest, attempt.number)
    attempt.host.rehearsal.rewind(attempt.number, _UNHURRIED_SECONDS)
    if not why:
        return None, 0.0
    migration = _down(attempt, _live_manifest(attempt), manifest)
    if migration is None:
        raise StepFailed(
            "schema-newer",
            f"the database is at {unknown}, which release {manifest.release} does not know and cannot work with: {why};"
            " and no down migration leads back",
            hint="bulletproof releases",
        )
    _, seconds = _timed(attempt, lambda: migrate_copy(attempt, migration, _patience_seconds(attempt)))
    return migration, seconds


def _way_back(attempt: Attempt, before: Schema) -> tuple[Way, str, float]:
    """How the release that is live now could be had again once the data is migrated, tried on the migrated copy."""
    previous = attempt.deployment.previous
    if previous is None or previous.release == attempt.deployment.release:
        return Way.NONE, "", 0.0
    manifest = attempt.host.releases.manifest(previous.release)
    why, seconds = _timed(attempt, lambda: _trouble_on_copy(attempt, manifest, previous.number))
    if not why:
        return Way.CODE, "code alone, rehearsed", seconds
    migration = _down(attempt, attempt.manifest, manifest)
    if migration is None:
        return Way.RESTORE, f"only with a restore ({why})", 0.0
    try:
        besides = _taken_down(attempt, migration, manifest, previous.number, before)
    except StepFailed as error:
        return Way.RESTORE, f"only with a restore ({why}; a down migration does not help: {error.message})", 0.0
    return Way.DOWN, "; ".join(("with a down migration, rehearsed", *besides)), 0.0


def _taken_down(
    attempt: Attempt, migration: Migration, older: Manifest, number: int, before: Schema
) -> tuple[str, ...]:
    """What is to be said of the copy once it was migrated back. Raises StepFailed when that does not help."""
    migrated = attempt.host.rehearsal.look(attempt.number)
    migrate_copy(attempt, migration, _patience_seconds(attempt))
    if trouble := _trouble_on_copy(attempt, older, number):
        raise StepFailed("schema-newer", trouble)
    after = attempt.host.rehearsal.look(attempt.number)
    changed = tuple(change.words for change in differences(before, after))
    # What the migration itself filled counts as users' data by then: nobody can tell who wrote it since.
    is_refused = any(change.is_destructive for change in differences(migrated, after))
    return (*changed, *(("it takes --allow-data-loss",) if is_refused else ()))


def _down(attempt: Attempt, newer: Manifest | None, older: Manifest) -> Migration | None:
    if newer is None:
        return None
    command = attempt.host.migrator.downgrade(newer, attempt.settings, older)
    return Migration(manifest=newer, command=command) if command else None


def _same_data(attempt: Attempt) -> tuple[Way, str, float]:
    return (Way.CODE, "code alone", 0.0) if attempt.deployment.previous else (Way.NONE, "", 0.0)


def _trouble_on_copy(attempt: Attempt, manifest: Manifest, number: int) -> str:
    """Why a release cannot work with the copy as it is; empty when it can."""
    settings = attempt.settings_of(manifest, number)
    try:
        misfits = attempt.host.migrator.misfits(manifest, settings, attempt.host.rehearsal.look(attempt.number))
        if not misfits:
            boot_on_copy(attempt, manifest, number)
    except StepFailed as error:
        return error.message
    return "; ".join(misfits)


def _live_manifest(attempt: Attempt) -> Manifest | None:
    previous = attempt.deployment.previous
    return attempt.host.releases.manifest(previous.release) if previous else None


def _go_without(attempt: Attempt, reason: str) -> str:
    """No rehearsal on this machine: what leaves the data alone may be deployed, and nothing else."""
    schema = attempt.found.schema
    if schema.pending or schema.unknown or schema.is_unnoted:
        raise StepFailed(
            "rehearsal-not-possible",
            f"a migration is never made without a rehearsal, and this machine permits none: {reason}",
            hint="bulletproof deploy with an older revision, or let this user make namespaces",
        )
    attempt.found.report = replace(outset(attempt), proof=f"none: {reason}")
    return f"skipped: {reason}"


def _candidate(attempt: Attempt, manifest: Manifest) -> Candidate:
    rehearsal, number = attempt.host.rehearsal, attempt.number
    return Candidate(
        release=manifest.release,
        ask=functools.partial(rehearsal.ask, number),
        state=functools.partial(rehearsal.state, number),
        log_tail=functools.partial(rehearsal.log_tail, number),
        host=attempt.host.proxy.public().name,
        where=", rehearsed on a copy of the data,",
    )


def _patience_seconds(attempt: Attempt) -> float:
    """What takes longer than this on the copy cannot be done while requests wait, and need not be waited for."""
    most = attempt.manifest.config.hold.seconds - STOP_SECONDS - MARGIN_SECONDS
    return most if is_serving(attempt) else _UNHURRIED_SECONDS


def _timed(attempt: Attempt, act: Callable[[], T]) -> tuple[T, float]:
    begun = attempt.host.clock()
    return act(), attempt.host.clock() - begun
