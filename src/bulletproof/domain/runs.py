"""Runs: what the checks by the clock found, each a line of the app's health record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from bulletproof.domain.check import Finding, State, worst

KEPT_DAYS = 90
LONGEST_SECONDS = 3600
"""However seldom a schedule runs, one look tells nothing of a time that is further away."""
GRACE_SECONDS = 120
"""A run begins when it is due and is noted when it is done."""
_DAY = 86400
_WORDS = 300
"""A record is bounded: of a longer sentence its beginning is kept."""

Position = tuple[int, int]
"""Where the reading of a log ended: the file's inode and the offset in it."""


class Logged(msgspec.Struct, frozen=True, kw_only=True):
    """What the logs tell of the time since the last run."""

    requests: int = 0
    errors: int = 0
    """Of the requests, those answered with 500 to 599."""
    complaints: int = 0
    """Errors that the app wrote into its own log."""
    complaint: str = ""
    """The last of them, in its own words."""
    positions: dict[str, Position] = {}
    """Where to go on reading, by log."""


class Run(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run of all checks."""

    at: int
    """When, in seconds since the epoch."""
    until: int
    """How long it speaks for at most: until the next one is due, and a little."""
    checks: dict[str, Annotated[int, msgspec.Meta(ge=0, le=3)]]
    """The state of each check, as a number."""
    words: dict[str, str] = {}
    """What those said that were not ok."""
    is_stopped: bool = False
    """A person had stopped the app."""
    latency_ms: float | None = None
    """Of the slowest answer to a health check."""
    free_bytes: int | None = None
    """Of the disk."""
    logged: Logged = Logged()

    @property
    def state(self) -> State:
        """The worst that is certain."""
        return worst([Finding(name=name, state=State(state), words="") for name, state in self.checks.items()])


_DECODER = msgspec.json.Decoder(Run)


def run_of(findings: Sequence[Finding], *, at: int, next_at: int, is_stopped: bool, logged: Logged) -> Run:
    """What is kept of these findings, made at `at`, when the next are due at `next_at`; seconds since the epoch."""
    measured = {name: value for finding in findings for name, value in finding.measures.items()}
    free = measured.get("free_bytes")
    return Run(
        at=at,
        until=min(next_at, at + LONGEST_SECONDS) + GRACE_SECONDS,
        checks={finding.name: int(finding.state) for finding in findings},
        words={one.name: one.words[:_WORDS] for one in findings if one.state is not State.OK},
        is_stopped=is_stopped,
        latency_ms=measured.get("latency_ms"),
        free_bytes=None if free is None else int(free),
        logged=logged,
    )


def line_of(run: Run) -> str:
    """A run as a line of the record."""
    return msgspec.json.encode(run).decode()


def run_in(line: bytes) -> Run | None:
    """The run that a line of the record tells; None for one that is damaged."""
    try:
        return _DECODER.decode(line)
    except msgspec.MsgspecError:
        return None


def worth_keeping(runs: Iterable[Run], now: float) -> list[Run]:
    """Those that are not too old, and not of a clock that was far ahead."""
    return [run for run in runs if now - KEPT_DAYS * _DAY <= run.at <= now + _DAY]


def in_words(run: Run) -> str:
    """A run for people and `tail`, on one line."""
    moment = datetime.fromtimestamp(run.at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    bad = "; ".join(f"{name}: {words}" for name, words in run.words.items())
    facts = [bad or f"{len(run.checks)} checks are well"]
    if run.is_stopped:
        facts.append("the app is stopped")
    if run.latency_ms is not None:
        facts.append(f"answers in {run.latency_ms:.0f} ms")
    logged = run.logged
    facts.append(f"{logged.requests} requests, {logged.errors} answered with 5xx")
    if logged.complaints:
        facts.append(f"{logged.complaints} new errors in its log, the last: {logged.complaint}")
    return f"{moment}  {run.state.word.ljust(8)}  {'; '.join(facts)}".replace("\n", " ")
