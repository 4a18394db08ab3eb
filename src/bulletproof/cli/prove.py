"""`bulletproof prove`: deployments of the user's own app killed anywhere, on hosts of their own."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bulletproof.cli.target import find_target, host_options
from bulletproof.effects.interrupts import Interrupted, Interrupts
from bulletproof.effects.project import find_project
from bulletproof.errors import UsageError
from bulletproof.wiring import connect

if TYPE_CHECKING:
    from bulletproof.prove.own import Proven

_FAULTS = 250
"""About ten minutes for an app that boots in a second, on two processors."""


@click.command("prove")
@click.option("--faults", type=click.IntRange(min=1), default=_FAULTS, show_default=True, help="How many.")
@click.option("--seed", type=int, default=None, help="Which of all that are possible; told at the end.")
@click.option(
    "--only", default="", metavar="STEP/FAULT", help="Such as deploy/cutover/KILL; a part from the left is enough."
)
@click.option("--hosts", type=click.IntRange(1, 8), default=2, show_default=True, help="How many hosts side by side.")
@host_options
@click.pass_obj
def prove_command(
    root: Path, *, faults: int, seed: int | None, only: str, hosts: int, verb_root: Path | None, app_name: str | None
) -> None:
    """Kill deployments of this app anywhere, and look whether it is whole afterwards.

    The files that lie here and a copy of the live data, if there are any, are deployed on hosts in a folder of their
    own; nothing live is touched. The faults are SIGKILL, a full and a broken disk, each at one system call of deploy,
    rollback or recovery. A migration is met when the live release, or the revision in git before the last migration,
    has other data than what lies here. Exit status 1 when a promise was broken.
    """
    from rich.console import Console  # noqa: PLC0415  heavy, and `prove --help` needs none of it

    from bulletproof.prove import own, strace, sweep  # noqa: PLC0415
    from bulletproof.prove.host import scratch  # noqa: PLC0415

    if not strace.is_there():
        raise UsageError(
            "strace-missing", "faults are injected by strace, which is not installed", hint="apt install strace"
        )
    target, project = find_target(root, verb_root, app_name), find_project(Path.cwd())
    wish = own.Wish(faults, int(time.time()) if seed is None else seed, only, hosts)
    talk = Console(stderr=True, highlight=False)

    def tell(words: str) -> None:
        talk.print(words, style="dim", markup=False)

    def watch(verdict: sweep.Verdict) -> None:
        if not verdict.is_good:
            talk.print(f"  {verdict.name}: {'; '.join(verdict.problems)}", markup=False)

    settings = connect(root, target.app, project.config).settings.today()
    try:
        with Interrupts(lambda: tell("ending: the hosts are taken down")), scratch() as base:
            proven = own.prove_app(base, project, target.layout, settings, wish, tell=tell, watch=watch)
    except Interrupted as signal:
        tell(f"{signal}; the hosts are gone, and nothing live was touched")
        sys.exit(128 + signal.number)
    _show(proven, wish.seed)
    sys.exit(0 if all(verdict.is_good for verdict in proven.verdicts) else 1)


def _show(proven: Proven, seed: int) -> None:
    from rich.console import Console  # noqa: PLC0415  as above
    from rich.table import Table  # noqa: PLC0415

    from bulletproof.prove import report  # noqa: PLC0415

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    table = Table(*report.HEADINGS)
    for row in report.rows(proven.verdicts):
        table.add_row(*row)
    console.print(table)
    console.print(f"{report.verdict_line(proven.verdicts, proven.seconds)}; seed {seed}")
    console.print(f"A migration of the data was {proven.migration}.", markup=False)
