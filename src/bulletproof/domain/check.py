"""Checks: what one looks at, what it found, and what all of them together say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum, StrEnum

import msgspec


class State(IntEnum):
    """How something stands; the numbers are those of a Nagios plugin, and the exit codes of `check`."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3
    """It could not be looked at, which is never ok."""

    @property
    def word(self) -> str:
        """As a person reads it."""
        return self.name.lower()


class Severity(StrEnum):
    """What it means when something is not as it should be."""

    REQUIRED = "required"
    """The app does not work, or its data are in danger."""
    WANTED = "wanted"
    """It works, and should be better looked after."""

    @property
    def state(self) -> State:
        """What a check of this severity says when it fails."""
        return State.CRITICAL if self is Severity.REQUIRED else State.WARNING


class Unseen(Exception):
    """What a look raises, in words, when it cannot tell how something is."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a look found."""

    words: str
    is_good: bool = True
    hint: str = ""
    """The next command to type."""
    severity: Severity | None = None
    """When it is not the check's own."""
    measures: Mapping[str, float] = msgspec.field(default_factory=dict)
    """Numbers that were found, by names with their units."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a check says."""

    name: str
    state: State
    words: str
    hint: str = ""
    seconds: float = 0.0
    measures: Mapping[str, float] = msgspec.field(default_factory=dict)


def worst(findings: Sequence[Finding]) -> State:
    """What all of them together say: the worst that is certain, and unknown only where nothing worse is."""
    states = {finding.state for finding in findings}
    for state in (State.CRITICAL, State.WARNING, State.UNKNOWN):
        if state in states:
            return state
    return State.OK


def nagios(app: str, findings: Sequence[Finding]) -> str:
    """One line as a Nagios plugin prints it, with the times as performance data."""
    state = worst(findings)
    bad = [finding for finding in findings if finding.state is not State.OK]
    words = "; ".join(f"{finding.name}: {finding.words}" for finding in bad) or f"{len(findings)} checks are well"
    times = " ".join(f"{finding.name}={finding.seconds:.3f}s" for finding in findings)
    return f"{state.name} - {app}: {words.replace('|', '/')} | {times}"


def prometheus(app: str, findings: Sequence[Finding]) -> str:
    """The same in Prometheus' text format."""
    lines = [
        "# HELP bulletproof_check_state 0 ok, 1 warning, 2 critical, 3 unknown",
        "# TYPE bulletproof_check_state gauge",
    ]
    lines += [
        f'bulletproof_check_state{{app="{app}",check="{finding.name}"}} {int(finding.state)}' for finding in findings
    ]
    lines += ["# HELP bulletproof_check_seconds How long the look took", "# TYPE bulletproof_check_seconds gauge"]
    lines += [
        f'bulletproof_check_seconds{{app="{app}",check="{finding.name}"}} {finding.seconds:.6f}' for finding in findings
    ]
    lines += ["# HELP bulletproof_check_measure What was measured; the name has its unit"]
    lines += ["# TYPE bulletproof_check_measure gauge"]
    lines += [
        f'bulletproof_check_measure{{app="{app}",check="{finding.name}",name="{name}"}} {value}'
        for finding in findings
        for name, value in finding.measures.items()
    ]
    return "\n".join(lines)
