"""`bulletproof status`: what runs, since when, and where."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import click

from bulletproof.cli.actions import harmless, is_read_in_actions
from bulletproof.cli.client import typed_there
from bulletproof.cli.target import Target, find_target, host_options, json_option
from bulletproof.cli.wording import duration, size
from bulletproof.domain.backup import Backup, Damaged, Reason
from bulletproof.domain.process import Phase, ProcessState
from bulletproof.errors import NeedsPerson, RecoveryNeeded
from bulletproof.operations.status import Status, status
from bulletproof.operations.workers import is_in_trouble
from bulletproof.wiring import connect, connect_backups, known_config

_FOR_ITSELF = {Reason.ASKED, Reason.SCHEDULE}
"""Backups of migrations, restores and points in time tell nothing of how well the data are looked after."""


@click.command("status")
@host_options
@json_option
@click.pass_obj
def status_command(root: Path, *, verb_root: Path | None, app_name: str | None, as_json: bool) -> None:
    """What runs, since when, and where.

    Exit status: 0 when the app serves or was stopped by a person, 6 when a killed deployment waits to be recovered, 4
    when the app should serve and does not.
    """
    target = find_target(root, verb_root, app_name)
    found = read_status(target)
    backups = connect_backups(target.layout).all()
    text = "\n".join(_lines(found, backups))
    click.echo(json.dumps(_as_json(found)) if as_json else harmless(text) if is_read_in_actions() else text)
    sys.exit(_exit_code(found))


def _exit_code(found: Status) -> int:
    if found.unfinished is not None and not found.is_held:
        return RecoveryNeeded.exit_code
    return 0 if found.is_serving or not found.wants_running else NeedsPerson.exit_code


def read_status(target: Target) -> Status:
    """The app's status. Raises UsageError when it was never deployed here."""
    journal = target.glance()
    config = known_config(target.layout, journal.lived(), target.config)
    found = status(connect(target.root, target.app, config, is_looking=True), journal)
    journal.close()
    return found


def _lines(found: Status, backups: tuple[Backup | Damaged, ...]) -> list[str]:
    notes = (click.style(f"  public      {note}", fg="yellow") for note in found.notes)
    parts = (_headline(found), *_processes(found), *notes, *_deployments(found, backups), _advice(found))
    return [line for line in parts if line]


def _headline(found: Status) -> str:
    name = click.style(found.app, bold=True)
    if found.live is None:
        return f"{name} was never deployed well"
    if not found.wants_running:
        return f"{name} is stopped; {found.live.release} was live"
    if found.is_serving:
        return f"{name} serves {click.style(found.live.release, fg='green')} at {found.address}"
    return f"{name} {click.style('does not serve', fg='red')}; {found.live.release} should, at {found.address}"


def _processes(found: Status) -> list[str]:
    if not found.wants_running:
        return []
    if not found.is_supervised:
        return ["  supervisor  not running"]
    lines = []
    if found.family is not None:
        since = duration(time.time() - found.family.started_at)
        lines.append(
            f"  app         {found.family.count} processes (1 + {found.workers} workers),"
            f" {size(found.family.memory)}, for {since}{_crashes(found.web.restarts)}"
        )
    else:
        lines.append(f"  app         {found.web.phase}: {found.web.words}")
    for label, state in (("proxy", found.proxy), ("relay", found.relay)):
        lines.append(f"  {label.ljust(10)}  {state.phase}{_crashes(state.restarts)}")
    return [*lines, *(f"  {name.ljust(10)}  {_background(states)}" for name, states in found.background.items())]


def _background(states: tuple[ProcessState, ...]) -> str:
    """A worker's processes or a timer: each phase with how many are in it, and what happened last."""
    phases = Counter(str(state.phase) for state in states)
    how = ", ".join(phase if len(states) == 1 else f"{count} {phase}" for phase, count in phases.items())
    crashes = sum(state.restarts for state in states if state.phase is not Phase.WAITING)
    words = [state.words for state in states if state.words and (state.phase is not Phase.RUNNING or state.restarts)]
    text = f"{how}{_crashes(crashes)}{f': {words[0]}' if words else ''}"
    return click.style(text, fg="red") if any(map(is_in_trouble, states)) else text


def _backups(backups: tuple[Backup | Damaged, ...]) -> str:
    """The newest that was made for its own sake; red when it cannot be relied upon."""
    whole = [one for one in backups if isinstance(one, Backup) and one.manifest.reason in _FOR_ITSELF]
    if not whole:
        return ""
    newest = whole[-1]
    ago = duration(time.time() - datetime.fromisoformat(newest.manifest.taken_at).timestamp())
    if newest.is_proven:
        return f"{newest.name}, {ago} ago, proven"
    why = newest.proof.trouble if newest.proof else "not proven yet: bulletproof backup verify"
    return click.style(f"{newest.name}, {ago} ago, {why}", fg="red")


def _deployments(found: Status, backups: tuple[Backup | Damaged, ...]) -> list[str]:
    lines = []
    if found.last is not None:
        how = found.last.outcome or "not ended"
        lines.append(
            f"  last        deployment {found.last.deployment.number}"
            f" ({found.last.deployment.kind} {found.last.deployment.release}): {how}"
        )
        lines.append(f"              by {found.last.started_by}")
    if backups and (words := _backups(backups)):
        lines.append(f"  backup      {words}")
    if found.holder is not None:
        lines.append(f"  lock        {found.holder.in_words()}")
    return lines


def _advice(found: Status) -> str:
    hint = ""
    if found.unfinished is not None and not found.is_held:
        hint = "bulletproof recover"
    elif found.wants_running and not found.is_serving:
        hint = "bulletproof logs" if found.is_supervised and found.web.restarts else "bulletproof start"
    elif found.wants_running and not found.is_supervised:
        hint = "bulletproof restart"
    elif names := [name for name, states in found.background.items() if any(map(is_in_trouble, states))]:
        hint = f"bulletproof logs {names[0]}"
    return f"{click.style('hint:', fg='cyan')} {typed_there(hint)}" if hint else ""


def _crashes(restarts: int) -> str:
    return f", crashed {restarts} times" if restarts > 1 else ", crashed once" if restarts else ""


def _as_json(found: Status) -> dict[str, object]:
    return {
        "app": found.app,
        "serving": found.live.release if found.live and found.is_serving else None,
        "live": found.live.release if found.live else None,
        "deployment": found.live.number if found.live else None,
        "wants_running": found.wants_running,
        "address": found.address or None,
        "notes": found.notes,
        "supervisor": found.is_supervised,
        "processes": found.family.count if found.family else 0,
        "memory_bytes": found.family.memory if found.family else 0,
        "web": {"phase": found.web.phase, "restarts": found.web.restarts, "words": found.web.words},
        "proxy": found.proxy.phase,
        "relay": found.relay.phase,
        "background": {
            name: [{"phase": one.phase, "pid": one.pid, "restarts": one.restarts, "words": one.words} for one in states]
            for name, states in found.background.items()
        },
        "last_outcome": found.last.outcome if found.last else None,
        "last_by": found.last.started_by if found.last else None,
        "unfinished": found.unfinished.deployment.number if found.unfinished else None,
        "lock": found.holder.in_words() if found.holder else None,
    }
