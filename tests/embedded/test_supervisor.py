"""The embedded supervisor with real processes: crashes, restarts and stops."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import re
import signal
import time

import psutil
import pytest
from msgspec.structs import replace

from bulletproof.adapters.embedded.client import EmbeddedSupervisor
from bulletproof.adapters.embedded.policy import Policy, doubling
from bulletproof.domain.process import Phase
from bulletproof.errors import StepFailed
from embedded.places import HURRIED, Place, is_alive, pids_in, until


class TestCrashes:
    """What the supervisor makes of processes that end without being asked."""

    def test_it_gives_up_after_eight_crashes(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """A process that always fails is given up after 8 crashes, with how long that took and how it ended."""
        supervisor.start(place.shell("exit 3"))
        until(lambda: supervisor.state("web-1").phase is Phase.FAILED)
        state = supervisor.state("web-1")
        assert re.fullmatch(r"gave up after 8 crashes in \d+ s; last: exited with status 3", state.words)
        assert (state.restarts, state.pid) == (8, None)

    def test_an_end_with_status_0_is_a_crash(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """Nobody asked it to end, so a process that ends well is started again too."""
        supervisor.start(place.shell("exit 0"))
        until(lambda: supervisor.state("web-1").restarts >= 2)
        until(lambda: supervisor.state("web-1").phase is Phase.FAILED)
        assert supervisor.state("web-1").words.endswith("; last: ended by itself")

    def test_pauses_double(self, place: Place) -> None:
        """Each restart in a row waits twice as long as the one before."""
        supervisor = place.supervisor(policy=Policy(first_pause_seconds=0.1, crashes=4))
        supervisor.start(place.shell("date +%s.%N >> times; exit 1"))
        until(lambda: supervisor.state("web-1").phase is Phase.FAILED)
        times = [float(line) for line in place.file("times").read_text().splitlines()]
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert len(pauses) == 3
        assert all(pause >= least for pause, least in zip(pauses, (0.1, 0.2, 0.4), strict=True))

    def test_people_get_a_quarter_of_a_second_up_to_ten(self) -> None:
        """The default pauses are 0.25 s, doubling to 10 s; a failure number beyond any float is no error."""
        policy = Policy()
        pauses = [doubling(policy.first_pause_seconds, policy.longest_pause_seconds, n) for n in (1, 2, 6, 7, 10_000)]
        assert pauses == [0.25, 0.5, 8.0, 10.0, 10.0]

    def test_a_steady_run_ends_the_row(self, place: Place) -> None:
        """Crashes far apart are never added up: the process is started again for ever."""
        supervisor = place.supervisor(policy=replace(HURRIED, crashes=2, steady_seconds=0.1))
        supervisor.start(place.shell("sleep 0.2; exit 1"))
        until(lambda: supervisor.state("web-1").restarts >= 4)
        assert supervisor.state("web-1").phase is not Phase.FAILED

    def test_workers_never_survive_their_master(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """When the main process is killed, what it started is killed before it is started again."""
        supervisor.start(place.shell("sleep 1000 & echo $! >> workers; wait"))
        (worker,) = pids_in(place.file("workers"), 1)
        os.kill(supervisor.state("web-1").pid or 0, signal.SIGKILL)
        pids_in(place.file("workers"), 2)
        assert not is_alive(worker)

    def test_what_is_given_up_leaves_no_worker(self, place: Place) -> None:
        """With the last crash, too, all that the process started is killed."""
        supervisor = place.supervisor(policy=Policy(crashes=1))
        supervisor.start(place.shell("sleep 1000 & echo $! >> workers; exit 1"))
        until(lambda: supervisor.state("web-1").phase is Phase.FAILED)
        (worker,) = pids_in(place.file("workers"), 1)
        until(lambda: not is_alive(worker))

    def test_a_program_that_is_gone_at_a_restart_is_a_crash(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """When it cannot be started again, that is counted and said, and the supervisor lives."""
        program = place.file("program")
        program.symlink_to("/bin/sh")
        supervisor.start(place.process((str(program), "-c", "while :; do sleep 1000; done")))
        program.unlink()
        os.kill(supervisor.state("web-1").pid or 0, signal.SIGKILL)
        until(lambda: supervisor.state("web-1").phase is Phase.FAILED)
        words = supervisor.state("web-1").words
        assert words.endswith(f"last: could not be started: No such file or directory: {program}")

    def test_orphans_are_reaped(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """What loses its parent and ends does not stay in the process table as a zombie."""
        supervisor.start(place.shell("(sh -c 'echo $$ >> orphan; sleep 1000' &) ; sleep 1000"))
        (orphan,) = pids_in(place.file("orphan"), 1)
        until(lambda: psutil.Process(orphan).ppid() == supervisor.pid(), "the orphan went to somebody else")
        os.kill(orphan, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(orphan), "the orphan was not reaped")


class TestStops:
    """How processes are ended."""

    def test_all_that_it_started_is_killed(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """A process that ignores SIGTERM is killed after its time, with children and orphans of any session."""
        process = place.python(
            """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def sleep_as(kind):
    with open(here / "pids", "a") as pids:
        print(os.getpid(), file=pids)
    time.sleep(1000)
if os.fork() == 0:
    sleep_as("child")
