"""`bulletproof destroy`: remove the app from this host, setting its data aside."""

from __future__ import annotations

from pathlib import Path

import click

from bulletproof.cli.deployments import carry_out
from bulletproof.cli.parcels import confirm, confirmed
from bulletproof.cli.target import find_target, json_option, sent_with, wait_option
from bulletproof.operations.destroy import destroy


@click.command("destroy")
@click.option("--yes", "is_confirmed", is_flag=True, help="Do not ask.")
@sent_with(confirmed)
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
        confirm(target.app, f"from {target.root}", str(target.layout.set_aside))
    carry_out(target, "destroy", destroy, as_json=as_json, wait_seconds=wait_seconds)
