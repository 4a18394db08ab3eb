"""`bulletproof rollback`: make an earlier release live again."""

from __future__ import annotations

from pathlib import Path

import click

from bulletproof.cli.deployments import carry_out
from bulletproof.cli.target import detach_option, find_target, host_options, json_option, loss_option, wait_option
from bulletproof.domain.deployment import Kind
from bulletproof.operations.activate import Result, Session, activate, recover, rollback_target
from bulletproof.operations.attempt import Order


@click.command("rollback")
@click.argument("release", required=False)
@loss_option
@host_options
@detach_option
@wait_option
@json_option
@click.pass_obj
def rollback_command(
    root: Path,
    *,
    release: str | None,
    may_lose_data: bool,
    verb_root: Path | None,
    app_name: str | None,
    wait_seconds: float,
    as_json: bool,
) -> None:
    """Make RELEASE (its id, number or short revision; the one before the live one when missing) live again.

    It is the same way as a deployment, with today's data and settings. No data goes back in time: when the older code
    cannot work with today's data, its migrations are taken back, as far as that was written and passes the rehearsal.
    """
    target = find_target(root, verb_root, app_name)

    def act(session: Session) -> Result:
        recover(session)  # what a crash left may decide what is live
        wished = rollback_target(session.journal, release or "")
        return activate(session, Order(kind=Kind.ROLLBACK, release=wished, may_lose_data=may_lose_data))

    carry_out(target, "rollback", act, as_json=as_json, wait_seconds=wait_seconds)
