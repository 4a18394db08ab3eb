"""`bulletproof prove`: deployments of the user's own app killed anywhere, on hosts of their own."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from bulletproof.cli.target import find_target, host_options
from bulletproof.effects.project import find_project
from bulletproof.errors import UsageError
from bulletproof.wiring import connect

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
    from rich.table import Table  # noqa: PLC0415

    from bulletproof.prove import own, report, runner, strace, subject, sweep  # noqa: PLC0415
    from bulletproof.prove.host import scratch  # noqa: PLC0415
    from bulletproof.prove.scenarios import MIGRATING, OF_ANY_APP  # noqa: PLC0415

    if not strace.is_there():
        raise UsageError(
            "strace-missing", "faults are injected by strace, which is not installed", hint="apt install strace"
        )
    target, project = find_target(root, verb_root, app_name), find_project(Path.cwd())
    seed = int(time.time()) if seed is None else seed
    talk, console = (
        Console(stderr=True, highlight=False),
        Console(highlight=False, width=None if sys.stdout.isatty() else 140),
    )

    def watch(verdict: sweep.Verdict) -> None:
        if not verdict.is_good:
            talk.print(f"  {verdict.name}: {'; '.join(verdict.problems)}", markup=False)

    with scratch() as base:
        database = target.layout.data / project.config.database.file
        data = subject.copy_of(database, base / "data.db") if database.exists() else None
        settings = connect(root, target.app, project.config).settings.today()
        app = subject.own(project, data, settings)
        talk.print(f"recording what a deployment of {app.name} does", style="dim")
        known = runner.record_all(base / "record", OF_ANY_APP, app)
        migration = own.find_migration(base, project, target.layout, data, settings)
        talk.print(f"a migration is {migration.words}", style="dim", markup=False)
        chosen = sweep.choose([*known, *migration.points], only, faults, seed)
        talk.print(f"injecting {sum(1 + len(point.then) for point in chosen)} faults", style="dim")
        begun, verdicts = time.monotonic(), []
        for what, names in ((app, OF_ANY_APP), (migration.app, MIGRATING)):
            points = [point for point in chosen if point.scenario in names]
            if what is not None and points:
                place = base / names[0]
                verdicts += runner.prove(place, runner.works(points, (), seed), watch, hosts=hosts, subject=what)
    table = Table(*report.HEADINGS)
    for row in report.rows(verdicts):
        table.add_row(*row)
    console.print(table)
    console.print(f"{report.verdict_line(verdicts, time.monotonic() - begun)}; seed {seed}")
    console.print(f"A migration of the data was {migration.words}.", markup=False)
    sys.exit(0 if all(verdict.is_good for verdict in verdicts) else 1)
