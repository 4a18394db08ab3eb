"""The health gate's policy, over an instance that answers as it is told."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import pytest

from bulletproof.domain.config import Health
from bulletproof.domain.health import Answer
from bulletproof.domain.process import Phase, ProcessState
from bulletproof.errors import StepFailed
from bulletproof.operations.gate import Candidate, pass_gate


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Now."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Pass time."""
        self.now += seconds


def gate(
    answer: Callable[[str], int], health: Health, *, states: Iterable[ProcessState] | None = None, crashes: int = 0
) -> tuple[str, list[str]]:
    """Pass the gate with an instance that answers by path; returns the words and the paths that were asked."""
    asked: list[str] = []
    clock = Clock()
    running = iter(states or itertools.repeat(ProcessState(name="web-1", phase=Phase.RUNNING)))

    def ask(path: str, _: float) -> Answer:
        asked.append(path)
        status = answer(path)
        return Answer(status=status, seconds=0.1, words="" if status else "no answer in time")

    candidate = Candidate(
        release="1-abc",
        ask=ask,
        state=lambda: next(running),
        log_tail=lambda _: ("the last line",),
        crashes=crashes,
    )
    return pass_gate(candidate, health, clock, clock.sleep), asked


def test_three_in_a_row_are_asked_for() -> None:
    """A bad answer begins the count again."""
    statuses = iter([200, 200, 500, 200, 302, 204])

    words, asked = gate(lambda _: next(statuses), Health())

    assert asked == ["/up"] * 6
    assert words == "/up healthy 3 times in a row"


def test_what_crashed_before_it_came_to_the_gate_may_pass_and_may_not_crash_again() -> None:
    """An old instance that is resumed has a past."""
    once = ProcessState(name="web-1", phase=Phase.RUNNING, restarts=1)
    twice = ProcessState(name="web-1", phase=Phase.RUNNING, restarts=2)
    assert gate(lambda _: 200, Health(), states=itertools.repeat(once), crashes=1)[0]
    with pytest.raises(StepFailed, match="crashed-at-boot"):
        gate(lambda _: 200, Health(), states=[once, twice], crashes=1)


def test_a_round_is_good_only_when_every_path_is() -> None:
    """Two configured paths count as one round, and the second one's 500 spoils it."""
    login = iter([500, 200, 200])

    _, asked = gate(lambda path: 200 if path == "/" else next(login), Health(paths=("/", "/login"), passes=2))

    assert asked == ["/", "/login"] * 3


@pytest.mark.parametrize("status", [404, 405])
def test_an_app_without_up_is_asked_for_its_front_page(status: int) -> None:
    """404 on /up means `/`, when nobody configured a path; so does 405, where uploads are taken at any name."""
    words, asked = gate(lambda path: status if path == "/up" else 200, Health())

    assert asked == ["/up", "/", "/", "/"]
    assert words.startswith("/ healthy")


def test_a_configured_path_that_is_missing_is_not_healthy() -> None:
    """404 on a configured path is a failure: nothing else is asked instead."""
    with pytest.raises(StepFailed) as failure:
        gate(lambda _: 404, Health(paths=("/up",), deadline_seconds=1))

    assert failure.value.reference == "health-gate-failed"
    assert "/up answered 404" in failure.value.message


def test_a_refused_host_is_told_with_what_to_add() -> None:
    """Django answers 400 to a host that it was not told of, and logs nothing of it."""
    with pytest.raises(StepFailed) as failure:
        gate(lambda _: 400, Health(deadline_seconds=1))

    assert failure.value.hint.startswith("a Django answers 400 when ALLOWED_HOSTS lacks the host: add ")
    assert failure.value.hint.endswith('"127.0.0.1" to it; otherwise bulletproof logs 1-abc')


@pytest.mark.parametrize("status", [0, 401, 500, 503])
def test_not_healthy_by_the_deadline_fails_with_the_last_lines(status: int) -> None:
    """Neither a bad answer nor none at all passes, and the failing release's last lines are shown."""
    with pytest.raises(StepFailed) as failure:
        gate(lambda _: status, Health(deadline_seconds=2))

    assert failure.value.reference == "health-gate-failed"
    assert failure.value.context == ("the last line",)
    assert failure.value.hint == "bulletproof logs 1-abc"


@pytest.mark.parametrize(
    "state",
    [
        ProcessState(name="web-1", phase=Phase.BACKING_OFF, restarts=1, words="exited with status 3"),
        ProcessState(name="web-1", phase=Phase.RUNNING, restarts=1, words="exited with status 3"),
        ProcessState(name="web-1", phase=Phase.FAILED, restarts=8, words="exited with status 3"),
        ProcessState(name="web-1", phase=Phase.ABSENT),
    ],
)
def test_a_crash_fails_at_once(state: ProcessState) -> None:
    """A release that crashed at boot is not waited for, even when the supervisor has started it again."""
    with pytest.raises(StepFailed) as failure:
        gate(lambda _: 200, Health(), states=itertools.repeat(state))

    assert failure.value.reference == "crashed-at-boot"
