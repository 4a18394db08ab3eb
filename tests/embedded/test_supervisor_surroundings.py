"""What a supervised process is given: environment, settings, folders, logs and a socket that outlives it."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import socket
import stat
from pathlib import Path

import pytest
from msgspec.structs import replace

import workshop
from bulletproof.adapters.embedded import table
from bulletproof.adapters.embedded.client import EmbeddedSupervisor
from bulletproof.adapters.embedded.policy import Policy
from bulletproof.adapters.embedded.table import Table
from bulletproof.domain.process import Phase, ProcessSpec
from bulletproof.errors import StepFailed
from embedded.places import Place, kill_supervisor, runs_again, until

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


def _ask(path: Path) -> int:
    """Connect to a unix socket and wait for the answer, a pid."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(path))
        return int(connection.recv(64))


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
        process = replace(process, settings=settings, environment={**process.environment, "MODE": "asked"})
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
        supervisor.start(replace(place.sleeper(), settings=settings))
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
            supervisor.start(replace(place.sleeper(), settings=settings))
        assert "xyzzy" not in str(failure.value)
        assert supervisor.is_running()
        assert supervisor.names() == ()

    def test_its_runtime_folder_is_its_own(self, place: Place, supervisor: EmbeddedSupervisor) -> None:
        """The folder is there and empty at every start, with mode 0750, and gone after the stop."""
        layout = place.layout()
        folder = layout.instance(1)
        process = replace(place.shell(f"ls {folder} >> seen; echo > {folder}/web.sock; sleep 1000"), runtime=folder)
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
        process = replace(place.shell("echo out; echo err >&2; sleep 1000"), log=place.layout().web_log(1))
        supervisor.start(process)
        until(lambda: process.log.read_text().endswith("out\nerr\n"))
        supervisor.stop("web-1")
        supervisor.start(process)
        until(lambda: process.log.read_text().count("out\nerr\n") == 2)
        assert stat.S_IMODE(process.log.stat().st_mode) == 0o640


class TestListener:
    """The socket that outlives its process."""

    @staticmethod
    def _server(place: Place) -> ProcessSpec:
        process = place.python(SERVER, name="relay")
        return replace(process, listen=place.layout().hold_socket)

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
        process = replace(place.sleeper("relay"), listen=place.layout().hold_socket)
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
        kill_supervisor(supervisor)
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
        supervisor.start(replace(process, listen=place.layout().hold_socket))
        hold = place.layout().hold_socket
        first = _ask(hold)
        kill_supervisor(supervisor)
        supervisor.ensure_running()
        assert _ask(hold) == first
        os.kill(first, signal.SIGKILL)
        second = runs_again(supervisor, "relay", 1)
        assert _ask(hold) == second


@pytest.mark.root
def test_a_full_disk_hinders_no_undo() -> None:
    """Its table can be written once more when not a byte is free; space is put by again as soon as there is some."""
    with workshop.small_disk(mebibytes=20) as disk:
        file = disk / "children.json"
        first, other = (Table(boot=word * 2000, entries=()) for word in "ab")
        table.write(file, first)
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        with (disk / "ballast").open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, free)
        table.write(file, other)
        assert table.read(file) == other
        (disk / "ballast").unlink()
        table.write(file, first)
        assert (disk / "spare").stat().st_size > 100_000
        table.remove(file)
        assert not (disk / "spare").exists()
