"""`bulletproof setup`: bring this Bulletproof to a host, and make a server of a machine that root can reach."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bulletproof.cli.afar import host_of, remember_host
from bulletproof.cli.client import our_client
from bulletproof.cli.target import to_option
from bulletproof.domain.errand import ENGINE
from bulletproof.effects.here import HereHost
from bulletproof.effects.interrupts import Interrupts
from bulletproof.effects.project import find_project
from bulletproof.effects.ssh import SshHost
from bulletproof.errors import UsageError
from bulletproof.operations.engines import Change, Seen, engine_for, look, ship
from bulletproof.operations.server import Lack, changes

_USER = "www-data"
_HELP = """\
Bring this very Bulletproof with all that it needs to a host of yours, over SSH. The host needs a python3, no network.

\b
  bulletproof setup root@example.org
  bulletproof deploy --to root@example.org

As root of a machine that systemd runs it is made a server: the app runs as a user of its own, kept from all that is not
its own, comes up at boot, and its logs are rotated. As any other user the app lives in that user's folder.

It says what it will change, and changes nothing that is right. The new engine is there, and was tried, before it takes
the place of the old one, in one instant, and never in the middle of a deployment.
"""


@click.command("setup", help=_HELP)
@click.argument("wished_host", metavar="[USER@HOST]", required=False)
@click.option("--dry-run", "is_dry", is_flag=True, help="Only say what it would change.")
@click.option("--local", "is_local", is_flag=True, help="Make a server of this machine, as its root.")
@click.option("--without-engine", "has_engine", is_flag=True, hidden=True)
@click.option(
    "--user",
    metavar="NAME",
    help=f"As whom the app is to run on a server.  [default: `user` under [app] of the project, or {_USER}]",
)
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
def setup_command(
    context: click.Context,
    *,
    wished_host: str | None,
    is_dry: bool,
    is_local: bool,
    has_engine: bool,
    user: str | None,
    verb_root: Path | None,
    patience: float,
) -> None:
    """Look, say, change."""
    if wished_host is not None:
        remember_host(context, context.command.params[0], wished_host)
    host = host_of(context)
    if is_local == (host is not None) or (our_client() is not None and not has_engine):
        raise click.UsageError("setup wants a host: --to [USER@]HOST[:PORT], or --local for this machine")
    user, root = user or _user_of_the_project(), str(verb_root or "")
    if host is None:
        lacking = changes(user)  # refuses a machine that can be none, before anything is brought
        if not has_engine:
            _bring_engine(HereHost(), look(HereHost(), root), root, patience, is_dry=is_dry)
        _make_server(lacking, is_dry=is_dry)
        return
    host.connect()
    seen = look(host, root)
    _bring_engine(host, seen, root, patience, is_dry=is_dry)
    if seen.is_server:
        _let_engine_make_server(host, seen, user, is_dry=is_dry)
    click.echo(f"{click.style('next:', fg='cyan')} bulletproof deploy --to {host.address.called}", err=True)


def _bring_engine(host: SshHost | HereHost, seen: Seen, root: str, patience: float, *, is_dry: bool) -> None:
    called = host.address.called
    with engine_for(seen, called) as engine:
        change = Change(seen=seen, engine=engine.name)
        if not change.lines:
            click.echo(f"nothing to change: {called} has Bulletproof {engine.name}", err=True)
            return
        click.echo(f"{called}:", err=True)
        _say(change.lines, is_dry=is_dry)
        if is_dry:
            return
        sys.stderr.flush()
        for old in ship(host, engine, change, root, patience):
            click.echo(f"  removed {old}, which nothing used any more", err=True)
    click.secho(f"{called} has Bulletproof {engine.name}", fg="green", err=True)


def _let_engine_make_server(host: SshHost, seen: Seen, user: str, *, is_dry: bool) -> None:
    """Have the rest done by the engine that is there now, whose own business it is."""
    if is_dry and seen.current is None:
        click.echo("  would then make what a server needs: users, folders, log rotation", err=True)
        return
    words = ("setup", "--local", "--without-engine", "--user", user, *(("--dry-run",) if is_dry else ()))
    with Interrupts():
        status = host.run((ENGINE, *words))
    if status != 0:
        sys.exit(status)


def _make_server(lacking: tuple[Lack, ...], *, is_dry: bool) -> None:
    for lack in lacking:
        _say((lack.words,), is_dry=is_dry)
        if not is_dry:
            sys.stderr.flush()
            lack.make()
    if not lacking:
        click.echo("nothing to change: this machine is a server", err=True)


def _say(lines: tuple[str, ...], *, is_dry: bool) -> None:
    for line in lines:
        click.echo(f"  {'would ' if is_dry else ''}{line}", err=True)


def _user_of_the_project() -> str:
    try:
        return find_project(Path.cwd()).config.app.user
    except UsageError as error:
        if error.reference == "config-missing":
            return _USER
        raise
