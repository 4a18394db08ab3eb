"""What is sent with a verb besides its words: a packed source, the values of settings, a person's yes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from bulletproof.cli.actions import is_meant
from bulletproof.cli.afar import Parcel, host_of, in_memory, words_of
from bulletproof.domain.keys import read_public
from bulletproof.effects.bundle import pack
from bulletproof.effects.dotenv import read_dotenv
from bulletproof.effects.project import find_project
from bulletproof.effects.scratch import scratch_folder
from bulletproof.effects.source import has_changes, resolve
from bulletproof.errors import UsageError
from bulletproof.operations.change_settings import read_assignments

_NO_APP = "-"
_SOURCE = ("revision", "worktree")
"""Parameters that have their meaning where the source is, and not on the host."""


@contextmanager
def packed_source(context: click.Context) -> Iterator[Parcel]:
    """The source that is meant, as the revision has it and without its history; and `.env`, for a first deployment."""
    project = find_project(Path.cwd())
    chosen = context.params
    if chosen["app_name"] not in {None, project.config.name}:
        raise click.UsageError(f"this folder's app is {project.config.name}, not {chosen['app_name']}")
    source = resolve(project.folder, chosen["revision"], worktree=chosen["worktree"])
    if source.is_commit and chosen["revision"] is None and has_changes(project.folder):
        click.secho("note: uncommitted changes are not deployed (--worktree would take them)", dim=True, err=True)
    dotenv = project.folder / ".env"
    settings = read_dotenv(dotenv) if dotenv.exists() else {}
    with scratch_folder(f"bulletproof-bundle-{project.config.name}-") as scratch:
        bundle = pack(source, project.config, settings, scratch, outside=(context.find_object(Path) or scratch,))
        with bundle.file.open("rb") as given:
            words = (*words_of(context, without=_SOURCE), *_consent(context), "--bundle", bundle.digest)
            yield Parcel(words=words, given=given)


def _consent(context: click.Context) -> tuple[str, ...]:
    """What naming a revision says, where a person did."""
    chosen = context.params
    return ("--allow-older",) if is_meant(chosen["revision"]) and not chosen["may_be_older"] else ()


@contextmanager
def values_by_stdin(context: click.Context) -> Iterator[Parcel]:
    """Settings to set, whose values stand in no process list, here or there."""
    values = read_assignments(context.params["assignments"], sys.stdin)
    with in_memory(json.dumps(values).encode()) as given:
        yield Parcel(words=(*words_of(context, without=("assignments",)), "--from-stdin"), given=given)


@contextmanager
def nameless(context: click.Context) -> Iterator[Parcel]:
    """A verb that is about no app."""
    yield Parcel(words=words_of(context), app=_NO_APP)


@contextmanager
def public_key(context: click.Context) -> Iterator[Parcel]:
    """The public key that is in a file here, or is typed or piped in; never a private one."""
    words = words_of(context, without=("file",))
    if context.params["is_new"]:
        yield Parcel(words=words)
        return
    key = read_public(read_key_file(context.params["file"]))
    with in_memory(f"{key.kind} {key.blob}\n".encode()) as given:
        names = len(context.command_path.split()) - 1
        yield Parcel(words=(*words[:names], "--key", "-", *words[names:]), given=given)


def read_key_file(file: str) -> str:
    """What is in the file of a key, `-` for standard input. Raises UsageError `key-not-readable`."""
    try:
        return sys.stdin.read() if file == "-" else Path(file).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("key-not-readable", f"{file} cannot be read: {error}") from error


@contextmanager
def in_terminal(context: click.Context) -> Iterator[Parcel]:
    """A command that talks with the person, or reads what is piped into it."""
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    yield Parcel(words=words_of(context), given=None if is_terminal else sys.stdin.buffer, in_terminal=is_terminal)


@contextmanager
def confirmed(context: click.Context) -> Iterator[Parcel]:
    """What a person has confirmed here, so that nobody is asked there."""
    if not context.params["is_confirmed"]:
        host = host_of(context)
        app = context.params["app_name"] or find_project(Path.cwd()).config.name
        confirm(app, f"from {host.address.called if host else 'this machine'}")
    yield Parcel(words=(*words_of(context, without=("is_confirmed",)), "--yes"))


def confirm(app: str, whence: str, data: str = "") -> None:
    """Let a person type the app's name. Raises UsageError when nobody is there, or something else was typed."""
    if not sys.stdin.isatty():
        raise click.UsageError("without a terminal, destroy wants --yes")
    click.echo(f"This stops {app} and removes its releases, settings and logs {whence}.", err=True)
    click.echo(f"Its data goes to {data}." if data else "Its data is set aside there.", err=True)
    if click.prompt(f"Type {app} to go on", default="", show_default=False, err=True) != app:
        raise click.UsageError("not confirmed; nothing was changed")
