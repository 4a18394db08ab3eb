"""`make bench-check`: what `bulletproof check` takes beside the guide's health check, same app, in turn.

Both apps run idle on this machine, each with its own processes. A first run of each, which may have to write bytecode,
does not count; nor is a run counted in which something was found wrong.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from bench.command import Finished
from bench.guide import Guide
from bench.ours import Ours
from bulletproof.demo.playground import Playground
from bulletproof.effects import durable
from bulletproof.errors import BulletproofError

_AIM_SECONDS = 0.5
_GUIDE_WELL = 8
"""Of its ten looks eight say `ok`, and two only count."""


def main() -> int:
    """Measure, print a table, and return 1 when ours takes longer than it may."""
    parser = argparse.ArgumentParser(prog="python -m bench.check", description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=9, choices=range(1, 101), metavar="N", help="default 9")
    rounds = parser.parse_args().rounds
    folder = Path(tempfile.mkdtemp(prefix="bulletproof-bench-"))
    try:
        guides, ours = measure(folder, rounds)
    except BulletproofError as error:
        print(f"error: {error}", *error.context, error.hint, sep="\n", file=sys.stderr)
        return error.exit_code
    finally:
        durable.remove_tree(folder)
    return 0 if show(guides, ours) else 1


def measure(folder: Path, rounds: int) -> tuple[list[Finished], list[Finished]]:
    """The guide's runs and ours, in turn. Raises BulletproofError when either cannot be prepared, or finds a fault."""
    project = Playground.make(folder / "project").folder
    with closing(Guide(folder, project)) as guide, closing(Ours(folder, project)) as ours:
        guide.lay()
        ours.lay()
        ours.deploy("v2")
        ours.back_up()
        found = [(_well(guide.check, _guide_is_well), _well(ours.check, _is_well)) for _ in range(rounds + 1)]
    return [by_guide for by_guide, _ in found[1:]], [by_us for _, by_us in found[1:]]


def show(guides: list[Finished], ours: list[Finished]) -> bool:
    """Print the medians and the ratio; whether ours is quick enough."""
    print(f"{len(ours)} rounds in turn, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    print("| way | looks | median wall s | slowest | median CPU s | of the guide's wall |")
    print("|---|---|---|---|---|---|")
    base = _median(guides)
    looks = ours[0].output.count("\n✓") + ours[0].output.count("\n!") + 1
    for way, count, runs in (("the guide", 10, guides), ("bulletproof check", looks, ours)):
        cpu = statistics.median(one.cpu_seconds for one in runs)
        slowest = max(one.seconds for one in runs)
        print(f"| {way} | {count} | {_median(runs):.2f} | {slowest:.2f} | {cpu:.2f} | {_median(runs) / base:.2f} |")
    is_met = _median(ours) <= _AIM_SECONDS
    print(f"{'met   ' if is_met else 'MISSED'}  at most {_AIM_SECONDS} s: {_median(ours):.2f} s")
    return is_met


def _median(runs: list[Finished]) -> float:
    return statistics.median(one.seconds for one in runs)


def _well(check: Callable[[], Finished], is_well: Callable[[Finished], bool]) -> Finished:
    done = check()
    if not is_well(done):
        words = f"a check found something wrong, and ended with {done.status}"
        raise BulletproofError("bench-not-prepared", words, context=tuple((done.output + done.errors).splitlines()))
    return done


def _guide_is_well(done: Finished) -> bool:
    return done.status == 0 and done.output.count(" ok\n") == _GUIDE_WELL


def _is_well(done: Finished) -> bool:
    """Whether nothing is broken; a warning, such as of this machine's clock, is no fault."""
    return done.status <= 1


if __name__ == "__main__":
    sys.exit(main())
