"""`bulletproof recover`: finish or undo what a killed deployment left."""

from __future__ import annotations

from pathlib import Path

import click

from bulletproof.cli.recording import Recording
from bulletproof.cli.render import choose_renderer
from bulletproof.cli.target import find_target, host_options, json_option, open_session, wait_option
from bulletproof.effects.unit_jobs import start_soon
from bulletproof.operations.activate import recover, serving
from bulletproof.wiring import is_server


@click.command("recover")
@host_options
@wait_option
@json_option
@click.pass_obj
def recover_command(
    root: Path, *, verb_root: Path | None, app_name: str | None, wait_seconds: float, as_json: bool
) -> None:
    """Finish or undo what a killed deployment left. On a whole host it does nothing.

    The supervisor does the same by itself, within seconds of the deployer's death.
    """
    target = find_target(root, verb_root, app_name)
    renderer = Recording(choose_renderer(target.app, as_json=as_json), target.layout)
    with open_session(target, "recover", renderer, wait_seconds=wait_seconds) as session:
        entry = recover(session)
        served = serving(session.host, session.journal)
    if served and is_server(target.root):
        start_soon(f"{target.app}.service")
    if entry is None:
        click.echo("nothing to recover: the host is whole", err=True)
    else:
        click.echo(f"deployment {entry.deployment.number} ({entry.deployment.release}): {entry.outcome}", err=True)
