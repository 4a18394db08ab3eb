"""How a deployment is shown: a line per step on a terminal or in a log, or one JSON event per line."""

from __future__ import annotations

import json
import sys
import time
from typing import Protocol

import click
from msgspec.structs import asdict

from bulletproof.cli.actions import is_read_in_actions
from bulletproof.cli.client import our_client, typed_there
from bulletproof.cli.words import show_error
from bulletproof.domain.deployment import Kind, Live, Outcome
from bulletproof.domain.events import Committed, Event, StepDone, StepFailed, StepStarted, StepUndone
from bulletproof.engine.journal import Entry
from bulletproof.errors import BulletproofError, NeedsPerson, Refused, Undone, Unwatched, UsageError
from bulletproof.operations.activate import Result, words_of

DOING = {
    Kind.DEPLOY: "deploying",
    Kind.ROLLBACK: "rolling back to",
    Kind.RESTART: "restarting",
    Kind.SETTINGS: "changing the settings of",
    Kind.RESTORE: "restoring a backup of",
    Kind.START: "starting",
    Kind.STOP: "stopping",
    Kind.DESTROY: "removing",
    Kind.REPAIR: "mending",
}
DONE = {
    Kind.DEPLOY: "deployed",
    Kind.ROLLBACK: "rolled back to",
    Kind.RESTART: "restarted",
    Kind.SETTINGS: "changed the settings of",
    Kind.RESTORE: "restored, with release",
    Kind.START: "started",
    Kind.STOP: "stopped",
    Kind.DESTROY: "removed",
    Kind.REPAIR: "mended",
}
AGAIN = {
    Kind.DEPLOY: "deploy",
    Kind.ROLLBACK: "rollback",
    Kind.RESTART: "restart",
    Kind.SETTINGS: "env set",
    Kind.RESTORE: "backup restore",
    Kind.START: "start",
    Kind.STOP: "stop",
    Kind.DESTROY: "destroy",
    Kind.REPAIR: "doctor --fix",
}
EVENT_NAMES: dict[type[Event], str] = {
    StepStarted: "step-started",
    StepDone: "step-done",
    StepFailed: "step-failed",
    StepUndone: "step-undone",
    Committed: "committed",
}
EXIT_CODES = {
    Outcome.DEPLOYED: 0,
    Outcome.REFUSED: Refused.exit_code,
    Outcome.UNDONE: Undone.exit_code,
    Outcome.FAILED: NeedsPerson.exit_code,
}
_NAME_WIDTH = 12
SILENT = {"adopt", "vacant"}
"""Steps that no person needs to read of when they went well."""
SILENT_WITHOUT_WORDS = {
    "pause",
    "workers",
    "replica",
    "backups",
    "keep",
    "folders",
    "mend",
    "rebuild",
    "exchange",
    "tidy",
}
"""Steps that do nothing in most apps, which have neither workers nor timers."""


class Renderer(Protocol):
    """What shows a deployment as it goes."""

    def begun(self, entry: Entry) -> None:
        """A deployment begins."""

    def taken_up(self, entry: Entry) -> None:
        """A deployment that a crash left is finished or undone."""

    def event(self, event: Event) -> None:
        """Something happened."""

    def ended(self, result: Result, address: str) -> None:
        """It ended as `result` says; the app is served at `address`."""

    def failed(self, error: BulletproofError, serving: Live | None) -> None:
        """It could not be begun, or could not be ended well."""


class Lines:
    """One line per step on stderr; on a terminal the running step is shown while it runs."""

    def __init__(self, app: str, *, is_live: bool) -> None:
        self._app = app
        self._is_live = is_live
        self._kind = Kind.DEPLOY
        self._running = ""
        self._undoing = False

    def begun(self, entry: Entry) -> None:
        """Say what is to be done to which release, and what serves meanwhile."""
        deployment = entry.deployment
        self._kind = deployment.kind
        title = f" “{entry.title}”" if entry.title else ""
        serves = f" ({deployment.previous.release} is live)" if deployment.previous else ""
        what = deployment.release or "everything"
        click.echo(f"{DOING[self._kind]} {self._app} {click.style(what, bold=True)}{title}{serves}", err=True)

    def taken_up(self, entry: Entry) -> None:
        """Say which deployment a crash left, and whether it is finished or undone."""
        doing = "finishing" if entry.is_committed else "undoing"
        click.echo(f"{doing} deployment {entry.deployment.number}, whose deployer was killed", err=True)

    def event(self, event: Event) -> None:
        """Show the step that runs, or how it ended."""
        match event:
            case StepStarted(step=step):
                self._running = step
                if self._is_live:
                    click.secho(f"  {step.ljust(_NAME_WIDTH)}  …", dim=True, err=True, nl=False)
            case StepDone(step=step, seconds=seconds, note=note):
                self._replace_line()
                if step not in SILENT and (note or step not in SILENT_WITHOUT_WORDS):
                    self._step(step, seconds, note)
            case StepFailed(step=step, seconds=seconds):
                self._replace_line()
                self._step(step, seconds, click.style("failed", fg="red"))
            case StepUndone(step=step, seconds=seconds):
                self._step(f"undo {step}", seconds, "")
            case Committed():
                pass

    def ended(self, result: Result, address: str) -> None:
        """Say how it ended, what serves now and what to type next."""
        if result.warning:
            click.secho(f"warning: {result.warning}", fg="yellow", err=True)
        for trouble in result.troubles:
            click.secho(f"warning: {trouble}", fg="yellow", err=True)
        if result.note:
            click.echo(result.note, err=True)
            return
        if result.outcome is Outcome.DEPLOYED:
            where = f", serving at {click.style(address, bold=True)}" if result.serving else ""
            click.secho(f"{DONE[self._kind]} {result.release or self._app}", fg="green", nl=False, err=True)
            click.echo(f" in {result.seconds:.1f} s{where}", err=True)
            return
        after = {
            Outcome.UNDONE: "everything was undone; ",
            Outcome.REFUSED: "nothing was changed; ",
        }.get(result.outcome, "")
        show_error(error_of(result, self._kind), after=after + serves(result.serving, address))

    def failed(self, error: BulletproofError, serving: Live | None) -> None:
        """Show the error."""
        self._replace_line()
        show_error(error, after=serves(serving, "") if serving else "")

    def _step(self, name: str, seconds: float, note: str) -> None:
        first, *more = note.splitlines() or [""]
        click.echo(f"  {name.ljust(_NAME_WIDTH)}  {seconds:5.1f} s  {first}".rstrip(), err=True)
        for line in more:
            click.echo(" " * (_NAME_WIDTH + 13) + line, err=True)

    def _replace_line(self) -> None:
        if self._is_live and self._running:
            click.echo("\r\x1b[2K", err=True, nl=False)
        self._running = ""


