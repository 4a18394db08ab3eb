"""`bulletproof init`: look at an app and write its bulletproof.toml."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bulletproof.domain.entry import Candidate
    from bulletproof.operations.init import Initialised, Line

_NARROWEST, _WIDEST = 40, 110
_WIDEST_WHAT = 24
_HELP = """\
Look at the web app in FOLDER (this one when missing) and write its bulletproof.toml.

\b
  bulletproof init                       find everything out
  bulletproof init --entry main:admin    when several apps could be meant

The source is read and never run. Nothing but bulletproof.toml is written.
"""


@click.command("init", help=_HELP)
@click.argument(
    "folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path(),
)
@click.option("--name", metavar="NAME", help="The app's name.  [default: the folder's]")
@click.option("--entry", metavar="MODULE:APP", help="What the server loads.  [default: found in the source]")
@click.option("--force", "is_forced", is_flag=True, help="Write bulletproof.toml anew when there is one.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON on stdout.")
def init_command(*, folder: Path, name: str | None, entry: str | None, is_forced: bool, as_json: bool) -> None:
    """Look at the app, write the file, tell what was found."""
    from bulletproof.operations import init  # noqa: PLC0415  what it reads Python with is not for --help

    may_ask = sys.stdin.isatty() and sys.stderr.isatty() and not as_json
    done = init.initialise(
        folder.absolute(), name=name, entry=entry, is_forced=is_forced, choose=_ask if may_ask else None
    )
    if as_json:
        click.echo(json.dumps(init.as_json(done), ensure_ascii=False))
        return
    _show(done, tuple(init.describe(done.findings)), tuple(init.warnings(done.findings)))


def _ask(candidates: Sequence[Candidate]) -> Candidate:
    """Let the person at the terminal say which app is to be served."""
    click.echo(f"{len(candidates)} apps were found, and none is clearly the one to serve:\n", err=True)
    widest = max(len(one.entry) for one in candidates)
    for number, one in enumerate(candidates, start=1):
        click.echo(f"  {number}  {one.entry:{widest}}  {click.style(_plain(one.reason), dim=True)}", err=True)
    click.echo(err=True)
    which = click.IntRange(1, len(candidates))
    number = click.prompt("Which one? Its number", type=which, err=True)
    click.echo(err=True)
    return candidates[number - 1]


def _show(done: Initialised, lines: Sequence[Line], warnings: Sequence[str]) -> None:
    """Tell on stderr what was found and what follows; there is no data for stdout."""
    name = done.findings.framework.name
    kind = f"an {name}" if name == "ASGI" else f"a {name}"
    click.echo(f"{click.style(done.config.name, bold=True)}, {kind} app in {done.path.parent}\n", err=True)
    for text in _table(lines):
        click.echo(text, err=True)
    click.echo(err=True)
    for warning in warnings:
        for text in _wrapped(f"{click.style('warning:', fg='yellow')} ", 9, warning):
            click.echo(text, err=True)
    click.echo(f"{click.style('wrote', fg='green')} {done.path.name}", err=True)
    click.echo(f"{click.style('next:', fg='cyan')} bulletproof deploy", err=True)


def _table(lines: Sequence[Line]) -> Iterator[str]:
    """Three columns: the topic, what was found, and why or what follows, which is wrapped below itself."""
    topics = max(len(line.topic) for line in lines)
    whats = min(max(len(line.what) for line in lines), _WIDEST_WHAT)
    for line in lines:
        what = _plain(line.what).ljust(whats)
        first = f"  {click.style(line.topic.ljust(topics), dim=True)}  {what}  "
        yield from _wrapped(first, topics + len(what) + 6, line.why)


def _wrapped(first: str, width_of_first: int, text: str) -> Iterator[str]:
    room = max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns) - width_of_first)
    parts = textwrap.wrap(_plain(text), room, break_long_words=False, break_on_hyphens=False)
    yield first + parts[0]
    yield from (" " * width_of_first + part for part in parts[1:])


def _plain(text: str) -> str:
    """The text without what could steer a terminal: it may come from a stranger's repository."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)
