"""What the verbs that change what is live have in common: a session, an order, a result on the screen, an exit code."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click
import msgspec
from msgspec.structs import replace

from bulletproof.cli.actions import is_meant
from bulletproof.cli.recording import Recording
from bulletproof.cli.render import choose_renderer, exit_code_of
from bulletproof.cli.target import Target, find_target, open_session
from bulletproof.domain.config import AppConfig
from bulletproof.domain.deployment import Kind, Live
from bulletproof.domain.source import Source
from bulletproof.effects.bundle import unpack
from bulletproof.effects.dotenv import read_dotenv
from bulletproof.effects.interrupts import Interrupted
from bulletproof.effects.project import find_project
from bulletproof.effects.scratch import scratch_folder
from bulletproof.effects.source import has_changes, resolve
from bulletproof.effects.unit_jobs import start_soon
from bulletproof.engine.journal import Journal
from bulletproof.errors import BulletproofError, UsageError
from bulletproof.operations.activate import Result, Session, serving, words_of
from bulletproof.operations.attempt import Order
from bulletproof.wiring import connect, is_server, known_config

F = TypeVar("F", bound=Callable[..., object])


def source_options(function: F) -> F:
    """Which source is meant: a revision of the repository, or the files as they are."""
    function = click.option(
        "--worktree", is_flag=True, help="Take the files as they lie here, uncommitted changes included."
    )(function)
    function = click.option("--bundle", metavar="DIGEST", hidden=True)(function)
    return click.argument("revision", required=False)(function)


def older_option(function: F) -> F:
    """Leave to go backwards."""
    return click.option(
        "--allow-older",
        "may_be_older",
        is_flag=True,
        help="Take a commit that what is live came after. A person who names REVISION means it; a CI job must say so.",
    )(function)


def origin_options(function: F) -> F:
    """Which data a first deployment begins with."""
    function = click.option(
        "--backup",
        metavar="NAME",
        help="In a first deployment: begin with the data of that backup (`bulletproof backup fetch` brings one).",
    )(function)
    function = click.option(
        "--new-database",
        "has_new_database",
        is_flag=True,
        help="In a first deployment: begin without data, whatever databases lie here.",
    )(function)
    return click.option(
        "--database",
        type=click.Path(path_type=Path),
        help="In a first deployment: copy this SQLite file, with --to of the host, and not the one that the app opens"
        " here.",
    )(function)


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asked to be deployed."""

    revision: str | None
    bundle: str | None
    """The digest of the bundle that comes by standard input, instead of a source that lies here."""
    worktree: bool
    may_lose_data: bool
    database: Path | None
    has_new_database: bool
    may_be_older: bool = False
    backup: str = ""


@contextmanager
def ordered(root: Path, verb_root: Path | None, app_name: str | None, wish: Wish) -> Iterator[tuple[Target, Order]]:
    """The app, and the order to deploy what is meant of it: from the folder that we stand in, or from a bundle."""
    if bool(wish.database) + wish.has_new_database + bool(wish.backup) > 1:
        raise click.UsageError("--database, --new-database and --backup exclude each other")
    if wish.database and not wish.database.is_file():
        raise UsageError("database-not-found", f"there is no file {wish.database.absolute()}", hint="ls -l")
    if wish.bundle is None:
        yield _from_here(root, verb_root, app_name, wish)
        return
    named = find_target(root, verb_root, app_name).app if app_name else "app"
    with scratch_folder(f"bulletproof-bundle-{named}-") as scratch:
        unpacked = unpack(sys.stdin.buffer, wish.bundle, scratch)
        config = unpacked.config
        if app_name and named != config.name:
            raise click.UsageError(f"the bundle's app is {config.name}, not {app_name}")
        target = Target(root=(verb_root or root).absolute(), app=config.name, config=config)
        yield target, _order(wish, unpacked.source, config, unpacked.settings)


def _from_here(root: Path, verb_root: Path | None, app_name: str | None, wish: Wish) -> tuple[Target, Order]:
    project = find_project(Path.cwd())
    target = find_target(root, verb_root, None)
    if app_name and app_name != target.app:
        raise click.UsageError(f"this folder's app is {target.app}, not {app_name}")
    source = resolve(project.folder, wish.revision, worktree=wish.worktree)
    if source.is_commit and wish.revision is None and has_changes(project.folder):
        click.secho("note: uncommitted changes are not deployed (--worktree would take them)", dim=True, err=True)
    dotenv = project.folder / ".env"
    settings = read_dotenv(dotenv) if dotenv.exists() else {}
    wish = replace(wish, may_be_older=wish.may_be_older or is_meant(wish.revision))
    return target, _order(wish, source, project.config, settings)


def _order(wish: Wish, source: Source, config: AppConfig, first_settings: Mapping[str, str]) -> Order:
    return Order(
        kind=Kind.DEPLOY,
        source=source,
        config=config,
        first_settings=first_settings,
        may_lose_data=wish.may_lose_data,
        may_be_older=wish.may_be_older,
        database=wish.database.absolute() if wish.database else None,
        has_new_database=wish.has_new_database,
        backup=wish.backup,
    )


def carry_out(
    target: Target, verb: str, act: Callable[[Session], Result], *, as_json: bool = False, wait_seconds: float = 0.0
) -> None:
    """Run `act` in a session, show it, and end the process with the exit code that its outcome means."""
    renderer = Recording(choose_renderer(target.app, as_json=as_json), target.layout)
    try:
        with open_session(target, verb, renderer, wait_seconds=wait_seconds, on_full_disk=verb == "stop") as session:
            result = act(session)
            address = session.host.proxy.public().address if result.serving else ""
    except (BulletproofError, OSError, Interrupted) as cause:
        error = words_of(cause)
        _tell(functools.partial(renderer.failed, error, still_serving(target)))
        sys.exit(error.exit_code)
    if result.serving and is_server(target.root):
        start_soon(f"{target.app}.service")  # people and the next boot find it there
    _tell(functools.partial(renderer.ended, result, address))
    sys.exit(exit_code_of(result))


def _tell(show: Callable[[], None]) -> None:
    """Tell how it ended; where that cannot be written any more, the exit code says it."""
    try:
        show()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())  # what waits in it would be tried again at the exit, and change the code


def still_serving(target: Target) -> Live | None:
    """What serves; None when that cannot be found out either, since another error is being told already."""
    try:
        journal = Journal.read(target.layout.journal)
        if journal is None:
            return None
        return serving(
            connect(target.root, target.app, known_config(target.layout, journal.lived(), target.config)), journal
        )
    except (BulletproofError, OSError):
        return None
