"""`bulletproof doctor`: what is wrong, why, and what mends it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from bulletproof.cli.afar import Parcel, words_of
from bulletproof.cli.check import MARKS, ground_of
from bulletproof.cli.client import typed_there
from bulletproof.cli.recording import Recording
from bulletproof.cli.render import choose_renderer
from bulletproof.cli.target import Target, find_target, json_option, open_session, patience_option, sent_with
from bulletproof.cli.trial import config_for, prove, require_live, show_proof
from bulletproof.domain.backup import Backup, Reason
from bulletproof.domain.diagnoses import DIAGNOSES, page_of
from bulletproof.domain.doctor import Diagnosis, Remedy, Treatment, exit_code, treatment
from bulletproof.domain.findings import FINDINGS
from bulletproof.domain.findings import page_of as page_of_finding
from bulletproof.effects.osv import OSV
from bulletproof.effects.unit_jobs import start_soon
from bulletproof.errors import Refused
from bulletproof.operations.activate import Result
from bulletproof.operations.backups import make_backup
from bulletproof.operations.doctor import Findings, examine
from bulletproof.operations.treat import treat
from bulletproof.wiring import is_server

_WIDTH = max(map(len, (*DIAGNOSES, *FINDINGS)))


@contextmanager
def _decided(context: click.Context) -> Iterator[Parcel]:
    """What is done on another machine is decided here, where the person is: nobody is asked there."""
    if context.params["is_fixing"] and not context.params["is_confirmed"]:
        raise click.UsageError("on another machine, look first without --fix, then: doctor --fix --yes")
    yield Parcel(words=words_of(context))


@click.command("doctor")
@click.option("--fix", "is_fixing", is_flag=True, help="Mend what can be mended; it is shown and asked before.")
@click.option("--yes", "is_confirmed", is_flag=True, help="Do not ask.")
@click.option("--only", "names", multiple=True, metavar="NAME", help="Only this one; can be given several times.")
@click.option("--explain", "explained", metavar="NAME", help="Tell what a diagnosis means and what to do.")
@click.option(
    "--online",
    "is_online",
    is_flag=True,
    help="Ask OSV for known vulnerabilities, and the package index for newer versions: they get names and versions.",
)
@click.option("--osv", "osv", default=OSV, hidden=True)
@sent_with(_decided)
@patience_option("a deployment")
@json_option
@click.pass_obj
def doctor_command(
    root: Path,
    *,
    is_fixing: bool,
    is_confirmed: bool,
    names: tuple[str, ...],
    explained: str | None,
    is_online: bool,
    osv: str,
    verb_root: Path | None,
    app_name: str | None,
    wait_seconds: float,
    as_json: bool,
) -> None:
    """Look deeper than `check`, tell what is wrong and why, and with --fix mend what can be mended.

    Without --fix nothing is changed. What it mends goes through deployments that are undone when they fail; no request
    is dropped, and no data of yours are removed.

    Exit status: 0 when all is well (afterwards), 1 when something should be better looked after, 2 when something is
    broken, 3 when something could not be looked at, 4 when --fix could not mend what is broken: it needs you.
    """
    if explained is not None:
        click.echo(_page(explained))
        return
    target = find_target(root, verb_root, app_name)
    online = osv if is_online else ""
    found = examine(ground_of(target), names, online=online)
    remedies = [one.ill.remedy for one in found.diagnoses if one.ill.remedy.words]
    if not as_json:
        _show(found)
    if is_fixing and remedies:
        _confirm(remedies, is_confirmed=is_confirmed, as_json=as_json)
        _mend(target, treatment(remedies), wait_seconds=wait_seconds, as_json=as_json)
        found = examine(ground_of(target), names, online=online)
        if not as_json:
            click.echo("\nlooked at again:")
            _show(found)
    if as_json:
        click.echo(json.dumps(_as_json(target.app, found)))
    else:
        _say_what_next(found, is_fixing=is_fixing)
    sys.exit(exit_code(found.diagnoses, was_mended=is_fixing))


def _page(name: str) -> str:
    """Raises click's UsageError for a name that there is not."""
    if name in DIAGNOSES:
        return page_of(name).rstrip()
    if name in FINDINGS:
        return page_of_finding(name).rstrip()
    raise click.UsageError(f"there is no diagnosis {name}; there are {', '.join(DIAGNOSES)}")


