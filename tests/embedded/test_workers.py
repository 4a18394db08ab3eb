"""Workers and timers of a real app, through every kind of deployment: never two at once, no write of theirs lost."""

from __future__ import annotations

import itertools
import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

import workshop
from bulletproof.demo.traffic import Traffic
from bulletproof.effects.isolation import why_no_namespaces
from embedded.data import ask, assert_kept, grow, kept
from embedded.places import until
from live_app import LASTING, Done, LiveApp, branch, breaks_only_live

pytestmark = [
    pytest.mark.skipif(
        bool(why_no_namespaces()), reason=f"the kernel lets this user make no cell: {why_no_namespaces()}"
    ),
    pytest.mark.xdist_group("workers"),
    pytest.mark.timeout(900),
]

MakeApp = Callable[[str], LiveApp]

_STORE = """\
import os
import sqlite3
import time

FILE = "/" + os.environ["DATABASE_URL"].partition(":///")[2].lstrip("/")
GENERATION = int(os.environ["BULLETPROOF_DEPLOYMENT"])
WHO = (GENERATION, os.getpid())
connection = sqlite3.connect(FILE, timeout=20, isolation_level=None)
for table in ("beat", "run"):
    connection.execute(f"CREATE TABLE IF NOT EXISTS {table} (generation, pid, number, at, what)")


def write(table, number, what=""):
    connection.execute(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?)", (*WHO, number, time.monotonic(), what))
"""
_WORKER = """\
import itertools
import signal
import time

import store

is_over = False


def end(*_):
    global is_over
    is_over = True


signal.signal(signal.SIGTERM, end)
for number in itertools.count():
    store.write("beat", number)
    with open({acknowledged!r}, "a") as file:
        file.write(f"{{store.WHO[1]}} {{number}}\\n")
    print("beat", number)
    if is_over:
        break
    time.sleep(0.05)
time.sleep(0.3)  # as a job that is finished first
store.write("beat", number + 1, "ended in order")
"""
_TIDY = """\
import time

import store

store.write("run", 0, "begins")
time.sleep(2)
store.write("run", 1, "ends")
"""
_BEATS = "SELECT generation, pid, number, at, what FROM beat ORDER BY at"
_RUNS = "SELECT generation, pid, number, at, what FROM run ORDER BY at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """The app, and where its worker notes what was committed."""

    app: LiveApp
    acknowledged: Path

    def generations(self) -> list[int]:
        """Which deployments' workers wrote, in order; each process must have been alone while it lived."""
        spans = [
            (pid, {int(str(row[0])) for row in rows})
            for pid, group in itertools.groupby(ask(self.app.database, _BEATS), lambda row: row[1])
            if (rows := list(group))
        ]
        assert len({pid for pid, _ in spans}) == len(spans), f"two workers wrote at once: {spans}"
        assert all(len(numbers) == 1 for _, numbers in spans)
        return [number for _, numbers in spans for number in numbers]

    def assert_kept(self) -> None:
        """What a worker committed is there."""
        noted = [line.split() for line in self.acknowledged.read_text().splitlines()]
        kept = {(row[1], row[2]) for row in ask(self.app.database, _BEATS)}
        assert noted
        assert {(int(pid), int(number)) for pid, number in noted} <= kept

    def running(self) -> list[tuple[int, int]]:
        """The deployment and the pid of each worker that runs, looked up in the kernel."""
        found = []
        for process in self.app.processes():
            try:
                if "worker.py" in process.cmdline():
                    found.append((int(process.environ()["BULLETPROOF_DEPLOYMENT"]), process.pid))
            except psutil.Error:
                continue
        return found

    def alone(self) -> tuple[int, int]:
        """The one worker that runs, which is of the live deployment and writes."""
        live = int(str(self.app.status()["deployment"]))
        [(number, pid)] = until(self.running, "no worker runs")
        assert number == live
        query = f"SELECT count(*) FROM beat WHERE pid = {pid}"
        until(lambda: ask(self.app.database, query) > [(2,)], "the worker does not write")
        return number, pid


