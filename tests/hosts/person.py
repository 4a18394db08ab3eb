"""Somebody who is new in a team: a home, a clone, an account on the server; and the page that they follow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import workshop
from embedded.places import until
from free_ports import free_port
from hosts import lab
from hosts.servers import Access

PAGE = lab.CHECKOUT / "docs" / "guides" / "team.md"
_SECONDS = 180.0


def commands_of(page: Path) -> list[str]:
    """Every command that the page has one type, in order, without the comments behind them.

    They stand between fences that name no language.
    """
    found, fence = [], ""
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            fence = "" if fence else line
        elif fence == "```":
            found.append(line.partition("  #")[0].strip())
    return found


@dataclass(slots=True)
class Person:
    """Their home, and the folder that they stand in."""

    home: Path
    access: Access
    here: Path = field(init=False)

    def __post_init__(self) -> None:
        self.here = self.home

    @property
    def environment(self) -> dict[str, str]:
        """What a terminal of theirs has: nothing of ours but the way to packages."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "GITHUB", "CI"))}
        ours = {
            "HOME": str(self.home),
            "GIT_CONFIG_GLOBAL": str(self.home / "gitconfig"),
            "XDG_RUNTIME_DIR": str(self.access.folder / "run"),
            "PATH": f"{self.access.folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        return {**kept, **workshop.GIT_VARIABLES, **ours}

    def types(self, command: str) -> str:
        """Type a command that ends well; what it printed. `cd` leads elsewhere."""
        done = subprocess.run(
            ["bash", "-c", f"{command} && pwd >{self.home}/pwd"],
            cwd=self.here,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        self.here = Path((self.home / "pwd").read_text().strip())
        return done.stdout + done.stderr

    def watches(self, command: str, *, outside: bool = False) -> str:
        """Type a command, and Ctrl-C once it serves; `outside` is in the network that packages are in."""
        argv = [*command.split(), "--port", str(free_port())]
        enter = ["nsenter", f"--net=/proc/{os.getppid()}/ns/net", "--"] if outside else []
        with tempfile.TemporaryFile() as said:
            running = subprocess.Popen(
                [*enter, *argv], cwd=self.here, env=self.environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )

            def log() -> str:
                said.seek(0)
                return said.read().decode(errors="replace")

            try:
                until(lambda: "Booting worker" in log() or running.poll() is not None, seconds=_SECONDS)
                assert running.poll() is None, log()
                running.send_signal(signal.SIGINT)
                assert running.wait(timeout=_SECONDS) == 0, log()
            finally:
                running.kill()
                running.wait()
            return log()
