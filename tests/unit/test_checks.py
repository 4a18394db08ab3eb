"""Thresholds of the built-in checks, and what the machine or a rehearsal may say that no test can bring about."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from bulletproof.domain.check import Finding, Seen, Severity, State, Unseen
from bulletproof.domain.config import AppConfig, Check
from bulletproof.domain.durability import Durability
from bulletproof.domain.findings import FINDINGS
from bulletproof.domain.health import Answer
from bulletproof.domain.layout import Layout
from bulletproof.effects.processes import Family
from bulletproof.errors import StepFailed, UsageError
from bulletproof.operations import checks
from bulletproof.operations.checks import CHECKS, Ground, checks_of, data, run_checks, serving, surroundings
from bulletproof.operations.status import Status
from bulletproof.ports import Host

MIB = 1 << 20


def ground(
    check: Check | None = None, *, root: Path = Path("/nowhere"), seconds: float = 0.1, free: int = 1 << 40
) -> Ground:
    """An app that runs, with what the looks below need of its host."""
    answer = Answer(status=200, seconds=seconds)
    host = SimpleNamespace(
        layout=Layout(root, "shop", root / "run"),
        resources=lambda: SimpleNamespace(free_disk=free, free_memory=free),
        ask_instance=lambda *_: answer,
        ask_public=lambda *_: answer,
    )
    family = Family(count=4, memory=300 * MIB, largest=120 * MIB, pids=(), started_at=0.0)
    status = SimpleNamespace(family=family, wants_running=True, live=SimpleNamespace(number=3, release="3-a"))
    config = AppConfig(name="shop", check=check or Check())
    return Ground(host=cast("Host", host), status=cast("Status", status), config=config)


def test_memory() -> None:
    """Of one process, and what the machine has left for a deployment."""
    assert serving.memory(ground()).is_good
    assert serving.memory(ground(Check(memory_mib=120))).is_good
    seen = serving.memory(ground(Check(memory_mib=119)))
    assert (seen.is_good, seen.words) == (False, "a process of the app uses 120 MiB, and may use 119")
    assert not serving.memory(ground(free=127 * MIB)).is_good
    assert serving.memory(ground(free=128 * MIB)).is_good


def test_a_slow_answer_is_a_warning() -> None:
    """It is no outage, which would count against the uptime."""
    assert serving.response(ground(seconds=9.0)).is_good
    assert serving.response(ground(Check(latency_ms=100))).is_good
    seen = serving.response(ground(Check(latency_ms=99)))
    assert (seen.is_good, seen.severity, seen.measures) == (False, Severity.WANTED, {"latency_ms": 100.0})


def test_the_share_of_errors(tmp_path: Path) -> None:
    """More than so many of a hundred."""
    log = ground(root=tmp_path).host.layout.access_log
    log.parent.mkdir(parents=True)
    log.write_text('{"status":500}\n' * 2 + '{"status":200}\n' * 98)
    assert serving.errors(ground(Check(errors_percent=2), root=tmp_path)).is_good
    assert not serving.errors(ground(Check(errors_percent=1.9), root=tmp_path)).is_good


@pytest.mark.parametrize(
    ("told", "is_good"),
    [
        (Durability(sqlite="3.40.1", mode="WAL"), True),
        (Durability(sqlite="3.52.0", mode="DELETE"), False),
        (Durability(sqlite="3.40.1", mode="WAL", mmap_size=1 << 20), False),
        (Durability(sqlite="3.40.1", mode="DELETE", mmap_size=1 << 20), True),
        (Durability(sqlite="3.51.3", mode="WAL", mmap_size=1 << 20), True),
        (None, True),
    ],
)
def test_the_library(told: Durability | None, *, is_good: bool, tmp_path: Path) -> None:
    """One that was withdrawn, and one with a fault that the app provokes."""
    report = ground(root=tmp_path).host.layout.report(3)
    report.parent.mkdir(parents=True)
    report.write_bytes(msgspec.json.encode({"durability": told}))
    assert data.sqlite(ground(root=tmp_path)).is_good is is_good


@pytest.mark.parametrize(("error", "is_good"), [(None, False), (0.004, True), (16.0, False)])
def test_the_clock(error: float | None, *, is_good: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept, kept by nobody, and kept by one that was not reached for long."""
    monkeypatch.setattr(surroundings, "clock_error", lambda: error)
    assert surroundings.clock(ground()).is_good is is_good


def test_a_reboot(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the packages that want it."""
    monkeypatch.setattr(surroundings, "reboot_wanted_by", lambda: ("libc6",))
    assert surroundings.reboot(ground()).words == "the system waits for one: libc6"
    assert not surroundings.reboot(ground()).is_good
    monkeypatch.setattr(surroundings, "reboot_wanted_by", lambda: None)
    assert surroundings.reboot(ground()).is_good


def test_which_are_made() -> None:
    """All but what the configuration skips; those that are named, also a skipped one; none that there is not."""
    config = AppConfig(name="shop", check=Check(skip=("clock", "disk")))
    assert list(checks_of(config)) == [name for name in FINDINGS if name not in {"clock", "disk"}]
    assert list(checks_of(config, ["clock"])) == ["clock"]
    with pytest.raises(UsageError, match="there is no check clok"):
        checks_of(config, ["disk", "clok"])


def test_what_cannot_be_seen_is_unknown_and_what_fails_is_bad() -> None:
    """Neither is ever ok, and neither keeps the others from being told."""

    def fail(error: Exception) -> checks.Check:
        def look(_: Ground) -> Seen:
            raise error

        return checks.Check(look=look, severity=Severity.WANTED)

    chosen = {
        "good": checks.Check(look=lambda _: Seen(words="well", measures={"a": 1.0})),
        "unseen": fail(Unseen("it told nothing")),
        "system": fail(OSError(13, "Permission denied")),
        "failed": fail(StepFailed("x", "it failed", hint="bulletproof logs")),
    }
    found = [dict.fromkeys([finding.name], (finding.state, finding.words)) for finding in run_checks(ground(), chosen)]
    assert found == [
        {"good": (State.OK, "well")},
        {"unseen": (State.UNKNOWN, "it told nothing")},
        {"system": (State.UNKNOWN, "it could not be looked at: [Errno 13] Permission denied")},
        {"failed": (State.WARNING, "it failed")},
    ]
    assert isinstance(run_checks(ground(), {"good": chosen["good"]})[0], Finding)


def test_every_check_has_a_page() -> None:
    """With why it matters and what to do."""
    assert list(CHECKS) == list(FINDINGS)
    assert all(about.why and about.to_do and about.looks_at for about in FINDINGS.values())
