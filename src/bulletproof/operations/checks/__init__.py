"""The checks: each looks at one thing of an app that runs, and changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow

import msgspec

from bulletproof.domain.check import Finding, Seen, State, Unseen
from bulletproof.domain.config import AppConfig
from bulletproof.domain.findings import FINDINGS
from bulletproof.errors import BulletproofError, UsageError
from bulletproof.operations.checks import data, serving, surroundings
from bulletproof.operations.checks.ground import Check, Ground
from bulletproof.operations.checks.own import own_checks

__all__ = ["CHECKS", "Check", "Ground", "checks_of", "run_checks"]

_LOOKS: Mapping[str, Callable[[Ground], Seen]] = {
    "service": serving.service,
    "processes": serving.processes,
    "memory": serving.memory,
    "response": serving.response,
    "public": serving.public,
    "background": serving.background,
    "errors": serving.errors,
    "release": surroundings.release,
    "previous": surroundings.previous,
    "database-file": data.database_file,
    "database": data.database,
    "durability": data.durability,
    "sqlite": data.sqlite,
    "stray-databases": data.stray_databases,
    "settings": surroundings.settings,
    "backups": data.backups,
    "disk": surroundings.disk,
    "disk-trend": surroundings.disk_trend,
    "clock": surroundings.clock,
    "reboot": surroundings.reboot,
    "libraries": surroundings.libraries,
    "deployments": surroundings.deployments,
}
_OPEN_DATA = frozenset({"database", "stray-databases"})
CHECKS: Mapping[str, Check] = {
    name: Check(look=_LOOKS[name], severity=about.severity, opens_data=name in _OPEN_DATA)
    for name, about in FINDINGS.items()
}
"""All that are built in by their names, in the order in which they are told; `domain.findings` explains each."""


def checks_of(config: AppConfig, names: Sequence[str] = ()) -> dict[str, Check]:
    """Those of these names; without names all, a person's own last, but those that the configuration skips.

    Raises UsageError for a name that there is not.
    """
    known = {**CHECKS, **own_checks(config)}
    if unknown := [name for name in names if name not in known]:
        words = f"there is no check {unknown[0]}; there are {', '.join(known)}"
        raise UsageError("check-unknown", words, hint="bulletproof check")
    return {name: one for name, one in known.items() if (name in names if names else name not in config.check.skip)}


def run_checks(ground: Ground, chosen: Mapping[str, Check]) -> tuple[Finding, ...]:
    """Look at all of these, side by side; what cannot be looked at in time is unknown."""
    pool = ThreadPoolExecutor(max_workers=max(1, len(chosen)))
    begun = {name: pool.submit(_look, name, check, ground) for name, check in chosen.items()}
    began, found = time.monotonic(), []
    for name, looking in begun.items():
        patience = chosen[name].patience_seconds
        try:
            found.append(looking.result(timeout=max(0.0, began + patience - time.monotonic())))
        except TooSlow:
            words = f"no answer within {patience:.0f} seconds"
            found.append(Finding(name=name, state=State.UNKNOWN, words=words, seconds=patience))
    pool.shutdown(wait=False, cancel_futures=True)
    return tuple(found)


def _look(name: str, check: Check, ground: Ground) -> Finding:
    begun = time.monotonic()
    hint, measures = "", dict[str, float]()
    try:
        if check.opens_data:
            ground.require_safe_data()
        seen = check.look(ground)
        state = State.OK if seen.is_good else (seen.severity or check.severity).state
        words, hint, measures = seen.words, "" if seen.is_good else seen.hint, dict(seen.measures)
    except BulletproofError as error:
        state, words, hint = check.severity.state, error.message, error.hint
    except Unseen as unseen:
        state, words = State.UNKNOWN, str(unseen)
    except (OSError, msgspec.MsgspecError) as error:
        state, words = State.UNKNOWN, f"it could not be looked at: {error}"
    seconds = round(time.monotonic() - begun, 4)
    return Finding(name=name, state=state, words=words, hint=hint, seconds=seconds, measures=measures)
