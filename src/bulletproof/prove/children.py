"""Faults at the system calls of what a deployment starts and of what serves beside it: a sample of them.

A child is stopped as soon as it is seen, and goes on under strace, so that its first calls can be met as well.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace

from bulletproof.errors import BulletproofError
from bulletproof.prove import strace
from bulletproof.prove.host import COMMAND_SECONDS, Ended, Host, processes
from bulletproof.prove.hostile import DONE, REFUSED, UNDONE, USAGE, Case, Stage
from bulletproof.prove.sweep import Sweep, Verdict

_WORDS = ("deploy", "grows")
_LOOK_SECONDS = 0.002
_ATTACH_SECONDS = 5.0
_SUPERVISOR = "supervisor"
_NEIGHBOURS = {_SUPERVISOR: "embedded.supervisor", "relay": "adapters.relay", "proxy": "caddy run"}
"""What serves all the time, by a word of its command line."""
NEW_APP = "new app"
"""The gunicorn that the supervisor starts for the new release; users meet it once it has passed its gate."""
_OF_THE_APP = {NEW_APP, "gunicorn", "migrate", "python migrate"}
"""Whose tracebacks are the app's own words, which are shown."""
_STATUSES = frozenset({DONE, REFUSED, USAGE, UNDONE})

Counts = Mapping[str, int]
"""How often a program makes each system call."""
_Finder = Callable[[subprocess.Popen[str]], int | None]


class Fault(msgspec.Struct, frozen=True):
    """A fault at the first call of this name and index that one process of a program makes."""

    program: str
    turn: int
    """Which process of that program, from 0, in the order in which a deployment starts them."""
    injection: strace.Injection

    def __str__(self) -> str:
        met = self.injection
        return f"children/{self.program}/{met.fault}:{met.call}:{met.index}:{self.turn}"


def works(base: Path, count: int, seed: int) -> list[Callable[[Sweep], list[Verdict]]]:
    """So many faults, chosen among the calls that were recorded on a host of its own."""
    host = Host.lay(base)
    try:
        turns = programs(host)
        known = {program: record(host, program) for program in sorted(turns)}
    finally:
        host.end()
    return [partial(meet, fault, random.Random(seed)) for fault in sample(known, turns, count, seed)]  # noqa: S311


def programs(host: Host) -> Counter[str]:
    """What a migrating deployment starts, and how many processes of each: by looking, so the shortest may be missed."""
    found: Counter[str] = Counter()
    command = host.begin(*_WORDS)
    seen: set[int] = set()
    while command.poll() is None:
        for pid, name in _newly_started(command.pid, seen):
            found[name] += 1
            seen.add(pid)
        time.sleep(_LOOK_SECONDS)
    command.communicate()
    return found + Counter([NEW_APP, *_NEIGHBOURS])


def record(host: Host, program: str) -> Counter[str]:
    """The calls that its first process makes, those of its busiest thread."""
    _deploy(host, program, 0, None)
    counts: Counter[str] = Counter()
    for (_, call), count in _calls(host.base / "child-trace").items():
        counts[call] = max(counts[call], count)
    return counts


def sample(known: Mapping[str, Counts], turns: Counts, count: int, seed: int) -> list[Fault]:
    """So many faults: programs by turns, then a call of it, an index and a fault by chance."""
    chance = random.Random(seed)  # noqa: S311  chosen, not secret
    able = sorted(name for name, counts in known.items() if counts)
    found = []
    for number in range(count if able else 0):
        program = able[number % len(able)]
        call = chance.choice(sorted(known[program]))
        index = chance.randint(1, known[program][call])
        fault = chance.choice(strace.Call(call, index, program).faults())
        found.append(Fault(program, chance.randrange(turns[program]), strace.Injection(call, index, fault)))
    return found


def meet(fault: Fault, chance: random.Random, faults: Sweep) -> list[Verdict]:
    """Inject one into a migrating deployment, and tell what came of it; what was not reached has not fired."""
    fired: list[bool] = []

    def play(stage: Stage) -> list[Ended]:
        ended = _deploy(stage.host, fault.program, fault.turn, fault.injection)
        met = fault.injection
        fired.append(
            any(
                call == met.call and count >= met.index
                for (_, call), count in _calls(stage.host.base / "child-trace").items()
            )
        )
        return [ended]

    is_seen = fault.program in {NEW_APP, *_NEIGHBOURS}
    verdict = faults.play(Case(fault.program, play, _STATUSES, is_seen=is_seen), chance)
    problems = verdict.problems
    if fault.program in _OF_THE_APP:
        problems = tuple(problem for problem in problems if not problem.startswith("a traceback"))
    told = replace(
        verdict,
        name=str(fault),
        scenario="children",
        fault=fault.injection.fault,
        has_fired=fired == [True],
        problems=problems,
    )
    return [told]


