"""`bulletproof releases`: every deployment and how it ended."""

from __future__ import annotations

import json
from pathlib import Path

import click

from bulletproof.cli.target import find_target, host_options, json_option
from bulletproof.cli.wording import moment
from bulletproof.domain.deployment import Live
from bulletproof.domain.origin import Origin
from bulletproof.engine.journal import Entry

_SHOWN = 20


@click.command("releases")
@click.option("--all", "show_all", is_flag=True, help=f"Show all, not only the last {_SHOWN}.")
@host_options
@json_option
@click.pass_obj
def releases_command(
    root: Path, *, show_all: bool, verb_root: Path | None, app_name: str | None, as_json: bool
) -> None:
    """Every deployment, newest first, and how it ended; the live one is marked."""
    target = find_target(root, verb_root, app_name)
    journal = target.glance()
    entries, live = journal.entries()[::-1], journal.live()
    journal.close()
    shown = entries if show_all or as_json else entries[:_SHOWN]
    if as_json:
        click.echo(json.dumps([_as_json(entry, live) for entry in shown]))
        return
    width = max([len(entry.deployment.release) for entry in shown], default=0)
    for entry in shown:
        click.echo(_line(entry, live, width))
    if len(shown) < len(entries):
        click.echo(f"{len(entries) - len(shown)} older ones: bulletproof releases --all", err=True)


def _line(entry: Entry, live: Live | None, width: int) -> str:
    deployment = entry.deployment
    mark = "●" if live and live.number == deployment.number else " "
    outcome = str(entry.outcome or "not ended")
    colour = {"deployed": "green", "undone": "yellow", "refused": "yellow"}.get(outcome, "red")
    why = entry.message if outcome != "deployed" else entry.title
    who = f"  by {entry.origin.short}" if entry.origin and (entry.origin.key or entry.origin.address) else ""
    return (
        f"{mark} {deployment.number:>4}  {deployment.release.ljust(width)}  {moment(deployment.started_at)}"
        f"  {deployment.kind.ljust(8)}  {click.style(outcome.ljust(9), fg=colour)} {why}"
        f"{click.style(who, dim=True)}"
    ).rstrip()


def _as_json(entry: Entry, live: Live | None) -> dict[str, object]:
    deployment = entry.deployment
    return {
        "number": deployment.number,
        "release": deployment.release,
        "revision": deployment.revision,
        "title": entry.title,
        "kind": deployment.kind,
        "outcome": entry.outcome,
        "message": entry.message,
        "started_at": deployment.started_at,
        "ended_at": entry.ended_at or None,
        "started_by": entry.started_by,
        "known": _known(entry.origin),
        "claimed": {"by": entry.origin.claimed_by or None, "run": entry.origin.claimed_run or None}
        if entry.origin
        else None,
        "live": bool(live and live.number == deployment.number),
    }


def _known(origin: Origin | None) -> dict[str, str | None] | None:
    """What this host itself knows of whom a deployment comes from; None in an older entry."""
    if origin is None:
        return None
    return {"account": origin.account, "key": origin.key or None, "address": origin.address or None}
