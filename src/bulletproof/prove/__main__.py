"""`python -m bulletproof.prove`: the proof of Bulletproof itself, over the tiny app."""

from __future__ import annotations

import argparse
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bulletproof.effects import durable
from bulletproof.effects.interrupts import Interrupted, Interrupts
from bulletproof.errors import BulletproofError
from bulletproof.prove import children, clock, disk, power, report, runner, strace, sweep
from bulletproof.prove.host import scratch
from bulletproof.prove.hostile import CASES
from bulletproof.prove.scenarios import SCENARIOS

_OTHER_LANES = ("hostile", "children", "disk")


def main() -> int:
    """Record, choose, inject, tell; 0 when something was injected and every promise was kept."""
    parser = _parser()
    options = parser.parse_args()
    if not strace.is_there():
        parser.error("faults are injected by strace, which is not installed")
    if again := disk.namespace([sys.executable, "-P", "-m", "bulletproof.prove", *sys.argv[1:]]):
        os.execvp(again[0], again)  # noqa: S606  in a mount namespace, there is no shell that it could need
    cases = [case for case in (*CASES, *clock.CASES) if f"hostile/{case.name}".startswith(options.only)]
    lane = options.only.partition("/")[0]
    names = [lane] if lane in SCENARIOS else [name for name in SCENARIOS if lane not in _OTHER_LANES]

    def watch(verdict: sweep.Verdict) -> None:
        if not verdict.is_good:
            sys.stdout.write(f"{verdict.name} [{verdict.step}]: {'; '.join(verdict.problems)}\n")
            sys.stdout.flush()

    with Interrupts(_tell_the_end), scratch() as base, ThreadPoolExecutor() as beside:
        of_children = beside.submit(_of_children, base / "children", options)
        known = runner.record_all(base / "record", names) if names else []
        chosen = sweep.choose(known, options.only, options.faults, options.seed)
        works = [*of_children.result(), *runner.works(chosen, cases, options.seed)]
        random.Random(options.seed).shuffle(works)  # noqa: S311  chosen, not secret
        count = sum(1 + len(point.then) for point in chosen)
        sys.stdout.write(f"{len(known)} faults are known; {count} are injected, seed {options.seed}\n")
        sys.stdout.flush()
        begun = time.monotonic()
        until = begun + options.minutes * 60
        is_ended = threading.Event()
        on_disk = beside.submit(
            _on_disk, base / "disk", options, watch, lambda: is_ended.is_set() or time.monotonic() > until
        )
        try:
            verdicts = runner.prove(base, works, watch, hosts=options.hosts, until=until)
            verdicts += on_disk.result()
        finally:
            is_ended.set()
        seconds = time.monotonic() - begun
    if options.write:
        durable.write_file(options.write, report.page(verdicts, seconds, seed=options.seed, known=len(known)))
    sys.stdout.write(f"{report.markdown(verdicts)}\n{report.verdict_line(verdicts, seconds)}\n")
    return 0 if verdicts and all(verdict.is_good for verdict in verdicts) else 1


def _tell_the_end() -> None:
    sys.stderr.write("ending: the hosts are taken down\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bulletproof.prove", description=__doc__)
    parser.add_argument("--faults", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", default="", metavar="[SCENARIO/]STEP/FAULT[:CALL[:INDEX]]")
    parser.add_argument("--hosts", type=int, default=runner.HOSTS)
    parser.add_argument("--rounds", type=int, default=24, help="of cut power and of full and broken disks (root only)")
    parser.add_argument("--children", type=int, default=60, help="faults at calls of what a deployment starts")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no fault after so long")
    parser.add_argument("--write", type=Path, help="the page for the documentation")
    return parser


def _of_children(base: Path, options: argparse.Namespace) -> list[runner.Work]:
    """Faults at calls of what a deployment starts, chosen among those of a recording."""
    if not "children/".startswith(options.only) or not options.children:
        return []
    return [*children.works(base, options.children, options.seed)]


def _on_disk(
    base: Path, options: argparse.Namespace, watch: runner.Watch, is_over: Callable[[], bool]
) -> list[sweep.Verdict]:
    """The rounds with a disk of one's own; where there can be none, it is said why."""
    if not "disk/".startswith(options.only) and not options.only.startswith("disk/"):
        return []
    if reason := disk.why_not():
        sys.stdout.write(f"no power was cut, and no disk filled: {reason}\n")
        return []
    return power.play(base, options.rounds, options.seed, watch, is_over, options.only)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Interrupted as interrupted:
        sys.exit(128 + interrupted.number)
    except BulletproofError as error:
        sys.exit("\n  ".join((str(error), *error.context)))
