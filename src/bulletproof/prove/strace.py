"""System calls of a command: recorded, and one of them met by a fault, by strace."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import msgspec

KILL = "KILL"
ERRORS = ("ENOSPC", "EIO")
FAULTS = (KILL, *ERRORS)

_FULL = {
    *("write", "pwrite64", "writev", "ftruncate", "fallocate", "fsync", "fdatasync", "openat"),
    *("mkdir", "mkdirat", "rename", "renameat", "renameat2", "symlink", "symlinkat", "link", "linkat"),
}
"""Calls that a full disk refuses."""
_BROKEN = {
    *_FULL,
    *("unlink", "unlinkat", "rmdir", "chmod", "fchmod", "fchmodat", "chown", "fchown", "fchownat"),
    *("utimensat", "sendfile", "copy_file_range"),
}
"""Calls that a broken disk refuses."""
MUTATING = {
    *_BROKEN,
    *("connect", "sendto", "sendmsg", "bind", "listen", "flock", "truncate"),
    *("vfork", "fork", "clone", "clone3", "kill", "pidfd_send_signal"),
}
"""Calls that change something outside of the process; killed at their entry, none of their effect happens."""

_CALL = re.compile(r"^(\w+)\((.*)$")
_STARTED = re.compile(r'"event\\?": ?\\?"step-started\\?".*?"step\\?": ?\\?"([\w-]+)')
_FAILED = re.compile(r'"event\\?": ?\\?"step-failed')
_ENDED = re.compile(r'"event\\?": ?\\?"deployment')
FROM_THE_START = ("", "begin")
"""Steps that are no steps yet: what lies in them is counted from the command's start."""


class Call(msgspec.Struct, frozen=True):
    """The `index`-th call of this name, from 1, since its step or the command began; and that step."""

    name: str
    index: int
    step: str

    def faults(self) -> tuple[str, ...]:
        """What can happen to it."""
        full = ("ENOSPC",) if self.name in _FULL else ()
        broken = ("EIO",) if self.name in _BROKEN else ()
        return (KILL, *full, *broken)


class Injection(msgspec.Struct, frozen=True):
    """A fault at one call."""

    call: str
    index: int
    fault: str

    def __str__(self) -> str:
        return f"{self.fault}:{self.call}:{self.index}"

    @classmethod
    def parse(cls, text: str) -> Injection:
        """What `str` of one says."""
        fault, call, index = text.split(":")
        return cls(call, int(index), fault)

    @property
    def option(self) -> str:
        """As strace wants it."""
        act = "signal=KILL" if self.fault == KILL else f"error={self.fault}"
        return f"inject={self.call}:{act}:when={self.index}"


class Trace(msgspec.Struct, frozen=True):
    """What was recorded of a run."""

    calls: tuple[Call, ...]
    step: str
    """The one in which the fault came; without one, the last."""
    has_fired: bool
    last: str
    """The call that met the fault, as strace wrote it; the last one for a kill."""


def is_there() -> bool:
    """Whether strace is installed."""
    return shutil.which("strace") is not None


def prefix(trace: Path, injection: Injection | None = None) -> tuple[str, ...]:
    """What stands before a command, so that its own calls are recorded, and those of none of its children."""
    chosen = ("-e", injection.option) if injection else ()
    return ("strace", "-qq", "-s", "160", "-o", str(trace), "-e", f"trace={','.join(sorted(MUTATING))}", *chosen)


def read(trace: Path, first_step: str, *, tells: bool = False) -> Trace:
    """The calls of a run that change something; an `openat` that makes nothing is counted and left out.

    Where the run tells its steps on standard output, a step begins when it was told there, and calls are counted from
    then; else when its recording was written, and they are counted from where the trace begins. Without a trace
    nothing happened.
    """
    counts: Counter[str] = Counter()
    before: dict[str, Counter[str]] = {first_step: Counter()}
    calls: list[Call] = []
    step, has_fired, last, met = first_step, False, "", ("", "")
    for line in trace.read_text(errors="replace").splitlines() if trace.exists() else ():
        has_fired = has_fired or line.startswith("+++ killed by SIGKILL")
        found = _CALL.match(line)
        if found is None:
            continue
        last = line
        if "(INJECTED)" in line:
            has_fired, met = True, (step, line)
        name, rest = found.groups()
        counts[name] += 1
        if name != "openat" or "O_CREAT" in rest or "O_TMPFILE" in rest:
            calls.append(Call(name, counts[name] - (before[step][name] if tells else 0), step))
        if name == "write" and (rest.startswith("1, ") or not tells):
            step = step_after(rest, step)
            before.setdefault(step, Counter(counts))
    at_step, line = met if met[1] else (step, last)
    return Trace(tuple(calls), at_step, has_fired, line)


def step_after(written: str, step: str) -> str:
    """The step that a line of events leads to, also as strace shows it."""
    if started := _STARTED.search(written):
        return started[1]
    if _FAILED.search(written):
        return f"undo of {step}"
    return "end" if _ENDED.search(written) else step
