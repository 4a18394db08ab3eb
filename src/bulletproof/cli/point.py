"""`bulletproof backup fetch --at`: a backup of the database as it was at a point in time."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime

import click

from bulletproof.cli.target import Target
from bulletproof.cli.trial import config_for, prove, show_proof
from bulletproof.cli.wording import duration, moment
from bulletproof.domain.backup import Backup
from bulletproof.domain.deployment import Live
from bulletproof.domain.replica import KEPT, as_written, read_moment
from bulletproof.effects import durable
from bulletproof.effects.scratch import scratch_folder
from bulletproof.engine.journal import Journal
from bulletproof.operations.replica import Owner, fetch_point
from bulletproof.wiring import connect_backups, connect_replica, revision_of


def fetch_at(target: Target, wish: str, *, as_json: bool) -> bool:
    """Make a backup of that point, and prove it where anything is deployed; whether nothing is wrong with it."""
    at = read_moment(wish, datetime.now(UTC))
    live = _live_at(target, as_written(at))
    config = config_for(target, live)
    owner = Owner(live=live, revision=revision_of(target.layout, live), compress=config.backup.compress)
    replica = connect_replica(target.layout, target.layout.data / config.database.file)
    durable.make_folder(target.layout.state, mode=0o700)
    with scratch_folder(f"bulletproof-point-{target.app}-") as scratch:
        backup, point = fetch_point(connect_backups(target.layout), replica, at, owner, scratch / "point.db")
    _show(backup, at, point, as_json=as_json)
    if live is None:
        click.echo(f"nothing is deployed here yet: bulletproof deploy --backup {backup.name}", err=True)
        return True
    proof = prove(target, backup)
    show_proof(backup, proof, as_json=as_json)
    if not proof.trouble:
        hint = f"bulletproof backup restore {backup.name}"
        click.echo(f"to let it take the place of today's data, after a look at what that would do: {hint}", err=True)
    return not proof.trouble


def _live_at(target: Target, at: str) -> Live | None:
    """What was live then, or is now; None on a machine on which nothing was."""
    journal = Journal.read(target.layout.journal)
    if journal is None:
        return None
    with contextlib.closing(journal):
        return journal.live_at(at) or journal.live()


def _show(backup: Backup, at: datetime, point: datetime, *, as_json: bool) -> None:
    if as_json:
        told = {"name": backup.name, "release": backup.manifest.release, "at": as_written(at)}
        click.echo(json.dumps({**told, "point": as_written(point)}))
        return
    age = duration((at - point).total_seconds())
    click.echo(
        f"{backup.name} is the database of {moment(as_written(point))} UTC, the newest point until"
        f" {moment(as_written(at))} UTC: {age} before it. The replica is kept {KEPT}"
    )
