"""`bulletproof check`: whether all is well, for people and for monitoring."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path

import click
import msgspec
from msgspec.structs import asdict

from bulletproof.cli.actions import harmless, is_read_in_actions
from bulletproof.cli.client import typed_there
from bulletproof.cli.status import read_status
from bulletproof.cli.target import Target, find_target, host_options
from bulletproof.domain.check import Finding, State, nagios, prometheus, worst
from bulletproof.domain.findings import FINDINGS, page_of
from bulletproof.domain.runs import in_words
from bulletproof.effects.health_record import alone
from bulletproof.effects.local_time import local_now
from bulletproof.effects.lock import peek
from bulletproof.effects.processes import family_of
from bulletproof.errors import UsageError
from bulletproof.operations.checks import Ground, checks_of, run_checks
from bulletproof.operations.record import note_run
from bulletproof.wiring import connect, known_config

MARKS = {
    State.OK: ("✓", "green"),
    State.WARNING: ("!", "yellow"),
    State.CRITICAL: ("✗", "red"),
    State.UNKNOWN: ("?", "red"),
}
_WIDTH = max(map(len, FINDINGS))
_PATIENCE_SECONDS = 600.0
"""Longer than most deployments; one that lasts longer is looked at in its middle."""
_POLL_SECONDS = 0.5
_SAYS_NOTHING: tuple[object, ...] = (None, "", (), {})


@click.command("check")
@click.option("--only", "names", multiple=True, metavar="NAME", help="Only this one; can be given several times.")
@click.option("--explain", "explained", metavar="NAME", help="Tell what a finding means and what to do.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "nagios", "prometheus"]), default="text", show_default=True
)
@click.option("--watch", type=click.FloatRange(min=1), metavar="SECONDS", help="Look again and again.")
@click.option("--scheduled", "is_scheduled", is_flag=True, hidden=True)
@host_options
@click.pass_obj
def check_command(
    root: Path,
    *,
    is_scheduled: bool,
    explained: str | None,
    names: tuple[str, ...],
    form: str,
    watch: float | None,
    verb_root: Path | None,
    app_name: str | None,
) -> None:
    """Look at everything of the app that runs, changing nothing.

    Exit status: 0 when all is well, 1 when something should be better looked after, 2 when something is broken, 3 when
    something could not be looked at.
    """
    if explained in FINDINGS:
        click.echo(page_of(explained or "").rstrip())
        return
    target = find_target(root, verb_root, app_name)
    if explained is not None:
        click.echo(_own_page(target, explained))
        return
    if is_scheduled:
        _note(target)
        return
    while True:
        _, found = _look(target, names)
        click.echo(_shown(target.app, found, form))
        if watch is None:
            sys.exit(int(worst(found)))
        time.sleep(watch)


def _note(target: Target) -> None:
    """Look at everything by the clock and write it down; a deployment that is at work is waited for."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while _is_busy(target) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    with alone(target.layout.health) as is_alone:
        if is_alone:
            moment = local_now()
            ground, found = _look(target, ())
            click.echo(in_words(note_run(ground, found, moment)))


def _own_page(target: Target, name: str) -> str:
    """What the configuration says of a check of the person's own. Raises UsageError when there is none."""
    ground = ground_of(target)
    checks_of(ground.config, [name])
    check = ground.config.check
    kind, told = ("own", [check.own[name]]) if name in check.own else ("visit", list(check.visit[name]))
    lines = [
        f"{key} = {json.dumps(value)}"
        for one in told
        for key, value in msgspec.to_builtins(one).items()
        if value not in _SAYS_NOTHING
    ]
    return "\n".join((f"# {name}\n", f"A check of your own: [check.{kind}.{name}] in bulletproof.toml.\n", *lines))


def _is_busy(target: Target) -> bool:
    holder = peek(target.layout.lock)
    return holder is not None and family_of(holder.pid) is not None


def _look(target: Target, names: tuple[str, ...]) -> tuple[Ground, tuple[Finding, ...]]:
    ground = ground_of(target)
    return ground, run_checks(ground, checks_of(ground.config, names))


def ground_of(target: Target) -> Ground:
    """The app as it stands, for who only looks. Raises UsageError when nothing of it is live."""
    status = read_status(target)
    if status.live is None:
        raise UsageError("nothing-deployed", f"no release of {target.app} is live", hint="bulletproof deploy")
    with contextlib.closing(target.glance()) as journal:
        lived = journal.lived()
    config = known_config(target.layout, lived, target.config)
    host = connect(target.root, target.app, config, is_looking=True)
    return Ground(host=host, status=status, config=config, lived=lived)


def _shown(app: str, found: tuple[Finding, ...], form: str) -> str:
    match form:
        case "json":
            checks = [{**asdict(finding), "state": finding.state.word} for finding in found]
            return json.dumps({"app": app, "state": worst(found).word, "checks": checks})
        case "nagios":
            return nagios(app, found)
        case "prometheus":
            return prometheus(app, found)
        case _:
            text = "\n".join((*(line for finding in found for line in _lines(finding)), *_more(found)))
            return harmless(text) if is_read_in_actions() else text


def _lines(finding: Finding) -> list[str]:
    mark, colour = MARKS[finding.state]
    lines = [f"{click.style(mark, fg=colour)} {finding.name.ljust(_WIDTH)} {finding.words}"]
    if finding.hint:
        lines.append(f"  {' ' * _WIDTH} {click.style('hint:', fg='cyan')} {typed_there(finding.hint)}")
    return lines


def _more(found: tuple[Finding, ...]) -> list[str]:
    """Where the first finding that is not ok, of the worst, is explained."""
    state = worst(found)
    bad = [finding.name for finding in found if finding.state is state and state is not State.OK]
    bad.sort(key=lambda name: name not in FINDINGS)  # a person's own checks they know themselves
    told = typed_there(f"bulletproof check --explain {bad[0]}") if bad else ""
    return [f"\nwhat it means, and what to do: {told}"] if bad else []
