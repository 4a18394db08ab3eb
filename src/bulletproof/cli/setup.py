"""`bulletproof setup`: bring this Bulletproof to a host."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bulletproof.cli.afar import host_of
from bulletproof.cli.client import our_client
from bulletproof.cli.target import to_option
from bulletproof.operations.engines import Change, engine_for, look, ship

_HELP = """\
Bring this very Bulletproof with all that it needs to a host of yours, over SSH. The host needs a python3, no network.

\b
  bulletproof setup --to deploy@example.org
  bulletproof deploy --to deploy@example.org

It says what it will change, and changes nothing that is right. The new engine is there, and was tried, before it takes
the place of the old one, in one instant, and never in the middle of a deployment.
"""


@click.command("setup", help=_HELP)
@click.option("--dry-run", "is_dry", is_flag=True, help="Only say what it would change.")
@click.option(
    "--root",
    "verb_root",
    type=click.Path(path_type=Path, file_okay=False),
    help="The root on the host whose deployments it must not disturb.  [default: the user's data directory]",
)
@click.option(
    "--wait",
    "patience",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Wait so long for a deployment to end, instead of leaving the old engine.",
)
@to_option
@click.pass_context
def setup_command(context: click.Context, *, is_dry: bool, verb_root: Path | None, patience: float) -> None:
    """Look, say, change."""
    host = host_of(context)
    if host is None or our_client() is not None:
        raise click.UsageError("setup wants a host: --to [USER@]HOST[:PORT]")
    root, called = str(verb_root or ""), host.address.called
    host.connect()
    seen = look(host, root)
    with engine_for(seen, called) as engine:
        change = Change(seen=seen, engine=engine.name)
        if not change.lines:
            click.echo(f"nothing to change: {called} has Bulletproof {engine.name}", err=True)
            return
        click.echo(f"{called}:", err=True)
        for line in change.lines:
            click.echo(f"  {'would ' if is_dry else ''}{line}", err=True)
        if is_dry:
            return
        sys.stderr.flush()
        for old in ship(host, engine, change, root, patience):
            click.echo(f"  removed {old}, which nothing used any more", err=True)
    click.secho(f"{called} has Bulletproof {engine.name}", fg="green", err=True)
    click.echo(f"{click.style('next:', fg='cyan')} bulletproof deploy --to {called}", err=True)
