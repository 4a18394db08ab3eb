"""The supervisor's own life: there is one, it is reached in private, and it ends in order."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace

from bulletproof.adapters.embedded import client, table, wire
from bulletproof.adapters.embedded.client import EmbeddedSupervisor
from bulletproof.adapters.embedded.policy import Policy
from bulletproof.adapters.embedded.runtime import keep_fresh, make_private_runtime, require_private
from bulletproof.errors import Refused, StepFailed
from embedded.places import HURRIED, Place, is_alive, kill_supervisor, until


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
        process = replace(place.shell("sleep 1000 & wait"), runtime=layout.instance(1))
        supervisor.start(process)
        supervisor.start(replace(place.sleeper("relay"), listen=layout.hold_socket))
        supervisor.shutdown()
        assert not place.processes()
        assert [entry.name for entry in layout.sockets.iterdir()] == ["supervisor.flock"]

    @pytest.mark.parametrize("by", ["client", "SIGTERM", "SIGINT"])
    def test_it_ends_in_order(self, place: Place, supervisor: EmbeddedSupervisor, by: str) -> None:
        """The proxy ends first, then the web processes, the relay last, each when the one before is gone."""
        for name in ("relay", "web-1", "web-2", "proxy"):
            text = f"trap 'sleep 0.1; echo {name} >> ends; exit' TERM; echo >> ready; while :; do sleep 0.02; done"
            supervisor.start(replace(place.shell(text, name), stop_seconds=30))
        until(lambda: place.file("ready").exists() and len(place.file("ready").read_text()) == 4)
        pid = supervisor.pid() or 0
        if by == "client":
            supervisor.shutdown()
        else:
            os.kill(pid, signal.Signals[by])
            until(lambda: not is_alive(pid))
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
        kill_supervisor(one)
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
