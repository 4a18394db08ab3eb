"""`bulletproof run`: a command as the live release would run it."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import closing
from pathlib import Path

import click

from bulletproof.cli.parcels import in_terminal
from bulletproof.cli.target import find_target, sent_with
from bulletproof.domain.settings import for_app
from bulletproof.domain.web import database_setting, surroundings
from bulletproof.engine.journal import Journal
from bulletproof.errors import Refused, UsageError
from bulletproof.operations.migrate import migrates_now
from bulletproof.wiring import accounts_of, config_of, connect_settings

_MIGRATION_SECONDS = 900.0
"""Longer than any hold and its way back."""
_POLL_SECONDS = 0.1
_HELP = """\
Run COMMAND in the live release: its folder, its packages, its settings, its data.

\b
  bulletproof run -- flask shell
  bulletproof run -- python -c 'import sys; print(sys.prefix)'
"""


@click.command("run", help=_HELP, context_settings={"ignore_unknown_options": True})
@sent_with(in_terminal)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def run_command(root: Path, *, command: tuple[str, ...], verb_root: Path | None, app_name: str | None) -> None:
    """Become the command."""
    target = find_target(root, verb_root, app_name)
    with closing(target.journal()) as journal:
        _wait_out_a_migration(journal)
        live = journal.live()
    config = config_of(target.layout, live.release) if live else None
    if live is None or config is None:
        raise UsageError("nothing-deployed", f"no release of {target.app} is live", hint="bulletproof deploy")
    layout = target.layout
    settings = connect_settings(layout).frozen(live.number)
    environment = {
        **for_app(settings),
        **database_setting(settings, layout, config),
        **surroundings(layout.source(live.release), layout.venv(live.release), layout.data),
        "BULLETPROOF_RELEASE": live.release,
        "TERM": os.environ.get("TERM", "dumb"),
    }
    os.chdir(layout.source(live.release))
    accounts = accounts_of(layout.root, config)
    if shutil.which(command[0], path=environment["PATH"]) is None:
        raise UsageError("command-not-found", f"{command[0]} is in no folder of the release's PATH")
    argv = accounts.app.argv(command) if accounts else command
    os.execvpe(argv[0], list(argv), environment)  # noqa: S606  the person's own command, without a shell


def _wait_out_a_migration(journal: Journal) -> None:
    """Return once no deployment migrates the data: a command's writes in the middle could not be kept."""
    deadline = time.monotonic() + _MIGRATION_SECONDS
    number = migrates_now(journal)
    if number is not None:
        click.secho(f"deployment {number} migrates the data; waiting for its end", dim=True, err=True)
    while migrates_now(journal) is not None:
        if time.monotonic() > deadline:
            raise Refused("migration-lasts", "a deployment still migrates the data", hint="bulletproof status")
        time.sleep(_POLL_SECONDS)
