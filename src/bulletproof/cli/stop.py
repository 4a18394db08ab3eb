"""`bulletproof stop`: stop the app and keep it stopped."""

from __future__ import annotations

from pathlib import Path

import click

from bulletproof.cli.deployments import carry_out
from bulletproof.cli.target import find_target, host_options, json_option, wait_option
from bulletproof.cli.unit import stop_unit
from bulletproof.domain.deployment import Kind
from bulletproof.operations.activate import stop


@click.command("stop")
@click.option("--as-unit", is_flag=True, hidden=True)
@host_options
@wait_option
@json_option
@click.pass_obj
def stop_command(
    root: Path, *, as_unit: bool, verb_root: Path | None, app_name: str | None, wait_seconds: float, as_json: bool
) -> None:
    """Stop the app, its proxy and its supervisor. Requests in flight are finished; the data stays as it is."""
    target = find_target(root, verb_root, app_name)
    if as_unit:
        stop_unit(target)
        return
    carry_out(target, "stop", lambda session: stop(session, Kind.STOP), as_json=as_json, wait_seconds=wait_seconds)
