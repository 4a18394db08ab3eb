"""The real command line, run as a person would, its events read as they come; killed in the middle on request."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from bulletproof.errors import BulletproofError

_COMMAND_SECONDS = 180.0
_POLL_SECONDS = 0.3


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a command ended."""

    status: int
    events: tuple[dict[str, object], ...]

    @property
    def outcome(self) -> str:
        """The deployment's outcome; `killed` when there was none to tell it."""
        last = self.events[-1] if self.events else {}
        return str(last.get("outcome", "killed"))

    @property
    def reference(self) -> str:
        """The error's reference, empty when there was none."""
        error = self.events[-1].get("error") if self.events else None
        return str(error.get("reference", "")) if isinstance(error, dict) else ""


class Commands(msgspec.Struct, frozen=True, kw_only=True):
    """`bulletproof` in a project's folder, on a root."""

    root: Path
    folder: Path

    def run(self, *words: str) -> Ended:
        """Run a verb that tells events to its end."""
        return self.run_and_kill(words, at_step="")

    def run_and_kill(self, words: tuple[str, ...], *, at_step: str) -> Ended:
        """Run a verb, and kill -9 it when that step has begun."""
        with self._start((*words, "--json")) as command:
            events = []
            assert command.stdout is not None  # noqa: S101  asked for below
            for line in command.stdout:
                events.append(json.loads(line))
                if at_step and events[-1].get("event") == "step-started" and events[-1].get("step") == at_step:
                    command.kill()
                    break
            status = command.wait(_COMMAND_SECONDS)
        return Ended(status=status, events=tuple(events))

    def status(self) -> dict[str, object]:
        """`bulletproof status --json`."""
        with self._start(("status", "--json")) as command:
            output, _ = command.communicate(timeout=_COMMAND_SECONDS)
        found = json.loads(output)
        assert isinstance(found, dict)  # noqa: S101  the reference says so
        return found

    def wait_until_whole(self, seconds: float) -> float:
        """How long it takes until nothing is left to finish or undo. Raises when it takes longer than `seconds`."""
        begun = time.monotonic()
        while (found := self.status())["unfinished"] is not None or found["lock"] is not None:
            if time.monotonic() - begun > seconds:
                raise BulletproofError("not-recovered", f"the host was not whole after {seconds:.0f} seconds: {found}")
            time.sleep(_POLL_SECONDS)
        return time.monotonic() - begun

    def _start(self, words: tuple[str, ...]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            (sys.executable, "-P", "-m", "bulletproof", "--root", str(self.root), *words),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if words[0] == "status" else None,
            text=True,
            start_new_session=True,
        )
