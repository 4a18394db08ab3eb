"""Backups: made of the live data, tried on a copy as a restore would use them, and pruned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bulletproof.domain.background import backup_process, check_process
from bulletproof.domain.backup import Backup, Damaged, Proof, Reason, backups_to_remove, outermost
from bulletproof.domain.config import AppConfig
from bulletproof.domain.deployment import Deployment, Kind, Live
from bulletproof.domain.process import is_backup, is_check
from bulletproof.domain.settings import other_database
from bulletproof.engine.journal import utc_now
from bulletproof.errors import BulletproofError, StepFailed
from bulletproof.operations.attempt import Attempt
from bulletproof.operations.rehearse import boot_on_copy
from bulletproof.ports import Host, Manifest, Taking

NOTHING = "nothing-to-back-up"
"""The reference of what is no trouble to a backup by the clock."""
_MIB = 1 << 20


def make_backup(host: Host, live: Live, reason: Reason, taken_by: str, config: AppConfig) -> Backup:
    """A backup of the live data as they are now, by the live release's configuration. Raises BulletproofError."""
    folders = outermost(config.app.persistent)
    kind = other_database(host.settings.frozen(live.number).get(config.database.setting))
    has_database = not kind and host.database.exists()
    if not folders and not has_database:
        what = f"its database is {kind}, of which nobody makes a copy here" if kind else "it has no database"
        hint = "a dump by the database's own tools" if kind else ""
        raise StepFailed(NOTHING, f"{what}, and no persistent folders", hint=hint)
    _require_space(host, config)
    return host.backups.take(
        Taking(
            reason=reason,
            release=live.release,
            revision=revision_of(host, live.release),
            settings=live.number,
            taken_by=taken_by,
            folders={name: host.layout.data / name for name in folders},
            has_database=has_database,
            compress=config.backup.compress,
        )
    )


def _require_space(host: Host, config: AppConfig) -> None:
    """Refuse before the disk is full: a backup that stops the app would be a bad one."""
    needed = host.database.size() + config.require.free_disk_mib * _MIB
    free = host.backups.free_bytes()
    if free < needed:
        raise StepFailed(
            "disk-low",
            f"{free // _MIB} MiB of disk are free; a backup takes {host.database.size() // _MIB} MiB, and"
            f" {config.require.free_disk_mib} MiB are to stay free",
            hint="bulletproof backup prune, or lower [require] free_disk_mib in bulletproof.toml",
        )


def prune_backups(host: Host, config: AppConfig) -> tuple[str, ...]:
    """Remove what the configuration does not keep; tells what went. What is damaged is a person's to remove."""
    whole = [backup for backup in host.backups.all() if isinstance(backup, Backup)]
    spare = config.require.free_disk_mib * _MIB + (whole[-1].manifest.size if whole else 0)
    free = host.backups.free_bytes()
    gone = backups_to_remove(whole, config.keep, host.releases.existing(), lambda freed: free + freed < spare)
    for name in gone:
        host.backups.discard(name)
    return gone


def prove_backup(host: Host, bench: Host, file: Path, number: int, backup: Backup, live: Live | None) -> Proof:
    """Restore a backup where nothing of it matters, boot its release on it, and note what came of it.

    `bench` is a host whose rehearsals copy the database `file`, which is not there yet.
    """

    def boot() -> tuple[str, str]:
        manifest, settings, besides = _who_boots(host, backup, live)
        attempt = Attempt(host=bench, deployment=_trial(number, manifest))
        return manifest.release, f"{_boot(attempt, manifest, settings)}{besides}"

    return _prove(host, file, bench.layout.replaced(number) / "new", backup, boot)


def prove_as_served(host: Host, number: int, backup: Backup) -> Proof:
    """The same of data that its release served until this deployment: a boot on them would prove less."""
    file = host.layout.rehearsal(number) / "restored.db"
    release = backup.manifest.release
    words = f"{release} had served them until then" if release else "they were found so"
    return _prove(host, file, file.with_suffix(".folders"), backup, lambda: (release, words))


def _prove(host: Host, file: Path, folders: Path, backup: Backup, boot: Callable[[], tuple[str, str]]) -> Proof:
    begun = host.clock()
    release, words, trouble = "", [], ""
    try:
        host.backups.make_place(file)
        words.append(host.backups.lay_database(backup, file) if backup.manifest.database else "no database")
        if backup.manifest.archive:
            words.append(f"{host.backups.lay_folders(backup, folders):,} files")
        if left := backup.manifest.left_out:
            words.append(f"left out ({len(left)}): {left[0]}")
        release, booted = boot()
        words.append(booted)
    except OSError as error:  # of this machine, which says nothing of the backup
        raise StepFailed("trial-not-made", f"{backup.name} could not be tried: {error}", hint="df -h") from error
    except BulletproofError as error:
        trouble = error.message
    proof = Proof(
        at=utc_now(),
        seconds=round(host.clock() - begun, 3),
        release=release,
        words=", ".join(words),
        trouble=trouble,
        sha256=backup.digest,
    )
    host.backups.note_proof(backup, proof)
    return proof