def _deploy(host: Host, program: str, turn: int, injection: strace.Injection | None) -> Ended:
    """A migrating deployment in which one process of that program runs under strace."""
    trace = host.base / "child-trace"
    trace.unlink(missing_ok=True)
    begun = time.monotonic()
    find = _finder(host, program, turn)
    command = host.begin(*_WORDS)
    with contextlib.ExitStack() as tracers:
        while command.poll() is None:
            if (pid := find(command)) is not None:
                tracers.enter_context(_traced(program, pid, trace, injection))
                break
            time.sleep(_LOOK_SECONDS)
        out, err = command.communicate(timeout=COMMAND_SECONDS)
    return Ended(status=command.returncode, out=out, err=err, seconds=time.monotonic() - begun)


def _finder(host: Host, program: str, turn: int) -> _Finder:
    if program in _NEIGHBOURS:
        return lambda _: next(
            (pid for pid, words, _ in processes(host.layout.root) if _NEIGHBOURS[program] in words), None
        )
    if program == NEW_APP:
        old = {pid for pid, _, _ in processes(host.layout.root)}
        return lambda command: next(
            (
                pid
                for pid, words, _ in processes(host.layout.root)
                if "-m gunicorn" in words and pid not in old and pid not in _below(command.pid)
            ),
            None,
        )
    return _nth(program, turn)


def _nth(program: str, turn: int) -> _Finder:
    seen: set[int] = set()
    left = [turn]

    def find(command: subprocess.Popen[str]) -> int | None:
        for pid, name in _newly_started(command.pid, seen):
            seen.add(pid)
            if name == program:
                if left[0] == 0:
                    return pid
                left[0] -= 1
        return None

    return find


@contextlib.contextmanager
def _traced(program: str, pid: int, trace: Path, injection: strace.Injection | None) -> Iterator[None]:
    """Stop it, attach strace to it and to all that it will start, and let it go on.

    What the supervisor starts is left alone: each new worker of an app would meet the fault that was meant for it.
    """
    order, *words = strace.prefix(trace, injection)
    follow = () if program == _SUPERVISOR else ("-f",)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    tracer = subprocess.Popen((order, *follow, *words, "-p", str(pid)), stderr=subprocess.PIPE, text=True)
    try:
        _wait_until_traced(pid, tracer)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        yield
    finally:
        tracer.terminate()
        tracer.communicate()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _wait_until_traced(pid: int, tracer: subprocess.Popen[str]) -> None:
    until = time.monotonic() + _ATTACH_SECONDS
    while tracer.poll() is None and time.monotonic() < until:
        try:
            if "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text():
                return
        except OSError:
            return  # it has ended
        time.sleep(_LOOK_SECONDS)
    if tracer.poll() is None:
        raise BulletproofError("strace-not-attached", f"strace did not attach to process {pid}")


def _newly_started(deployer: int, seen: set[int]) -> list[tuple[int, str]]:
    """The programs below it that were not seen yet; a fork that has not become another program is not one."""
    own = _words_of(deployer)
    return [
        (pid, _name(words))
        for pid in _below(deployer)
        if pid not in seen and (words := _words_of(pid)) and words != own
    ]


def _below(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *_below(int(child))]
    return found


def _words_of(pid: int) -> tuple[str, ...]:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0")
    except OSError:
        return ()
    return tuple(line.split("\0")) if line else ()


def _name(words: tuple[str, ...]) -> str:
    """A program's name as people know it: its module or script, else the program itself."""
    if "-m" in words[1:]:
        return words[words.index("-m") + 1]
    if "-c" in words[1:] and Path(words[0]).name.startswith("python"):
        return "sqlite one-liner" if "sqlite" in words[words.index("-c") + 1] else "bound program"
    scripts = [Path(word).stem for word in words[1:] if word.endswith(".py")]
    return scripts[0] if scripts else Path(words[0]).name


def _calls(trace: Path) -> Counter[tuple[str, str]]:
    """How often each process or thread made each call; of one alone strace does not write which it is."""
    counts: Counter[tuple[str, str]] = Counter()
    if trace.exists():
        for line in trace.read_text(errors="replace").splitlines():
            words = line if line[:1].isdigit() else f"0 {line}"
            pid, _, rest = words.partition(" ")
            name, opened, _ = rest.strip().partition("(")
            if opened and name in strace.MUTATING:
                counts[pid, name] += 1
    return counts
