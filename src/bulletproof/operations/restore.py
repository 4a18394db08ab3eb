"""Restore: a backup takes the place of today's data, which are set aside as a backup themselves."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from bulletproof.domain.backup import Backup, Reason, outermost
from bulletproof.domain.report import MARGIN_SECONDS, Report, Times
from bulletproof.domain.restore import Restoration, RowChange
from bulletproof.domain.schema import Schema, differences
from bulletproof.errors import BulletproofError, Refused, StepFailed
from bulletproof.operations.attempt import Attempt
from bulletproof.operations.backups import backup_of, prove_as_served, revision_of
from bulletproof.operations.migrate import refuse_late
from bulletproof.operations.preflight import check_database_file, check_settings, check_space
from bulletproof.operations.rehearse import boot_on_copy, is_serving
from bulletproof.operations.steps import freeze_settings
from bulletproof.ports import Taking

_MIB = 1 << 20


def check_restore(attempt: Attempt) -> str:
    """Refuse, in words, what could not end well; a database that is damaged is no obstacle but a reason to restore."""
    host, config = attempt.host, attempt.manifest.config
    backup = host.backups.get(attempt.ordered.backup)
    check_space(attempt, config)
    needed = 3 * backup.manifest.unpacked + config.require.free_disk_mib * _MIB
    if host.backups.free_bytes() < needed:
        raise Refused(
            "disk-low",
            f"{host.backups.free_bytes() // _MIB} MiB of disk are free; to restore {backup.name} takes"
            f" {needed // _MIB} MiB for a while",
            hint="free some, or bulletproof backup prune",
        )
    host.backups.check(backup)
    host.proxy.check()
    check_settings(attempt)
    check_database_file(attempt, config)
    host.backups.refuse_unmovable(_folders(attempt, backup))
    try:
        return host.database.check() if host.database.exists() else "no database"
    except Refused as error:
        return f"today's database: {error.message}"


def rehearse_restore(attempt: Attempt) -> str:
    """Lay the backup aside, boot the release on a copy of it, and tell what would be missing; a person decides.

    Raises Refused for a backup that is not what was written, and StepFailed `schema-older`, `schema-newer`,
    `schema-differs`, `hold-too-long`, `rehearsal-not-possible`, and as the gate does.
    """
    host, number = attempt.host, attempt.number
    if reason := host.rehearsal.why_not():
        raise StepFailed("rehearsal-not-possible", f"nothing is restored that was not rehearsed: {reason}")
    backup = host.backups.get(attempt.ordered.backup)
    file = host.layout.restored(number)
    copied, today, damage = _today(attempt)
    files = _lay_folders(attempt, backup)
    rows: tuple[RowChange, ...] = ()
    schema: tuple[str, ...] = ()
    if backup.manifest.database:
        host.backups.make_place(file)
        host.backups.lay_database(backup, file)
        tool = _require_schema(attempt, backup)
        rows = () if damage else host.rehearsal.compare(number, file)
        laid = host.clock()
        host.rehearsal.lay(number, file)
        copied = max(copied, host.clock() - laid)
        schema = () if damage else _schema(attempt, today, host.rehearsal.look(number), tool)
    begun = host.clock()
    health = boot_on_copy(attempt, attempt.manifest)
    times = Times(copy=copied, boot=host.clock() - begun, previous_boot=host.clock() - begun)
    attempt.found.report = Report(
        release=attempt.deployment.release, previous=_previous(attempt), is_migrating=True, health=health, times=times
    )
    found = Restoration(
        backup=backup.name,
        taken_at=backup.manifest.taken_at,
        release=attempt.deployment.release,
        health=health,
        rows=rows,
        schema=schema,
        has_database=backup.manifest.database is not None,
        damage=damage,
        folders=_folders(attempt, backup),
        files=files,
        left_alone=_left_alone(attempt, backup),
        hold_seconds=times.hold if is_serving(attempt) else 0.0,
    )
    _refuse_long_hold(attempt, times)
    attempt.ordered.confirm(found)
    return "\n".join(found.lines)


def preview_restore(attempt: Attempt) -> Restoration:
    """Do of a restore what touches nothing live, and tell what it would do. Raises as `rehearse_restore` does."""
    told: list[Restoration] = []
    order = replace(attempt.ordered, confirm=told.append)
    ready = replace(attempt, order=order)
    try:
        check_restore(ready)
        freeze_settings(ready)
        rehearse_restore(ready)
    finally:
        discard_restore(ready)
    return told[0]


def _today(attempt: Attempt) -> tuple[float, Schema, str]:
    """Lay a copy of today's database and look at it; how long that took, and why it could not be done."""
    host, number = attempt.host, attempt.number
    begun = host.clock()
    try:
        size = host.rehearsal.prepare(number)
        took = host.clock() - begun
        schema = host.rehearsal.look(number)
    except BulletproofError as error:
        return host.clock() - begun, Schema(tables={}), error.message
    return took, schema, "" if size else "there is none"


