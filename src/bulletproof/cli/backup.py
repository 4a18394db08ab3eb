"""`bulletproof backup`: copies of the data that are proven, and their way back."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from bulletproof.cli.afar import Parcel, words_of
from bulletproof.cli.deployments import carry_out
from bulletproof.cli.offsite import (
    connect_command,
    fetch_command,
    list_off_site,
    send_all,
    send_command,
    stale_off_site,
    verify_off_site,
)
from bulletproof.cli.render import choose_renderer
from bulletproof.cli.target import (
    Target,
    find_target,
    host_options,
    json_option,
    open_session,
    patience_option,
    sent_with,
    wait_option,
)
from bulletproof.cli.trial import closing_journal, config_for, connect_live, prove, require_live, scratch, show_proof
from bulletproof.cli.wording import moment, size
from bulletproof.cli.words import show_error
from bulletproof.domain.backup import Backup, Damaged, Reason, stalest
from bulletproof.domain.deployment import Deployment, Kind, Live
from bulletproof.domain.offsite import Sent
from bulletproof.domain.restore import Restoration
from bulletproof.effects.interrupts import Interrupts
from bulletproof.effects.lock import BACKUP_VERB
from bulletproof.engine.journal import utc_now
from bulletproof.errors import LockHeld, Refused, StepFailed, UsageError
from bulletproof.operations.activate import Result, Session, activate, recover
from bulletproof.operations.attempt import Attempt, Order
from bulletproof.operations.backups import NOTHING, make_backup, prune_backups
from bulletproof.operations.plan import require_quiet
from bulletproof.operations.restore import preview_restore
from bulletproof.wiring import connect_backups, connect_planned

_SCHEDULED_WAIT_SECONDS = 3600.0
"""A backup by the clock waits for a deployment to end; nobody looks at it meanwhile."""
_REASONS = {
    Reason.ASKED: "asked for",
    Reason.SCHEDULE: "by the clock",
    Reason.MIGRATION: "before deployment {} migrated",
    Reason.RESTORE: "before deployment {} restored",
    Reason.POINT: "a point in time, from the replica",
}


@click.group("backup")
def backup_command() -> None:
    """Make, prove, list, restore and prune backups of the app's data.

    A backup holds the database and the persistent folders, and every write that was acknowledged before it began. It
    counts as proven once it was restored for a trial and its release has booted on it.
    """


@backup_command.command("create")
@click.option("--scheduled", "is_scheduled", is_flag=True, hidden=True)
@host_options
@patience_option("a deployment")
@json_option
@click.pass_obj
def create_command(
    root: Path, *, is_scheduled: bool, verb_root: Path | None, app_name: str | None, wait_seconds: float, as_json: bool
) -> None:
    """Make a backup of the live data, and prove it."""
    target = find_target(root, verb_root, app_name)
    reason, wait = (Reason.SCHEDULE, _SCHEDULED_WAIT_SECONDS) if is_scheduled else (Reason.ASKED, wait_seconds)
    with open_session(target, BACKUP_VERB, choose_renderer(target.app, as_json=as_json), wait_seconds=wait) as session:
        recover(session)
        live = require_live(target, session.journal)
        try:
            backup = make_backup(session.host, live, reason, session.started_by, config_for(target, live))
        except StepFailed as error:
            if not is_scheduled or error.reference != NOTHING:
                raise
            click.echo(error.message, err=True)
            return
    # What a trial takes keeps no deployment waiting.
    proof = prove(target, backup)
    show_proof(backup, proof, as_json=as_json)
    trouble = send_all(target, as_json=as_json)
    gone = _prune_unless_busy(target, live, as_json=as_json)
    if gone and not as_json:
        click.echo(f"removed {', '.join(gone)}, as [keep] says", err=True)
    if trouble:
        show_error(trouble, after="the backup is on this machine")
    are_good = _prove_again(target, as_json=as_json) if is_scheduled else True
    sys.exit(1 if proof.trouble or trouble or not are_good else 0)


def _prove_again(target: Target, *, as_json: bool) -> bool:
    """Of those that were proven longest ago, try one again, here and off site: disks and buckets forget."""
    store, now = connect_backups(target.layout), datetime.now(UTC)
    backup = stalest([one for one in store.all() if isinstance(one, Backup)], now)
    is_good = True
    if backup is not None:
        proof = prove(target, backup)
        show_proof(backup, proof, as_json=as_json)
        is_good = not proof.trouble
    if folder := stale_off_site(target, now):
        is_good &= verify_off_site(target, (folder,), is_all=False, as_json=as_json)
    return is_good


def _prune_unless_busy(target: Target, live: Live, *, as_json: bool) -> tuple[str, ...]:
    """What a deployment that has begun meanwhile keeps us from removing goes with the next one."""
    try:
        with open_session(target, BACKUP_VERB, choose_renderer(target.app, as_json=as_json)) as session:
            return prune_backups(session.host, config_for(target, live))
    except LockHeld:
        return ()


@backup_command.command("list", short_help="List the backups, newest first.")
@click.option("--off-site", "is_off_site", is_flag=True, help="Those that lie off site.")
@host_options
@json_option
@click.pass_obj
def list_command(root: Path, *, is_off_site: bool, verb_root: Path | None, app_name: str | None, as_json: bool) -> None:
    """List the backups, newest first, with the last time that each was proven."""
    target = find_target(root, verb_root, app_name)
    if is_off_site:
        list_off_site(target, as_json=as_json)
        return
    store = connect_backups(target.layout)
    backups = store.all()[::-1]
    sent = [store.sent(backup) if isinstance(backup, Backup) else None for backup in backups]
    if as_json:
        click.echo(json.dumps([_as_json(backup, where) for backup, where in zip(backups, sent, strict=True)]))
        return
    for backup, where in zip(backups, sent, strict=True):
        click.echo(_line(backup, where))
    if not backups:
        click.echo("no backups yet; by the clock, before each migration, or now: bulletproof backup create", err=True)


@backup_command.command("verify", short_help="Restore backups for a trial.")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--all", "is_all", is_flag=True, help="All of them; the newest alone when nothing is named.")
@click.option("--off-site", "is_off_site", is_flag=True, help="Restored from where they lie off site.")
@host_options
@json_option
@click.pass_obj
def verify_command(
    root: Path,
    *,
    names: tuple[str, ...],
    is_all: bool,
    is_off_site: bool,
    verb_root: Path | None,
    app_name: str | None,
    as_json: bool,
) -> None:
    """Restore backups where nothing of it matters, and boot their release on them.

    Every byte is read, every row is counted, and the release must answer its health checks on the restored data.
    """
    target = find_target(root, verb_root, app_name)
    if is_off_site:
        sys.exit(0 if verify_off_site(target, names, is_all=is_all, as_json=as_json) else 1)
    backups = connect_live(target).backups
    known = [backup.name for backup in backups.all()]
    if not known:
        raise UsageError("backup-unknown", "there are no backups yet", hint="bulletproof backup create")
    is_good = True
    for name in known if is_all else names or known[-1:]:
        try:
            backup = backups.get(name)
        except Refused as error:
            is_good = False
            click.echo(json.dumps({"name": name, "trouble": error.message}) if as_json else f"✗ {error.message}")
            continue
        proof = prove(target, backup)
        is_good &= not proof.trouble
        show_proof(backup, proof, as_json=as_json)
    sys.exit(0 if is_good else 1)


@backup_command.command("prune")
@host_options
@patience_option("a deployment")
@json_option
@click.pass_obj
def prune_command(
    root: Path, *, verb_root: Path | None, app_name: str | None, wait_seconds: float, as_json: bool
) -> None:
    """Remove the backups that [keep] does not keep.

    Never the newest, the newest that is proven, the newest of each release on the host, nor what a restore replaced.
    """
    target = find_target(root, verb_root, app_name)
    renderer = choose_renderer(target.app, as_json=as_json)
    with open_session(target, BACKUP_VERB, renderer, wait_seconds=wait_seconds, on_full_disk=True) as session:
        recover(session)
        live = require_live(target, session.journal)
        gone = prune_backups(session.host, config_for(target, live))
    if as_json:
        click.echo(json.dumps({"app": target.app, "removed": gone}))
    else:
        click.echo(f"removed {', '.join(gone)}" if gone else "nothing to remove", err=True)


for command in (connect_command, send_command, fetch_command):
    backup_command.add_command(command)


@contextmanager
def _decided(context: click.Context) -> Iterator[Parcel]:
    """A restore on another machine is decided here, where the person is: nobody is asked there."""
    if not (context.params["is_confirmed"] or context.params["is_preview"]):
        raise click.UsageError("on another machine, look with --preview first, then restore with --yes")
    yield Parcel(words=words_of(context))


@backup_command.command("restore")
@click.argument("name")
@click.option("--preview", "is_preview", is_flag=True, help="Rehearse it, tell what would be missing, change nothing.")
@click.option("--yes", "is_confirmed", is_flag=True, help="Do not ask.")
@click.option("--only-database", is_flag=True, help="Leave the persistent folders as they are.")
@click.option("--with-release", is_flag=True, help="Make the release live that made the backup, instead of today's.")
@click.option(
    "--allow-schema-changes",
    "may_change_schema",
    is_flag=True,
    help="Let it bring views and triggers that today's database does not have.",
)
@sent_with(_decided)
@wait_option
@json_option
@click.pass_obj
def restore_command(
    root: Path,
    *,
    name: str,
    is_preview: bool,
    is_confirmed: bool,
    only_database: bool,
    with_release: bool,
    may_change_schema: bool,
    verb_root: Path | None,
    app_name: str | None,
    wait_seconds: float,
    as_json: bool,
) -> None:
    """Let backup NAME take the place of today's data.

    It is rehearsed first, and what would be missing is told, table by table. Requests wait while it is put in place,
    and none fails. Today's data become a backup themselves, which nothing prunes: restoring that takes this back.
    """
    target = find_target(root, verb_root, app_name)
    backup = connect_live(target).backups.get(name)
    order = Order(
        kind=Kind.RESTORE,
        backup=backup.name,
        release=backup.manifest.release if with_release else "",
        only_database=only_database,
        may_change_schema=may_change_schema,
        confirm=_go_on if is_confirmed or is_preview else functools.partial(_ask, target.app),
    )
    if is_preview:
        _preview(target, order, as_json=as_json)
        return
    if not (is_confirmed or sys.stdin.isatty()):
        raise click.UsageError("without a terminal, a restore wants --yes; --preview tells what it would do")

    def act(session: Session) -> Result:
        return activate(session, order)

    carry_out(target, "backup restore", act, as_json=as_json, wait_seconds=wait_seconds)


def _ask(app: str, found: Restoration) -> None:
    """Show what a restore would do, and let a person type the app's name."""
    click.echo("\r\x1b[2K", err=True, nl=False)
    for line in found.lines:
        click.echo(f"  {line}", err=True)
    click.echo("  today's data become a backup themselves, which nothing prunes", err=True)
    try:
        typed = click.prompt(f"Type {app} to go on", default="", show_default=False, err=True)
    except click.Abort:
        typed = ""
    if typed != app:
        raise Refused("not-confirmed", "the restore was not confirmed", hint="bulletproof backup list")


