"""What the verbs that change what is live have in common: a session, an order, a result on the screen, an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from bulletproof.cli.render import choose_renderer
from bulletproof.cli.target import Target, find_target, open_session
from bulletproof.domain.config import AppConfig
from bulletproof.domain.deployment import Kind, Live, Outcome
from bulletproof.effects.dotenv import read_dotenv
from bulletproof.effects.interrupts import Interrupted
from bulletproof.effects.project import find_project
from bulletproof.effects.source import has_changes, resolve
from bulletproof.engine.journal import Journal
from bulletproof.errors import BulletproofError, NeedsPerson, Refused, Undone, UsageError
from bulletproof.operations.activate import Result, Session, serving, words_of
from bulletproof.operations.attempt import Order
from bulletproof.wiring import connect

F = TypeVar("F", bound=Callable[..., object])

EXIT_CODES = {
    Outcome.DEPLOYED: 0,
    Outcome.REFUSED: Refused.exit_code,
    Outcome.UNDONE: Undone.exit_code,
    Outcome.FAILED: NeedsPerson.exit_code,
}


def source_options(function: F) -> F:
    """Which source is meant: a revision of the repository, or the files as they are."""
    function = click.option(
        "--worktree", is_flag=True, help="Take the files as they lie here, uncommitted changes included."
    )(function)
    return click.argument("revision", required=False)(function)


def origin_options(function: F) -> F:
    """Which data a first deployment begins with."""
    function = click.option(
        "--new-database",
        "has_new_database",
        is_flag=True,
        help="In a first deployment: begin without data, whatever databases lie here.",
    )(function)
    return click.option(
        "--database",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="In a first deployment: copy this SQLite file, and not the one that the app opens here.",
    )(function)


def find_order(
    root: Path,
    verb_root: Path | None,
    app_name: str | None,
    revision: str | None,
    *,
    worktree: bool,
    may_lose_data: bool,
    database: Path | None = None,
    has_new_database: bool = False,
) -> tuple[Target, Order]:
    """The app of the folder that we stand in, and the order to deploy what is meant of it."""
    if database and has_new_database:
        raise click.UsageError("--database and --new-database exclude each other")
    project = find_project(Path.cwd())
    target = find_target(root, verb_root, None)
    if app_name and app_name != target.app:
        raise click.UsageError(f"this folder's app is {target.app}, not {app_name}")
    source = resolve(project.folder, revision, worktree=worktree)
    if source.is_commit and revision is None and has_changes(project.folder):
        click.secho("note: uncommitted changes are not deployed (--worktree would take them)", dim=True, err=True)
    dotenv = project.folder / ".env"
    return target, Order(
        kind=Kind.DEPLOY,
        source=source,
        config=project.config,
        first_settings=read_dotenv(dotenv) if dotenv.exists() else {},
        may_lose_data=may_lose_data,
        database=database.absolute() if database else None,
        has_new_database=has_new_database,
    )


def carry_out(
    target: Target, verb: str, act: Callable[[Session], Result], *, as_json: bool = False, wait_seconds: float = 0.0
) -> None:
    """Run `act` in a session, show it, and end the process with the exit code that its outcome means."""
    renderer = choose_renderer(target.app, as_json=as_json)
    try:
        with open_session(target, verb, renderer, wait_seconds=wait_seconds) as session:
            result = act(session)
            address = f"http://127.0.0.1:{session.host.proxy.port()}" if result.serving else ""
    except (BulletproofError, OSError, Interrupted) as cause:
        error = words_of(cause)
        renderer.failed(error, still_serving(target))
        sys.exit(error.exit_code)
    renderer.ended(result, address)
    sys.exit(UsageError.exit_code if isinstance(result.cause, UsageError) else EXIT_CODES[result.outcome])


def still_serving(target: Target) -> Live | None:
    """What serves; None when that cannot be found out either, since another error is being told already."""
    try:
        journal = Journal.read(target.layout.journal)
        if journal is None:
            return None
        return serving(connect(target.root, target.app, target.config or AppConfig(name=target.app)), journal)
    except (BulletproofError, OSError):
        return None