class JsonEvents:
    """One JSON object per line on stdout; the last is the deployment's outcome."""

    def __init__(self, app: str) -> None:
        self._app = app
        self._kind = Kind.DEPLOY
        self._begun_at = time.monotonic()

    def begun(self, entry: Entry) -> None:
        """{"event": "begun", …}."""
        deployment = entry.deployment
        self._kind = deployment.kind
        self._print(
            "begun",
            number=deployment.number,
            kind=deployment.kind,
            release=deployment.release,
            revision=deployment.revision,
            previous=deployment.previous.release if deployment.previous else None,
        )

    def taken_up(self, entry: Entry) -> None:
        """{"event": "taken-up", …}."""
        self._print("taken-up", number=entry.deployment.number, committed=entry.is_committed)

    def event(self, event: Event) -> None:
        """{"event": "step-started" | "step-done" | "step-failed" | "step-undone" | "committed", …}."""
        self._print(EVENT_NAMES[type(event)], **asdict(event))

    def ended(self, result: Result, address: str) -> None:
        """{"event": "deployment", "outcome": …}, the last line."""
        self._deployment(
            result.outcome,
            result.release,
            result.serving,
            error_of(result, self._kind) if result.cause else None,
            address,
            result.troubles,
            result.seconds,
        )

    def failed(self, error: BulletproofError, serving: Live | None) -> None:
        """The same last line for what could not be begun or ended, without an outcome when none is known."""
        outcome = Outcome.FAILED if error.exit_code in {4, 6} else Outcome.REFUSED
        self._deployment(None if isinstance(error, Unwatched) else outcome, "", serving, error, "")

    def _deployment(
        self,
        outcome: Outcome | None,
        release: str,
        serving: Live | None,
        error: BulletproofError | None,
        address: str,
        troubles: tuple[str, ...] = (),
        seconds: float = 0.0,
    ) -> None:
        self._print(
            "deployment",
            outcome=outcome,
            release=release or None,
            serving=serving.release if serving else None,
            address=address or None,
            seconds=round(seconds or time.monotonic() - self._begun_at, 3),
            error=error_as_json(error) if error else None,
            troubles=troubles,
        )

    def _print(self, event: str, **values: object) -> None:
        click.echo(json.dumps({"event": event, "app": self._app or None, **values}))


def exit_code_of(result: Result) -> int:
    """The exit code that a deployment's result means."""
    return UsageError.exit_code if isinstance(result.cause, UsageError) else EXIT_CODES[result.outcome]


def choose_renderer(app: str, *, as_json: bool) -> Renderer:
    """The renderer for where the output goes."""
    if as_json:
        return JsonEvents(app)
    if is_read_in_actions():
        from bulletproof.cli.render_actions import ActionsLog  # noqa: PLC0415  it needs what is here

        return ActionsLog(app)
    client = our_client()
    return Lines(app, is_live=sys.stderr.isatty() or bool(client and client.is_live))


def serves(serving: Live | None, address: str) -> str:
    """What serves now, in words."""
    if serving is None:
        return "nothing serves"
    return f"{serving.release} serves" + (f" at {address}" if address else "")


def error_of(result: Result, kind: Kind) -> BulletproofError:
    """Why it failed; what nobody has a better hint for is tried again once it is corrected."""
    error = words_of(result.cause)
    error.hint = error.hint or f"correct that, then: bulletproof {AGAIN[kind]}"
    return error


def error_as_json(error: BulletproofError) -> dict[str, object]:
    """An error as the last event of a deployment has it."""
    return {
        "reference": error.reference,
        "message": error.message,
        "hint": typed_there(error.hint),
        "context": list(error.context),
        "exit_code": error.exit_code,
    }
