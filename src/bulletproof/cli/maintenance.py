"""`bulletproof maintenance`: close the app to the public, and open it again."""

from __future__ import annotations

import json
from pathlib import Path

import click

from bulletproof.cli.target import Target, find_target, host_options, json_option
from bulletproof.domain.deployment import Live
from bulletproof.domain.maintenance import Maintenance
from bulletproof.operations.maintenance import close
from bulletproof.ports import Host
from bulletproof.wiring import connect, known_config


@click.group("maintenance")
def maintenance_command() -> None:
    """Close the app to the public, who get a page in words (503) instead, and open it again.

    It takes effect at once, without a dropped request, and lasts until you end it: through deployments, restarts and
    reboots. The app itself goes on running, and so do its workers and timers.
    """


@maintenance_command.command("on")
@click.option("--message", default="", metavar="TEXT", help="What people read, instead of the usual words.")
@click.option("--allow", "allowed", multiple=True, metavar="ADDRESS", help="An address that gets the app; repeatable.")
@host_options
@json_option
@click.pass_obj
def on_command(
    root: Path,
    *,
    message: str,
    allowed: tuple[str, ...],
    verb_root: Path | None,
    app_name: str | None,
    as_json: bool,
) -> None:
    """Close it. Once more with other words, they take the place of the first."""
    target = find_target(root, verb_root, app_name)
    journal = target.journal()
    live, lived = journal.live(), journal.lived()
    journal.close()
    wish = close(_connect(target, lived), live, message, allowed)
    _tell(target, wish, as_json=as_json)


@maintenance_command.command("off")
@host_options
@json_option
@click.pass_obj
def off_command(root: Path, *, verb_root: Path | None, app_name: str | None, as_json: bool) -> None:
    """Open it."""
    target = find_target(root, verb_root, app_name)
    journal = target.journal()
    lived = journal.lived()
    journal.close()
    _connect(target, lived).proxy.maintain(None)
    _tell(target, None, as_json=as_json)


def _connect(target: Target, lived: tuple[Live, ...]) -> Host:
    return connect(target.root, target.app, known_config(target.layout, lived, target.config))


def _tell(target: Target, wish: Maintenance | None, *, as_json: bool) -> None:
    if as_json:
        told = {"message": wish.words, "allowed": wish.allowed, "since": wish.since} if wish else None
        click.echo(json.dumps({"app": target.app, "maintenance": told}))
    elif wish is None:
        click.echo(f"{target.app} is open to the public")
    else:
        click.echo(f"{target.app} is closed to the public, who read: {wish.words}")
        if wish.allowed:
            click.echo(f"  only {', '.join(wish.allowed)} gets the app")
        click.echo("  to open it: bulletproof maintenance off")
