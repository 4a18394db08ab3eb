"""One deployment under load, and what its users saw of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from bench.command import Finished
from bench.ours import complaint, step_seconds
from bulletproof.demo.ledger import Report, duplicated_writes, lost_writes
from bulletproof.demo.traffic import Load, Traffic
from bulletproof.effects.probe import ask_port

RATE = 120.0
"""Requests a second: less than two cores can take, so that a wait is the deployment's doing and not the machine's."""
_CALM_SECONDS = 2.0
"""Load before a deployment begins, inside the window, so that what it breaks stands beside what works."""


class Host(Protocol):
    """Where an app is served, in one way or the other."""

    @property
    def name(self) -> str:
        """The way, as the tables name it."""

    @property
    def address(self) -> str:
        """Where it serves."""

    @property
    def database(self) -> Path:
        """The live database, which the ledger is held against."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What is measured."""

    what: str
    way: str
    run: int
    is_ours: bool
    status: int
    """The exit status that it has to have, if it is ours."""
    after_seconds: float = 2.0
    """How long the load goes on after the command returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What became of it."""

    act: Act
    status: int
    seconds: float
    cpu_seconds: float
    step_seconds: dict[str, float]
    """Ours alone tells them."""
    error: str
    """What ours said went wrong; empty when it said nothing, and for the guide, which only has its exit status."""
    report: Report
    acknowledged: int
    lost: int
    duplicated: int
    afterwards: int
    """The status with which `/up` answered when all was over; 0 for no answer."""

    @property
    def complaints(self) -> list[str]:
        """What of it may not be, if it is ours."""
        report = self.report
        found = [
            (self.status != self.act.status, f"exit status {self.status}, not {self.act.status}: {self.error}"),
            (report.failed > 0, f"{report.failed} requests failed, first: {'; '.join(report.failures[:1])}"),
            (self.lost > 0, f"{self.lost} of {self.acknowledged} acknowledged writes lost"),
            (self.duplicated > 0, f"{self.duplicated} writes stored twice"),
        ]
        return [f"run {self.act.run}, {self.act.what}: {words}" for is_so, words in found if is_so]


def users(rate: float) -> Load:
    """The load of each trial. No slow requests: both ways would wait for them, and nothing else would show."""
    return Load(clients=12, rate=rate, write_share=0.2, slow_clients=0)


def under_load(host: Host, folder: Path, act: Act, load: Load, command: Callable[[], Finished]) -> Trial:
    """Run the command with users on the app, and hold their ledger against the database when they have left."""
    with Traffic.start(host.address, folder, load) as traffic:
        since = traffic.mark()
        time.sleep(_CALM_SECONDS)
        finished = command()
        time.sleep(act.after_seconds)
        report = traffic.report(since)
    tokens = traffic.acknowledged()
    afterwards = ask_port(urlsplit(host.address).port or 80, "/up", timeout_seconds=5.0)
    return Trial(
        act=act,
        status=finished.status,
        seconds=finished.seconds,
        cpu_seconds=finished.cpu_seconds,
        step_seconds=step_seconds(finished) if act.is_ours else {},
        error=complaint(finished) if act.is_ours else "",
        report=report,
        acknowledged=len(tokens),
        lost=len(lost_writes(tokens, host.database)),
        duplicated=len(duplicated_writes(tokens, host.database)),
        afterwards=afterwards.status,
    )
