"""Errors as a person reads them: what happened, what was seen, the next command."""

from __future__ import annotations

import click

from bulletproof.cli.client import typed_there
from bulletproof.errors import BulletproofError


def tell_error(error: BulletproofError, *, as_json: bool) -> None:
    """Tell an error that came before there was a deployment to tell it: in the form that was asked for."""
    if as_json:
        from bulletproof.cli.render import JsonEvents  # noqa: PLC0415  heavy

        JsonEvents("").failed(error, None)
    else:
        show_error(error)


def show_error(error: BulletproofError, *, after: str = "") -> None:
    """Print an error on stderr; `after` says what serves now."""
    click.secho(f"error: {error.reference}", fg="red", bold=True, err=True)
    click.echo(f"  {error.message}", err=True)
    for line in error.context:
        click.secho(f"  | {line}", dim=True, err=True)
    if after:
        click.echo(f"  {after}", err=True)
    if error.hint:
        click.echo(f"{click.style('hint:', fg='cyan')} {typed_there(error.hint)}", err=True)
