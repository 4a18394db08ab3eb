"""A forge as far as git and a runner can tell: a clone whose workflows act executes, and the secrets of its jobs."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

import workshop

_BIN = Path(sys.executable).parent
_RUN_SECONDS = 300.0
_FILES = {
    "push": "deploy",
    "pull_request": "pull-request",
    "rollback": "rollback",
    "check": "check",
    "by-hand": "deploy",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run that ended: its exit status, its log, and the summary that people read."""

    status: int
    log: str
    summary: str

    def must(self, status: int) -> Run:
        """It ended so; what it said is shown when it did not."""
        assert self.status == status, f"exit {self.status}, not {status}\n{self.log}\n{self.summary}"
        return self


@dataclass(frozen=True, slots=True)
class Forge:
    """The clone, and a runner whose home and caches lie outside of it: act would copy them into themselves."""

    folder: Path
    home: Path
    secrets: dict[str, dict[str, str]]
    """Of each environment, which act does not know."""

    def push(self, environment: str = "prod", folder: Path | None = None) -> Run:
        """The deployment of what is checked out, as the push of it begins one."""
        return self.run("push", environment, folder=folder)

    def run(self, job: str, environment: str, *, folder: Path | None = None, **payload: object) -> Run:
        """A run to its end."""
        with self.begun(job, environment, folder=folder, **payload) as running:
            return running.end()

    @contextlib.contextmanager
    def begun(self, job: str, environment: str, *, folder: Path | None = None, **payload: object) -> Iterator[Running]:
        """A run that goes on; nothing of it is left at the end."""
        place = Path(self.home / f"run-{len(list(self.home.glob('run-*')))}")
        place.mkdir()
        argv, variables = self._runner(place, job, environment, payload)
        argv += ["-W", str(self._workflow(place, job, folder or self.folder))]
        with (place / "log").open("wb") as log:
            runner = psutil.Popen(
                argv, cwd=folder or self.folder, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        running = Running(place, runner)
        try:
            yield running
        finally:
            running.kill()

    def _workflow(self, place: Path, job: str, folder: Path) -> Path:
        """The workflow as it is, but for a word of 2026 that this runner does not know, and that is about its queue."""
        text = (folder / ".github/workflows" / f"bulletproof-{_FILES[job]}.yml").read_text()
        copy = place / "workflow.yml"
        copy.write_text(text.replace("      queue: max\n", ""))
        return copy

    def _runner(
        self, place: Path, job: str, environment: str, payload: Mapping[str, object]
    ) -> tuple[list[str], dict[str, str]]:
        """The command line of a run, and its variables."""
        told, secrets = place / "event.json", place / "secrets"
        # Each step's file for its summary would be emptied before the next: the shell of each is given another one.
        (place / "summary.md").touch()
        (place / "begin.sh").write_text(f"export GITHUB_STEP_SUMMARY={place}/summary.md\n")
        told.write_text(json.dumps({"repository": {"full_name": "o/r"}, **payload}))
        lines = [f"{name}={json.dumps(value)}" for name, value in self.secrets[environment].items()]
        secrets.write_text("\n".join([*lines, "GITHUB_TOKEN=token"]) + "\n")
        event = job if job in {"push", "pull_request"} else "workflow_dispatch"
        argv = [str(_BIN / "act"), event, "-P", "ubuntu-latest=-self-hosted", "-e", str(told)]
        argv += ["--secret-file", str(secrets), "--actor", "octocat", "--no-cache-server"]
        argv += ["--artifact-server-addr", "127.0.0.1", "--cache-server-addr", "127.0.0.1"]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "GITHUB"))}
        ours = {
            "BASH_ENV": str(place / "begin.sh"),
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(place / "c"),
            "XDG_CONFIG_HOME": str(place / "f"),
            "GIT_CONFIG_GLOBAL": str(self.home / "gitconfig"),
            "PATH": f"{_BIN}:{os.environ['PATH']}",
        }
        return argv, {**kept, **ours}


class Running:
    """A run that goes on."""

    def __init__(self, place: Path, runner: psutil.Popen) -> None:
        self._place = place
        self._runner = runner

    def log(self) -> str:
        """What it has said."""
        return (self._place / "log").read_text(errors="replace")

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._runner.poll() is None

    def step(self) -> psutil.Process:
        """The process that the step which runs began with: the only one that GitHub signals in a cancellation."""
        (found,) = self._runner.children()
        return found

    def end(self) -> Run:
        """Wait for its end."""
        status = self._runner.wait(timeout=_RUN_SECONDS)
        return Run(status=status, log=self.log(), summary=(self._place / "summary.md").read_text())

    def kill(self) -> None:
        """End all of it at once, as a runner that dies."""
        for process in (self._runner, *self._runner.children(recursive=True)) if self.is_running() else ():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._runner.wait(timeout=30)


def new_forge(folder: Path, home: Path, secrets: dict[str, dict[str, str]]) -> Forge:
    """A forge whose only project is in `folder`, with its workflows; the last commit and the one before have them."""
    workshop.git(folder, "remote", "add", "origin", "https://github.com/o/r.git")
    workshop.git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    workshop.git(folder, "config", "uploadpack.allowFilter", "true")
    (home / "origin/o").mkdir(parents=True)
    (home / "origin/o/r.git").symlink_to(folder / ".git")
    (home / "gitconfig").write_text(
        f'[url "file://{home}/origin/"]\n\tinsteadOf = https://github.com/\n[safe]\n\tdirectory = *\n'
    )
    argv = [sys.executable, "-P", "-m", "bulletproof", "ci", "github", "--test", "test -f run.py"]
    subprocess.run(argv, cwd=folder, check=True, capture_output=True, timeout=60)
    workshop.commit(folder, {"one.txt": "1"}, "Workflows")
    workshop.commit(folder, {"two.txt": "2"}, "One more")
    return Forge(folder=folder, home=home, secrets=secrets)
