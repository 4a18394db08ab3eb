"""The same app under Bulletproof, driven by the real command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench.command import Finished, run, shell_environment
from bench.content import fill
from bulletproof.effects.process import last_lines
from bulletproof.errors import BulletproofError

PROGRAM = str(Path(sys.executable).with_name("bulletproof"))
"""The command as a person runs it, installed beside this interpreter."""
_RECOVERY_SECONDS = 30
"""A deployment that we killed is being undone by itself; the stop waits for that."""


class Ours:
    """The app on the embedded host, behind its proxy."""

    name = "bulletproof"

    def __init__(self, folder: Path, project: Path) -> None:
        """Nothing is done before `lay`."""
        self._root = folder / "root"
        self._project = project
        self._address = ""

    @property
    def address(self) -> str:
        """Where it serves."""
        return self._address

    @property
    def database(self) -> Path:
        """The live database."""
        return self._root / "var" / "lib" / "datacharted" / "app.db"

    def lay(self) -> None:
        """Deploy v1. Raises BulletproofError when it does not serve."""
        first = self.deploy("v1")
        if first.status != 0:
            raise _failed(first, "bench-not-prepared", "deploying v1")
        self._address = str(last_event(first)["address"])
        fill(self.database)

    def deploy(self, release: str) -> Finished:
        """`bulletproof deploy`."""
        return self._run("deploy", release, "--json")

    def rollback(self) -> Finished:
        """`bulletproof rollback`: what was live before serves again."""
        return self._run("rollback", "--json")

    def check(self) -> Finished:
        """`bulletproof check`: everything that it looks at, side by side."""
        return self._run("check")

    def back_up(self) -> None:
        """`bulletproof backup create`. Raises BulletproofError when none was made."""
        made = self._run("backup", "create")
        if made.status != 0:
            raise _failed(made, "bench-not-prepared", "bulletproof backup create")

    def close(self) -> None:
        """Stop it, however far it came. Raises BulletproofError when something may still run."""
        if not self._root.exists():
            return
        stopped = self._run("stop", f"--wait={_RECOVERY_SECONDS}", "--json")
        if stopped.status != 0:
            raise _failed(stopped, "bench-not-stopped", "bulletproof stop")

    def _run(self, *words: str) -> Finished:
        argv = (PROGRAM, "--root", str(self._root), *words)
        return run(argv, folder=self._project, environment=shell_environment())


def _failed(finished: Finished, reference: str, what: str) -> BulletproofError:
    words = f"{what} ended with {finished.status}: {complaint(finished)}"
    return BulletproofError(reference, words, context=last_lines(finished.errors))


def last_event(finished: Finished) -> dict[str, object]:
    """The last event that a deployment told; empty when it told none."""
    return (_events(finished) or [{}])[-1]


def complaint(finished: Finished) -> str:
    """The error that a deployment told, in a line; empty when it told none."""
    error = last_event(finished).get("error")
    return f"{error['reference']}: {error['message']}" if isinstance(error, dict) else ""


def step_seconds(finished: Finished) -> dict[str, float]:
    """How long each step took, by the events of `--json`; empty for any other output."""
    done = [event for event in _events(finished) if event.get("event") == "step-done"]
    return {str(event["step"]): float(str(event["seconds"])) for event in done}


def _events(finished: Finished) -> list[dict[str, object]]:
    return [json.loads(line) for line in finished.output.splitlines() if line.startswith("{")]
