"""`bulletproof history`: what was wrong and when, with the deployments between, and what each day was like."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, tzinfo
from pathlib import Path

import click

from bulletproof.cli.target import find_target, host_options, json_option
from bulletproof.cli.wording import duration
from bulletproof.domain.check import State
from bulletproof.domain.deployment import Outcome
from bulletproof.domain.runs import KEPT_DAYS
from bulletproof.domain.uptime import Day, Incident, days, incidents
from bulletproof.effects.health_record import read_record
from bulletproof.effects.local_time import local_zone
from bulletproof.engine.journal import Entry

_DAY = 86400
_MARKS = {State.CRITICAL: ("✗", "red"), State.WARNING: ("!", "yellow")}
_INDENT = " " * 20


@click.command("history")
@click.option(
    "--days",
    "back",
    type=click.IntRange(1, KEPT_DAYS),
    default=30,
    show_default=True,
    metavar="DAYS",
    help=f"How far to look back, at most {KEPT_DAYS}.",
)
@host_options
@json_option
@click.pass_obj
def history_command(root: Path, *, back: int, verb_root: Path | None, app_name: str | None, as_json: bool) -> None:
    """What the checks by the clock found wrong, from when to when; the deployments between; and each day in numbers.

    An incident begins with the first check that found it and ends with the first that did not. What is critical is told
    apart from what should be better looked after.
    """
    target = find_target(root, verb_root, app_name)
    with closing(target.glance()) as journal:
        entries = journal.entries()
    record, since, zone = read_record(target.layout.health), time.time() - back * _DAY, local_zone()
    runs = [run for run in record.runs if run.at >= since]
    happened = [one for one in incidents(record.runs) if one.end is None or one.end >= since]
    deployed = [entry for entry in entries if _moment(entry) >= since]
    if as_json:
        told = {
            "app": target.app,
            "runs": len(runs),
            "incidents": [_incident_json(one) for one in happened],
            "deployments": [_deployment_json(entry) for entry in deployed],
            "days": [_day_json(day) for day in days(runs, zone)],
        }
        click.echo(json.dumps(told))
        return
    for line in (*_events(happened, deployed, zone), *_days(days(runs, zone))):
        click.echo(line)
    if not runs:
        click.echo("no check has run by the clock in this time", err=True)
    if record.damaged:
        click.echo(f"{record.damaged} lines of {target.layout.health} cannot be read", err=True)


def _events(happened: Sequence[Incident], deployed: Sequence[Entry], zone: tzinfo) -> list[str]:
    """Incidents and deployments by the time at which they began."""
    events = [(float(one.begin), _incident(one, zone)) for one in happened]
    events += [(_moment(entry), [_deployment(entry, zone)]) for entry in deployed]
    lines = [line for _, some in sorted(events, key=lambda event: event[0]) for line in some]
    return lines or ["nothing was found wrong, and nothing was deployed"]


def _incident(one: Incident, zone: tzinfo) -> list[str]:
    mark, colour = _MARKS[one.state]
    end = "still so" if one.end is None else f"for {duration(one.end - one.begin)}, until {_clock(one.end, zone)}"
    lines = [f"{_clock(one.begin, zone)}  {click.style(mark, fg=colour)} {one.state.word}, {end}"]
    return [*lines, *(f"{_INDENT}{name}: {words}" for name, words in one.words.items())]


def _deployment(entry: Entry, zone: tzinfo) -> str:
    deployment = entry.deployment
    how = entry.outcome or "not ended"
    words = f"{deployment.number}: {deployment.kind} {deployment.release}, {how}"
    return f"{_clock(_moment(entry), zone)}  ● {words}"


def _days(found: Sequence[Day]) -> list[str]:
    if not found:
        return []
    lines = ["", "day         checks  answers in ms: median  95 %  slowest  requests   5xx"]
    for day in reversed(found):
        answers = "-".rjust(22) if day.latency_ms is None else _answers(day.latency_ms)
        share = f"{day.error_share:.2%}" if day.requests else "-"
        lines.append(f"{day.day}  {day.runs:>6}  {answers}  {day.requests:>8}  {share:>6}".rstrip())
    return lines


def _answers(latency: tuple[float, float, float]) -> str:
    median, most, slowest = latency
    return f"{median:>21.0f}  {most:>4.0f}  {slowest:>7.0f}"


def _moment(entry: Entry) -> float:
    return datetime.fromisoformat(entry.deployment.started_at).timestamp()


def _clock(moment: float, zone: tzinfo) -> str:
    return f"{datetime.fromtimestamp(moment, zone):%Y-%m-%d %H:%M}"


def _incident_json(one: Incident) -> dict[str, object]:
    return {"state": one.state.word, "begin": one.begin, "end": one.end, "checks": one.runs, "words": one.words}


def _deployment_json(entry: Entry) -> dict[str, object]:
    deployment = entry.deployment
    return {
        "number": deployment.number,
        "kind": deployment.kind,
        "release": deployment.release,
        "at": int(_moment(entry)),
        "outcome": entry.outcome or None,
        "live": entry.outcome is Outcome.DEPLOYED and deployment.kind.makes_live,
    }


def _day_json(day: Day) -> dict[str, object]:
    names = ("median_ms", "p95_ms", "slowest_ms")
    answers = dict(zip(names, day.latency_ms, strict=True)) if day.latency_ms else dict.fromkeys(names)
    told = {"day": day.day.isoformat(), "checks": day.runs, "requests": day.requests, "errors": day.errors}
    return {**told, **answers, "error_share": day.error_share}