def _go_on(_: Restoration) -> None:
    """A person said yes beforehand."""


def _preview(target: Target, order: Order, *, as_json: bool) -> None:
    """Rehearse a restore in a folder that is gone afterwards."""
    with closing_journal(target) as journal:
        live, number = require_live(target, journal), journal.entries()[-1].deployment.number + 1
    require_quiet(connect_live(target))
    with Interrupts(), scratch(target, number) as layout:
        host = connect_planned(layout, config_for(target, live))
        release = order.release or live.release
        deployment = Deployment(
            number=number, kind=Kind.RESTORE, release=release, revision="", previous=live, started_at=utc_now()
        )
        found = preview_restore(Attempt(host=host, deployment=deployment, order=order))
    if as_json:
        click.echo(json.dumps({"app": target.app, **msgspec.to_builtins(found)}))
    else:
        for line in found.lines:
            click.echo(line)


def _line(backup: Backup | Damaged, sent: Sent | None) -> str:
    if isinstance(backup, Damaged):
        return f"{click.style('✗', fg='red')} {backup.name:>5}  {backup.words}"
    manifest = backup.manifest
    why = _REASONS[manifest.reason].format(manifest.deployment)
    return (
        f"{_mark(backup)} {backup.name:>5}  {moment(manifest.taken_at)}  {size(manifest.size):>9}"
        f"  {manifest.release.ljust(12)}  {why}; {_proven(backup)}{'; off site' if sent else ''}"
    )


def _mark(backup: Backup) -> str:
    if backup.proof is None:
        return "?"
    return click.style("✗", fg="red") if backup.proof.trouble else click.style("✓", fg="green")


def _proven(backup: Backup) -> str:
    if backup.proof is None:
        return "not proven yet"
    if backup.proof.trouble:
        return f"cannot be restored: {backup.proof.trouble}"
    return f"proven {moment(backup.proof.at)}"


def _as_json(backup: Backup | Damaged, sent: Sent | None) -> dict[str, object]:
    if isinstance(backup, Damaged):
        return {"name": backup.name, "damaged": backup.words}
    proof = msgspec.to_builtins(backup.proof) if backup.proof else None
    away = msgspec.to_builtins(sent) if sent else None
    return {**msgspec.to_builtins(backup.manifest), "size": backup.manifest.size, "proof": proof, "off_site": away}
