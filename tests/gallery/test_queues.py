"""Celery and RQ as their manuals have them: a line of a Procfile, and no job is lost, cut or done twice by a switch."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from embedded.conftest import LayApp
from embedded.places import until
from free_ports import free_port
from live_app import LiveApp

pytestmark = [pytest.mark.xdist_group("gallery-queues"), pytest.mark.timeout(600)]

_WEB = """\
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""
_JOB = """\
def work(number):
    time.sleep(0.2)
    with open(os.environ["HOME"] + "/done", "a") as file:
        file.write(f"{number}\\n")
"""
_CELERY = f"""\
import os
import time

from celery import Celery

FOLDER = os.environ["HOME"] + "/queue"
os.makedirs(FOLDER, exist_ok=True)
queue = Celery("tasks", broker="filesystem://")
queue.conf.broker_transport_options = {{"data_folder_in": FOLDER, "data_folder_out": FOLDER, "control_folder": FOLDER}}
queue.conf.broker_connection_retry_on_startup = True


@queue.task
{_JOB}

def add(number):
    work.delay(number)
"""
_RQ = f"""\
import os
import time

import redis
import rq


{_JOB}

def add(number):
    rq.Queue(connection=redis.Redis.from_url(os.environ["REDIS_URL"])).enqueue(work, number)
"""
_ADD = "import tasks, sys; [tasks.add(number) for number in range(int(sys.argv[1]), int(sys.argv[2]))]"


def files(tasks: str, packages: str, worker: str, env: str = "") -> dict[str, str]:
    """An app with a queue and its worker."""
    return {
        "app.py": _WEB,
        "tasks.py": tasks,
        "requirements.txt": packages,
        "Procfile": f"web: gunicorn app:app\nworker: {worker}\n",
        ".env": env,
    }


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A redis server of its own."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    port = free_port()
    argv = (program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(tmp_path), "--save", "")
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as server:
        try:
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.kill()


def test_a_celery_worker_finishes_every_job_once(init_app: LayApp) -> None:
    """Over a broker in a folder of the data."""
    _switch_in_the_middle(init_app, files(_CELERY, "celery\n", "celery -A tasks worker --concurrency 1"))


def test_an_rq_worker_finishes_every_job_once(init_app: LayApp, redis_url: str) -> None:
    """Over a real redis."""
    worker = "rq worker --url $REDIS_URL"
    _switch_in_the_middle(init_app, files(_RQ, "rq\nredis\n", worker, f"REDIS_URL={redis_url}\n"))


def _switch_in_the_middle(init_app: LayApp, app_files: Mapping[str, str]) -> None:
    """Jobs before, in and after a restart, a stop and a start are each done once."""
    app = init_app("queue", app_files)
    app.deploy()
    app.run("run", "--", "python", "-c", _ADD, "0", "60", status=0)
    until(lambda: _done(app), "no job was done")
    app.change("restart").must(0, "deployed")
    assert len(_done(app)) < 60, "the restart met no job"
    app.run("run", "--", "python", "-c", _ADD, "60", "80", status=0)
    app.run("stop", status=0)
    assert not app.processes()
    app.run("start", status=0)
    until(lambda: len(_done(app)) >= 80, f"{len(_done(app))} jobs were done: {app.status()}")
    assert sorted(_done(app)) == list(range(80))


def _done(app: LiveApp) -> list[int]:
    file = app.layout.data / "done"
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []
