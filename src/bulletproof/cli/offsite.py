"""`bulletproof backup connect | send | fetch`: backups off this machine, and back from there."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import click
import msgspec

from bulletproof.cli.afar import Parcel, in_memory, words_of
from bulletproof.cli.point import fetch_at
from bulletproof.cli.target import Target, find_target, host_options, json_option, sent_with
from bulletproof.cli.trial import prove, show_proof
from bulletproof.cli.wording import moment
from bulletproof.domain.backup import Backup, is_fresh
from bulletproof.domain.offsite import Connection, Sent, choose, name_of
from bulletproof.effects import durable
from bulletproof.effects.age import new_identity, recipient_of
from bulletproof.effects.scratch import scratch_folder
from bulletproof.engine.journal import utc_now
from bulletproof.errors import BulletproofError, StepFailed, UsageError
from bulletproof.operations.offsite import download, fetch, folders_at, send, try_connection, unsent
from bulletproof.wiring import connect_backups, connection_of, depot_of, keep_connection, require_replicable

_SECRETS = "AWS_"
"""Environment variables that begin so are what a bucket needs."""


class _Keys(msgspec.Struct, frozen=True, kw_only=True):
    secrets: dict[str, str]
    identity: str = ""
    """Of age; empty when a new one is to be made, or none is needed."""


def _secrets() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(_SECRETS)}


@contextmanager
def _with_secrets(context: click.Context) -> Iterator[Parcel]:
    """Keys stand in no process list, here or there."""
    file: Path | None = context.params["key_file"]
    with in_memory(msgspec.json.encode(_told(file, is_from_stdin=False))) as given:
        yield Parcel(words=(*words_of(context, without=("key_file",)), "--from-stdin"), given=given)


@click.command("connect", short_help="Send each backup off this machine as well.")
@click.argument("url", required=False)
@click.option("--off", "is_off", is_flag=True, help="Send backups nowhere any more. What lies there stays.")
@click.option(
    "--key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A key of age to encrypt with and to read back; a new one is made when nothing is said.",
)
@click.option("--recipient", default="", metavar="AGE1...", help="Only encrypt for this key; it is not on this host.")
@click.option("--unencrypted", "is_plain", is_flag=True, help="Do not encrypt.")
@click.option("--continuous", "is_continuous", is_flag=True, help="Replicate the database there as well, unencrypted.")
@click.option("--from-stdin", "is_from_stdin", is_flag=True, hidden=True)
@sent_with(_with_secrets)
@click.pass_obj
def connect_command(
    root: Path,
    *,
    url: str | None,
    is_off: bool,
    key_file: Path | None,
    recipient: str,
    is_plain: bool,
    is_continuous: bool,
    is_from_stdin: bool,
    verb_root: Path | None,
    app_name: str | None,
) -> None:
    """Send each backup to URL as well: s3://BUCKET/PREFIX, sftp://USER@HOST/FOLDER or file:///FOLDER.

    A bucket's keys are taken from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, where they are needed, AWS_REGION and
    AWS_ENDPOINT_URL; they are kept 0600 on the host. What is sent is encrypted with age. Without URL, tell where they
    go now.

    With --continuous, Litestream also sends every change of the database, about a second after it was made, so that
    `backup fetch --at TIME` gets it back as it was at any time. This replica is NOT encrypted, since Litestream cannot:
    whoever can read the bucket or the folder can read the data. It goes to s3:// and file:// places, begins with the
    next deployment or `bulletproof restart`, puts the database into WAL mode, and makes two small tables of its own in
    it. It undoes no deployment: snapshots and backups do that.
    """
    target = find_target(root, verb_root, app_name)
    if is_off or not url:
        _show_or_forget(target, is_off=is_off)
        return
    if bool(key_file) + bool(recipient) + is_plain > 1:
        raise click.UsageError("--key-file, --recipient and --unencrypted exclude each other")
    told = _told(key_file, is_from_stdin=is_from_stdin)
    is_new = not (told.identity or recipient or is_plain)
    identity = new_identity()[0] if is_new else told.identity
    connection = Connection(
        url=url,
        secrets=told.secrets if url.startswith("s3:") else {},
        recipient=recipient_of(identity) if identity else recipient,
        identity=identity,
        is_continuous=is_continuous,
    )
    _keep_if_it_works(target, connection)
    _tell_connected(connection, new_key=identity if is_new else "")


def _keep_if_it_works(target: Target, connection: Connection) -> None:
    """Write the connection down once a file was written there and read again."""
    if connection.is_continuous:
        require_replicable(connection)
    with scratch_folder(f"bulletproof-offsite-{target.app}-") as scratch:
        try_connection(depot_of(connection), connection, target.app, scratch)
    keep_connection(target.layout, connection)


def _tell_connected(connection: Connection, *, new_key: str) -> None:
    """Say where backups go from now on, and show a key that was made for it."""
    click.echo(f"backups are sent to {depot_of(connection).called} from now on, {_words(connection)}", err=True)
    if connection.is_continuous:
        click.echo(
            "every change of the database is sent there too from the next deployment or `bulletproof restart` on,"
            " about a second later; this replica is not encrypted, since Litestream cannot",
            err=True,
        )
    if new_key:
        click.echo(
            "this key reads them; it is on the host, and you keep it elsewhere too, or they are lost with it:", err=True
        )
        click.echo(new_key)


def _told(key_file: Path | None, *, is_from_stdin: bool) -> _Keys:
    """The keys: from the other machine that gives the order, or from the surroundings and the file."""
    if is_from_stdin:
        return msgspec.json.decode(sys.stdin.buffer.read(), type=_Keys)
    return _Keys(secrets=_secrets(), identity=key_file.read_text(encoding="utf-8") if key_file else "")


def _show_or_forget(target: Target, *, is_off: bool) -> None:
    connection = connection_of(target.layout)
    if is_off:
        was_continuous = connection is not None and connection.is_continuous
        keep_connection(target.layout, None)
        click.echo("backups stay on this machine from now on; what was sent stays where it is", err=True)
        if was_continuous:
            click.echo("the replica ends with the next deployment or `bulletproof restart`", err=True)
    elif connection is None:
        click.echo("backups are sent nowhere: bulletproof backup connect URL", err=True)
    else:
        beside = ", and every change of the database, not encrypted" if connection.is_continuous else ""
        click.echo(f"{depot_of(connection).called}, {_words(connection)}{beside}")


def _words(connection: Connection) -> str:
    if not connection.is_encrypted:
        return "not encrypted"
    return f"encrypted for {connection.recipient}" + ("" if connection.identity else ", whose key is not on this host")


@click.command("send", short_help="Send what does not lie off site yet.")
@host_options
@json_option
@click.pass_obj
def send_command(root: Path, *, verb_root: Path | None, app_name: str | None, as_json: bool) -> None:
    """Send the backups that do not lie off site yet; `create` does so by itself."""
    target = find_target(root, verb_root, app_name)
    _require_connection(target)
    trouble = send_all(target, as_json=as_json)
    if trouble:
        raise trouble


def send_all(target: Target, *, as_json: bool = False) -> BulletproofError | None:
    """Send what does not lie off site yet, if backups go anywhere; the first reason why one could not be sent."""
    troubles: list[BulletproofError] = []
    try:
        connection = connection_of(target.layout)
        if connection is None:
            return None
        store, depot = connect_backups(target.layout), depot_of(connection)
    except BulletproofError as error:
        return error
    for backup in unsent(store, store, connection.url):
        try:
            with scratch_folder(f"bulletproof-offsite-{target.app}-") as scratch:
                _show_sent(backup.name, send(store, depot, connection, backup, scratch), as_json=as_json)
        except OSError as error:  # a backup that lacks a file keeps no other from being sent
            troubles.append(StepFailed("offsite-failed", f"{backup.name} could not be read: {error}"))
        except BulletproofError as error:
            troubles.append(error)
    return troubles[0] if troubles else None


def _show_sent(name: str, sent: Sent, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"name": name, "off_site": sent.folder}))
    else:
        click.echo(f"  {name} is at {sent.called}, {'encrypted' if sent.is_encrypted else 'not encrypted'}")


@click.command("fetch", short_help="Bring a backup back from off site.")
@click.argument("name", required=False)
@click.option("--at", "at", metavar="TIME", help="The database as it was then: ISO 8601 (UTC), or '10 minutes ago'.")
@host_options
@json_option
@click.pass_obj
def fetch_command(
    root: Path, *, name: str | None, at: str | None, verb_root: Path | None, app_name: str | None, as_json: bool
) -> None:
    r"""Bring a backup back from off site, the newest when none is named; also to a machine that is new.

    \b
      bulletproof backup connect URL --key-file FILE
      bulletproof backup fetch
      bulletproof deploy --backup NAME

    With --at, of an app that was connected with --continuous, a backup is made of the database as it was at TIME, and
    proven; `backup restore` lets it take the place of today's data. The replica is kept to the second for the last
    hour, to half a minute for a week. The files of users are not in it.
    """
    if name and at:
        raise click.UsageError("NAME and --at exclude each other")
    target = find_target(root, verb_root, app_name)
    connection = _require_connection(target)
    if at:
        sys.exit(0 if fetch_at(target, at, as_json=as_json) else 1)
    durable.make_folder(target.layout.state, mode=0o700)
    store = connect_backups(target.layout)
    with scratch_folder(f"bulletproof-offsite-{target.app}-") as scratch:
        backup = fetch(store, depot_of(connection), connection, target.app, name or "", scratch)
    if as_json:
        click.echo(json.dumps({"name": backup.name, "release": backup.manifest.release}))
    else:
        taken = moment(backup.manifest.taken_at)
        click.echo(f"{backup.name} of {taken} UTC is here, whole: every byte has the digest that was sealed")


def list_off_site(target: Target, *, as_json: bool) -> None:
    """List what lies off site, newest first."""
    connection = _require_connection(target)
    folders = folders_at(depot_of(connection), connection, target.app)[::-1]
    if as_json:
        click.echo(json.dumps([{"name": name_of(folder), "folder": folder} for folder in folders]))
        return
    for folder in folders:
        click.echo(f"{name_of(folder):>6}  {folder}")
    if not folders:
        click.echo("nothing lies off site yet: bulletproof backup create", err=True)


def verify_off_site(target: Target, names: tuple[str, ...], *, is_all: bool, as_json: bool) -> bool:
    """Restore backups from off site for a trial; whether all of them could be."""
    connection = _require_connection(target)
    depot, store = depot_of(connection), connect_backups(target.layout)
    known = folders_at(depot, connection, target.app)
    wished = known if is_all else tuple(choose(known, name) for name in names or ("",))
    is_good = True
    for folder in wished:
        name = name_of(folder) or ""
        with scratch_folder(f"bulletproof-offsite-{target.app}-") as scratch:
            place = scratch / name
            download(depot, connection, folder, place, scratch)
            backup = store.open_at(place)
            proof = prove(target, backup)
        show_proof(backup, proof, as_json=as_json)
        is_good &= not proof.trouble
        if not proof.trouble:
            store.note_verified(name, folder, utc_now())
    return is_good


def stale_off_site(target: Target, now: datetime) -> str:
    """The newest backup off site, by its folder, if none was verified there lately; empty when one was."""
    if connection_of(target.layout) is None:
        return ""
    store = connect_backups(target.layout)
    sent = [found for one in store.all() if isinstance(one, Backup) and (found := store.sent(one))]
    looked_at = max((one.verified_at for one in sent if one.verified_at), default="")
    is_due = bool(sent) and not (looked_at and is_fresh(looked_at, now))
    return sent[-1].folder.rpartition("/")[2] if is_due else ""


def _require_connection(target: Target) -> Connection:
    connection = connection_of(target.layout)
    if connection is None:
        raise UsageError("offsite-unset", "backups of this app are sent nowhere", hint="bulletproof backup connect URL")
    return connection
