"""`bulletproof logs`: what the app prints."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from bulletproof.cli.target import Target, find_target, host_options
from bulletproof.domain.replica import REPLICA
from bulletproof.effects.logs import follow, tail
from bulletproof.effects.reader import is_gone
from bulletproof.engine.journal import Journal
from bulletproof.errors import UsageError
from bulletproof.wiring import config_of

_POLL_SECONDS = 0.2


@click.command("logs")
@click.argument("what", required=False)
@click.option("-f", "--follow", "is_followed", is_flag=True, help="Go on with each new line, across cutovers.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=50, show_default=True, help="How many lines.")
@click.option("--access", "kind", flag_value="access", help="The requests instead, one JSON line each.")
@click.option("--deployments", "kind", flag_value="deployments", help="The deployments instead, one line each.")
@host_options
@click.pass_obj
def logs_command(
    root: Path,
    *,
    what: str | None,
    is_followed: bool,
    lines: int,
    kind: str | None,
    verb_root: Path | None,
    app_name: str | None,
) -> None:
    """What the app prints: the live instance, a worker or timer of it, or the last deployment of a release.

    WHAT is the name of a worker or timer, the id of a release, the number of a deployment; or `health` for what the
    checks by the clock found, `backup` for what the backups by the clock said, `replica`.
    """
    target = find_target(root, verb_root, app_name)
    journal = target.journal()
    current = _current(target, journal, what, kind)
    if not is_followed:
        path = current()
        for line in tail(path, lines) if path else ():
            click.echo(line)
        return

    def pause() -> None:
        if is_gone(sys.stdout.fileno()):
            raise BrokenPipeError  # a silent app would never let us find out by writing
        time.sleep(_POLL_SECONDS)

    for line in follow(current, pause, lines=lines):
        click.echo(line)


def _current(target: Target, journal: Journal, what: str | None, kind: str | None) -> Callable[[], Path | None]:
    """Where the wanted lines are written now; asked again and again, since a cutover changes it."""
    layout = target.layout
    if kind == "access":
        return lambda: layout.access_log
    if kind == "deployments":
        return lambda: layout.deployment_log
    named = {"health": layout.health_log, "backup": layout.backup_log, REPLICA: layout.replica_log}
    own = named.get(what or "")
    if own is not None and own.exists() and what not in _known(target, journal):
        return lambda: own
    if what is not None and what[0].isalpha():
        _require_known(target, journal, what)
        return lambda: _background_log(target, journal, what)
    if what is not None:
        number = _number_of(journal, what)
        # What failed in its rehearsal never ran beside the live release and has no other log.
        return lambda: next(
            (log for log in (layout.web_log(number), layout.rehearsal_log(number)) if log.exists()), None
        )

    def live_log() -> Path | None:
        live = journal.live()
        return layout.web_log(live.number) if live else None

    return live_log


def _background_log(target: Target, journal: Journal, name: str) -> Path | None:
    """The log of a worker or timer of what is live."""
    live = journal.live()
    config = config_of(target.layout, live.release) if live else None
    if live is None or config is None:
        return None
    log = target.layout.timer_log if name in config.timers else target.layout.worker_log
    return log(live.number, name)


def _require_known(target: Target, journal: Journal, name: str) -> None:
    """Raise UsageError for the name of no worker and no timer of what is live."""
    known = _known(target, journal)
    if name not in known:
        words = f"the live release has no worker or timer {name}" + (f", only {', '.join(known)}" if known else "")
        raise UsageError("worker-unknown", words, hint="bulletproof status")


def _known(target: Target, journal: Journal) -> tuple[str, ...]:
    """The workers and timers of what is live."""
    live = journal.live()
    config = config_of(target.layout, live.release) if live else None
    return (*config.workers, *config.timers) if config else ()


def _number_of(journal: Journal, wish: str) -> int:
    """The last deployment of a release. Raises UsageError for one that never was."""
    for entry in reversed(journal.entries()):
        if wish in {entry.deployment.release, str(entry.deployment.number)}:
            return entry.deployment.number
    raise UsageError("release-unknown", f"there was never a release {wish}", hint="bulletproof releases")