@pytest.fixture(scope="module")
def shop(make_lasting_app: MakeApp) -> Shop:
    """DataCharted with a worker, told by its Procfile, and a timer of every minute; its v2 is live."""
    app = make_lasting_app("workers")
    app.settings["hold"] = {"seconds": 120}
    app.settings["timers.tidy"] = {"schedule": "* * * * *", "command": "python tidy.py"}
    app.configure()
    acknowledged = app.folder.parent / "acknowledged"
    worker = _WORKER.format(acknowledged=str(acknowledged))
    procfile = "web: gunicorn run:app --workers 2\nrelease: flask db upgrade\nmail: python worker.py\n"
    branch(app, {"store.py": _STORE, "worker.py": worker, "tidy.py": _TIDY, "Procfile": procfile}, title="Work")
    app.deploy()
    return Shop(app=app, acknowledged=acknowledged)


@pytest.fixture(scope="module")
def traffic(shop: Shop) -> Iterator[Traffic]:
    """Reads and writes on it without a pause."""
    with shop.app.under_load(LASTING) as traffic:
        yield traffic


def _is_told(done: Done, step: str) -> str:
    """What a step said of itself, empty when it was not taken."""
    notes = [event["note"] for event in done.events if event["event"] == "step-done" and event["step"] == step]
    return str(notes[0]) if notes else ""


def test_the_first_deployment_starts_them(shop: Shop, traffic: Traffic) -> None:
    """The Procfile's worker and the configured timer run with the web app's settings, and status and logs know them."""
    number, pid = shop.alone()
    status = shop.app.status()
    told = status["background"]
    assert isinstance(told, dict)
    assert told["mail"] == [{"phase": "running", "pid": pid, "restarts": 0, "words": ""}]
    assert told["tidy"][0]["phase"] in {"waiting", "running"}
    assert {one.environ()["DATABASE_URL"] for one in psutil.process_iter() if one.pid == pid} == {
        f"sqlite:///{shop.app.database}"
    }
    assert "beat " in shop.app.run("logs", "mail", "-n", "1", status=0).out
    unknown = shop.app.run("logs", "post", status=2)
    assert "no worker or timer post, only mail, tidy" in unknown.err
    assert shop.generations() == [number]
    assert traffic.mark()


def test_a_code_deployment_replaces_them_after_the_commit(shop: Shop, traffic: Traffic) -> None:
    """The old worker works until the commit, ends in order, and only then the new one begins."""
    (old, _), since = shop.alone(), traffic.mark()
    branch(shop.app, {"app/version.py": 'VERSION = "code"\n'}, title="Code")
    done = shop.app.deploy()

    events = [(event["event"], event.get("step")) for event in done.events]
    assert events.index(("committed", None)) < events.index(("step-started", "workers"))
    assert _is_told(done, "workers") == "2 started, after 2 of the old release had ended"
    new, _ = shop.alone()
    assert shop.generations()[-2:] == [old, new]
    ended = ask(shop.app.database, f"SELECT count(*) FROM beat WHERE generation = {old} AND what != ''")
    assert ended == [(1,)]
    shop.assert_kept()
    assert_kept(shop.app, traffic, since)


def test_a_migration_stops_them_before_requests_wait(shop: Shop, traffic: Traffic) -> None:
    """No worker writes from the pause to the commit, and none of their writes is lost in the swap."""
    (old, _), since = shop.alone(), traffic.mark()
    grow(shop.app)
    done = shop.app.deploy()

    started = done.steps("step-started")
    assert started.index("pause") < started.index("hold") < started.index("cutover") < started.index("workers")
    assert "skipped" in _is_told(done, "pause")
    new, _ = shop.alone()
    assert shop.generations()[-2:] == [old, new]
    number = f"SELECT max(number) FROM beat WHERE generation = {old}"
    assert ask(kept(shop.app, new), number) == ask(shop.app.database, number)
    shop.assert_kept()
    assert_kept(shop.app, traffic, since)


def test_a_broken_release_leaves_them_alone(shop: Shop, traffic: Traffic) -> None:
    """What fails before its commit never touched the old release's workers: it is the same process afterwards."""
    before, since = shop.alone(), traffic.mark()
    breaks_only_live(shop.app)
    shop.app.change("deploy").must(3, "undone")

    assert shop.alone() == before
    assert_kept(shop.app, traffic, since)
    workshop.git(shop.app.folder, "reset", "--quiet", "--hard", "HEAD~1")