def _lay_folders(attempt: Attempt, backup: Backup) -> int:
    if not _folders(attempt, backup):
        return 0
    place = attempt.host.layout.replaced(attempt.number) / "new"
    return attempt.host.backups.lay_folders(backup, place, attempt.manifest.config.database.links)


def _folders(attempt: Attempt, backup: Backup) -> tuple[str, ...]:
    """The persistent folders that are exchanged."""
    if attempt.ordered.only_database:
        return ()
    kept = outermost(attempt.manifest.config.app.persistent)
    return tuple(name for name in backup.manifest.folders if name in kept)


def _left_alone(attempt: Attempt, backup: Backup) -> tuple[str, ...]:
    kept, has = outermost(attempt.manifest.config.app.persistent), backup.manifest.folders
    why = "as was asked for" if attempt.ordered.only_database else f"backup {backup.name} has none"
    database = () if backup.manifest.database else (f"the database stays as it is: backup {backup.name} has none",)
    mine = database + tuple(f"{name} stays as it is: {why}" for name in kept if name not in _folders(attempt, backup))
    return mine + tuple(f"{name} of the backup is left out: the release keeps none" for name in has if name not in kept)


def _require_schema(attempt: Attempt, backup: Backup) -> str:
    """Refuse a backup that the release would have to migrate, or cannot know; tells what can judge its schema."""
    file = attempt.host.layout.restored(attempt.number)
    schema = attempt.host.migrator_of(file).state(attempt.manifest, attempt.settings)
    made_by, release = backup.manifest.release, attempt.deployment.release
    if schema.tool == "command" or schema.fits:
        return schema.tool
    reference = "schema-newer" if schema.unknown else "schema-older"
    what = ", ".join(schema.unknown or schema.pending or schema.stamp)
    raise StepFailed(
        reference,
        f"backup {backup.name} is of release {made_by}, and its schema is not that of {release}: {what}",
        hint=f"bulletproof backup restore {backup.name} --with-release (makes {made_by} live with it)"
        if made_by in attempt.host.releases.existing() and made_by != release
        else "bulletproof backup list",
    )


def _schema(attempt: Attempt, today: Schema, then: Schema, tool: str) -> tuple[str, ...]:
    """What is different besides rows; refuse what nobody can judge, unless that is allowed.

    That is a view or a trigger which today's database does not have, and, where no migrations tell which schema the
    release needs, any other one.
    """
    changes = tuple(change.words for change in differences(today, then) if not change.is_data)
    differing = (name for name, sql in then.others.items() if sql != today.others.get(name))
    foreign = [name for name in differing if name.split(" ")[0] in {"view", "trigger"}]
    is_unknown = bool(changes) and tool in {"command", "none"}
    if (foreign or is_unknown) and not attempt.ordered.may_change_schema:
        what = (
            f"what today's database has not: {', '.join(sorted(foreign))}" if foreign else "another schema than today's"
        )
        raise StepFailed(
            "schema-differs",
            f"the backup has {what}",
            context=changes,
            hint="if that is meant: --allow-schema-changes",
        )
    return changes


