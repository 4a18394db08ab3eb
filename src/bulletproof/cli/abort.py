"""`bulletproof abort`: undo the deployment that runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from bulletproof.cli.client import typed_there
from bulletproof.cli.target import find_target, host_options, json_option
from bulletproof.domain.deployment import Outcome
from bulletproof.effects.lock import Holder
from bulletproof.errors import NeedsPerson, RecoveryNeeded, Refused
from bulletproof.operations.abort import abort


@click.command("abort")
@host_options
@json_option
@click.pass_obj
def abort_command(root: Path, *, verb_root: Path | None, app_name: str | None, as_json: bool) -> None:
    """Undo the deployment that runs, whoever began it and from wherever, and wait until it is undone.

    Before its commit point all of it is undone, and what served before still serves. Behind it there is nothing to
    undo: it is finished, and `bulletproof rollback` leads back.

    Exit status: 0 when nothing is left of it, 1 when it was too late or no deployment runs.
    """
    target = find_target(root, verb_root, app_name)

    def tell(holder: Holder) -> None:
        if not as_json:
            click.echo(f"aborting {holder.in_words()}", err=True)

    number = abort(target.layout.lock, tell)
    if number is None:
        _say(None, None, "it had not begun a deployment; nothing was changed", as_json=as_json)
        return
    journal = target.journal()
    entry = journal.entry(number)
    journal.close()
    what = f"deployment {number} ({entry.deployment.kind} {entry.deployment.release})"
    match entry.outcome:
        case Outcome.UNDONE | Outcome.REFUSED:
            _say(number, entry.outcome, f"{what}: {entry.outcome}", as_json=as_json)
        case Outcome.DEPLOYED:
            words = f"{what} was committed before it could be aborted, and is finished"
            raise Refused("abort-too-late", words, hint="bulletproof rollback")
        case None:
            words = f"{what} was ended in the middle; the supervisor undoes or finishes it"
            raise RecoveryNeeded("abort-not-ended", words, hint="bulletproof attach")
        case _:
            raise NeedsPerson("undo-failed", f"{what}: {entry.message}", hint="bulletproof recover")


def _say(number: int | None, outcome: Outcome | None, words: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"number": number, "outcome": outcome}))
        return
    click.echo(typed_there(words), err=True)
    sys.stderr.flush()
