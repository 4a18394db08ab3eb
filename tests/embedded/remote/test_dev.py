"""`dev` runs an app as it is configured: its server, its workers, a copy of the data; and leaves nothing behind."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from embedded.places import until
from free_ports import free_port
from remote_host import FarApp

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("remote")]

_MAILER = "import os, time\nwhile True:\n    print('mail of', os.environ.get('WHO'), flush=True)\n    time.sleep(0.2)\n"
_PROCFILE = "web: gunicorn run:app\nmailer: python mailer.py\n"
_STUBBORN = (
    "import signal, subprocess, time\nsignal.signal(15, 1)\nsubprocess.Popen(['sleep', '987'])\ntime.sleep(99)\n"
)


@pytest.fixture(scope="module")
def clone(app: FarApp, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the app with workers in a Procfile, and an environment that `dev` made."""
    folder = tmp_path_factory.mktemp("dev") / "app"
    shutil.copytree(app.folder, folder)
    (folder / "Procfile").write_text(_PROCFILE)
    (folder / "mailer.py").write_text(_MAILER)
    (folder / "stubborn.py").write_text(_STUBBORN)
    (folder / ".env").write_text("SECRET_KEY=here\nWHO=dotenv\n")
    with (folder / "bulletproof.toml").open("a") as toml:
        toml.write('\n[timers.tidy]\nschedule = "@yearly"\ncommand = "echo tidied for $WHO"\n')
    return folder


@contextmanager
def _dev(app: FarApp, clone: Path, *words: str) -> Iterator[tuple[int, Path, psutil.Popen]]:
    """The port, what is printed, and the process; interrupted at the end as by Ctrl-C, and nothing of it is left."""
    assert app.host is not None
    port, log = free_port(), clone.parent / "log"
    argv = [*app.host.prefix, sys.executable, "-P", "-m", "bulletproof", "--root", str(app.root)]
    with log.open("wb") as printed:
        command = psutil.Popen(
            [*argv, "dev", "--port", str(port), *words], cwd=clone, stdin=subprocess.DEVNULL, stdout=printed,
            stderr=printed, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    try:
        until(lambda: _asked(port)[0] == 200 or command.poll() is not None)
        assert command.poll() is None, log.read_text()
        family = command.children(recursive=True)
        yield port, log, command
        command.send_signal(signal.SIGINT)
        assert command.wait(timeout=40) == 0, log.read_text()
        assert not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    finally:
        for process in (*command.children(recursive=True), command) if command.is_running() else ():
            process.kill()
        command.wait(timeout=20)


def _asked(port: int, path: str = "/up") -> tuple[int, str]:
    try:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.headers.get("X-DataCharted-Version", "")
    except OSError:
        return 0, ""


def test_server_and_workers_run_side_by_side_with_a_copy_of_the_data(app: FarApp, clone: Path) -> None:
    """Each line says whose it is; settings are those of .env; server and workers load changed code; timers run.

    What is deployed stays as it is.
    """
    rows = app.rows()
    (clone / "Procfile").write_text(f"{_PROCFILE}stubborn: python stubborn.py\n")
    with _dev(app, clone, "--copy", "--migrate", "--timer", "tidy") as (port, log, _):
        until(lambda: "mail of dotenv" in log.read_text())
        (copy,) = (app.root / "dev" / app.name).glob("*.db")
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            found = int(connection.execute("SELECT count(*) FROM chart").fetchone()[0])
            connection.execute("DELETE FROM chart")
            connection.commit()
        before = _asked(port)[1]
        source = clone / "app" / "version.py"
        source.write_text(source.read_text().replace(f'"{before}"', '"changed"'))
        until(lambda: _asked(port)[1] == "changed")
        until(lambda: "mailer   | app/version.py was changed, so it begins anew" in log.read_text())
        (clone / "mailer.py").write_text(_MAILER.replace("mail of", "post of"))
        until(lambda: "mailer   | post of dotenv" in log.read_text())
        told = log.read_text()
    (clone / "Procfile").write_text(_PROCFILE)

    assert found == rows
    assert app.rows() == rows
    assert copy.stat().st_mode & 0o077 == 0
    assert "making .venv with what a deployment would install" in told
    assert "mailer   | mail of dotenv" in told
    assert "web      | " in told
    assert "migrate  | flask --app run:app db upgrade" in told
    assert "timer tidy: @yearly, next at " in told
    assert "tidy     | tidied for dotenv" in told
    assert "\x1b[" not in told, "no colours where no terminal is"


def test_the_data_of_a_host_come_over_ssh(app: FarApp, clone: Path) -> None:
    """A consistent copy, made there while it serves."""
    shutil.rmtree(app.root / "dev", ignore_errors=True)
    with _dev(app, clone, "--copy", "--host", "far") as (_, log, _command):
        (copy,) = (app.root / "dev" / app.name).glob("*.db")
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert connection.execute("SELECT count(*) FROM chart").fetchone() == (app.rows(),)
        assert "making .venv" not in log.read_text()


def test_it_ends_when_the_server_ends(app: FarApp, clone: Path) -> None:
    """And says how."""
    taken = free_port()
    argv = [*app.here.argv("dev", "--port", str(taken))]
    broken = clone / "run.py"
    source = broken.read_text()
    broken.write_text("raise SystemExit(3)\n")
    try:
        done = subprocess.run(argv, cwd=clone, capture_output=True, text=True, timeout=120, check=False)
    finally:
        broken.write_text(source)

    assert done.returncode == 1
    assert "web    | ended with exit status" in done.stdout


def test_an_environment_of_a_person_is_left_as_it_is(app: FarApp, clone: Path, tmp_path: Path) -> None:
    """One that lacks the server is told of, not changed."""
    folder = tmp_path / "app"
    shutil.copytree(clone, folder, ignore=shutil.ignore_patterns(".venv"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / ".venv")], check=True)
    before = sorted(folder.rglob("*"))
    done = subprocess.run(app.here.argv("dev"), cwd=folder, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 2
    assert "server-missing" in done.stderr
    assert ".venv/bin/python -m pip install gunicorn" in done.stderr
    assert sorted(folder.rglob("*")) == before
