"""`bulletproof attach`: watch a deployment from its beginning, whoever began it."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path

import click

from bulletproof.cli.recording import show_again
from bulletproof.cli.render import EXIT_CODES, Renderer, choose_renderer
from bulletproof.cli.target import Target, find_target, host_options, json_option
from bulletproof.effects import lock
from bulletproof.effects.chronicle import Told
from bulletproof.effects.reader import is_gone
from bulletproof.engine.journal import Entry, Journal
from bulletproof.errors import RecoveryNeeded, UsageError

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 3.0
"""The last words of a deployment come after its last record, when its process looks at what serves."""
_RECOVERY_SECONDS = 30.0
"""A dead deployer's host is whole again within ten, by our own promise."""
_GONE = 141


@click.command("attach")
@click.argument("number", type=click.IntRange(min=1), required=False)
@host_options
@json_option
@click.pass_obj
def attach_command(
    root: Path, *, number: int | None, verb_root: Path | None, app_name: str | None, as_json: bool
) -> None:
    """Show deployment NUMBER (the one that runs, or else the last one) from its beginning, then live.

    It ends as the deployment does, with its exit status. Ctrl-C stops watching, not deploying.
    """
    target = find_target(root, verb_root, app_name)
    with closing(target.journal()) as journal:
        chosen = _wished(journal, number) if number else _running(target) or _last(journal)
        code = _watch(target, journal, chosen, choose_renderer(target.app, as_json=as_json))
        if code is None:
            code = _by_journal(journal.entry(chosen))
    sys.exit(code)


def _wished(journal: Journal, number: int) -> int:
    if number not in {entry.deployment.number for entry in journal.entries()}:
        raise UsageError("deployment-unknown", f"there was no deployment {number}", hint="bulletproof releases")
    return number


def _running(target: Target) -> int | None:
    """The deployment of whoever holds the lock, waited for when it has just been taken."""
    until = time.monotonic() + _GRACE_SECONDS
    while (holder := lock.peek(target.layout.lock)) and holder.deployment is None and time.monotonic() < until:
        time.sleep(_POLL_SECONDS)
    return holder.deployment if holder else None


def _last(journal: Journal) -> int:
    entries = journal.entries()
    if not entries:
        raise UsageError("nothing-deployed", "nothing was ever deployed here", hint="bulletproof deploy")
    return entries[-1].deployment.number


def _watch(target: Target, journal: Journal, number: int, renderer: Renderer) -> int | None:
    """Show what it told and tells; its exit code, or None when it is over and did not say how it ended.

    Raises RecoveryNeeded when it was killed and nobody takes care of it.
    """
    try:
        told = Told(target.layout.events(number))
    except FileNotFoundError:
        return None
    patience = _Patience()
    with closing(told):
        while True:
            is_over = journal.entry(number).outcome is not None
            is_left = not is_over and not lock.is_held(target.layout.lock)
            for line in told.new():
                if (code := show_again(line, renderer)) is not None:
                    return code
            if patience.is_at_end(_GRACE_SECONDS if is_over else _RECOVERY_SECONDS if is_left else None):
                if is_over:
                    return None
                words = f"deployment {number} was killed, and nobody has undone or finished it"
                raise RecoveryNeeded("recovery-needed", words, hint="bulletproof recover")
            if is_gone(sys.stdout.fileno()) or is_gone(sys.stderr.fileno()):
                return _GONE
            time.sleep(_POLL_SECONDS)


class _Patience:
    """How long one and the same thing was waited for."""

    def __init__(self) -> None:
        self._seconds: float | None = None
        self._since = 0.0

    def is_at_end(self, seconds: float | None) -> bool:
        """Whether we waited for that long, since it began to be that long; None is for ever."""
        if seconds != self._seconds:
            self._seconds, self._since = seconds, time.monotonic()
        return seconds is not None and time.monotonic() - self._since > seconds


def _by_journal(entry: Entry) -> int:
    """Tell how a deployment ended of which nothing else is kept."""
    deployment = entry.deployment
    if entry.outcome is None:
        raise RecoveryNeeded(
            "recovery-needed", f"deployment {deployment.number} is not ended", hint="bulletproof recover"
        )
    why = f": {entry.message}" if entry.message else ""
    words = f"deployment {deployment.number} ({deployment.kind} {deployment.release}): {entry.outcome}{why}"
    click.echo(words, err=True)
    return EXIT_CODES[entry.outcome]
