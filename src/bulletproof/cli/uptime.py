"""`bulletproof uptime`: how much of the time the app answered, and of how much nobody knows."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path

import click
from msgspec.structs import asdict

from bulletproof.cli.client import typed_there
from bulletproof.cli.target import find_target, host_options, json_option
from bulletproof.cli.wording import duration
from bulletproof.domain.uptime import Uptime, uptime
from bulletproof.effects.health_record import read_record
from bulletproof.operations.status import stops

_DAY = 86400
_WINDOWS = {"24 hours": _DAY, "7 days": 7 * _DAY, "30 days": 30 * _DAY, "90 days": 90 * _DAY}


@click.command("uptime")
@host_options
@json_option
@click.pass_obj
def uptime_command(root: Path, *, verb_root: Path | None, app_name: str | None, as_json: bool) -> None:
    """How much of the last 24 hours, 7, 30 and 90 days the app answered, as the checks by the clock saw it.

    Each check speaks for the time until the next one is due. Time in which no check ran is unknown: it counts neither
    as up nor as down, and the share is of the time that is known. So it is with time in which a person had it stopped.
    """
    target = find_target(root, verb_root, app_name)
    with closing(target.glance()) as journal:
        halts = stops(journal.entries())
    record, now = read_record(target.layout.health), time.time()
    found = {
        name: uptime(record.runs, [(begin, end or now) for begin, end in halts], now=now, seconds=seconds)
        for name, seconds in _WINDOWS.items()
    }
    if as_json:
        click.echo(json.dumps({"app": target.app, "uptime": {name: _as_json(one) for name, one in found.items()}}))
        return
    click.echo("last      up        down          stopped       unknown")
    for name, one in found.items():
        columns = (one.down, one.stopped, one.unknown)
        click.echo(f"{name.ljust(8)}  {one.percent.ljust(8)}  {'  '.join(map(_column, columns))}".rstrip())
    if not record.runs:
        words = "no check has run by the clock yet; [check] schedule in bulletproof.toml says when one does"
        click.echo(f"{words}\n{click.style('hint:', fg='cyan')} {typed_there('bulletproof check')}", err=True)
    if record.damaged:
        click.echo(f"{record.damaged} lines of {target.layout.health} cannot be read; they count as unknown", err=True)


def _column(seconds: float) -> str:
    return (duration(seconds) if seconds else "-").ljust(12)


def _as_json(found: Uptime) -> dict[str, float | None]:
    return {**{f"{name}_seconds": round(value, 1) for name, value in asdict(found).items()}, "share": found.share}
