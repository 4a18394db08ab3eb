"""`make bench-servers`: Bulletproof beside the guide's own procedure on a server that systemd runs, in one run."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from bench.command import Finished
from bench.content import fill
from bench.guide import AFTER_THE_RESTART, BEFORE_THE_RESTART
from bench.trial import Act, Trial, under_load, users
from bulletproof.demo.playground import Playground
from hosts import lab
from hosts.servers import WHEELS, ServerApp, fetched_wheels, laid, new_access, set_up_by_ssh

_RATE = 60.0
"""Requests a second: the server, its proxy and its users share two cores."""
_PORT = 8100
_HOME = "/srv/datacharted"
_UNIT = f"""\
[Unit]
Description=DataCharted
[Service]
WorkingDirectory={_HOME}
Environment=SECRET_KEY=only-for-the-measurement DATABASE_URL=sqlite:///{_HOME}/app_dev.db FLASK_APP=run
ExecStart={_HOME}/venv/bin/gunicorn --workers 3 --bind 127.0.0.1:{_PORT} run:app
Restart=always
RestartSec=10
"""
_ENVIRONMENT = (
    f"export PATH={_HOME}/venv/bin:/usr/bin:/bin HOME=/root LANG=C.UTF-8 FLASK_APP=run PORT={_PORT} REBUILD=no"
    f" SECRET_KEY=only-for-the-measurement DATABASE_URL=sqlite:///{_HOME}/app_dev.db"
    f" PIP_NO_INDEX=1 PIP_FIND_LINKS={WHEELS} PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore; cd {_HOME};"
)


class Guide:
    """The app as the guide runs it: one folder, one virtual environment, a unit of systemd."""

    name = "the guide"
    address = f"http://127.0.0.1:{_PORT}"

    def __init__(self, server: lab.Server) -> None:
        """Nothing is done before `lay`."""
        self._server = server

    @property
    def database(self) -> Path:
        """The live database."""
        return self._server.files / _HOME.lstrip("/") / "app_dev.db"

    def lay(self, repository: str) -> None:
        """Clone, install, make the database, serve v1."""
        self._server.must("git", "config", "--global", "--add", "safe.directory", "*")
        self._server.must("git", "clone", "--quiet", repository, _HOME)
        self._must("git checkout --quiet -B main v1; python3 -m venv venv; pip install -q -r requirements.txt")
        self._must("flask db upgrade; chmod 664 app_dev.db")
        fill(self.database)
        self._server.put("/etc/systemd/system/datacharted.service", _UNIT)
        self._must("systemctl daemon-reload; systemctl start datacharted")
        time.sleep(3)

    def deploy(self, release: str) -> Finished:
        """The guide's procedure, command for command: the first failure ends it."""
        script = f"RELEASE={release}; {BEFORE_THE_RESTART}\nsystemctl restart datacharted\n{AFTER_THE_RESTART}"
        return self._script(f"{script}\nsystemctl is-active --quiet datacharted")

    def reset(self) -> None:
        """Serve v1 again; no part of what is measured."""
        self._must("git checkout --quiet -B main v1; systemctl restart datacharted")
        time.sleep(3)

    def _must(self, script: str) -> None:
        self._server.must("bash", "-e", "-c", f"{_ENVIRONMENT} {script}")

    def _script(self, script: str) -> Finished:
        began = time.monotonic()
        done = self._server.run("bash", "-e", "-c", f"{_ENVIRONMENT} {script}")
        seconds = time.monotonic() - began
        return Finished(
            status=done.returncode, seconds=seconds, cpu_seconds=0.0, output=done.stdout, errors=done.stderr
        )


