"""What a supervisor finds that comes after one that was killed, or after a reboot."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import socket
import subprocess

import pytest
from msgspec.structs import replace

from bulletproof.adapters.embedded import table, wire
from bulletproof.adapters.embedded.client import EmbeddedSupervisor
from bulletproof.adapters.embedded.policy import Policy
from bulletproof.domain.process import Phase
from bulletproof.errors import StepFailed
from embedded.places import Place, is_alive, kill_supervisor, pids_in, runs_again, until


class TestKilledSupervisor:
    """What a supervisor finds that comes after one that was killed."""

    def test_processes_go_on(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """The same process runs on, is watched again, and is started again when it crashes."""
        supervisor.start(place.sleeper())
        os.kill(supervisor.state("web-1").pid or 0, signal.SIGKILL)
        pid = runs_again(supervisor, "web-1", 1)
        kill_supervisor(supervisor)
        assert is_alive(pid)
        supervisor.ensure_running()
        state = supervisor.state("web-1")
        assert (state.phase, state.pid, state.restarts) == (Phase.RUNNING, pid, 1)
        os.kill(pid, signal.SIGKILL)
        assert runs_again(supervisor, "web-1", 2) != pid

    def test_what_died_meanwhile_runs_again(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """A process that died while nobody watched is started again, and its workers are dead before that."""
        supervisor.start(place.shell("sleep 1000 & echo $! >> workers; wait"))
        (worker,) = pids_in(place.file("workers"), 1)
        pid = supervisor.state("web-1").pid or 0
        kill_supervisor(supervisor)
        os.kill(pid, signal.SIGKILL)
        supervisor.ensure_running()
        runs_again(supervisor, "web-1", 1)
        assert not is_alive(worker)
        assert supervisor.state("web-1").words == "ended while no supervisor watched it"

    def test_another_process_with_the_same_number_is_left_alone(
        self, place: Place, supervisor: EmbeddedSupervisor
    ) -> None:
        """A pid is only trusted with its start time: a stranger that has the number now is neither kept nor killed."""
        supervisor.start(place.sleeper())
        kill_supervisor(supervisor)
        stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        try:
            file = table.path(place.layout())
            content = json.loads(file.read_text())
            content["entries"][0]["main"]["pid"] = stranger.pid
            file.write_text(json.dumps(content))
            supervisor.ensure_running()
            assert runs_again(supervisor, "web-1", 1) != stranger.pid
            supervisor.stop("web-1")
            assert stranger.poll() is None
        finally:
            stranger.kill()
            stranger.wait()

    def test_one_that_was_being_started_is_found(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """A supervisor killed between start and note leaves a process without a pid: it is ended, and another runs."""
        supervisor.start(place.sleeper())
        nameless = supervisor.state("web-1").pid or 0
        kill_supervisor(supervisor)
        file = table.path(place.layout())
        content = json.loads(file.read_text())
        content["entries"][0]["main"] = None
        file.write_text(json.dumps(content))
        supervisor.ensure_running()
        assert runs_again(supervisor, "web-1", 0) != nameless
        assert not is_alive(nameless)
        assert supervisor.state("web-1").restarts == 0

    def test_a_stop_is_carried_out(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """A stop outlives the supervisor that was asked: it returns only when the process is gone."""
        slow = replace(place.shell("trap '' TERM; echo > ready; while :; do sleep 0.1; done"), stop_seconds=1)
        supervisor.start(slow)
        until(place.file("ready").exists)
        pid = supervisor.state("web-1").pid or 0
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            stop = pool.submit(supervisor.stop, "web-1")
            until(lambda: supervisor.state("web-1").phase is Phase.STOPPING)
            kill_supervisor(supervisor)
            stop.result()
        assert not is_alive(pid)
        assert supervisor.names() == ()

    def test_a_stop_is_finished_unasked(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """A stop that was begun is finished by the next supervisor, also when nobody asks again."""
        slow = replace(place.shell("trap '' TERM; echo > ready; while :; do sleep 0.1; done"), stop_seconds=1)
        supervisor.start(slow)
        until(place.file("ready").exists)
        with socket.socket(socket.AF_UNIX) as order:
            order.connect(str(place.layout().supervisor_socket))
            order.sendall(wire.encode(wire.Request(verb=wire.Verb.STOP, name="web-1")))
            until(lambda: supervisor.state("web-1").phase is Phase.STOPPING)
            kill_supervisor(supervisor)
        supervisor.ensure_running()
        until(lambda: supervisor.names() == ())
        assert [process.pid for process in place.processes()] == [supervisor.pid()]

    def test_what_was_given_up_stays_so(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """A process that was given up is not tried again by a new supervisor."""
        supervisor.start(place.shell("exit 3"))
        until(lambda: supervisor.state("web-1").phase is Phase.FAILED)
        before = supervisor.state("web-1")
        kill_supervisor(supervisor)
        supervisor.ensure_running()
        assert supervisor.state("web-1") == before

    def test_shutdown_and_stop_end_what_was_left(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """Without a supervisor, stop and shutdown still end the processes that the dead one started."""
        supervisor.start(place.sleeper("web-1"))
        supervisor.start(place.sleeper("web-2"))
        pids = [supervisor.state(name).pid or 0 for name in ("web-1", "web-2")]
        kill_supervisor(supervisor)
        supervisor.stop("web-1")
        assert [is_alive(pid) for pid in pids] == [False, True]
        kill_supervisor(supervisor)
        supervisor.shutdown()
        assert not place.processes()

    def test_another_boot_starts_nothing(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """After a reboot the table is of no use: what serves is the journal's to say, so nothing is started."""
        process = replace(place.sleeper(), runtime=place.layout().instance(1))
        supervisor.start(process)
        kill_supervisor(supervisor)
        place.clean_processes()
        file = table.path(place.layout())
        content = json.loads(file.read_text())
        file.write_text(json.dumps({**content, "boot": "another"}))
        supervisor.ensure_running()
        assert supervisor.names() == ()
        assert not place.layout().instance(1).exists()

    def test_a_table_that_cannot_be_read_is_words(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """A damaged table is never taken for an empty one: the supervisor does not start, and says why."""
        supervisor.start(place.sleeper())
        kill_supervisor(supervisor)
        table.path(place.layout()).write_text("{")
        with pytest.raises(
            StepFailed, match="the supervisor of demo could not be started: it ended at once"
        ) as failure:
            supervisor.ensure_running()
        assert "children.json does not say which processes run" in failure.value.context[-1]

    def test_a_table_that_cannot_be_written_stops_no_restart(self, place: Place) -> None:
        """With a full disk a crashed process still runs again, a new one is refused, and the table is written later."""
        supervisor = place.supervisor(policy=Policy(first_pause_seconds=0.01, look_seconds=0.05))
        supervisor.start(place.sleeper())
        file = table.path(place.layout())
        file.unlink()
        file.mkdir()  # as good as a full disk: it cannot be replaced
        os.kill(supervisor.state("web-1").pid or 0, signal.SIGKILL)
        pid = runs_again(supervisor, "web-1", 1)
        with pytest.raises(StepFailed, match=r"the supervisor could not do it: .*children\.json"):
            supervisor.start(place.sleeper("web-2"))
        assert supervisor.names() == ("web-1",)
        file.rmdir()
        until(file.exists)
        kill_supervisor(supervisor)
        supervisor.ensure_running()
        assert supervisor.state("web-1").pid == pid
