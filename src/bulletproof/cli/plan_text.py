"""A plan as a person reads it: what would happen in one line, then what there is to know; and the same as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

import click
import msgspec

from bulletproof.cli.actions import block, code, plain
from bulletproof.cli.client import typed_there
from bulletproof.cli.render import error_as_json
from bulletproof.cli.wording import size
from bulletproof.domain.report import Report, Way
from bulletproof.domain.schema import Count
from bulletproof.operations.plan import Plan

_WIDTH = 100
_LABEL_WIDTH = 10
_INDENT = " " * (_LABEL_WIDTH + 4)
_TABLES_SHOWN = 20
_LOST = "lost"


def in_words(plan: Plan) -> str:
    """The headline, and a section for each thing to know."""
    lines = [line for label, words in _sections(plan) for line in _section(label, words)]
    return "\n".join((*_headline(plan), *lines))


def in_markdown(app: str, plan: Plan) -> str:
    """The same for the summary of a job, which may be read on a small screen."""
    mark = "❌" if plan.error else "⚠️" if plan.report.losses else "✅"
    lines = [f"### {mark} {plain(app)}: {plain(_verdict(plan))}"]
    if plan.error is not None:
        lines += [f"**{plain(plan.error.reference)}**: {plain(plan.error.message)}"]
        lines += [block(plan.error.context)] if plan.error.context else []
        lines += [f"Next: {code(typed_there(plan.error.hint))}"] if plan.error.hint else []
    for label, words in _sections(plan):
        if words:
            lines.append("\n".join((f"**{label}**", "", *(f"- {plain(text)}" for text in words))))
    serving = f"{plan.serving} serves; " if plan.serving else ""
    return "\n\n".join((*lines, plain(f"{serving}a plan changes nothing")))


def _sections(plan: Plan) -> tuple[tuple[str, list[str]], ...]:
    report = plan.report
    return (
        ("release", _release(plan)),
        ("settings", _settings(report)),
        ("packages", _packages(report)),
        ("runs", _runs(report)),
        ("takes over", [line for step, note in plan.notes if step == "data" for line in note.splitlines()]),
        ("schema", [change.words for change in report.changes if not change.is_data]),
        ("data", _data(report)),
        ("writes", list(report.writes)),
        (_LOST, [change.words for change in report.losses]),
        ("time", _time(plan)),
        ("power cut", _power_cut(report)),
        ("rollback", _rollback(report)),
        ("rehearsed", _rehearsed(report)),
    )


def as_json(app: str, plan: Plan) -> dict[str, object]:
    """The same facts for programs; `report` is what a deployment keeps of its rehearsal."""
    times = plan.report.times
    return {
        "app": app,
        "would": "refuse" if plan.error else "deploy",
        "title": plan.title,
        "serving": plan.serving or None,
        "adopts": plan.adopts or None,
        "losses": [change.words for change in plan.report.losses],
        "hold_seconds": round(times.hold, 3) if _must_wait(plan) else 0.0,
        "way_back_seconds": round(times.way_back, 3) if _must_wait(plan) else 0.0,
        "steps": dict(plan.notes),
        "step": plan.step or None,
        "error": error_as_json(plan.error) if plan.error else None,
        "report": msgspec.to_builtins(plan.report),
    }


def _headline(plan: Plan) -> Iterator[str]:
    colour = "red" if plan.error else "yellow" if plan.report.losses else "green"
    for line in textwrap.wrap(_verdict(plan), _WIDTH, subsequent_indent="  "):
        yield click.style(line, fg=colour, bold=True)


def _verdict(plan: Plan) -> str:
    if plan.error is not None:
        return f"would be refused at its step {plan.step}: {plan.error.reference}"
    return f"would deploy {plan.report.release}: {', '.join(_consequences(plan))}"


def _consequences(plan: Plan) -> Iterator[str]:
    report = plan.report
    if not report.previous:
        yield "the first deployment"
    if not report.proof:
        yield "with a new database"
        return
    if plan.adopts:
        yield "with the data that are here"
    yield "a migration" if report.is_migrating else "code only"
    if not plan.serving:
        yield "nothing serves now"
    elif report.is_migrating:
        yield f"requests would wait about {report.times.hold:.0f} s"
    else:
        yield "no request would wait"
    yield "WHAT USERS MADE IS LOST" if report.losses else "nothing is lost"


def _must_wait(plan: Plan) -> bool:
    return plan.report.is_migrating and bool(plan.serving)


def _release(plan: Plan) -> list[str]:
    words = f"{plan.report.release} {plan.title}".rstrip()
    if plan.report.previous:
        words += f", after {plan.report.previous}"
    return [words, *(note for step, note in plan.notes if step == "build")]


def _settings(report: Report) -> list[str]:
    return [f"missing: {', '.join(report.missing_settings)}"] if report.missing_settings else []


def _packages(report: Report) -> list[str]:
    if not report.previous:
        return []
    words = {
        (False, True): "adds {0.name} {0.after}",
        (True, False): "removes {0.name} {0.before}",
        (True, True): "{0.name} {0.before} becomes {0.after}",
    }
    return [words[bool(one.before), bool(one.after)].format(one) for one in report.packages] or ["the same"]


def _runs(report: Report) -> list[str]:
    lines = [f"{report.command or report.tool}: {title}" for title in report.pending]
    lines = [*([report.past] if report.past else []), *lines]
    return [*lines, *(["its boot changes the data"] if report.migrates_at_boot else [])]


def _data(report: Report) -> list[str]:
    """Rows and NULLs; only what is otherwise afterwards when there are many tables."""
    rows = [count for count in report.rows if len(report.rows) <= _TABLES_SHOWN or count.before != count.after]
    lines = [f"{count.name}: {_became(count)} {'row' if count.after == 1 else 'rows'}" for count in rows]
    if len(rows) < len(report.rows):
        lines.append(f"{len(report.rows) - len(rows)} other tables keep the number of their rows")
    lines += [f"{count.name}: {_became(count)} NULLs" for count in report.nulls]
    return lines if report.is_migrating else []


def _became(count: Count) -> str:
    before, after = ("no" if number is None else f"{number:,}" for number in (count.before, count.after))
    return before if before == after else f"{before} → {after}"


def _time(plan: Plan) -> list[str]:
    times, report = plan.report.times, plan.report
    if not report.copy_bytes:
        return []
    parts = [("copied", times.copy), ("migrated", times.migrate), ("booted", times.boot)]
    lines = [", ".join(f"{what} in {seconds:.1f} s" for what, seconds in parts if seconds)]
    if _must_wait(plan) and report.health:
        lines.append(
            f"requests would wait for about {times.hold:.1f} s; the way back would take {times.way_back:.1f} s"
        )
    return lines


def _power_cut(report: Report) -> list[str]:
    found = report.durability
    return [found.words, *found.warnings, *found.advice] if found else []


def _rollback(report: Report) -> list[str]:
    return [f"to {report.previous}: {report.rollback_words}"] if report.rollback is not Way.NONE else []


def _rehearsed(report: Report) -> list[str]:
    if not report.copy_bytes:
        return [report.proof] if report.proof else []
    health = f": {report.health}" if report.health else ""
    return [f"on a copy of {size(report.copy_bytes)}, {report.proof}{health}"]


def _section(label: str, words: Iterable[str]) -> Iterator[str]:
    """The label once, and each of the words on a line of its own, or on several that hang below it."""
    for index, text in enumerate(words):
        first = "  " + ("" if index else label).ljust(_LABEL_WIDTH) + "  "
        for line in textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=_INDENT + "  "):
            yield click.style(line, fg="red") if label == _LOST else line