def _confirm(remedies: Sequence[Remedy], *, is_confirmed: bool, as_json: bool) -> None:
    """Show what would be done, and ask. Raises Refused for a no."""
    if not as_json:
        click.echo("\nto be done:", err=True)
        for number, words in enumerate(dict.fromkeys(remedy.words for remedy in remedies), 1):
            click.echo(f"  {number}. {words}", err=True)
    if is_confirmed:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("without a terminal, --fix wants --yes; without --fix it tells what it would do")
    if not click.confirm("Go on?", default=False, err=True):
        raise Refused("not-confirmed", "nothing was mended", hint="bulletproof doctor")


def _mend(target: Target, wanted: Treatment, *, wait_seconds: float, as_json: bool) -> None:
    """All of it under one lock; the proof of a backup comes after, since it keeps no deployment waiting."""
    renderer = Recording(choose_renderer(target.app, as_json=as_json), target.layout)
    backup: Backup | None = None
    with open_session(target, "doctor", renderer, wait_seconds=wait_seconds, on_full_disk=True) as session:
        served: list[Result] = []

        def tell(result: Result) -> None:
            served.append(result)
            renderer.ended(result, session.host.proxy.public().address if result.serving else "")

        is_well = treat(session, wanted, tell)
        if is_well and wanted.backs_up:
            live = require_live(target, session.journal)
            backup = make_backup(session.host, live, Reason.ASKED, session.started_by, config_for(target, live))
    if is_server(target.root) and any(result.serving for result in served):
        start_soon(f"{target.app}.service")
    if backup is not None:
        show_proof(backup, prove(target, backup), as_json=as_json)


def _show(found: Findings) -> None:
    for one in found.diagnoses:
        mark, colour = MARKS[one.state]
        click.echo(f"{click.style(mark, fg=colour)} {one.name.ljust(_WIDTH)} {one.ill.words}")
        for label, words in _details(one):
            click.echo(f"  {' ' * _WIDTH} {click.style(label, fg='cyan')} {words}")
        for line in one.ill.more:
            click.echo(f"  {' ' * _WIDTH}   {line}")


def _details(one: Diagnosis) -> Iterator[tuple[str, str]]:
    if one.ill.why:
        yield "why:", one.ill.why
    if one.ill.remedy.words:
        yield "--fix would:", one.ill.remedy.words
    elif one.ill.command:
        yield "type:", typed_there(one.ill.command)


def _say_what_next(found: Findings, *, is_fixing: bool) -> None:
    count = len(found.diagnoses)
    mendable = sum(bool(one.ill.remedy.words) for one in found.diagnoses)
    if not count:
        click.echo(click.style("✓", fg="green") + f" all is well: {found.looked_at} things were looked at")
    elif mendable and not is_fixing:
        click.echo(f"\n{count} wrong, {mendable} of them can be mended: {typed_there('bulletproof doctor --fix')}")
    else:
        first = found.diagnoses[0].name
        click.echo(f"\n{count} left for you; what it means: {typed_there(f'bulletproof doctor --explain {first}')}")
    for note in found.notes:
        click.secho(f"note: {note}", dim=True)


def _as_json(app: str, found: Findings) -> dict[str, object]:
    told = [
        {
            "name": one.name,
            "state": one.state.word,
            "words": one.ill.words,
            "why": one.ill.why,
            "fix": one.ill.remedy.words,
            "command": one.ill.command,
            "more": one.ill.more,
        }
        for one in found.diagnoses
    ]
    return {"event": "doctor", "app": app, "looked_at": found.looked_at, "diagnoses": told, "notes": found.notes}
