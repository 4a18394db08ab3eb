"""The clock jumps by ten days while a deployment runs: no deadline may notice.

It jumps for the deployer's own code (`time.time`) alone, so that nobody's clock has to be set. libfaketime
0.9.10 was tried, and breaks every `time.sleep` of Python 3.11: it makes a negative time of an absolute monotonic one.
"""

from __future__ import annotations

import json
import subprocess
import time
from functools import partial

from bulletproof.prove.host import COMMAND_SECONDS, Ended, Host
from bulletproof.prove.hostile import DONE, Case, Stage

_DAYS = (10, -10)
_DAY_SECONDS = 86_400
_PROGRAM = """\
import runpy, sys, time
file = sys.argv.pop(1)
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + int(open(file).read())
time.time_ns = lambda: real_ns() + int(open(file).read()) * 10**9
runpy.run_module("bulletproof", run_name="__main__", alter_sys=True)
"""
"""Bulletproof, whose clock is off by the seconds in a file, which may change while it runs."""
_KILLED = frozenset({-9})
_STEPS = ("fetch", "build", "rehearse", "hold", "migrate", "start", "gate", "cutover", "drain")


def _jump(days: int, stage: Stage, *, is_killed: bool = False) -> list[Ended]:
    """At a step at random, the clock is ten days off; killed there or not."""
    return [run(stage.host, days, stage.chance.choice(_STEPS), is_killed=is_killed)]


def run(host: Host, days: int, step: str, *, is_killed: bool = False) -> Ended:
    """A migrating deployment whose clock jumps when that step begins."""
    now = host.base / "clock"
    now.write_text("0")
    begun = time.monotonic()
    command = subprocess.Popen(
        (host.python, "-P", "-c", _PROGRAM, str(now), *host.argv("deploy", "grows")[4:]),
        cwd=host.project,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    lines = []
    with command:
        assert command.stdout is not None  # noqa: S101  asked for above
        for line in command.stdout:
            lines.append(line)
            told = json.loads(line)
            if (told["event"], told.get("step")) == ("step-started", step):
                now.write_text(str(days * _DAY_SECONDS))
                if is_killed:
                    command.kill()
        status = command.wait(COMMAND_SECONDS)
        assert command.stderr is not None  # noqa: S101  asked for above
        said = command.stderr.read()
    return Ended(status=status, out="".join(lines), err=said, seconds=time.monotonic() - begun)


CASES = tuple(
    case
    for days in _DAYS
    for case in (
        Case(f"clock jumps {days:+} days", partial(_jump, days), frozenset({DONE}), times=3),
        Case(f"clock jumps {days:+} days, and a kill", partial(_jump, days, is_killed=True), _KILLED, times=3),
    )
)
