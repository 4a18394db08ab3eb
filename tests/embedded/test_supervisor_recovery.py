"""What the supervisor does by itself when a deployment is killed."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
from pathlib import Path

from msgspec.structs import replace

from bulletproof.adapters.embedded.policy import Policy
from bulletproof.adapters.embedded.recovery import Recovery
from bulletproof.domain.layout import Layout
from bulletproof.effects.lock import Holder, acquire, peek
from embedded.places import HURRIED, Place, until


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
        return replace(HURRIED, look_seconds=0.05, recover_argv=recover, recover_first_pause_seconds=0.2)

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
        assert (layout.logs / "recover.log").read_text().endswith(" is started\nrecovering\n")
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
        supervisor = place.supervisor(policy=replace(policy, recover_first_pause_seconds=0.5))
        supervisor.ensure_running()
        self._die_with_the_lock(layout)
        until(lambda: place.file("recoveries").exists() and place.file("recoveries").read_text().count("\n") >= 3)
        first, second, third = [float(line) for line in place.file("recoveries").read_text().splitlines()[:3]]
        assert second - first >= 0.45  # from start to start, of which the pause is a part
        assert third - second >= 0.95
        assert "the recovery ended with status 4" in (layout.logs / "supervisor.log").read_text()

    def test_another_death_does_not_wait_for_the_first(self, place: Place) -> None:
        """A deployer that dies while recoveries of an earlier death pause, healed by hand meanwhile, is met at once."""
        layout = place.layout()
        policy = self._policy(
            place, "sys.exit(4 if len(open(here / 'recoveries').readlines()) == 1 else held.release())"
        )
        place.supervisor(policy=replace(policy, recover_first_pause_seconds=60.0)).ensure_running()
        self._die_with_the_lock(layout)
        until(lambda: "looking again in 60" in (layout.logs / "supervisor.log").read_text())
        acquire(layout.lock, Holder.of_this_process("recover", step="begin")).release()
        self._die_with_the_lock(layout)
        until(lambda: place.file("recoveries").read_text().count("\n") == 2)

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
        policy = replace(HURRIED, look_seconds=0.05, recover_argv=(str(place.file("missing")),))
        supervisor = place.supervisor(policy=replace(policy, recover_first_pause_seconds=0.05))
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
