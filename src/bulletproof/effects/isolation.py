"""A program in a cell: what the kernel lets us keep it from, and how it is started there."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from bulletproof.domain.account import Account
from bulletproof.effects import cell, connections, durable, notice, watch
from bulletproof.effects.ownership import give
from bulletproof.effects.process import Completed, Running, run, spawn
from bulletproof.errors import Refused

_SYSTEM = ("/usr", "/etc")
"""What a Python program needs of the machine, read-only; /bin and /lib are links into /usr on every merged system."""
_NOTES = "notes"
_HEARD = "connections"
_END_SECONDS = 10.0
"""For the cell's own process to see everything in it dead, which takes it milliseconds."""
_SCRIPT = (sys.executable, "-I", "-S", cell.__file__)


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """What a program in it can reach; everything else does not exist for it, or is refused."""

    mount_point: Path
    """An empty folder, and empty again when the program has ended in namespaces; otherwise the notes are in it."""
    read_only: tuple[Path, ...]
    writable: Mapping[Path, Path]
    """Folders outside to where they lie inside, if `is_remapped()`; otherwise they lie where they do outside."""
    overlaid: Mapping[Path, Path] = msgspec.field(default_factory=dict)
    """Likewise, but what is written there is gone with the program, and nothing outside changes; in namespaces only."""
    noticed: tuple[Path, Path] | None = None
    """A folder of which programs in it note what they would write there, and an empty one for the notes; in namespaces
    only."""
    database: Path | None = None
    """The SQLite file, as it is seen inside, to whose connections it is listened; in namespaces only where something is
    noticed."""
    memory_bytes: int
    """For each process, and for all of them together: those two are the limit's and the cell's to watch."""
    account: Account | None = None
    """As whom the program runs, when we are root; its writable places must be the account's to write."""


def start_in_cell(
    cell_plan: Cell, argv: Sequence[str], *, folder: Path, environment: Mapping[str, str], log: Path
) -> Running:
    """Start the program; it and all that it starts die with us. Its output is appended to `log`."""
    if not is_remapped():
        environment = _watched(cell_plan, environment)
    elif cell_plan.noticed is not None:
        cell_plan, environment = _noticing(cell_plan, *cell_plan.noticed, environment)
    return spawn(
        _SCRIPT,
        folder=Path("/"),
        environment={},
        input_text=_plan(cell_plan, argv, folder, environment, namespaces=is_remapped()),
        log=log,
    )


def end_at_once(running: Running) -> None:
    """End all that runs in a cell, without a word to it before; it is gone when this returns. Idempotent."""
    # Not by SIGKILL: the kernel would end what is inside as well, but only after we have gone on.
    running.end(patience_seconds=_END_SECONDS, stop_signal="SIGUSR1")


def would_write(cell_plan: Cell) -> tuple[str, ...]:
    """The places below `Cell.noticed` that programs in this cell would have written, each once, relative to it."""
    if cell_plan.noticed is None or not (notes := cell_plan.noticed[1] / _NOTES).exists():
        return ()
    lines = dict.fromkeys(notes.read_text(encoding="utf-8", errors="replace").splitlines())
    return tuple(str(json.loads(line)) for line in lines)


def heard(cell_plan: Cell) -> tuple[dict[str, object], ...]:
    """What the program that was started last in this cell did with connections to `Cell.database`, in order."""
    if (notes := _heard(cell_plan)) is None or not notes.exists():
        return ()
    return tuple(map(json.loads, notes.read_text(encoding="utf-8").splitlines()))


def _lay_notes(file: Path, account: Account | None) -> None:
    durable.write_file(file, "", mode=0o600)
    give(file, account)


def _heard(plan: Cell) -> Path | None:
    """Where that is noted: in namespaces beside what else is noticed there."""
    if not is_remapped():
        return plan.mount_point / _HEARD
    return plan.noticed[1] / _HEARD if plan.noticed is not None else None


def _lay_listener(site: Path, heard_at: Path, plan: Cell) -> dict[str, str]:
    """Lay what listens beside a sitecustomize.py; returns what must stand in that one's plan."""
    _lay_notes(heard_at, plan.account)
    durable.write_file(site / "_bulletproof_connections.py", Path(connections.__file__).read_bytes(), mode=0o644)
    return {"connections": str(heard_at), "database": str(plan.database or "")}


def _noticing(plan: Cell, source: Path, folder: Path, environment: Mapping[str, str]) -> tuple[Cell, dict[str, str]]:
    """Lay the notice where every Python of the program finds it first."""
    site, notes, told_of = folder / "site", folder / _NOTES, folder / _HEARD
    durable.make_folder(site, mode=0o755)
    if not notes.exists():
        _lay_notes(notes, plan.account)
    durable.write_file(site / "sitecustomize.py", Path(notice.__file__).read_bytes(), mode=0o644)
    told = {"notes": str(notes), "source": str(source), **_lay_listener(site, told_of, plan)}
    durable.write_file(site / "plan.json", json.dumps(told), mode=0o644)
    searched = [str(site), *filter(None, [environment.get("PYTHONPATH", "")])]
    written = {notes: notes, told_of: told_of}
    noticing = replace(plan, read_only=(*plan.read_only, site), writable={**plan.writable, **written})
    return noticing, {**environment, "PYTHONPATH": os.pathsep.join(searched)}


