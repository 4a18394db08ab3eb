"""`bulletproof restart`: new processes for the same release."""

from __future__ import annotations

from pathlib import Path

import click

from bulletproof.cli.deployments import carry_out
from bulletproof.cli.target import detach_option, find_target, host_options, json_option, wait_option
from bulletproof.domain.deployment import Kind
from bulletproof.operations.activate import activate
from bulletproof.operations.attempt import Order


@click.command("restart")
@host_options
@detach_option
@wait_option
@json_option
@click.pass_obj
def restart_command(
    root: Path, *, verb_root: Path | None, app_name: str | None, wait_seconds: float, as_json: bool
) -> None:
    """Replace the running processes by new ones of the same release, without dropping a request."""
    target = find_target(root, verb_root, app_name)
    carry_out(
        target,
        "restart",
        lambda session: activate(session, Order(kind=Kind.RESTART)),
        as_json=as_json,
        wait_seconds=wait_seconds,
    )