def _trial(number: int, manifest: Manifest) -> Deployment:
    return Deployment(
        number=number,
        kind=Kind.RESTORE,
        release=manifest.release,
        revision=manifest.revision,
        previous=None,
        started_at=utc_now(),
    )


def _who_boots(host: Host, backup: Backup, live: Live | None) -> tuple[Manifest, int, str]:
    """The release that made it, if that is still there, and settings that it runs with; else what is live."""
    made_by, frozen = backup.manifest.release, backup.manifest.settings
    if made_by and made_by in host.releases.existing():
        settings = frozen if frozen in host.settings.numbers() or live is None else live.number
        return host.releases.manifest(made_by), settings, ""
    if live is None:
        raise StepFailed("release-missing", f"release {made_by}, which made it, is not on this host any more")
    return host.releases.manifest(live.release), live.number, f" (release {made_by}, which made it, is gone)"


def _boot(attempt: Attempt, manifest: Manifest, settings: int) -> str:
    """Boot a release on a copy of what was laid, and end it."""
    rehearsal = attempt.host.rehearsal
    if reason := rehearsal.why_not():
        return f"not booted: {reason}"
    try:
        rehearsal.prepare(attempt.number)
        return boot_on_copy(attempt, manifest, settings)
    finally:
        rehearsal.discard(attempt.number)
        attempt.host.swap.discard(attempt.number)


# --- steps of deployments


def keep_what_was(attempt: Attempt) -> str:
    """Of the database as it was before this deployment migrated it, a backup that is proven at once.

    The snapshot becomes one. Nothing here undoes a deployment that is done: what fails is told, and the snapshot stays.
    """
    host, previous = attempt.host, attempt.deployment.previous
    snapshot = host.layout.snapshot(attempt.number)
    if attempt.number not in host.swap.numbers():
        return ""
    release = previous.release if previous else ""  # of an app that was never deployed before, no release of ours
    try:
        backup = backup_of(host, attempt.deployment, Reason.MIGRATION) or host.backups.take(
            Taking(
                reason=Reason.MIGRATION,
                deployment=attempt.number,
                begun_at=attempt.deployment.started_at,
                release=release,
                revision=revision_of(host, release),
                settings=previous.number if previous else attempt.number,
                taken_by=f"deployment {attempt.number}",
                folders={},
                database=snapshot,
                compress=attempt.manifest.config.backup.compress,
            )
        )
        proof = prove_as_served(host, attempt.number, backup)
        if proof.trouble:
            return f"the snapshot from before stays at {snapshot}: its backup {backup.name} {proof.trouble}"
        host.swap.discard(attempt.number)
        return f"what was before: backup {backup.name}"
    except (BulletproofError, OSError) as error:
        return f"the snapshot from before stays at {snapshot}: no backup could be made of it: {error}"


def revision_of(host: Host, release: str) -> str:
    """The source of a release; empty when it is gone or damaged, since only people read this."""
    try:
        return host.releases.manifest(release).revision if release else ""
    except StepFailed:
        return ""


def backup_of(host: Host, deployment: Deployment, reason: Reason) -> Backup | None:
    """The backup of what a deployment changed, when there is one already."""
    return next(
        (
            backup
            for backup in host.backups.all()
            if not isinstance(backup, Damaged)
            and backup.manifest.deployment == deployment.number
            and backup.manifest.begun_at == deployment.started_at
            and backup.manifest.reason is reason
        ),
        None,
    )


def tend_backups(attempt: Attempt) -> str:
    """Make the next ones by the clock, and look at everything, as the configuration says; keep as many as it says."""
    host, config = attempt.host, attempt.manifest.config
    if attempt.deployment.kind is Kind.DEPLOY:
        host.backups.discard_replaced(attempt.number)  # the empty folders that a backup's took the place of
    processes = (backup_process(host.engine, host.layout, config), check_process(host.engine, host.layout, config))
    wanted = {process.name: process for process in processes if process}
    for name in host.supervisor.names():
        if (is_backup(name) or is_check(name)) and name not in wanted:
            host.supervisor.stop(name)
    for process in wanted.values():
        host.supervisor.start(process)
    gone = prune_backups(host, config)
    return f"removed {', '.join(gone)}" if gone else ""