class Ours:
    """The same app under Bulletproof, asked for by SSH as a person does."""

    name = "bulletproof"

    def __init__(self, app: ServerApp) -> None:
        """Nothing is done before `lay`."""
        self._app = app

    @property
    def address(self) -> str:
        """Where it serves."""
        return self._app.address

    @property
    def database(self) -> Path:
        """The live database."""
        return self._app.database

    def lay(self) -> None:
        """Deploy v1."""
        self._app.deploy("v1")
        fill(self.database)

    def deploy(self, release: str) -> Finished:
        """`bulletproof deploy --to SERVER`."""
        return self._run("deploy", release, "--json")

    def rollback(self) -> None:
        """Serve v1 again; no part of what is measured."""
        self._app.change("rollback").must(0, "deployed")

    def _run(self, *words: str) -> Finished:
        began = time.monotonic()
        done = subprocess.run(
            self._app.argv(*words),
            cwd=self._app.folder,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=300,
        )
        seconds = time.monotonic() - began
        return Finished(
            status=done.returncode, seconds=seconds, cpu_seconds=0.0, output=done.stdout, errors=done.stderr
        )


def main() -> int:
    """Measure, show, and return 1 when ours failed a request or lost a write."""
    parser = argparse.ArgumentParser(prog="python -m bench.servers", description=__doc__, allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=3, choices=range(1, 21), metavar="N", help="of each way; default 3")
    given = parser.parse_args()
    if reason := lab.why_not():
        print(f"no server can be made here: {reason}", file=sys.stderr)
        return 1
    trials = list(_trials(given.runs))
    _show(trials)
    complaints = [words for trial in trials if trial.act.is_ours for words in trial.complaints]
    print(*complaints, sep="\n")
    return 1 if complaints else 0


def _trials(runs: int) -> Iterator[Trial]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bulletproof-bench-")))
        project = Playground.make(folder / "project").folder
        wheels, access = stack.enter_context(fetched_wheels()), stack.enter_context(new_access())
        mounts = {wheels: str(WHEELS), project: "/srv/repository"}
        server = stack.enter_context(lab.booted(lab.Server(lab.base_tree(), mounts=mounts)))
        access.let_in(server)
        set_up_by_ssh(server, access)
        app = stack.enter_context(laid(server, access, project))
        stack.enter_context(server.network())
        guide, ours = Guide(server), Ours(app)
        guide.lay("/srv/repository")
        ours.lay()
        for run in range(1, runs + 1):
            for release, status in (("v2", 0), ("answers-500", 3)):
                by_guide = Act(what=release, way="guide", run=run, is_ours=False, status=0)
                yield _told(under_load(guide, folder, by_guide, users(_RATE), lambda: guide.deploy(release)))  # noqa: B023
                guide.reset()
                by_us = Act(what=release, way="bulletproof", run=run, is_ours=True, status=status)
                yield _told(under_load(ours, folder, by_us, users(_RATE), lambda: ours.deploy(release)))  # noqa: B023
                if release == "v2":
                    ours.rollback()


def _told(trial: Trial) -> Trial:
    act, report = trial.act, trial.report
    print(f"{act.what}, run {act.run}, {act.way}: {trial.seconds:.2f} s, {report.failed} failed", file=sys.stderr)
    return trial


def _show(trials: list[Trial]) -> None:
    print("| release | way | wall, s (median) | ratio | failed requests | longest without success, s | lost writes |")
    print("|---|---|---|---|---|---|---|")
    for what in dict.fromkeys(trial.act.what for trial in trials):
        guides = statistics.median(one.seconds for one in trials if one.act.what == what and not one.act.is_ours)
        for way in ("guide", "bulletproof"):
            some = [one for one in trials if (one.act.what, one.act.way) == (what, way)]
            wall = statistics.median(one.seconds for one in some)
            failed = statistics.median(one.report.failed for one in some)
            gap = max(one.report.longest_gap_seconds for one in some)
            lost = sum(one.lost for one in some)
            print(f"| {what} | {way} | {wall:.2f} | {wall / guides:.2f} | {failed:.0f} | {gap:.2f} | {lost} |")


if __name__ == "__main__":
    sys.exit(main())
