"""`bulletproof destroy`: remove the app from this host, setting its data aside."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bulletproof.cli.deployments import carry_out
from bulletproof.cli.target import find_target, host_options, json_option, wait_option
from bulletproof.operations.destroy import destroy


@click.command("destroy")
@click.option("--yes", "is_confirmed", is_flag=True, help="Do not ask.")
@host_options
@wait_option
@json_option
@click.pass_obj
def destroy_command(
    root: Path,
    *,
    is_confirmed: bool,
    verb_root: Path | None,
    app_name: str | None,
    wait_seconds: float,
    as_json: bool,
) -> None:
    """Stop the app and remove its releases, settings and logs. Its data is set aside, never deleted."""
    target = find_target(root, verb_root, app_name)
    if not is_confirmed:
        if not sys.stdin.isatty():
            raise click.UsageError("without a terminal, destroy wants --yes")
        click.echo(f"This stops {target.app} and removes its releases, settings and logs from {target.root}.", err=True)
        click.echo(f"Its data goes to {target.layout.set_aside}.", err=True)
        typed = click.prompt(f"Type {target.app} to go on", default="", show_default=False, err=True)
        if typed != target.app:
            raise click.UsageError("not confirmed; nothing was changed")
    carry_out(target, "destroy", destroy, as_json=as_json, wait_seconds=wait_seconds)
