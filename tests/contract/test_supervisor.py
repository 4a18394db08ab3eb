"""What every Supervisor promises: the embedded one with real processes, and the fake that other tests trust."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from msgspec.structs import replace

from bulletproof.domain.process import Phase, ProcessSpec
from bulletproof.errors import StepFailed
from bulletproof.ports import Supervisor
from contract.supervisors import CRASHES, KINDS, Real, real
from embedded.places import until
from fakes.supervisor import FakeSupervisor


class Case(Protocol):
    """A supervisor, and what a test must be able to do to its processes."""

    supervisor: Supervisor

    def process(self, name: str) -> ProcessSpec:
        """One that runs until it is stopped."""

    def unstartable(self, name: str) -> ProcessSpec:
        """One that cannot be started at all."""

    def crash(self, name: str) -> None:
        """End it behind the supervisor's back; it has noticed when this returns."""


class RealCase:
    """A supervisor of real processes."""

    def __init__(self, given: Real) -> None:
        self.supervisor = given.supervisor
        self._given = given

    def process(self, name: str) -> ProcessSpec:
        """A shell that sleeps."""
        return self._given.shell("while :; do sleep 1000; done", name)

    def unstartable(self, name: str) -> ProcessSpec:
        """A program that does not exist."""
        return replace(self.process(name), argv=(str(self._given.folder / "no-such-program"),))

    def crash(self, name: str) -> None:
        """SIGKILL it and wait for the supervisor to have dealt with it."""
        before = self.supervisor.state(name)
        assert before.pid is not None
        os.kill(before.pid, signal.SIGKILL)
        until(lambda: self.supervisor.state(name).restarts == before.restarts + 1)
        until(lambda: self.supervisor.state(name).phase is not Phase.BACKING_OFF)


class FakeCase:
    """The fake."""

    def __init__(self, supervisor: FakeSupervisor) -> None:
        self.supervisor: Supervisor = supervisor
        self.crash = supervisor.crash
        self._fake = supervisor

    def process(self, name: str) -> ProcessSpec:
        """Anything will do."""
        return ProcessSpec(name=name, argv=("program",), folder=Path("/"), log=Path("/log"))

    def unstartable(self, name: str) -> ProcessSpec:
        """What the fake is told cannot start."""
        self._fake.unstartable.add(name)
        return self.process(name)


@pytest.fixture(params=[*KINDS, "fake"])
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """Each implementation in turn, not running yet."""
    if request.param == "fake":
        yield FakeCase(FakeSupervisor(crashes=CRASHES))
        return
    with real(request.param) as given:
        yield RealCase(given)


def test_nothing_is_known_before_it_runs(case: Case) -> None:
    """A supervisor that does not run knows no process, and asking does not start it."""
    assert case.supervisor.names() == ()
    assert case.supervisor.state("web-1").phase is Phase.ABSENT
    assert not case.supervisor.is_running()


def test_it_runs_once_asked(case: Case) -> None:
    """ensure_running makes it run, and again changes nothing."""
    case.supervisor.ensure_running()
    case.supervisor.start(case.process("web-1"))
    case.supervisor.ensure_running()
    assert case.supervisor.is_running()
    assert case.supervisor.names() == ("web-1",)


def test_start_runs_the_process(case: Case) -> None:
    """A started process runs, has a pid and has never crashed."""
    case.supervisor.ensure_running()
    case.supervisor.start(case.process("web-1"))
    state = case.supervisor.state("web-1")
    assert (state.name, state.phase, state.restarts) == ("web-1", Phase.RUNNING, 0)
    assert state.pid


def test_start_needs_no_other_order_before(case: Case) -> None:
    """Start makes the supervisor itself run when it does not, as after it was killed."""
    case.supervisor.start(case.process("web-1"))
    assert case.supervisor.is_running()
    assert case.supervisor.state("web-1").phase is Phase.RUNNING


def test_start_is_idempotent(case: Case) -> None:
    """The same process started again is the one that runs."""
    case.supervisor.start(case.process("web-1"))
    before = case.supervisor.state("web-1")
    case.supervisor.start(case.process("web-1"))
    assert case.supervisor.state("web-1") == before
    assert case.supervisor.names() == ("web-1",)


def test_another_process_under_the_same_name_is_refused(case: Case) -> None:
    """A name is one process: another one is refused in words, and the first runs on undisturbed."""
    case.supervisor.start(case.process("web-1"))
    before = case.supervisor.state("web-1")
    other = replace(case.process("web-1"), argv=("other",))
    with pytest.raises(StepFailed, match="web-1 runs already, as something else") as failure:
        case.supervisor.start(other)
    assert failure.value.reference == "process-differs"
    assert case.supervisor.state("web-1") == before


def test_a_process_that_cannot_be_started_leaves_nothing(case: Case) -> None:
    """Start fails in words that name process and reason, and the process was never asked for."""
    with pytest.raises(StepFailed, match="web-1: could not be started: No such file or directory") as failure:
        case.supervisor.start(case.unstartable("web-1"))
    assert failure.value.reference == "process-not-started"
    assert case.supervisor.state("web-1").phase is Phase.ABSENT
    assert case.supervisor.names() == ()


