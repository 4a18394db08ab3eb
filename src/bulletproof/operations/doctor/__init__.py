"""The doctor: diagnoses that look deeper than the checks, each with what mends it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow

import msgspec

from bulletproof.domain.check import Finding, State, Unseen
from bulletproof.domain.diagnoses import DIAGNOSES
from bulletproof.domain.doctor import Diagnosis, Ill
from bulletproof.errors import BulletproofError, Refused, UsageError
from bulletproof.operations.checks import Ground, checks_of, run_checks
from bulletproof.operations.doctor import data, exposure, machine, running
from bulletproof.operations.doctor.packages import outdated, vulnerabilities

_PATIENCE_SECONDS = 120.0
"""A large database that is read through takes its time; nothing of it keeps a request waiting."""
_ONLINE = ("vulnerabilities", "outdated")
_NOT_ASKED = "packages are not compared with known vulnerabilities and newer versions: bulletproof doctor --online"
_NOT_OPENED = "the data were not opened, since they are not whose they should be; --fix looks into them afterwards"

Look = Callable[[Ground], Iterable[Ill]]


class _Entry(msgspec.Struct, frozen=True):
    look: Look
    covers: tuple[str, ...] = ()
    """The checks that this tells more of, when both find something."""
    opens_data: bool = False
    """Whether it opens files of the data, which it does not while the app could lay a link there."""


_LOOKS: Mapping[str, _Entry] = {
    "half-done": _Entry(running.half_done, ("deployments",)),
    "service": _Entry(running.service, ("service", "processes", "response", "background")),
    "packages": _Entry(running.packages, ("release", "previous", "service", "processes", "response")),
    "interpreter": _Entry(running.interpreter, ("release", "previous", "service", "processes", "response")),
    "permissions": _Entry(data.permissions, ("settings", "database-file", "database", "stray-databases")),
    "database": _Entry(data.database, ("database", "database-file"), opens_data=True),
    "migrations": _Entry(data.migrations, opens_data=True),
    "stray-databases": _Entry(data.stray_databases, ("stray-databases",), opens_data=True),
    "misplaced-database": _Entry(data.misplaced_database),
    "database-setting": _Entry(data.database_setting),
    "backups": _Entry(data.backups, ("backups",)),
    "logs": _Entry(machine.logs),
    "disk": _Entry(machine.disk, ("disk",)),
    "proxy": _Entry(machine.proxy),
    "units": _Entry(machine.units),
    "wal": _Entry(data.wal, ("database-file",)),
    "durability": _Entry(data.durability, opens_data=True),
    "debug": _Entry(exposure.debug),
    "secret-key": _Entry(exposure.secret_key),
    "exposed-ports": _Entry(exposure.exposed_ports),
}


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """All that is wrong, and how much was looked at."""

    diagnoses: tuple[Diagnosis, ...]
    looked_at: int
    notes: tuple[str, ...] = ()
    """What is not known, and how it could be."""


def examine(ground: Ground, names: Sequence[str] = (), *, online: str = "") -> Findings:
    """Look at all of it, or at these alone; `online` is where to ask for known vulnerabilities; empty: nobody is asked.

    What cannot be looked at is unknown, never well. Raises UsageError for a name that there is not.
    """
    entries = {name: entry for name, entry in _entries(online).items() if not names or name in names}
    is_closed = "permissions" in entries and not _is_safe(ground)
    if is_closed:  # that is told with the permissions, and they come first
        entries = {name: entry for name, entry in entries.items() if not entry.opens_data}
    if unknown := [name for name in names if name not in DIAGNOSES]:
        words = f"there is no diagnosis {unknown[0]}; there are {', '.join(DIAGNOSES)}"
        raise UsageError("diagnosis-unknown", words, hint="bulletproof doctor")
    checks = {} if names else checks_of(ground.config)
    with ThreadPoolExecutor(max_workers=1) as beside:
        checking = beside.submit(run_checks, ground, checks)
        found = tuple(_run(ground, entries))
        findings = checking.result()
    covered = {check for one in found for check in entries[one.name].covers}
    more = (_as_diagnosis(one) for one in findings if one.state is not State.OK and one.name not in covered)
    notes = (*((_NOT_OPENED,) if is_closed else ()), *_not_asked(names, online))
    return Findings(diagnoses=(*found, *more), looked_at=len(entries) + len(checks), notes=notes)


def _is_safe(ground: Ground) -> bool:
    try:
        return not ground.host.unsafe_data()
    except Refused:
        return False


def _not_asked(names: Sequence[str], online: str) -> tuple[str, ...]:
    return () if online or (names and not set(_ONLINE) & set(names)) else (_NOT_ASKED,)


def _entries(online: str) -> dict[str, _Entry]:
    if not online:
        return dict(_LOOKS)
    asked = (_Entry(lambda ground: vulnerabilities(ground, online)), _Entry(outdated))
    return {**_LOOKS, **dict(zip(_ONLINE, asked, strict=True))}


def _run(ground: Ground, entries: Mapping[str, _Entry]) -> Iterable[Diagnosis]:
    """All side by side, told in their order."""
    pool = ThreadPoolExecutor(max_workers=max(1, len(entries)))
    begun = {name: pool.submit(_look, name, entry, ground) for name, entry in entries.items()}
    deadline = time.monotonic() + _PATIENCE_SECONDS
    for name, looking in begun.items():
        try:
            yield from looking.result(timeout=max(0.0, deadline - time.monotonic()))
        except TooSlow:
            yield _unknown(name, f"no answer within {_PATIENCE_SECONDS:.0f} seconds")
    pool.shutdown(wait=False, cancel_futures=True)


def _look(name: str, entry: _Entry, ground: Ground) -> tuple[Diagnosis, ...]:
    state = DIAGNOSES[name].severity.state
    try:
        if entry.opens_data:
            ground.require_safe_data()
        return tuple(Diagnosis(name=name, state=ill.state or state, ill=ill) for ill in entry.look(ground))
    except BulletproofError as error:
        return (Diagnosis(name=name, state=state, ill=Ill(words=error.message, command=error.hint)),)
    except (Unseen, OSError, msgspec.MsgspecError) as error:
        return (_unknown(name, str(error)),)


def _unknown(name: str, why: str) -> Diagnosis:
    return Diagnosis(name=name, state=State.UNKNOWN, ill=Ill(words=f"it could not be looked at: {why}"))


def _as_diagnosis(finding: Finding) -> Diagnosis:
    """What a check has found that no diagnosis tells more of."""
    return Diagnosis(name=finding.name, state=finding.state, ill=Ill(words=finding.words, command=finding.hint))
