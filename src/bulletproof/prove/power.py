"""Cuts of the power and disks that are full or broken, in the middle of a deployment of a host on a disk of its own."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import msgspec
from msgspec.structs import replace

from bulletproof.errors import BulletproofError
from bulletproof.prove import oracle, scenarios
from bulletproof.prove.disk import Disk
from bulletproof.prove.host import COMMAND_SECONDS, Host, pids
from bulletproof.prove.sweep import RECOVERY_SECONDS, Sweep, Verdict

_DEPLOYMENT_SECONDS = 4.0
"""About how long a deployment takes on an ext4: the cut comes within this time."""
_NOTICE_SECONDS = 1.0
_POLL_SECONDS = 0.05
_CUT, _BROKEN, _FULL, _NO_INODES = "power cut", "disk turned read-only", "disk full", "no inodes"
_CUT_AT_END = "power cut as soon as it said that it is done"
_KINDS = (_CUT, _BROKEN, _CUT_AT_END, _FULL, _CUT, _NO_INODES)
_BACKUP = "backup"
_WAYS = ("deploy", "migrate", "restore", _BACKUP)
_UNDERSTOOD = {0, 1, 3, 4}

Watch = Callable[[Verdict], None]


def play(
    base: Path, rounds: int, seed: int, watch: Watch, is_over: Callable[[], bool], only: str = ""
) -> list[Verdict]:
    """So many rounds, of each kind by turns, every second one a power cut; ends with the first that broke the host.

    None is begun when `is_over`.
    """
    kinds = [kind for kind in _KINDS if f"disk/{kind}".startswith(only)]
    verdicts: list[Verdict] = []
    base.mkdir()
    disk = Disk.make(base / "image", base / "host" / "r")
    host = Host.lay(base / "host")
    try:
        with host.load() as load:
            round_ = _Round(host, disk, Sweep(host, load), random.Random(seed))  # noqa: S311  chosen, not secret
            for kind in islice(cycle(kinds), rounds):
                if is_over():
                    break
                try:
                    verdict = round_.play(kind)
                except BulletproofError as error:
                    if not verdicts:
                        raise
                    verdict = verdicts.pop().blamed(error.message)  # what came before left no host that can be used
                verdicts.append(verdict)
                watch(verdict)
                if not verdict.is_good:
                    break
    finally:
        disk.empty()
        host.end()
        disk.unmount()
    return verdicts


class _Round(msgspec.Struct, frozen=True):
    """What happens to the disk once."""

    host: Host
    disk: Disk
    sweep: Sweep
    chance: random.Random

    def play(self, kind: str) -> Verdict:
        """A deployment, the disk's trouble in its middle, the way back, and what the oracle sees then."""
        way = self.chance.choice(_WAYS)
        words = self._prepare(way)
        before, since, backups = oracle.World.of(self.host), time.monotonic(), self._backups()
        command = self.host.begin(*words)
        if kind == _CUT_AT_END:
            command.wait(COMMAND_SECONDS)
        else:
            time.sleep(self.chance.uniform(0.0, _DEPLOYMENT_SECONDS))
        problems = self._fill(command, kind) if kind in {_FULL, _NO_INODES} else self._lose(command, kind)
        verdict = self.sweep.judge(before, since, is_seen=True)
        is_done = self._backups() > backups if way == _BACKUP else verdict.outcome == "new"
        if command.returncode == 0 and not is_done:
            problems.append(f"it said that it is done, and the {way} is not there")
        return replace(
            verdict, name=f"disk/{kind}", scenario="disk", step=kind, problems=(*problems, *verdict.problems)
        )

    def _prepare(self, way: str) -> tuple[str, ...]:
        """The words of a command that can be given now."""
        if way == _BACKUP:
            scenarios.make_well(self.host)
            return ("backup", "create")
        scenario = scenarios.SCENARIOS[way]
        scenario.prepare(self.host)
        return scenario.command(self.host)

    def _backups(self) -> int:
        """The number of the newest backup, 0 when there is none."""
        return max((int(path.name[1:]) for path in self.host.layout.backups.glob("b*")), default=0)

    def _lose(self, command: subprocess.Popen[str], kind: str) -> list[str]:
        """The disk takes nothing more, everything ends, and the machine is started again."""
        if kind == _BROKEN:
            self.disk.become_read_only()
            time.sleep(_NOTICE_SECONDS)
        else:
            self.disk.cut_power()
        for pid in (command.pid, *pids(self.host.layout.root), *pids(self.host.layout.root)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        command.communicate()
        self.disk.unmount()
        self.disk.mount()
        started = self.host.run("start", "--wait", "20")
        return [f"start ended with {started.status}: {(started.err + started.out)[-300:]}"] if started.status else []

    def _fill(self, command: subprocess.Popen[str], kind: str) -> list[str]:
        """Nothing can be written any more; the deployment ends, and is undone or finished although it is so."""
        (self.disk.fill if kind == _FULL else self.disk.use_up_inodes)()
        try:
            out, err = command.communicate(timeout=COMMAND_SECONDS)
            said = (
                []
                if command.returncode in _UNDERSTOOD
                else [f"it ended with {command.returncode}: {(err + out)[-300:]}"]
            )
            deadline = time.monotonic() + RECOVERY_SECONDS
            while not oracle.is_quiet(self.host.layout):
                if time.monotonic() > deadline:
                    return [
                        *said,
                        f"not whole while there is no room: it ended with {command.returncode}: {out[-400:]}",
                    ]
                time.sleep(_POLL_SECONDS)
            return said
        finally:
            self.disk.empty()