def _refuse_long_hold(attempt: Attempt, times: Times) -> None:
    most = attempt.manifest.config.hold.seconds - times.way_back - MARGIN_SECONDS
    if is_serving(attempt) and times.hold > most:
        raise StepFailed(
            "hold-too-long",
            f"requests would wait {times.hold:.0f} seconds for the restore; they may wait {most:.0f}",
            hint="let requests wait longer (`seconds` under [hold]), or: bulletproof stop, restore, bulletproof start",
        )


def _previous(attempt: Attempt) -> str:
    return attempt.deployment.previous.release if attempt.deployment.previous else ""


def put_backup(attempt: Attempt) -> str:
    """The live database gets the backup's content, while we still have it alone; it stays where there is none."""
    host = attempt.host
    if host.backups.get(attempt.ordered.backup).manifest.database:
        host.swap.put(host.layout.restored(attempt.number), lambda: refuse_late(attempt))
    host.swap.release()
    return ""


def exchange_folders(attempt: Attempt) -> str:
    """The persistent folders are those of the backup; today's lie beside."""
    host = attempt.host
    names = _folders(attempt, host.backups.get(attempt.ordered.backup))
    host.backups.exchange(attempt.number, names)
    return ", ".join(names)


def exchange_folders_back(attempt: Attempt) -> None:
    """The persistent folders are today's again, and nothing of the backup's is left in the data."""
    attempt.host.backups.exchange_back(attempt.number)


def discard_restore(attempt: Attempt) -> None:
    """What was laid for the restore, and the copies and whatever runs on them, are not."""
    attempt.host.rehearsal.discard(attempt.number)
    attempt.host.swap.discard(attempt.number)
    attempt.host.backups.discard_replaced(attempt.number)


def keep_what_was_replaced(attempt: Attempt) -> str:
    """Of the data that the restore replaced, a backup that nothing prunes: restoring it takes the restore back.

    Nothing here undoes a restore that is done: what fails is told, and the data stay where they are.
    """
    host, number = attempt.host, attempt.number
    try:
        backup = backup_of(host, attempt.deployment, Reason.RESTORE)
        if backup is None and number not in host.swap.numbers():
            return ""
        backup = backup or host.backups.take(_replaced(attempt))
        proof = None if backup.manifest.damage else prove_as_served(host, number, backup)
        if proof is None or not proof.trouble:
            host.swap.discard(number)
            if backup.manifest.left_out:
                return _kept_in_part(host.layout.replaced(number), backup)
            host.backups.discard_replaced(number)
            return f"today's data are backup {backup.name}: bulletproof backup restore {backup.name} takes this back"
        why = proof.trouble
    except (BulletproofError, OSError) as error:
        why = str(error)
    place = host.swap.set_aside(number)
    folders = f", the files in {host.layout.replaced(number)}" if host.backups.replaced(number) else ""
    return f"today's database is in {place}{folders}: no backup could be made of it: {why}"


def _kept_in_part(place: Path, backup: Backup) -> str:
    """What could not be read stays where it is."""
    left = backup.manifest.left_out
    return (
        f"today's data are backup {backup.name}, but for what could not be read ({len(left)}: {left[0]});"
        f" today's files stay in {place} as well"
    )


def _replaced(attempt: Attempt) -> Taking:
    host, previous = attempt.host, attempt.deployment.previous
    release = previous.release if previous else attempt.deployment.release
    return Taking(
        reason=Reason.RESTORE,
        deployment=attempt.number,
        begun_at=attempt.deployment.started_at,
        release=release,
        revision=revision_of(host, release),
        settings=previous.number if previous else attempt.number,
        taken_by=f"deployment {attempt.number}",
        folders=host.backups.replaced(attempt.number),
        database=host.layout.snapshot(attempt.number),
        may_be_damaged=True,
        compress=attempt.manifest.config.backup.compress,
    )
