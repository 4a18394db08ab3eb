"""What is said here of a deployment whose host says nothing of it, or not any more."""

from __future__ import annotations

import click

from bulletproof.cli.actions import SUMMARISED, code, command, is_in_actions, plain, summarise
from bulletproof.errors import BulletproofError, Unwatched

_MAKES_LIVE = frozenset({"deploy", "rollback", "restart"})


def tell_stopped(called: str, verb: str) -> None:
    """Say that we were asked to end and that what was begun did not; in GitHub Actions in the job's summary as well."""
    see, undo = f"bulletproof attach --to {called}", f"bulletproof abort --to {called}"
    words = f"stopped watching; what was begun at {called} goes on{_until_then(verb)}"
    click.echo(f"\n{words}", err=True)
    click.echo(f"  to see it:   {see}", err=True)
    click.echo(f"  to undo it:  {undo}", err=True)
    if is_in_actions():
        click.echo(command("warning", f"{words}\n{see}", title="not watched any more"), err=True)
    if verb in SUMMARISED:
        title = f"### ⚠️ {verb}: not watched any more"
        summarise("\n\n".join((title, plain(words), f"To see it: {code(see)}", f"To undo it: {code(undo)}")))


def tell_silent(called: str, verb: str, status: int) -> None:
    """Say in GitHub Actions that a verb failed of which the host said no more than stands in the log."""
    words = f"{called} did not do it, with exit status {status}; why stands in the log of this step"
    click.echo(command("error", words, title=f"{verb} failed"), err=True)
    summarise(f"### ❌ {verb}: not done\n\n{plain(words)}")


def connection_lost(called: str, error: BulletproofError, verb: str) -> Unwatched:
    """The error for a connection that broke after a deployment was asked for."""
    words = f"{error.message}; what was begun there goes on{_until_then(verb)}"
    return Unwatched("connection-lost", words, hint=f"bulletproof attach --to {called}", context=error.context)


def _until_then(verb: str) -> str:
    if verb not in _MAKES_LIVE:
        return ""
    return ", and goes live or is undone by itself; until then what served before serves"
