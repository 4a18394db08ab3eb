"""`bulletproof logs`: what the app prints."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click

from bulletproof.cli.target import Target, find_target, host_options
from bulletproof.effects.logs import follow, tail
from bulletproof.engine.journal import Journal
from bulletproof.errors import UsageError

_POLL_SECONDS = 0.2


@click.command("logs")
@click.argument("release", required=False)
@click.option("-f", "--follow", "is_followed", is_flag=True, help="Go on with each new line, across cutovers.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=50, show_default=True, help="How many lines.")
@click.option("--access", "kind", flag_value="access", help="The requests instead, one JSON line each.")
@click.option("--deployments", "kind", flag_value="deployments", help="The deployments instead, one line each.")
@host_options
@click.pass_obj
def logs_command(
    root: Path,
    *,
    release: str | None,
    is_followed: bool,
    lines: int,
    kind: str | None,
    verb_root: Path | None,
    app_name: str | None,
) -> None:
    """What the app prints: the live instance, or the last deployment of RELEASE (its id or a deployment's number)."""
    target = find_target(root, verb_root, app_name)
    journal = target.journal()
    current = _current(target, journal, release, kind)
    if not is_followed:
        path = current()
        for line in tail(path, lines) if path else ():
            click.echo(line)
        return
    for line in follow(current, lambda: time.sleep(_POLL_SECONDS), lines=lines):
        click.echo(line)


def _current(target: Target, journal: Journal, release: str | None, kind: str | None) -> Callable[[], Path | None]:
    """Where the wanted lines are written now; asked again and again, since a cutover changes it."""
    layout = target.layout
    if kind == "access":
        return lambda: layout.access_log
    if kind == "deployments":
        return lambda: layout.deployment_log
    if release is not None:
        number = _number_of(journal, release)
        # What failed in its rehearsal never ran beside the live release and has no other log.
        return lambda: next(
            (log for log in (layout.web_log(number), layout.rehearsal_log(number)) if log.exists()), None
        )

    def live_log() -> Path | None:
        live = journal.live()
        return layout.web_log(live.number) if live else None

    return live_log


def _number_of(journal: Journal, wish: str) -> int:
    """The last deployment of a release. Raises UsageError for one that never was."""
    for entry in reversed(journal.entries()):
        if wish in {entry.deployment.release, str(entry.deployment.number)}:
            return entry.deployment.number
    raise UsageError("release-unknown", f"there was never a release {wish}", hint="bulletproof releases")
