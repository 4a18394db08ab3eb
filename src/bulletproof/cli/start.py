"""`bulletproof start`: let serve again what was live."""

from __future__ import annotations

from pathlib import Path

import click

from bulletproof.cli.deployments import carry_out
from bulletproof.cli.target import find_target, host_options, json_option, wait_option
from bulletproof.cli.unit import start_unit
from bulletproof.domain.deployment import Kind
from bulletproof.operations.activate import activate
from bulletproof.operations.attempt import Order


@click.command("start")
@click.option("--as-unit", is_flag=True, hidden=True)
@host_options
@wait_option
@json_option
@click.pass_obj
def start_command(
    root: Path, *, as_unit: bool, verb_root: Path | None, app_name: str | None, wait_seconds: float, as_json: bool
) -> None:
    """Let serve again what was live: after a stop or a reboot. What was rejected never serves."""
    target = find_target(root, verb_root, app_name)
    if as_unit:
        start_unit(target)
        return
    carry_out(
        target,
        "start",
        lambda session: activate(session, Order(kind=Kind.START)),
        as_json=as_json,
        wait_seconds=wait_seconds,
    )