if os.fork() == 0:
    if os.fork() == 0:
        sleep_as("orphan in the same session")
    os._exit(0)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        sleep_as("orphan in another session")
    os._exit(0)
sleep_as("main")
"""
        )
        supervisor.start(process)
        pids = pids_in(place.file("pids"), 4)
        begun = time.monotonic()
        supervisor.stop("web-1")
        assert time.monotonic() - begun >= process.stop_seconds
        assert not [pid for pid in pids if is_alive(pid)]

    @pytest.mark.parametrize("stop_signal", ["SIGTERM", "SIGQUIT"])
    def test_it_is_asked_with_its_own_signal(
        self, place: Place, supervisor: EmbeddedSupervisor, stop_signal: str
    ) -> None:
        """gunicorn ends at once with SIGQUIT and not with SIGTERM; others know only SIGTERM."""
        script = "trap 'echo SIGTERM > told; exit' TERM; trap 'echo SIGQUIT > told; exit' QUIT; echo > ready"
        process = replace(
            place.shell(f"{script}; while :; do sleep 0.05; done"), stop_signal=stop_signal, stop_seconds=20.0
        )
        supervisor.start(process)
        until(place.file("ready").exists)
        supervisor.stop("web-1")
        assert place.file("told").read_text() == f"{stop_signal}\n"

    def test_workers_are_their_masters_to_end(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """SIGTERM goes to the main process alone; what is left when that has ended is killed at once."""
        worker = "trap 'echo term >> signals' TERM; echo $$ >> workers; while :; do sleep 0.05; done"
        main = f"trap 'echo main >> signals; exit' TERM; sh -c \"{worker.replace('$', chr(92) + '$')}\" & "
        process = replace(place.shell(f"{main} while :; do sleep 0.05; done"), stop_seconds=60.0)
        supervisor.start(process)
        (pid,) = pids_in(place.file("workers"), 1)
        supervisor.stop("web-1")
        assert not is_alive(pid)
        assert place.file("signals").read_text() == "main\n"

    def test_a_slow_stop_holds_up_nobody(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """While one process takes its time to end, others are asked about, started and stopped."""
        slow = replace(place.shell("trap '' TERM; echo > ready; while :; do sleep 0.1; done"), stop_seconds=2)
        supervisor.start(slow)
        until(place.file("ready").exists)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            stop = pool.submit(supervisor.stop, "web-1")
            until(lambda: supervisor.state("web-1").phase is Phase.STOPPING)
            supervisor.start(place.sleeper("web-2"))
            supervisor.stop("web-2")
            took = []
            for _ in range(20):
                begun = time.monotonic()
                assert supervisor.state("web-1").phase is Phase.STOPPING
                took.append(time.monotonic() - begun)
            assert not stop.done()
            stop.result()
        assert sorted(took)[10] < 0.05
        assert supervisor.state("web-1").phase is Phase.ABSENT

    def test_start_waits_for_a_stop(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """What is asked for while it is being stopped, as by a recovery, runs anew when the stop is over."""
        slow = replace(place.shell("trap '' TERM; echo $$ >> pids; while :; do sleep 0.1; done"), stop_seconds=1)
        supervisor.start(slow)
        (before,) = pids_in(place.file("pids"), 1)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            stop = pool.submit(supervisor.stop, "web-1")
            until(lambda: supervisor.state("web-1").phase is Phase.STOPPING)
            supervisor.start(slow)
            stop.result()
        assert not is_alive(before)
        assert supervisor.state("web-1").phase is Phase.RUNNING

    def test_two_may_ask_for_the_same_stop(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """A stop that somebody else has begun is joined: both return when it is over."""
        process = replace(place.shell("trap '' TERM; echo > ready; while :; do sleep 0.1; done"), stop_seconds=0.5)
        supervisor.start(process)
        until(place.file("ready").exists)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for stop in [pool.submit(supervisor.stop, "web-1") for _ in range(2)]:
                stop.result()
        assert supervisor.names() == ()

    def test_a_crashed_process_can_be_stopped_in_its_pause(self, place: Place) -> None:
        """A stop during the pause before a restart is done at once, and the restart does not come."""
        supervisor = place.supervisor(policy=Policy(first_pause_seconds=60, longest_pause_seconds=60))
        supervisor.start(place.shell("echo $$ >> pids; exit 1"))
        until(lambda: supervisor.state("web-1").phase is Phase.BACKING_OFF)
        supervisor.stop("web-1")
        assert supervisor.names() == ()
        assert len(place.file("pids").read_text().splitlines()) == 1

    def test_what_cannot_be_ended_is_words(self, place: Place) -> None:
        """A process of which something stays is an error in words, and the supervisor stays until it is gone."""
        supervisor = place.supervisor(policy=Policy(kill_patience_seconds=0.2))
        hold = place.layout().hold_socket
        supervisor.start(replace(place.sleeper("relay"), listen=hold, stop_seconds=0))
        hold.unlink()
        hold.mkdir()
        with pytest.raises(
            StepFailed, match="relay is not gone 0 s after SIGKILL; last: its files could not be removed"
        ):
            supervisor.stop("relay")
        with pytest.raises(StepFailed, match="relay is not gone 0 s after SIGKILL"):
            supervisor.shutdown()
        assert supervisor.is_running()
        hold.rmdir()
        supervisor.stop("relay")
        assert supervisor.names() == ()