def test_several_stop_in_the_time_of_one(case: Case) -> None:
    """Asked to stop, a process is about to end or has ended; stop then waits for that, and it can be started anew."""
    case.supervisor.start(case.process("web-1"))
    case.supervisor.ask_to_stop("web-1")
    case.supervisor.ask_to_stop("none")
    assert case.supervisor.state("web-1").phase in {Phase.STOPPING, Phase.ABSENT}
    case.supervisor.start(case.process("web-1"))
    assert case.supervisor.state("web-1").phase is Phase.RUNNING
    case.supervisor.ask_to_stop("web-1")
    case.supervisor.stop("web-1")
    assert case.supervisor.names() == ()


def test_one_with_a_schedule_waits(case: Case) -> None:
    """It is not run before it is due, and stopped like any other."""
    spec = replace(case.process("timer-1-a"), schedule="0 0 1 1 *")
    case.supervisor.start(spec)
    state = case.supervisor.state("timer-1-a")
    assert (state.phase, state.pid, state.restarts) == (Phase.WAITING, None, 0)
    case.supervisor.start(spec)
    case.supervisor.stop("timer-1-a")
    assert case.supervisor.names() == ()


def test_stop_ends_one_process(case: Case) -> None:
    """A stopped process is as if it had never been asked for; others run on."""
    case.supervisor.start(case.process("web-1"))
    case.supervisor.start(case.process("web-2"))
    other = case.supervisor.state("web-2")
    case.supervisor.stop("web-1")
    assert case.supervisor.state("web-1").phase is Phase.ABSENT
    assert case.supervisor.names() == ("web-2",)
    assert case.supervisor.state("web-2") == other


def test_stop_is_idempotent(case: Case) -> None:
    """Stopping what does not run is done at once, also when no supervisor runs, and starts none."""
    case.supervisor.stop("web-1")
    assert not case.supervisor.is_running()
    case.supervisor.start(case.process("web-1"))
    case.supervisor.stop("web-1")
    case.supervisor.stop("web-1")
    case.supervisor.stop("never-asked-for")
    assert case.supervisor.names() == ()


def test_a_name_is_free_after_stop(case: Case) -> None:
    """After a stop the name can be used for another process."""
    case.supervisor.start(case.process("web-1"))
    case.supervisor.stop("web-1")
    case.supervisor.start(replace(case.process("web-1"), stop_seconds=3.0))
    assert case.supervisor.state("web-1").phase is Phase.RUNNING


def test_a_crashed_process_runs_again(case: Case) -> None:
    """A crash is counted and put in words, and the process runs again as a new one."""
    case.supervisor.start(case.process("web-1"))
    before = case.supervisor.state("web-1")
    case.crash("web-1")
    after = case.supervisor.state("web-1")
    assert (after.phase, after.restarts, after.words) == (Phase.RUNNING, 1, "killed by SIGKILL")
    assert after.pid != before.pid


def test_it_gives_up_in_words(case: Case) -> None:
    """After too many crashes in a row the process is FAILED, with how often it was tried and how it ended last."""
    case.supervisor.start(case.process("web-1"))
    for _ in range(CRASHES):
        case.crash("web-1")
    state = case.supervisor.state("web-1")
    assert (state.phase, state.pid, state.restarts) == (Phase.FAILED, None, CRASHES)
    assert state.words.startswith(f"gave up after {CRASHES} crashes")
    assert state.words.endswith("; last: killed by SIGKILL")


def test_what_was_given_up_can_be_started_anew(case: Case) -> None:
    """Starting a FAILED process is a new beginning, with no crashes counted."""
    case.supervisor.start(case.process("web-1"))
    for _ in range(CRASHES):
        case.crash("web-1")
    case.supervisor.start(case.process("web-1"))
    state = case.supervisor.state("web-1")
    assert (state.phase, state.restarts) == (Phase.RUNNING, 0)


def test_what_was_given_up_can_be_stopped(case: Case) -> None:
    """A FAILED process is known until it is stopped."""
    case.supervisor.start(case.process("web-1"))
    for _ in range(CRASHES):
        case.crash("web-1")
    assert case.supervisor.names() == ("web-1",)
    case.supervisor.stop("web-1")
    assert case.supervisor.names() == ()


def test_shutdown_ends_everything(case: Case) -> None:
    """After a shutdown nothing runs, a second one does nothing, and a new beginning is empty."""
    case.supervisor.start(case.process("web-1"))
    case.supervisor.start(case.process("proxy"))
    case.supervisor.shutdown()
    assert not case.supervisor.is_running()
    assert case.supervisor.state("web-1").phase is Phase.ABSENT
    case.supervisor.shutdown()
    case.supervisor.ensure_running()
    assert case.supervisor.names() == ()
