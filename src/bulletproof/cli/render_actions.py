"""How a deployment is shown in GitHub Actions: a group per step, few annotations, a summary for a small screen."""

from __future__ import annotations

import click

from bulletproof.cli.actions import MOST_ANNOTATIONS, code, command, folded, harmless, plain, say, summarise
from bulletproof.cli.render import AGAIN, DOING, DONE, SILENT, SILENT_WITHOUT_WORDS, error_of, serves
from bulletproof.cli.words import seen, show_error
from bulletproof.domain.deployment import Kind, Live, Outcome
from bulletproof.domain.events import Event, StepDone, StepFailed, StepStarted, StepUndone
from bulletproof.engine.journal import Entry
from bulletproof.errors import BulletproofError
from bulletproof.operations.activate import Result

_NOT_DONE = {
    Outcome.UNDONE: "failed, and everything was undone",
    Outcome.REFUSED: "refused, and nothing was changed",
    Outcome.FAILED: "needs a person",
}


class ActionsLog:
    """A Renderer for the log of a workflow, and for its summary."""

    def __init__(self, app: str) -> None:
        self._app = app
        self._kind = Kind.DEPLOY
        self._entry: Entry | None = None
        self._steps: list[str] = []

    def begun(self, entry: Entry) -> None:
        """Say what is to be done, and for whom."""
        self._entry, self._kind = entry, entry.deployment.kind
        title = f" “{entry.title}”" if entry.title else ""
        previous = entry.deployment.previous
        live = f" ({previous.release} is live)" if previous else ""
        say(f"{DOING[self._kind]} {self._app} {entry.deployment.release or 'everything'}{title}{live}")
        say(f"deployment {entry.deployment.number}, by {entry.started_by}")

    def taken_up(self, entry: Entry) -> None:
        """Say which deployment a crash left."""
        doing = "finishing" if entry.is_committed else "undoing"
        say(f"{doing} deployment {entry.deployment.number}, whose deployer was killed")

    def event(self, event: Event) -> None:
        """A step that went well is a group, which is closed until somebody wants to read it."""
        match event:
            case StepDone(step=step, seconds=seconds, note=note):
                if step not in SILENT and (note or step not in SILENT_WITHOUT_WORDS):
                    self._group(step, seconds, note)
            case StepFailed(step=step, seconds=seconds):
                say(f"{step} failed after {seconds:.1f} s")
                self._steps.append(f"- **{step}** failed after {seconds:.1f} s")
            case StepUndone(step=step, seconds=seconds):
                say(f"undid {step} in {seconds:.1f} s")
                self._steps.append(f"- undid {step}, {seconds:.1f} s")
            case StepStarted():
                pass
            case _:
                say("committed: from here on it is finished, whatever happens")

    def ended(self, result: Result, address: str) -> None:
        """Say how it ended and what serves: in the log, as annotations, and in the summary."""
        warnings = [*filter(None, (result.warning,)), *result.troubles]
        _annotate("warning", warnings)
        if result.note:
            say(result.note)
            summarise(f"### {plain(self._app)}\n\n{plain(result.note)}; {plain(serves(result.serving, address))}")
            return
        if result.outcome is Outcome.DEPLOYED:
            words = f"{DONE[self._kind]} {result.release or self._app} in {result.seconds:.1f} s"
            now = "nothing serves" if self._kind.stops_app else serves(result.serving, address)
            click.echo(command("notice", now, title=harmless(words)), err=True)
            say(f"{words}; {now}")
            self._summary(f"✅ {self._app}: {DONE[self._kind]}", result.release, now, [], warnings)
            return
        error = error_of(result, self._kind)
        now = serves(result.serving, address)
        show_error(error, after=f"{_NOT_DONE.get(result.outcome, 'failed')}; {now}")
        self._failure(
            f"❌ {self._app}: {AGAIN[self._kind]} {_NOT_DONE.get(result.outcome, 'failed')}", error, now, warnings
        )

    def failed(self, error: BulletproofError, serving: Live | None) -> None:
        """Say that it could not be begun, or not be ended."""
        now = serves(serving, "") if serving else ""
        show_error(error, after=now)
        self._failure(f"❌ {self._app}: {error.reference}", error, now, [])

    def _group(self, step: str, seconds: float, note: str) -> None:
        first, *more = note.splitlines() or [""]
        click.echo(command("group", f"{step}  {seconds:.1f} s  {first}".rstrip()), err=True)
        for line in more:
            say(f"  {line}")
        click.echo(command("endgroup"), err=True)
        told = f" — {plain('; '.join([first, *more]))}" if note else ""
        self._steps.append(f"- **{step}** {seconds:.1f} s{told}")

    def _failure(self, title: str, error: BulletproofError, now: str, warnings: list[str]) -> None:
        self._summary(title, self._entry.deployment.release if self._entry else "", now, seen(error), warnings)

    def _summary(self, title: str, release: str, now: str, parts: list[str], warnings: list[str]) -> None:
        entry = self._entry
        what = " ".join(filter(None, (code(release), plain(f"“{entry.title}”") if entry and entry.title else "")))
        lines = [f"### {plain(title)}", what, f"**Now: {plain(now)}**" if now else "", *parts]
        lines += [f"⚠️ {plain(warning)}" for warning in warnings]
        lines += [folded(f"{len(self._steps)} steps", "\n".join(self._steps))] if self._steps else []
        lines += [f"deployment {entry.deployment.number}, by {plain(entry.started_by)}"] if entry else []
        summarise("\n\n".join(filter(None, lines)))


def _annotate(kind: str, texts: list[str]) -> None:
    for text in texts[:MOST_ANNOTATIONS]:
        click.echo(command(kind, text), err=True)
    if len(texts) > MOST_ANNOTATIONS:
        click.echo(command(kind, f"and {len(texts) - MOST_ANNOTATIONS} more, in the log"), err=True)
        for text in texts[MOST_ANNOTATIONS:]:
            say(f"{kind}: {text}")
