"""`bulletproof backup fetch --at`: a backup of the database as it was at a point in time."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import click

from bulletproof.cli.target import Target
from bulletproof.cli.trial import closing_journal, config_for, connect_live, prove, show_proof
from bulletproof.cli.wording import duration, moment
from bulletproof.domain.backup import Backup
from bulletproof.domain.replica import KEPT, as_written, read_moment
from bulletproof.effects.scratch import scratch_folder
from bulletproof.operations.replica import fetch_point
from bulletproof.wiring import connect_replica


def fetch_at(target: Target, wish: str, *, as_json: bool) -> bool:
    """Make a backup of that point and prove it; whether it can be restored."""
    at = read_moment(wish, datetime.now(UTC))
    with closing_journal(target) as journal:
        live = journal.live_at(as_written(at)) or journal.live()
    host = connect_live(target)
    replica = connect_replica(target.layout, target.layout.data / config_for(target, live).database.file)
    with scratch_folder(f"bulletproof-point-{target.app}-") as scratch:
        backup, point = fetch_point(host, replica, at, live, scratch / "point.db")
    _show(backup, at, point, as_json=as_json)
    proof = prove(target, backup)
    show_proof(backup, proof, as_json=as_json)
    return not proof.trouble


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
    click.echo(f"to let it take the place of today's data: bulletproof backup restore {backup.name}", err=True)
