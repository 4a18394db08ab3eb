"""The embedded supervisor with real processes: crashes, stops, kills of itself, and a deployer that dies."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import fcntl
import itertools
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bulletproof.adapters.embedded import client, table, wire
from bulletproof.adapters.embedded.client import EmbeddedSupervisor
from bulletproof.adapters.embedded.policy import Policy, doubling
from bulletproof.adapters.embedded.recovery import Recovery
from bulletproof.adapters.embedded.runtime import keep_fresh, make_private_runtime, require_private
from bulletproof.domain.layout import Layout
from bulletproof.domain.process import Phase, ProcessSpec
from bulletproof.effects.lock import Holder, acquire, peek
from bulletproof.errors import Refused, StepFailed
from embedded.places import Place, new_place, runs_again, until

HURRIED = Policy(first_pause_seconds=0.01, longest_pause_seconds=0.02)
"""For tests in which a pause proves nothing."""

SERVER = """
import os, socket
listener = socket.socket(fileno=int(os.environ["LISTEN_FDS"]) + 2)
with open(here / "served", "a") as served:
    while True:
        connection, _ = listener.accept()
        connection.sendall(str(os.getpid()).encode())
        print(os.getpid(), file=served, flush=True)
        connection.close()
"""
"""Answers every connection to its inherited socket with its pid."""


@pytest.fixture
def place() -> Iterator[Place]:
    """A root of its own, in which nothing runs afterwards."""
    with new_place() as new:
        yield new


@pytest.fixture
def supervisor(place: Place) -> EmbeddedSupervisor:
    """The supervisor of the app `demo`, not running yet, and in no mood to wait between restarts."""
    return place.supervisor(policy=HURRIED)


def _kill_supervisor(supervisor: EmbeddedSupervisor) -> None:
    """Kill the supervisor alone, and see it gone."""
    pid = supervisor.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: not _is_alive(pid))


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _pids(file: Path, count: int) -> list[int]:
    """The pids that processes wrote into a file, once there are that many."""

    def read() -> list[int] | None:
        lines = file.read_text().splitlines() if file.exists() else []
        return [int(line) for line in lines] if len(lines) >= count else None

    return until(read, f"{file} never got {count} lines") or []


def _ask(path: Path) -> int:
    """Connect to a unix socket and wait for the answer, a pid."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(path))
        return int(connection.recv(64))


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
        supervisor = place.supervisor(policy=dataclasses.replace(HURRIED, crashes=2, steady_seconds=0.1))
        supervisor.start(place.shell("sleep 0.2; exit 1"))
        until(lambda: supervisor.state("web-1").restarts >= 4)
        assert supervisor.state("web-1").phase is not Phase.FAILED

    def test_workers_never_survive_their_master(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """When the main process is killed, what it started is killed before it is started again."""
        supervisor.start(place.shell("sleep 1000 & echo $! >> workers; wait"))
        (worker,) = _pids(place.file("workers"), 1)
        os.kill(supervisor.state("web-1").pid or 0, signal.SIGKILL)
        _pids(place.file("workers"), 2)
        assert not _is_alive(worker)

    def test_what_is_given_up_leaves_no_worker(self, place: Place) -> None:
        """With the last crash, too, all that the process started is killed."""
        supervisor = place.supervisor(policy=Policy(crashes=1))
        supervisor.start(place.shell("sleep 1000 & echo $! >> workers; exit 1"))
        until(lambda: supervisor.state("web-1").phase is Phase.FAILED)
        (worker,) = _pids(place.file("workers"), 1)
        until(lambda: not _is_alive(worker))

    def test_a_program_that_is_gone_at_a_restart_is_a_crash(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """When it cannot be started again, that is counted and said, and the supervisor lives."""
        program = place.file("program")
        program.write_text("#!/bin/sh\nwhile :; do sleep 1000; done\n")
        program.chmod(0o755)
        supervisor.start(place.process((str(program),)))
        program.unlink()
        os.kill(supervisor.state("web-1").pid or 0, signal.SIGKILL)
        until(lambda: supervisor.state("web-1").phase is Phase.FAILED)
        words = supervisor.state("web-1").words
        assert words.endswith(f"last: could not be started: No such file or directory: {program}")

    def test_orphans_are_reaped(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """What loses its parent and ends does not stay in the process table as a zombie."""
        supervisor.start(place.shell("(sh -c 'echo $$ >> orphan; sleep 1000' &) ; sleep 1000"))
        (orphan,) = _pids(place.file("orphan"), 1)
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
        pids = _pids(place.file("pids"), 4)
        begun = time.monotonic()
        supervisor.stop("web-1")
        assert time.monotonic() - begun >= process.stop_seconds
        assert not [pid for pid in pids if _is_alive(pid)]

    def test_workers_are_their_masters_to_end(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """SIGTERM goes to the main process alone; what is left when that has ended is killed at once."""
        worker = "trap 'echo term >> signals' TERM; echo $$ >> workers; while :; do sleep 0.05; done"
        main = f"trap 'echo main >> signals; exit' TERM; sh -c \"{worker.replace('$', chr(92) + '$')}\" & "
        process = dataclasses.replace(place.shell(f"{main} while :; do sleep 0.05; done"), stop_seconds=60.0)
        supervisor.start(process)
        (pid,) = _pids(place.file("workers"), 1)
        supervisor.stop("web-1")
        assert not _is_alive(pid)
        assert place.file("signals").read_text() == "main\n"

    def test_a_slow_stop_holds_up_nobody(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """While one process takes its time to end, others are asked about, started and stopped."""
        slow = dataclasses.replace(
            place.shell("trap '' TERM; echo > ready; while :; do sleep 0.1; done"), stop_seconds=2
        )
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
        slow = dataclasses.replace(
            place.shell("trap '' TERM; echo $$ >> pids; while :; do sleep 0.1; done"), stop_seconds=1
        )
        supervisor.start(slow)
        (before,) = _pids(place.file("pids"), 1)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            stop = pool.submit(supervisor.stop, "web-1")
            until(lambda: supervisor.state("web-1").phase is Phase.STOPPING)
            supervisor.start(slow)
            stop.result()
        assert not _is_alive(before)
        assert supervisor.state("web-1").phase is Phase.RUNNING

    def test_two_may_ask_for_the_same_stop(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """A stop that somebody else has begun is joined: both return when it is over."""
        process = dataclasses.replace(
            place.shell("trap '' TERM; echo > ready; while :; do sleep 0.1; done"), stop_seconds=0.5
        )
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
        supervisor.start(dataclasses.replace(place.sleeper("relay"), listen=hold, stop_seconds=0))
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


class TestSurroundings:
    """What a process finds when it starts."""

    def test_nothing_is_inherited(
        self, place: Place, supervisor: EmbeddedSupervisor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It has the environment that was asked for and one mark, its own session, and no descriptor of ours."""
        monkeypatch.setenv("OF_THE_CALLER", "yes")
        process = place.python(
            """
import json, os
facts = {"environment": dict(os.environ), "descriptors": sorted(os.listdir("/proc/self/fd"))[:-1],
         "session": os.getsid(0) == os.getpid(), "folder": os.getcwd(), "input": os.readlink("/proc/self/fd/0"),
         "umask": os.umask(0)}
(here / "facts.new").write_text(json.dumps(facts))
(here / "facts.new").rename(here / "facts")
import time; time.sleep(1000)
"""
        )
        supervisor.start(process)
        until(place.file("facts").exists)
        facts = json.loads(place.file("facts").read_text())
        assert facts["environment"].pop("BULLETPROOF_PROCESS")
        facts["environment"].pop("LC_CTYPE", None)  # Python itself sets it where no locale is given
        assert facts["environment"] == process.environment
        assert facts["descriptors"] == ["0", "1", "2"]
        assert (facts["session"], facts["folder"], facts["input"]) == (True, str(place.root), os.devnull)
        assert facts["umask"] == 0o027

    def test_settings_are_read_at_every_start(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """Settings lie below the environment that was asked for, and a restart takes them as they are then."""
        settings = place.file("settings.json")
        settings.write_text(json.dumps({"SECRET": "first", "MODE": "settings"}))
        process = place.shell('echo "$SECRET $MODE" >> seen; while :; do sleep 1000; done')
        process = dataclasses.replace(process, settings=settings, environment={**process.environment, "MODE": "asked"})
        supervisor.start(process)
        until(lambda: place.file("seen").exists() and place.file("seen").read_text() == "first asked\n")
        settings.write_text(json.dumps({"SECRET": "second"}))
        os.kill(supervisor.state("web-1").pid or 0, signal.SIGKILL)
        until(lambda: place.file("seen").read_text() == "first asked\nsecond asked\n")

    def test_settings_stay_secret(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """A value of the settings is in no argument, no file of the supervisor and no answer of it."""
        settings = place.file("settings.json")
        settings.write_text(json.dumps({"SECRET": "xyzzy-secret"}))
        settings.chmod(0o600)
        supervisor.start(dataclasses.replace(place.sleeper(), settings=settings))
        layout = place.layout()
        arguments = [argument for process in place.processes() for argument in process.cmdline()]
        texts = [table.path(layout).read_text(), (layout.logs / "supervisor.log").read_text(), *arguments]
        assert not [text for text in texts if "xyzzy" in text]
        assert "xyzzy" not in repr(supervisor.state("web-1"))
        assert stat.S_IMODE(table.path(layout).stat().st_mode) == 0o600

    @pytest.mark.parametrize("content", [None, "not JSON", '{"SECRET": {"xyzzy": 1}}', '{"SEC=RET": "xyzzy"}'])
    def test_bad_settings_are_words(self, place: Place, supervisor: EmbeddedSupervisor, content: str | None) -> None:
        """Settings that are missing or no settings refuse the start in words, without a word of their content."""
        settings = place.file("settings.json")
        if content is not None:
            settings.write_text(content)
        with pytest.raises(StepFailed, match=r"web-1: (its settings|could not be started)") as failure:
            supervisor.start(dataclasses.replace(place.sleeper(), settings=settings))
        assert "xyzzy" not in str(failure.value)
        assert supervisor.is_running()
        assert supervisor.names() == ()

    def test_its_runtime_folder_is_its_own(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """The folder is there and empty at every start, with mode 0750, and gone after the stop."""
        layout = place.layout()
        folder = layout.instance(1)
        process = dataclasses.replace(
            place.shell(f"ls {folder} >> seen; echo > {folder}/web.sock; sleep 1000"), runtime=folder
        )
        supervisor.start(process)
        until((folder / "web.sock").exists)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o750
        os.kill(supervisor.state("web-1").pid or 0, signal.SIGKILL)
        runs_again(supervisor, "web-1", 1)
        until((folder / "web.sock").exists)
        assert place.file("seen").read_text() == ""
        supervisor.stop("web-1")
        assert not folder.exists()

    def test_its_output_is_appended(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """What it prints on either stream comes after what was printed before, in a log of mode 0640."""
        process = dataclasses.replace(place.shell("echo out; echo err >&2; sleep 1000"), log=place.layout().web_log(1))
        supervisor.start(process)
        until(lambda: process.log.read_text() == "out\nerr\n")
        supervisor.stop("web-1")
        supervisor.start(process)
        until(lambda: process.log.read_text() == "out\nerr\n" * 2)
        assert stat.S_IMODE(process.log.stat().st_mode) == 0o640


class TestListener:
    """The socket that outlives its process."""

    @staticmethod
    def _server(place: Place) -> ProcessSpec:
        process = place.python(SERVER, name="relay")
        return dataclasses.replace(process, listen=place.layout().hold_socket)

    def test_clients_wait_for_the_next_process(self, place: Place) -> None:
        """Whoever connects while the process is dead is served by the next one; nobody is refused."""
        supervisor = place.supervisor(policy=Policy(first_pause_seconds=0.5))
        process = self._server(place)
        supervisor.start(process)
        hold = place.layout().hold_socket
        first = _ask(hold)
        assert first == supervisor.state("relay").pid
        os.kill(first, signal.SIGKILL)
        until(lambda: supervisor.state("relay").phase is Phase.BACKING_OFF)
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            answers = set(pool.map(_ask, [hold] * 20))
        assert answers == {supervisor.state("relay").pid}
        assert first not in answers
        assert stat.S_IMODE(hold.stat().st_mode) == 0o666

    def test_it_is_gone_after_the_stop(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """After a stop nobody can connect, and whoever waited is told so."""
        process = dataclasses.replace(place.sleeper("relay"), listen=place.layout().hold_socket)
        supervisor.start(process)
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.settimeout(30)
            waiting.connect(str(process.listen))
            supervisor.stop("relay")
            with pytest.raises(ConnectionResetError):
                waiting.recv(1)
        assert not place.layout().hold_socket.exists()

    def test_a_new_supervisor_keeps_the_very_same_socket(self, place: Place) -> None:
        """After a kill of the supervisor the process serves on; when it is killed too, clients wait and are served."""
        supervisor = place.supervisor(policy=Policy(first_pause_seconds=0.5))
        supervisor.start(self._server(place))
        hold = place.layout().hold_socket
        first = _ask(hold)
        inode = hold.stat().st_ino
        _kill_supervisor(supervisor)
        assert _ask(hold) == first
        supervisor.ensure_running()
        assert _ask(hold) == first
        os.kill(first, signal.SIGKILL)
        until(lambda: supervisor.state("relay").phase is Phase.BACKING_OFF)
        second = _ask(hold)
        assert second == supervisor.state("relay").pid
        assert second != first
        assert hold.stat().st_ino == inode

    @pytest.mark.parametrize("instead", ["os.close(3)", "os.dup2(other.fileno(), 3)", "os.dup2(0, 3)"])
    def test_a_socket_that_cannot_be_had_is_made_anew(
        self, place: Place, supervisor: EmbeddedSupervisor, instead: str
    ) -> None:
        """When the process has put its socket elsewhere, it serves on under a new supervisor, and so does the next."""
        elsewhere = f"""
import os, socket
os.environ["LISTEN_FDS"] = str(os.dup(3) - 2)
other = socket.socket(socket.AF_UNIX)
other.bind(str(here / f"other-{{os.getpid()}}"))
other.listen()
{instead}
"""
        process = place.python(elsewhere + SERVER, name="relay")
        supervisor.start(dataclasses.replace(process, listen=place.layout().hold_socket))
        hold = place.layout().hold_socket
        first = _ask(hold)
        _kill_supervisor(supervisor)
        supervisor.ensure_running()
        assert _ask(hold) == first
        os.kill(first, signal.SIGKILL)
        second = runs_again(supervisor, "relay", 1)
        assert _ask(hold) == second


class TestKilledSupervisor:
    """What a supervisor finds that comes after one that was killed."""

    def test_processes_go_on(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """The same process runs on, is watched again, and is started again when it crashes."""
        supervisor.start(place.sleeper())
        os.kill(supervisor.state("web-1").pid or 0, signal.SIGKILL)
        pid = runs_again(supervisor, "web-1", 1)
        _kill_supervisor(supervisor)
        assert _is_alive(pid)
        supervisor.ensure_running()
        state = supervisor.state("web-1")
        assert (state.phase, state.pid, state.restarts) == (Phase.RUNNING, pid, 1)
        os.kill(pid, signal.SIGKILL)
        assert runs_again(supervisor, "web-1", 2) != pid

    def test_what_died_meanwhile_runs_again(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """A process that died while nobody watched is started again, and its workers are dead before that."""
        supervisor.start(place.shell("sleep 1000 & echo $! >> workers; wait"))
        (worker,) = _pids(place.file("workers"), 1)
        pid = supervisor.state("web-1").pid or 0
        _kill_supervisor(supervisor)
        os.kill(pid, signal.SIGKILL)
        supervisor.ensure_running()
        runs_again(supervisor, "web-1", 1)
        assert not _is_alive(worker)
        assert supervisor.state("web-1").words == "ended while no supervisor watched it"

    def test_another_process_with_the_same_number_is_left_alone(
        self, place: Place, supervisor: EmbeddedSupervisor
    ) -> None:
        """A pid is only trusted with its start time: a stranger that has the number now is neither kept nor killed."""
        supervisor.start(place.sleeper())
        _kill_supervisor(supervisor)
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
        _kill_supervisor(supervisor)
        file = table.path(place.layout())
        content = json.loads(file.read_text())
        content["entries"][0]["main"] = None
        file.write_text(json.dumps(content))
        supervisor.ensure_running()
        assert runs_again(supervisor, "web-1", 0) != nameless
        assert not _is_alive(nameless)
        assert supervisor.state("web-1").restarts == 0

    def test_a_stop_is_carried_out(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """A stop outlives the supervisor that was asked: it returns only when the process is gone."""
        slow = dataclasses.replace(
            place.shell("trap '' TERM; echo > ready; while :; do sleep 0.1; done"), stop_seconds=1
        )
        supervisor.start(slow)
        until(place.file("ready").exists)
        pid = supervisor.state("web-1").pid or 0
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            stop = pool.submit(supervisor.stop, "web-1")
            until(lambda: supervisor.state("web-1").phase is Phase.STOPPING)
            _kill_supervisor(supervisor)
            stop.result()
        assert not _is_alive(pid)
        assert supervisor.names() == ()

    def test_a_stop_is_finished_unasked(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """A stop that was begun is finished by the next supervisor, also when nobody asks again."""
        slow = dataclasses.replace(
            place.shell("trap '' TERM; echo > ready; while :; do sleep 0.1; done"), stop_seconds=1
        )
        supervisor.start(slow)
        until(place.file("ready").exists)
        with socket.socket(socket.AF_UNIX) as order:
            order.connect(str(place.layout().supervisor_socket))
            order.sendall(wire.encode(wire.Request(verb=wire.Verb.STOP, name="web-1")))
            until(lambda: supervisor.state("web-1").phase is Phase.STOPPING)
            _kill_supervisor(supervisor)
        supervisor.ensure_running()
        until(lambda: supervisor.names() == ())
        assert [process.pid for process in place.processes()] == [supervisor.pid()]

    def test_what_was_given_up_stays_so(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """A process that was given up is not tried again by a new supervisor."""
        supervisor.start(place.shell("exit 3"))
        until(lambda: supervisor.state("web-1").phase is Phase.FAILED)
        before = supervisor.state("web-1")
        _kill_supervisor(supervisor)
        supervisor.ensure_running()
        assert supervisor.state("web-1") == before

    def test_shutdown_and_stop_end_what_was_left(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """Without a supervisor, stop and shutdown still end the processes that the dead one started."""
        supervisor.start(place.sleeper("web-1"))
        supervisor.start(place.sleeper("web-2"))
        pids = [supervisor.state(name).pid or 0 for name in ("web-1", "web-2")]
        _kill_supervisor(supervisor)
        supervisor.stop("web-1")
        assert [_is_alive(pid) for pid in pids] == [False, True]
        _kill_supervisor(supervisor)
        supervisor.shutdown()
        assert not place.processes()

    def test_another_boot_starts_nothing(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """After a reboot the table is of no use: what serves is the journal's to say, so nothing is started."""
        process = dataclasses.replace(place.sleeper(), runtime=place.layout().instance(1))
        supervisor.start(process)
        _kill_supervisor(supervisor)
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
        _kill_supervisor(supervisor)
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
        _kill_supervisor(supervisor)
        supervisor.ensure_running()
        assert supervisor.state("web-1").pid == pid


class TestItself:
    """There is one supervisor, it is reached in private, and it ends in order."""

    def test_a_race_ends_with_one(self, place: Place) -> None:
        """Of five who make sure at once that it runs, all find the same one."""
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            list(pool.map(lambda _: place.supervisor().ensure_running(), range(5)))
        assert [process.pid for process in place.supervisors()] == [place.supervisor().pid()]

    def test_it_outlives_who_started_it(self, place: Place) -> None:
        """It is in a session of its own, child of nobody who asked, at / and with a clean environment."""
        program = (
            "import os, sys; from pathlib import Path; from bulletproof.domain.layout import Layout;"
            "from bulletproof.adapters.embedded.client import EmbeddedSupervisor;"
            "EmbeddedSupervisor(Layout(Path(sys.argv[1]), 'demo', Path(sys.argv[2]))).ensure_running()"
        )
        layout = place.layout()
        argv = [sys.executable, "-c", program, str(layout.root), str(layout.runtime)]
        subprocess.run(argv, check=True, env={**os.environ, "OF_THE_CALLER": "1"}, timeout=60)
        process = psutil.Process(place.supervisor().pid())
        assert os.getsid(process.pid) == process.pid
        assert process.cwd() == "/"
        assert process.environ().keys() <= {"PATH", "HOME", "LANG", "LC_CTYPE"}

    def test_nothing_is_left_after_shutdown(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """When shutdown returns, no process runs and no socket, table or runtime folder is there."""
        layout = place.layout()
        process = dataclasses.replace(place.shell("sleep 1000 & wait"), runtime=layout.instance(1))
        supervisor.start(process)
        supervisor.start(dataclasses.replace(place.sleeper("relay"), listen=layout.hold_socket))
        supervisor.shutdown()
        assert not place.processes()
        assert [entry.name for entry in layout.sockets.iterdir()] == ["supervisor.flock"]

    @pytest.mark.parametrize("by", ["client", "SIGTERM", "SIGINT"])
    def test_it_ends_in_order(self, place: Place, supervisor: EmbeddedSupervisor, by: str) -> None:
        """The proxy ends first, then the web processes, the relay last, each when the one before is gone."""
        for name in ("relay", "web-1", "web-2", "proxy"):
            text = f"trap 'sleep 0.1; echo {name} >> ends; exit' TERM; echo >> ready; while :; do sleep 0.02; done"
            supervisor.start(dataclasses.replace(place.shell(text, name), stop_seconds=30))
        until(lambda: place.file("ready").exists() and len(place.file("ready").read_text()) == 4)
        pid = supervisor.pid() or 0
        if by == "client":
            supervisor.shutdown()
        else:
            os.kill(pid, signal.Signals[by])
            until(lambda: not _is_alive(pid))
        ends = place.file("ends").read_text().split()
        assert (ends[0], set(ends[1:3]), ends[3]) == ("proxy", {"web-1", "web-2"}, "relay")
        assert not place.processes()
        assert not table.path(place.layout()).exists()

    def test_who_comes_during_the_end_gets_a_new_one(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """While a supervisor ends it takes no process; whoever wants one waits, and has a new supervisor then."""
        text = "trap '' TERM; echo > ready; while :; do sleep 0.05; done"
        supervisor.start(place.shell(text))
        until(place.file("ready").exists)
        before = supervisor.pid()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            end = pool.submit(supervisor.shutdown)
            until(lambda: not supervisor.is_running())
            supervisor.start(place.sleeper("web-2"))
            end.result()
        assert supervisor.pid() not in {before, None}
        assert supervisor.names() == ("web-2",)

    def test_two_apps_do_not_disturb_each_other(self, place: Place) -> None:
        """Each app has its own supervisor: neither a kill nor a shutdown of one touches the other."""
        one, two = place.supervisor("one", HURRIED), place.supervisor("two", HURRIED)
        one.start(place.sleeper())
        two.start(place.sleeper())
        before = two.pid(), two.state("web-1")
        assert one.state("web-1").pid != before[1].pid
        _kill_supervisor(one)
        one.shutdown()
        assert (two.pid(), two.state("web-1")) == before

    def test_nonsense_is_answered_in_words(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """Half a request holds nobody up, and one that is none gets an answer; the supervisor lives."""
        supervisor.ensure_running()
        path = str(place.layout().supervisor_socket)
        with socket.socket(socket.AF_UNIX) as half, socket.socket(socket.AF_UNIX) as nonsense:
            half.connect(path)
            half.sendall(b'{"verb": "pi')
            nonsense.connect(path)
            nonsense.sendall(b'{"verb": "dance"}\n')
            answer = wire.decode(nonsense.makefile("rb").readline(), wire.Answer)
            assert answer.reference == "request-not-understood"
            assert supervisor.is_running()
            half.sendall(b'ng"}\n')
            assert wire.decode(half.makefile("rb").readline(), wire.Answer) == wire.Answer()

    def test_one_that_hangs_is_words(
        self, place: Place, supervisor: EmbeddedSupervisor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A supervisor that says nothing is an error with its pid after a while, also during a long order."""
        monkeypatch.setattr(client, "_SILENCE_SECONDS", 0.3)
        monkeypatch.setattr(client, "_PATIENCE_SECONDS", 0.1)
        monkeypatch.setattr(client, "_START_SECONDS", 30.0)
        supervisor.start(place.sleeper())
        pid = supervisor.pid() or 0
        os.kill(pid, signal.SIGSTOP)
        for order in (lambda: supervisor.state("web-1"), lambda: supervisor.stop("web-1"), supervisor.ensure_running):
            with pytest.raises(StepFailed, match=rf"the supervisor \(pid {pid}\) did not answer within") as failure:
                order()
            assert failure.value.hint == f"kill -9 {pid}, then: bulletproof start"
        assert not supervisor.is_running()

    def test_a_removed_socket_comes_back(self, place: Place) -> None:
        """When somebody removes the control socket, the supervisor makes it again."""
        supervisor = place.supervisor(policy=Policy(look_seconds=0.05))
        supervisor.start(place.sleeper())
        pid = supervisor.pid()
        place.layout().supervisor_socket.unlink()
        until(supervisor.is_running)
        assert supervisor.pid() == pid

    def test_a_removed_root_ends_it(self, place: Place) -> None:
        """When its folder is removed nobody could ever reach it, so it ends with all its processes."""
        supervisor = place.supervisor(policy=Policy(look_seconds=0.05))
        supervisor.start(place.sleeper())
        place.remove_folders()
        until(lambda: not place.processes(), "something runs on without a folder")

    def test_long_logs_are_rotated(self, place: Place) -> None:
        """A log that grows too long is copied to `.1` and begins anew, while the process writes on."""
        supervisor = place.supervisor(policy=Policy(log_bytes=10_000, log_look_seconds=0.05))
        process = place.shell("while :; do echo 0123456789012345678901234567890123456789; sleep 0.0005; done")
        supervisor.start(process)
        saved = process.log.with_name("web-1.log.1")
        until(saved.exists)
        until(lambda: 0 < process.log.stat().st_size < 5_000, "it did not go on in the emptied log")
        assert supervisor.state("web-1").restarts == 0
        assert saved.stat().st_size >= 10_000


class TestRuntime:
    """The folder for sockets is private."""

    def test_it_is_entered_by_us_alone(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """The folder has mode 0700, also when it was there with another, and the control socket 0600."""
        layout = place.layout()
        layout.sockets.mkdir(parents=True, mode=0o755)
        supervisor.ensure_running()
        assert stat.S_IMODE(layout.sockets.stat().st_mode) == 0o700
        assert stat.S_IMODE(layout.supervisor_socket.stat().st_mode) == 0o600

    def test_a_place_in_tmp_is_checked(self, place: Place) -> None:
        """A symlink, a file, or a folder that others can enter is refused in words; a private one is not."""
        folder = place.file("place")
        folder.mkdir(mode=0o700)
        require_private(folder)
        folder.chmod(0o750)
        with pytest.raises(Refused, match="can be entered by others"):
            require_private(folder)
        folder.chmod(0o700)
        link = place.file("link")
        link.symlink_to(folder)
        with pytest.raises(Refused, match="is not a folder"):
            require_private(link)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
    def test_a_place_of_another_user_is_refused(self, place: Place) -> None:
        """A folder in /tmp that another user made first is not used."""
        folder = place.file("place")
        folder.mkdir(mode=0o700)
        os.chown(folder, 12345, -1)
        with pytest.raises(Refused, match="belongs to the user with number 12345"):
            require_private(folder)

    def test_a_long_root_uses_tmp(self, place: Place) -> None:
        """With a root too deep for sockets the folder in /tmp is checked, used, and kept fresh for cleaners."""
        layout = Place(place.root / ("deep" * 30)).layout()
        shared = layout.runtime.parent
        assert shared == Path("/") / "tmp" / f"bulletproof-{os.getuid()}"
        try:
            make_private_runtime(layout)
            link = layout.app_socket
            link.symlink_to("1/web.sock")
            os.utime(link, (1, 1), follow_symlinks=False)
            keep_fresh(layout)
            assert time.time() - link.lstat().st_mtime < 60
            assert stat.S_IMODE(shared.stat().st_mode) == 0o700
        finally:
            Place(place.root / ("deep" * 30)).remove_folders()


class TestDeadDeployer:
    """What happens when a deployment is killed."""

    RECOVER = """
import os, sys, time
from bulletproof.effects.lock import inherit
print("recovering", flush=True)
held = inherit(int(os.environ["BULLETPROOF_LOCK_FD"]), here / "var/lib/bulletproof/demo/lock")
with open(here / "recoveries", "a") as file:
    print(time.monotonic(), file=file)
"""

    def _policy(self, place: Place, ending: str) -> Policy:
        recover = place.python(self.RECOVER + ending).argv
        return dataclasses.replace(HURRIED, look_seconds=0.05, recover_argv=recover, recover_first_pause_seconds=0.2)

    @staticmethod
    def _die_with_the_lock(layout: Layout) -> None:
        """Let a deployer take the lock and be killed in the middle."""
        layout.state.mkdir(parents=True, exist_ok=True)
        program = (
            "import os, signal, sys; from pathlib import Path; from bulletproof.effects.lock import Holder, acquire;"
            "held = acquire(Path(sys.argv[1]), Holder.of_this_process('deploy', step='build'));"
            "os.kill(os.getpid(), signal.SIGKILL)"
        )
        subprocess.run([sys.executable, "-c", program, str(layout.lock)], check=False, timeout=60)

    def test_a_recovery_runs_with_the_lock(self, place: Place) -> None:
        """The recovery inherits the lock, so that nobody comes between, and runs once; its words are in recover.log."""
        layout = place.layout()
        policy = self._policy(place, "while not (here / 'go').exists(): time.sleep(0.01)\nheld.release()\n")
        supervisor = place.supervisor(policy=policy)
        supervisor.ensure_running()
        self._die_with_the_lock(layout)
        until(place.file("recoveries").exists)
        assert not _is_free(layout.lock)
        assert (layout.logs / "recover.log").read_text() == "recovering\n"
        place.file("go").write_text("")
        until(lambda: _is_free(layout.lock))
        assert acquire(layout.lock, Holder.of_this_process("deploy", step="lock")).left_by is None
        assert len(place.file("recoveries").read_text().splitlines()) == 1

    def test_there_is_one_recovery_at_a_time(self, place: Place) -> None:
        """Even when a recovery has let the lock go, no second one starts while it lives."""
        layout = place.layout()
        ending = "os.close(held.fileno())\nwhile not (here / 'go').exists(): time.sleep(0.01)\nsys.exit(1)\n"
        place.supervisor(policy=self._policy(place, ending)).ensure_running()
        self._die_with_the_lock(layout)
        until(place.file("recoveries").exists)
        until(lambda: _is_free(layout.lock))
        time.sleep(0.5)  # ten looks
        assert place.file("recoveries").read_text().count("\n") == 1
        place.file("go").write_text("")
        until(lambda: place.file("recoveries").read_text().count("\n") >= 2)

    def test_a_living_deployer_is_not_disturbed(self, place: Place) -> None:
        """While the owner of the lock lives, and after it gave it back, nothing is recovered."""
        layout = place.layout()
        layout.state.mkdir(parents=True)
        held = acquire(layout.lock, Holder.of_this_process("deploy", step="build"))
        supervisor = place.supervisor(policy=self._policy(place, ""))
        supervisor.ensure_running()
        time.sleep(0.3)
        held.release()
        time.sleep(0.3)
        assert not place.file("recoveries").exists()

    def test_a_recovery_that_fails_is_tried_again(self, place: Place) -> None:
        """It is tried again after a pause that doubles, with the lock still known to be left by a dead owner."""
        layout = place.layout()
        recover = place.shell("date +%s.%N >> recoveries; exit 4").argv
        policy = Policy(look_seconds=0.02, recover_argv=("/bin/sh", "-c", f"cd {place.root}; {recover[-1]}"))
        supervisor = place.supervisor(policy=dataclasses.replace(policy, recover_first_pause_seconds=0.5))
        supervisor.ensure_running()
        self._die_with_the_lock(layout)
        until(lambda: place.file("recoveries").exists() and place.file("recoveries").read_text().count("\n") >= 3)
        first, second, third = [float(line) for line in place.file("recoveries").read_text().splitlines()[:3]]
        assert second - first >= 0.45  # from start to start, of which the pause is a part
        assert third - second >= 0.95
        assert "the recovery ended with status 4" in (layout.logs / "supervisor.log").read_text()

    def test_a_recovery_may_end_the_supervisor(self, place: Place) -> None:
        """A recovery can shut down the very supervisor that started it, and is not ended by that."""
        ending = """
from bulletproof.adapters.embedded.client import EmbeddedSupervisor
from bulletproof.domain.layout import Layout, runtime_folder
EmbeddedSupervisor(Layout(here, "demo", runtime_folder(here, os.getuid()))).shutdown()
held.release()
(here / "done").write_text("")
"""
        supervisor = place.supervisor(policy=self._policy(place, ending))
        supervisor.start(place.sleeper())
        self._die_with_the_lock(place.layout())
        until(place.file("done").exists)
        until(lambda: not place.processes())

    def test_a_recovery_that_cannot_be_started_is_tried_again(self, place: Place) -> None:
        """When its program is missing, the lock stays known as left by a dead owner, and the supervisor lives."""
        layout = place.layout()
        policy = dataclasses.replace(HURRIED, look_seconds=0.05, recover_argv=(str(place.file("missing")),))
        supervisor = place.supervisor(policy=dataclasses.replace(policy, recover_first_pause_seconds=0.05))
        supervisor.ensure_running()
        self._die_with_the_lock(layout)
        log = layout.logs / "supervisor.log"
        until(lambda: log.read_text().count("no recovery could be started") >= 2)
        assert supervisor.is_running()
        assert peek(layout.lock) is not None

    def test_by_default_bulletproof_itself_recovers(self, place: Place) -> None:
        """People's recovery is `bulletproof recover` of this very installation, for this root and app."""
        argv = Recovery(place.layout(), Policy())._argv()
        wanted = ["-m", "bulletproof", "--root", str(place.root), "recover", "--app", "demo"]
        assert argv == (sys.executable, "-P", *wanted)


def _is_free(lock: Path) -> bool:
    """Whether nobody holds the lock; it is not taken."""
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
