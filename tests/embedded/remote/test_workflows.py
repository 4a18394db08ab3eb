"""The workflows that `ci github` writes, executed as they are by act against a real sshd."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

import workshop
from bulletproof.effects import lock
from live_app import COMMAND_SECONDS, branch
from remote_host import FarApp

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("remote")]

_BIN = Path(sys.executable).parent
_PROGRAM = _BIN / "act"


@dataclass(frozen=True, slots=True)
class Forge:
    """A clone of the project whose origin is a forge, as far as git and a runner can tell; and the runner."""

    app: FarApp
    """Its folder is the clone."""
    home: Path
    """The runner's home and caches: outside of the repository, or act copies them into themselves."""
    secrets: dict[str, dict[str, str]]
    """Of each environment, which act does not know."""

    def runner(self, event: str, environment: str, **payload: object) -> tuple[list[str], dict[str, str]]:
        """The command line of a run, and its variables."""
        told = self.home / "event.json"
        told.write_text(json.dumps({"repository": {"full_name": "o/r"}, **payload}))
        secrets = self.home / "secrets"
        lines = [f"{name}={json.dumps(value)}" for name, value in self.secrets[environment].items()]
        secrets.write_text("\n".join([*lines, "GITHUB_TOKEN=token"]) + "\n")
        files = {
            "push": "bulletproof-deploy.yml",
            "pull_request": "bulletproof-pull-request.yml",
            "workflow_dispatch": "bulletproof-rollback.yml" if "inputs" in payload else "bulletproof-check.yml",
        }
        argv = [
            str(_PROGRAM),
            event,
            "-P",
            "ubuntu-latest=-self-hosted",
            "-e",
            str(told),
            "--secret-file",
            str(secrets),
        ]
        argv += ["--actor", "octocat", "-W", f".github/workflows/{files[event]}"]
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "GITHUB"))},
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.home / "c"),
            "XDG_CONFIG_HOME": str(self.home / "f"),
            "GIT_CONFIG_GLOBAL": str(self.home / "gitconfig"),
            "PATH": f"{_BIN}:{os.environ['PATH']}",
        }
        return argv, variables

    def run(self, event: str, environment: str, **payload: object) -> tuple[int, str]:
        """A run to its end: its exit status and its log."""
        argv, variables = self.runner(event, environment, **payload)
        done = subprocess.run(
            argv, cwd=self.app.folder, env=variables, capture_output=True, text=True, timeout=300, check=False
        )
        return done.returncode, done.stdout + done.stderr

    @contextmanager
    def begun(self, event: str, environment: str) -> Iterator[psutil.Process]:
        """A run that goes on."""
        argv, variables = self.runner(event, environment)
        with (self.home / "log").open("wb") as log:
            runner = psutil.Popen(
                argv, cwd=self.app.folder, env=variables, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        try:
            yield runner
        finally:
            for process in (*runner.children(recursive=True), runner) if runner.is_running() else ():
                process.kill()
            runner.wait(timeout=30)


@pytest.fixture(scope="module")
def forge(app: FarApp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """The project with workflows, pushed; keys of the host in the forge's secrets."""
    assert app.host is not None
    home = tmp_path_factory.mktemp("forge")
    folder = home / "clone" / "app"
    shutil.copytree(app.folder, folder)
    mine = FarApp(root=app.root, name=app.name, folder=folder, port=app.port, settings=app.settings, host=app.host)
    mine.configure(hosts={"prod": f"{getpass.getuser()}@127.0.0.1:{app.host.port}"})
    known = "\n".join((app.host.known_hosts.read_text().strip(), "# of a runner"))
    secrets = {}
    for environment, rights in (("prod", "deploy,rollback,status"), ("prod-plan", "plan,status")):
        made = app.run("keys", "add", environment, "--can", rights, "--new", status=0)
        secrets[environment] = {"BULLETPROOF_SSH_KEY": made.out.strip(), "BULLETPROOF_KNOWN_HOSTS": known}
    workshop.git(folder, "remote", "add", "origin", "https://github.com/o/r.git")
    workshop.git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    workshop.git(folder, "config", "uploadpack.allowFilter", "true")
    (home / "origin/o").mkdir(parents=True)
    (home / "origin/o/r.git").symlink_to(folder / ".git")
    (home / "gitconfig").write_text(
        f'[url "file://{home}/origin/"]\n\tinsteadOf = https://github.com/\n[safe]\n\tdirectory = *\n'
    )
    mine.here.run("ci", "github", "--test", "test -f run.py", status=0)
    branch(mine, {"one.txt": "1"}, title="Workflows")
    try:
        yield Forge(app=mine, home=home, secrets=secrets)
    finally:
        for environment in secrets:
            app.run("keys", "revoke", environment)


def test_a_push_is_tested_and_deployed(forge: Forge) -> None:
    """What serves is the commit that was pushed, and the journal has the key and the run."""
    status, log = forge.run("push", "prod")
    last = forge.app.here.history()[-1]

    assert status == 0, log
    assert str(last["release"]).endswith(workshop.git(forge.app.folder, "rev-parse", "HEAD")[:7])
    assert last["known"]["key"] == "prod"  # type: ignore[index]
    assert last["claimed"]["by"] == "octocat"  # type: ignore[index]
    assert str(last["claimed"]["run"]).startswith("https://github.com/o/r/actions/runs/")  # type: ignore[index]
    assert "::group::rehearse" in log
    assert f"serves {last['release']}" in log
    assert forge.secrets["prod"]["BULLETPROOF_SSH_KEY"].splitlines()[2] not in log


def test_a_job_that_is_run_again_is_refused(forge: Forge) -> None:
    """The one of the push before: nothing is changed, and what serves is told."""
    serving = forge.app.here.status()["serving"]
    workshop.git(forge.app.folder, "checkout", "-q", "-b", "old", "HEAD")
    newer = branch(forge.app, {"two.txt": "2"}, title="Newer")
    status, log = forge.run("push", "prod")
    assert status == 0, log
    live = forge.app.here.status()["serving"]
    workshop.git(forge.app.folder, "checkout", "-q", f"{newer}^")
    try:
        again, told = forge.run("push", "prod")
    finally:
        workshop.git(forge.app.folder, "checkout", "-q", newer)

    assert live != serving
    assert again == 1
    assert "older-than-live" in told
    assert f"nothing was changed; {live} serves" in told
    assert forge.app.here.status()["serving"] == live


def test_a_push_that_cannot_boot_is_undone(forge: Forge) -> None:
    """The job fails with what was seen, and the old release serves."""
    before = forge.app.here.status()["serving"]
    source = (forge.app.folder / "run.py").read_text()
    branch(
        forge.app, {"run.py": f'raise RuntimeError("no boot, ::warning::and no annotation")\n{source}'}, title="Broken"
    )
    try:
        status, log = forge.run("push", "prod")
    finally:
        workshop.git(forge.app.folder, "reset", "-q", "--hard", "HEAD^")

    assert status == 1
    assert "exitcode '3'" in log or "exit status 3" in log, log
    assert "::error title=" in log
    assert "no boot" in log
    assert f"everything was undone; {before} serves" in log
    assert forge.app.here.status()["serving"] == before


def test_a_pull_request_is_planned(forge: Forge) -> None:
    """On a copy of the live data, by a key that may do no more; and one of a fork not at all."""
    before = forge.app.here.history()
    branch(forge.app, {"three.txt": "3"}, title="Proposed")
    try:
        status, log = forge.run("pull_request", "prod-plan", pull_request={"head": {"repo": {"full_name": "o/r"}}})
        fork, skipped = forge.run("pull_request", "prod-plan", pull_request={"head": {"repo": {"full_name": "x/r"}}})
        denied, told = forge.run("push", "prod-plan")
    finally:
        workshop.git(forge.app.folder, "reset", "-q", "--hard", "HEAD^")

    assert (status, fork, denied) == (0, 0, 1), log
    assert "would deploy" in log
    assert "would deploy" not in skipped
    assert "key-refused" in told
    assert forge.app.here.history() == before


def test_a_rollback_and_a_check_are_done_by_hand(forge: Forge) -> None:
    """A release is chosen, and no text of it becomes a command."""
    lived = [one["release"] for one in forge.app.here.history() if one["outcome"] == "deployed"]
    live = forge.app.here.status()["serving"]
    chosen = next(release for release in reversed(lived) if release != live)
    proof = forge.home / "proof"
    odd, told = forge.run("workflow_dispatch", "prod", inputs={"release": f'x"; touch {proof}; echo "$(touch {proof})'})
    status, log = forge.run("workflow_dispatch", "prod", inputs={"release": chosen})
    rolled = forge.app.here.status()["serving"]
    forge.app.here.change("rollback", str(live)).must(0)
    checked, seen = forge.run("workflow_dispatch", "prod-plan")

    assert (odd, status) == (1, 0), log
    assert "key-refused" in told
    assert not proof.exists()
    assert rolled == chosen
    assert checked in {0, 1}, seen
    assert "processes" in seen


@pytest.mark.parametrize("how", ["cancelled", "runner-dies"])
def test_a_deployment_goes_on_without_its_job(forge: Forge, how: str) -> None:
    """It belongs to its host: it ends whole, and `attach` tells how."""
    commit = branch(forge.app, {"four.txt": how}, title=how)
    with forge.begun("push", "prod") as runner:
        deadline = time.monotonic() + COMMAND_SECONDS
        while not _is_rehearsing(forge.app):
            assert runner.is_running(), (forge.home / "log").read_text()
            assert time.monotonic() < deadline, (forge.home / "log").read_text()
            time.sleep(0.02)
        if how == "cancelled":
            runner.send_signal(signal.SIGINT)
        else:
            for process in (runner, *runner.children(recursive=True)):
                process.kill()
        runner.wait(timeout=60)
    _wait(forge.app)

    assert str(forge.app.here.status()["serving"]).endswith(commit[:7])
    forge.app.here.change("attach").must(0, "deployed")


def _is_rehearsing(app: FarApp) -> bool:
    holder = lock.peek(app.layout.lock)
    return holder is not None and holder.step == "rehearse"


def _wait(app: FarApp) -> None:
    deadline = time.monotonic() + COMMAND_SECONDS
    while lock.peek(app.layout.lock) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_key_of_the_host_that_changed_stops_the_job(forge: Forge) -> None:
    """Nothing is sent, and it is said that nothing was begun."""
    assert forge.app.host is not None
    before = forge.app.here.history()
    kept = forge.secrets["prod"]["BULLETPROOF_KNOWN_HOSTS"]
    other = " ".join((forge.app.host.folder / "other_key.pub").read_text().split()[:2])
    forge.secrets["prod"]["BULLETPROOF_KNOWN_HOSTS"] = f"[127.0.0.1]:{forge.app.host.port} {other}"
    try:
        status, log = forge.run("push", "prod")
    finally:
        forge.secrets["prod"]["BULLETPROOF_KNOWN_HOSTS"] = kept

    assert status == 1
    assert "host-key-changed" in log
    assert "nothing was begun there" in log
    assert forge.app.here.history() == before
