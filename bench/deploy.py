"""`make bench-deploy`: Bulletproof beside the guide's own procedure, same app, same load, in one run."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from bench.guide import Guide
from bench.ours import Ours
from bench.report import as_json, show
from bench.results import BACK, BAD, GOOD, GUIDE, OURS, REBUILT, Machine, Results, processor
from bench.startup import measure_startup
from bench.trial import RATE, Act, Trial, under_load, users
from bulletproof.demo.playground import Playground
from bulletproof.demo.traffic import Load
from bulletproof.effects import durable
from bulletproof.errors import BulletproofError

_BAD_SECONDS = 6.0
"""How long the load goes on after a bad deployment returned: an outage has no end by itself, the load has."""
_UNDONE = 3


def main() -> int:
    """Measure, show, and return 1 when ours failed a request or lost a write."""
    parser = argparse.ArgumentParser(prog="python -m bench.deploy", description=__doc__, allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=3, choices=range(1, 21), metavar="N", help="of each way; default 3")
    parser.add_argument("--rate", type=float, default=RATE, metavar="N", help=f"requests a second; default {RATE:.0f}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to this file, too")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    try:
        results = measure(given.runs, users(given.rate))
    except BulletproofError as error:
        print(f"error: {error}", *error.context, error.hint, sep="\n", file=sys.stderr)
        return error.exit_code
    show(results)
    if given.json:
        given.json.write_bytes(as_json(results))
    return 1 if results.complaints else 0


def measure(runs: int, load: Load) -> Results:
    """Prepare both hosts, measure them in turn, end everything. Raises BulletproofError when it cannot be measured."""
    began_at, load_before = datetime.now(UTC), os.getloadavg()[0]
    folder = Path(tempfile.mkdtemp(prefix="bulletproof-bench-"))
    try:
        startup = measure_startup(folder)
        trials = tuple(_trials(folder, runs, load))
    finally:
        durable.remove_tree(folder)
    machine = Machine(
        began_at=began_at.strftime("%Y-%m-%d %H:%M UTC"),
        cpu=processor(),
        cores=os.cpu_count() or 1,
        kernel=platform.release(),
        python=platform.python_version(),
        load_before=load_before,
        load_after=os.getloadavg()[0],
    )
    return Results(machine=machine, load=load, trials=trials, startup=startup)


def _trials(folder: Path, runs: int, load: Load) -> Iterator[Trial]:
    """Both hosts prepared, measured and stopped."""
    _tell("preparing: a repository, a virtual environment for the guide, a first deployment for Bulletproof")
    project = Playground.make(folder / "project").folder
    with closing(Guide(folder, project)) as guide, closing(Ours(folder, project)) as ours:
        guide.lay()
        ours.lay()
        for trial in _in_turn(guide, ours, folder, runs, load):
            act, report = trial.act, trial.report
            _tell(f"{act.what}, run {act.run}, {act.way}: {trial.seconds:.2f} s, {report.failed} requests failed")
            yield trial


def _in_turn(guide: Guide, ours: Ours, folder: Path, runs: int, load: Load) -> Iterator[Trial]:
    """The guide and ours in turn, each beginning with v1; the bad release at the end."""
    for run in range(1, runs + 1):
        by_guide = Act(what=GOOD, way=GUIDE, run=run, is_ours=False, status=0)
        yield under_load(guide, folder, by_guide, load, lambda: guide.deploy("v2"))
        guide.reset()
        rebuilding = Act(what=GOOD, way=REBUILT, run=run, is_ours=False, status=0)
        yield under_load(guide, folder, rebuilding, load, lambda: guide.deploy("v2", rebuild=True))
        guide.reset()
        by_us = Act(what=GOOD, way=OURS, run=run, is_ours=True, status=0)
        deployed = under_load(ours, folder, by_us, load, lambda: ours.deploy("v2"))
        yield deployed
        if deployed.status != 0:
            continue  # Undone, so v1 serves already; the verdict tells of it.
        back = Act(what=BACK, way=OURS, run=run, is_ours=True, status=0)
        yield under_load(ours, folder, back, load, ours.rollback)
    broken = Act(what=BAD, way=GUIDE, run=1, is_ours=False, status=0, after_seconds=_BAD_SECONDS)
    yield under_load(guide, folder, broken, load, lambda: guide.deploy("answers-500"))
    refused = Act(what=BAD, way=OURS, run=1, is_ours=True, status=_UNDONE, after_seconds=_BAD_SECONDS)
    yield under_load(ours, folder, refused, load, lambda: ours.deploy("answers-500"))


def _tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _end(number: int, _: FrameType | None) -> None:
    """End as an exception, so that everything that was started is ended, too."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