def test_a_migration_that_is_undone_brings_exactly_the_old_ones_back(shop: Shop, traffic: Traffic) -> None:
    """The old release's worker runs again, on the data that were put back, and no other ever ran."""
    (old, pid), since = shop.alone(), traffic.mark()
    grow(shop.app)
    breaks_only_live(shop.app)
    done = shop.app.change("deploy").must(3, "undone")

    assert "hold" in done.steps("step-undone")
    assert done.steps("step-undone").index("hold") < done.steps("step-undone").index("pause")
    number, another = shop.alone()
    assert (number, shop.generations()[-2:]) == (old, [old, old])
    assert another != pid
    shop.assert_kept()
    assert_kept(shop.app, traffic, since)
    workshop.git(shop.app.folder, "reset", "--quiet", "--hard", "HEAD~2")


def test_a_rollback_and_a_restart_replace_them(shop: Shop, traffic: Traffic) -> None:
    """They are those of the release that was rolled back to, and after a restart new ones of the same."""
    (old, _), since = shop.alone(), traffic.mark()
    shop.app.change("rollback").must(0, "deployed")
    back, _ = shop.alone()
    shop.app.change("restart").must(0, "deployed")
    again, _ = shop.alone()

    assert shop.generations()[-3:] == [old, back, again]
    shop.assert_kept()
    assert_kept(shop.app, traffic, since)


@pytest.mark.parametrize(("event", "step"), [("step-done", "gate"), ("committed", ""), ("step-done", "workers")])
def test_a_killed_deployer_leaves_one_generation(shop: Shop, traffic: Traffic, event: str, step: str) -> None:
    """Killed around the commit, the host ends with the workers of what is live, and never had two generations."""
    since = traffic.mark()
    shop.alone()
    shop.app.kill_at(event, step, "restart")
    shop.app.wait_until_whole()

    shop.alone()
    shop.generations()
    shop.assert_kept()
    assert_kept(shop.app, traffic, since)


@pytest.mark.parametrize(("event", "step"), [("step-done", "pause"), ("step-done", "swap")])
def test_a_deployer_killed_in_a_migration_leaves_the_old_generation(
    shop: Shop, traffic: Traffic, event: str, step: str
) -> None:
    """Killed before the commit of a migration, the old release's worker runs again, alone."""
    (old, _), since = shop.alone(), traffic.mark()
    grow(shop.app, name=f"k{secrets.token_hex(3)}")
    shop.app.kill_at(event, step, "deploy")
    shop.app.wait_until_whole()

    assert shop.alone()[0] == old
    shop.generations()
    shop.assert_kept()
    assert_kept(shop.app, traffic, since)
    workshop.git(shop.app.folder, "reset", "--quiet", "--hard", "HEAD~1")


def test_a_killed_supervisor_and_a_killed_worker_come_back(shop: Shop, traffic: Traffic) -> None:
    """A worker that dies is started again, a supervisor's successor takes the running one into its care."""
    _, pid = shop.alone()
    psutil.Process(pid).kill()
    until(lambda: shop.running() and shop.running()[0][1] != pid, "the worker was not started again")
    before = shop.alone()
    killed = shop.app.supervisor()
    killed.kill()
    killed.wait()
    shop.app.change("deploy").must(0, "deployed")

    assert shop.alone() != before
    shop.generations()
    shop.assert_kept()
    assert traffic.mark()


def test_a_worker_without_its_program_is_noticed_before_anything_live_is_touched(shop: Shop) -> None:
    """A command whose package is missing fails the build in words, and the live worker goes on."""
    before = shop.alone()
    text = (shop.app.folder / "Procfile").read_text()
    (shop.app.folder / "Procfile").write_text(f"{text}beat: celery -A app beat\n")
    refused = shop.app.change("deploy", "--worktree").must(3, "undone")
    (shop.app.folder / "Procfile").write_text(text)

    assert refused.reference == "worker-program-missing"
    assert "`beat` is to run `celery -A app beat`" in json.dumps(refused.last)
    assert shop.alone() == before