def violations(cell_plan: Cell) -> tuple[str, ...]:
    """What programs that were started in this cell tried to reach and were refused, each once, in words.

    In namespaces there is nothing to tell: what is not listed does not exist there. Otherwise it is told as well when
    no Python of them was watched, since nothing is known of them then.
    """
    notes = _notes(cell_plan)
    if not notes.exists():
        return ()
    lines = dict.fromkeys(notes.read_text(encoding="utf-8", errors="replace").splitlines())
    if watch.STARTED not in lines:
        return ("it ran without the audit hook, so nobody knows what it opened",)
    return tuple(line for line in lines if line != watch.STARTED)


def proof() -> str:
    """In words, what keeps a program in its cell, and what that does not stop."""
    if is_remapped():
        return "in namespaces of its own"
    because = f"because the kernel makes no namespaces for us ({why_no_namespaces()})"
    if cell.landlock_version():
        return (
            f"kept by Landlock and watched by an audit hook, {because}; a library in C could still reach a unix socket,"
            " or send a datagram"
        )
    return (
        f"watched by an audit hook alone, {because}; a library in C, or a program that is not Python, could get around"
    )


def is_remapped() -> bool:
    """Whether the cell's folders lie where `Cell.writable` says; otherwise tell the program where they lie outside."""
    return not why_no_namespaces()


def why_not() -> str:
    """Why no proof works here; empty when one does."""
    return why_no_namespaces() and _why_no_watched_program()


@functools.cache
def why_no_namespaces() -> str:
    """Why the kernel lets us make no namespaces; empty when it does. Tried for real, once per process."""
    return _judged(_try(namespaces=True))


@functools.cache
def _why_no_watched_program() -> str:
    return _judged(_try(namespaces=False))


def require_readable(allow: Sequence[str]) -> None:
    """Raise Refused when a path of `[rehearsal] allow` is not there, or may not be read."""
    for path in allow:
        if not os.path.lexists(path) or not Path(path).exists():
            problem = "is not there"
        elif not os.access(path, os.R_OK, effective_ids=True):
            problem = "may not be read by the user who deploys"
        else:
            continue
        raise Refused(
            "rehearsal-path-missing",
            f'`[rehearsal] allow` names "{path}", which {problem}',
            hint="put it there, or take it out of `allow` in bulletproof.toml, then: bulletproof deploy",
        )


def _try(*, namespaces: bool) -> Completed:
    true = "/usr/bin/true"
    plan = Cell(mount_point=Path("/mnt"), read_only=(), writable={}, memory_bytes=1 << 30)
    text = _plan(plan, (true,), Path("/"), {}, namespaces=namespaces)
    return run(_SCRIPT, folder=Path("/"), input_text=text, timeout_seconds=20)


def _judged(tried: Completed) -> str:
    return "" if tried.status == 0 else tried.errors.strip() or f"a trial ended with status {tried.status}"


def _watched(plan: Cell, environment: Mapping[str, str]) -> dict[str, str]:
    """Lay the audit hook where every Python of the program finds it first; returns the environment that says so."""
    site, temporary = _site(plan), _temporary(plan)
    for folder in (site, temporary):
        durable.make_folder(folder, mode=0o755)
    give(temporary, plan.account)
    if not _notes(plan).exists():
        _lay_notes(_notes(plan), plan.account)
    durable.write_file(site / "sitecustomize.py", Path(watch.__file__).read_bytes(), mode=0o644)
    listening = _lay_listener(site, plan.mount_point / _HEARD, plan)
    told = {"notes": str(_notes(plan)), "writable": [*map(str, plan.writable), str(temporary)], **listening}
    durable.write_file(site / "plan.json", json.dumps(told), mode=0o644)
    searched = [str(site), *filter(None, [environment.get("PYTHONPATH", "")])]
    return {**environment, "PYTHONPATH": os.pathsep.join(searched), "TMPDIR": str(temporary)}


def _site(plan: Cell) -> Path:
    return plan.mount_point / "site"


def _temporary(plan: Cell) -> Path:
    return plan.mount_point / "tmp"


def _notes(plan: Cell) -> Path:
    return plan.mount_point / "refused"


def _plan(plan: Cell, argv: Sequence[str], folder: Path, environment: Mapping[str, str], *, namespaces: bool) -> str:
    watched = () if namespaces else (_temporary(plan), _notes(plan), plan.mount_point / _HEARD)
    read_only = plan.read_only if namespaces else (*plan.read_only, _site(plan))
    return json.dumps(
        {
            "parent": os.getpid(),
            "namespaces": namespaces,
            "account": (plan.account.user, plan.account.group) if plan.account else None,
            "root": str(plan.mount_point),
            "read_only": [*_SYSTEM, *map(str, read_only)],
            "writable": [
                *([str(outside), str(inside)] for outside, inside in plan.writable.items()),
                *([str(path), str(path)] for path in watched),
            ],
            "overlaid": [[str(outside), str(inside)] for outside, inside in plan.overlaid.items()],
            "memory": plan.memory_bytes,
            "folder": str(folder),
            "argv": list(argv),
            "environment": dict(environment),
        }
    )
