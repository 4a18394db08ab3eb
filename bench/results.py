"""All that was measured, its medians and ratios, and what is to be said of it."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.startup import Startup
from bench.trial import Trial
from bulletproof.demo.traffic import Load

GOOD, BACK, BAD = "deploy v2", "rollback", "deploy answers-500"
GUIDE, REBUILT, OURS = "the guide", "guide, new venv", "bulletproof"

GAP_SECONDS = 0.5
"""The aim: never so long without a success. The best of the tools measured elsewhere had 1.5 s."""
WALL_SHARE = 0.5
"""The aim: at most this part of the guide's wall time for a code change."""
GUIDE_FAILS = 100
"""What the guide's procedure was seen to fail, at 140 requests a second."""
HELP_CPU_SECONDS = 0.1

METRICS: Mapping[str, Callable[[Trial], float]] = {
    "seconds": lambda trial: trial.seconds,
    "requests": lambda trial: trial.report.requests,
    "failed": lambda trial: trial.report.failed,
    "gap_seconds": lambda trial: trial.report.longest_gap_seconds,
    "wait_seconds": lambda trial: trial.report.longest_wait_seconds,
    "read_p99_seconds": lambda trial: trial.report.read_p99_seconds or 0.0,
    "writes_acknowledged": lambda trial: trial.acknowledged,
    "writes_lost": lambda trial: trial.lost,
    "cpu_seconds": lambda trial: trial.cpu_seconds,
}
"""What is compared; the gap is the longest time without a success, the wait the longest of one request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where and when."""

    began_at: str
    cpu: str
    cores: int
    kernel: str
    python: str
    load_before: float
    """The load average of the last minute when it began; the measurement itself adds to it."""
    load_after: float


@dataclass(frozen=True, slots=True)
class Aim:
    """What we want to be true, and whether it was."""

    words: str
    found: str
    is_met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Everything of one run of the program."""

    machine: Machine
    load: Load
    trials: tuple[Trial, ...]
    startup: Startup

    def of(self, what: str, way: str) -> list[Trial]:
        """The trials of one thing in one way."""
        return [trial for trial in self.trials if (trial.act.what, trial.act.way) == (what, way)]

    def medians(self, what: str, way: str) -> dict[str, float]:
        """The median of each metric over the runs."""
        trials = self.of(what, way)
        return {name: float(median(take(trial) for trial in trials)) for name, take in METRICS.items() if trials}

    def steps(self, what: str) -> dict[str, float]:
        """The median seconds of each of our steps."""
        told = [trial.step_seconds for trial in self.of(what, OURS)]
        return {step: median(steps[step] for steps in told if step in steps) for step in (told[0] if told else ())}

    def ratios(self) -> dict[str, float | None]:
        """Ours by the guide's, of the medians for the good release; None where the guide's is 0."""
        ours, guide = self.medians(GOOD, OURS), self.medians(GOOD, GUIDE)
        return {name: ours[name] / guide[name] if guide[name] else None for name in METRICS}

    @property
    def complaints(self) -> list[str]:
        """Why the program ends with 1: ours failed a request, lost a write, or did not end as it has to."""
        return [words for trial in self.trials if trial.act.is_ours for words in trial.complaints]

    def aims(self) -> tuple[Aim, ...]:
        """Each aim, held against what was measured."""
        ours, guide = self.medians(GOOD, OURS), self.medians(GOOD, GUIDE)
        mine = [trial for trial in self.trials if trial.act.is_ours]
        failed, lost = sum(trial.report.failed for trial in mine), sum(trial.lost for trial in mine)
        gap = max(trial.report.longest_gap_seconds for trial in mine)
        share = ours["seconds"] / guide["seconds"]
        rebuilt = self.medians(GOOD, REBUILT)["seconds"]
        cpu = self.startup.help_cpu_seconds
        return (
            Aim("no request fails", f"{failed} failed, rollbacks and bad release included", failed == 0),
            Aim("no acknowledged write is lost", f"{lost} lost", lost == 0),
            Aim(
                f"the guide fails over {GUIDE_FAILS}", f"{guide['failed']:.0f} (median)", guide["failed"] > GUIDE_FAILS
            ),
            Aim(f"never {GAP_SECONDS} s without a success", f"{gap:.2f} s at worst", gap < GAP_SECONDS),
            Aim(f"at most {WALL_SHARE} of the guide's wall time", f"{share:.2f} (medians)", share <= WALL_SHARE),
            Aim(
                f"at most {WALL_SHARE} of it where the guide rebuilds its environment",
                f"{ours['seconds'] / rebuilt:.2f} (medians)",
                ours["seconds"] <= WALL_SHARE * rebuilt,
            ),
            Aim(f"--help under {HELP_CPU_SECONDS} s of CPU", f"{cpu:.3f} s", cpu < HELP_CPU_SECONDS),
        )


def processor() -> str:
    """The processor's name as Linux tells it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