def test_a_worker_that_gives_up_is_told_and_does_not_take_the_site_down(shop: Shop) -> None:
    """The deployment succeeds, and its last line, `status` and its JSON tell of the worker."""
    text = (shop.app.folder / "Procfile").read_text()
    (shop.app.folder / "Procfile").write_text(f'{text}sick: python -c "raise SystemExit(7)"\n')
    done = shop.app.change("deploy", "--worktree").must(0, "deployed")
    told = shop.app.run("status", status=0).out
    (shop.app.folder / "Procfile").write_text(text)
    shop.app.deploy()

    assert "sick" in str(done.last["troubles"])
    assert "exited with status 7" in str(done.last["troubles"])
    assert "sick " in told
    assert "exited with status 7" in told
    assert "hint: bulletproof logs sick" in told
    assert shop.app.change("restart").must(0).last["troubles"] == []


def test_the_timer_ran_now_and_then_and_never_twice_at_once(shop: Shop) -> None:
    """After all of that there were runs, each alone; one that a switch met was let go on to its end."""
    until_minute = time.monotonic() + 70
    while not ask(shop.app.database, "SELECT 1 FROM run WHERE what = 'ends'"):
        assert time.monotonic() < until_minute, shop.app.diaries()
        time.sleep(0.5)
    runs = ask(shop.app.database, _RUNS)
    pids = [pid for pid, _ in itertools.groupby(row[1] for row in runs)]
    assert len(pids) == len(set(pids)), f"two runs at once: {runs}"


# --- a worker from PyPI, and nothing written by hand

_WEB = """\
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""
_TASKS = """\
import os
import time

from huey import SqliteHuey

huey = SqliteHuey(filename=os.environ["HOME"] + "/queue.db")


@huey.task()
def note(number):
    time.sleep(0.2)
    with open(os.environ["HOME"] + "/done", "a") as file:
        file.write(f"{number} {os.environ['BULLETPROOF_DEPLOYMENT']}\\n")
"""
_ENQUEUE = "import tasks, sys; [tasks.note(number) for number in range(int(sys.argv[1]), int(sys.argv[2]))]"
_PROCFILE = """\
web: gunicorn app:app --workers 2 --bind 0.0.0.0:$PORT
worker: huey_consumer tasks.huey --workers 1
"""


@pytest.fixture
def queue(house: Path) -> Iterator[LiveApp]:
    """An app with a huey consumer in its Procfile, on which only `init` was run."""
    name = f"queue-{secrets.token_hex(2)}"
    app = LiveApp(root=house / "root", name=name, folder=house / "projects" / name / "app", port=None)
    files = {"app.py": _WEB, "tasks.py": _TASKS, "requirements.txt": "huey\n", "Procfile": _PROCFILE}
    workshop.commit(app.folder, files, "The first")
    found = app.run("init", "--name", name, status=0)
    assert "huey_consumer tasks.huey --workers 1: a worker" in " ".join(found.err.split())
    workshop.commit(app.folder, {}, "Configure it")
    try:
        yield app
    finally:
        if app.layout.journal.exists():
            app.end()


def _done(app: LiveApp) -> list[str]:
    file = app.layout.data / "done"
    return [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []


def test_a_huey_consumer_finishes_every_job_once(queue: LiveApp) -> None:
    """`init; deploy` runs it; jobs before, in and after a restart, a stop and a start are each done once."""
    queue.deploy()
    queue.run("run", "--", "python", "-c", _ENQUEUE, "0", "60", status=0)
    until(lambda: _done(queue), "no job was done")
    queue.change("restart").must(0, "deployed")
    assert len(_done(queue)) < 60, "the restart met no job"
    queue.run("run", "--", "python", "-c", _ENQUEUE, "60", "80", status=0)
    queue.run("stop", status=0)
    assert not queue.processes()
    before = len(_done(queue))
    queue.run("start", status=0)
    until(lambda: len(_done(queue)) >= 80, f"{before} jobs were done, then {len(_done(queue))}")

    assert sorted(map(int, _done(queue))) == list(range(80))
    assert queue.status()["background"]["worker"][0]["phase"] == "running"  # type: ignore[index]
