"""The results as a table to read and as JSON to keep."""

from __future__ import annotations

import sys

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from bench.results import BACK, BAD, GOOD, GUIDE, METRICS, OURS, REBUILT, Results
from bench.startup import RUNS
from bench.trial import Trial
from bulletproof.demo.traffic import Load

_WIDTH = 132
_COLUMNS = {
    "seconds": ("wall s", "{:.2f}"),
    "requests": ("requests", "{:.0f}"),
    "failed": ("failed", "{:.0f}"),
    "gap_seconds": ("gap s", "{:.2f}"),
    "wait_seconds": ("wait s", "{:.2f}"),
    "read_p99_seconds": ("p99 s", "{:.3f}"),
    "writes_acknowledged": ("writes", "{:.0f}"),
    "writes_lost": ("lost", "{:.0f}"),
    "cpu_seconds": ("CPU s", "{:.2f}"),
}
_LEGEND = """\
wall, CPU: of the deployment's command with its children; gap: longest time without a success; wait: longest of one
request; p99: of reads; writes: acknowledged; lost: of these, not in the database; then: what /up answers afterwards
"""


def show(results: Results) -> None:
    """Print the table, the medians and the verdict."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    console.print(_where(results))
    console.print(_table(results))
    console.print(_LEGEND)
    for what in (GOOD, BACK):
        steps = ", ".join(f"{step} {seconds:.2f}" for step, seconds in results.steps(what).items())
        console.print(f"steps of our {what}, median seconds: {steps}")
    startup = results.startup
    console.print(
        f"CPU of bulletproof --help: {startup.help_cpu_seconds * 1000:.0f} ms (median of {RUNS};"
        f" python -c pass: {startup.python_cpu_seconds * 1000:.0f} ms)"
    )
    for aim in results.aims():
        console.print(f"{'met   ' if aim.is_met else 'MISSED'}  {aim.words}: {aim.found}")
    for words in results.complaints:
        console.print(f"WRONG   {words}")


def as_json(results: Results) -> bytes:
    """Everything, each trial with its full report."""
    pairs = [(GOOD, GUIDE), (GOOD, REBUILT), (GOOD, OURS), (BACK, OURS), (BAD, GUIDE), (BAD, OURS)]
    told = {
        "machine": results.machine,
        "load": results.load,
        "trials": results.trials,
        "medians": [{"what": what, "way": way, **results.medians(what, way)} for what, way in pairs],
        "steps": {what: results.steps(what) for what in (GOOD, BACK)},
        "ratios": results.ratios(),
        "startup": results.startup,
        "aims": results.aims(),
        "complaints": results.complaints,
    }
    return msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n"


def _where(results: Results) -> str:
    machine = results.machine
    return (
        f"{machine.began_at}, {machine.cores} cores ({machine.cpu}), Linux {machine.kernel}, Python {machine.python};"
        f" load average {machine.load_before:.1f} before, {machine.load_after:.1f} after\n"
        + _load_in_words(results.load)
    )


def _load_in_words(load: Load) -> str:
    return (
        f"{load.rate:.0f} requests a second by {load.clients} clients, {load.write_share:.0%} of them writes;"
        " gunicorn with 1 master and 3 sync workers on both sides"
    )


def _table(results: Results) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("what", "run", "way", "exit", "then"):
        table.add_column(title, no_wrap=True)
    for name in METRICS:
        table.add_column(_COLUMNS[name][0], justify="right", no_wrap=True)
    for what in (GOOD, BACK, BAD):
        trials = [trial for trial in results.trials if trial.act.what == what]
        for trial in trials:
            table.add_row(*_head(trial), *_cells({name: take(trial) for name, take in METRICS.items()}))
        for way in [way for way in (GUIDE, REBUILT, OURS) if len(results.of(what, way)) > 1]:
            table.add_row(what, "median", way, "", "", *_cells(results.medians(what, way)), style="bold")
        if what == GOOD:
            table.add_row(what, "ratio", "ours / guide's", "", "", *_ratios(results), style="bold")
        table.add_section()
    return table


def _head(trial: Trial) -> tuple[str, ...]:
    return (
        trial.act.what,
        str(trial.act.run),
        trial.act.way,
        str(trial.status),
        str(trial.afterwards or "-"),
    )


def _cells(values: dict[str, float]) -> list[str]:
    return [_COLUMNS[name][1].format(values[name]) for name in METRICS]


def _ratios(results: Results) -> list[str]:
    return ["-" if ratio is None else f"{ratio:.2f}" for ratio in results.ratios().values()]
