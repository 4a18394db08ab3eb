"""Errors as a person reads them: what happened, what was seen, the next command."""

from __future__ import annotations

import click

from bulletproof.cli.actions import (
    SUMMARISED,
    block,
    code,
    command,
    harmless,
    is_read_in_actions,
    plain,
    say,
    summarise,
)
from bulletproof.cli.client import typed_there
from bulletproof.errors import BulletproofError, Unwatched


def tell_error(error: BulletproofError, *, as_json: bool, verb: str = "") -> None:
    """Tell an error that came before there was a deployment to tell it: in the form that was asked for.

    In GitHub Actions it is the summary of a `verb` that has one.
    """
    if as_json:
        from bulletproof.cli.render import JsonEvents  # noqa: PLC0415  heavy

        JsonEvents("").failed(error, None)
        return
    show_error(error)
    if verb in SUMMARISED:
        mark = "⚠️" if isinstance(error, Unwatched) else "❌"
        summarise("\n\n".join((f"### {mark} {verb}: {plain(error.reference)}", *seen(error))))


def seen(error: BulletproofError) -> list[str]:
    """An error as paragraphs of a summary: what happened, what was seen, what to type."""
    parts = [f"**{plain(error.reference)}**: {plain(error.message)}"]
    parts += [block(error.context)] if error.context else []
    return [*parts, *([f"Next: {code(typed_there(error.hint))}"] if error.hint else [])]


def show_error(error: BulletproofError, *, after: str = "") -> None:
    """Print an error on stderr; `after` says what serves now. In GitHub Actions it is an annotation besides."""
    click.secho(f"error: {error.reference}", fg="red", bold=True, err=True)
    say(f"  {error.message}")
    for line in error.context:
        click.secho(f"  | {harmless(line)}", dim=True, err=True)
    if after:
        say(f"  {after}")
    if is_read_in_actions():
        words = "\n".join(filter(None, (error.message, after)))
        click.echo(command("error", words, title=error.reference), err=True)
    if error.hint:
        click.echo(f"{click.style('hint:', fg='cyan')} {typed_there(error.hint)}", err=True)
