"""kill -9 of anything: the host becomes whole by itself, entirely old or entirely new, and no request fails for it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from http import HTTPStatus

import psutil
import pytest

from bulletproof.demo.traffic import Traffic
from bulletproof.operations.pipelines import ACTIVATE, DEPLOY, FIRST
from embedded.places import until
from live_app import LASTING, Event, LiveApp, breaks_only_live

pytestmark = pytest.mark.timeout(600)

_CERTAINLY_OLD = {
    "preflight",
    "fetch",
    "build",
    "settings",
    "schema",
    "vacant",
    "rehearse",
    "database",
    "open",
    "start",
}
"""Killed at the beginning of one of these, a deployer is far from its commit point: a boot and a gate lie between."""
_UNDONE = ("start", "rehearse", "settings", "build", "fetch")
"""What a release that crashes beside the live one has undone, in this order."""


def _names(steps: tuple[object, ...]) -> list[str]:
    return [str(getattr(step, "name", "")) for step in steps]


def _must_be_entirely(app: LiveApp, status: Event, release: object) -> None:
    """That release serves by its own instance, and there is nothing of any other deployment that never lived."""
    number = status["deployment"]
    assert status["serving"] == status["live"] == release, f"{status}\n{app.diaries()}"
    assert app.layout.current.resolve() == app.layout.release(str(release))
    found, (numbers, releases) = app.numbers(), app.lived()
    assert found["processes"] == found["sockets"] == {number}
    assert found["settings"] <= numbers
    assert app.releases() <= releases
    assert not app.leftovers()
    assert app.ask()[0] == HTTPStatus.OK


# --- the deployer, a warm host under light traffic


@pytest.fixture(scope="module")
def warm(make_lasting_app: Callable[[str], LiveApp]) -> LiveApp:
    """An app with v2 live and v1 before it."""
    app = make_lasting_app("killed")
    app.deploy("v1")
    app.deploy("v2")
    return app


@pytest.fixture(scope="module")
def warm_traffic(warm: LiveApp) -> Iterator[Traffic]:
    """Reads and writes on it without a pause; at the end no write may be lost or doubled."""
    with warm.under_load(LASTING) as traffic:
        yield traffic


@pytest.mark.xdist_group("kill-deploy")
@pytest.mark.parametrize("step", _names((*DEPLOY.before, *DEPLOY.after)))
def test_a_deployer_killed_at_any_step_leaves_the_host_whole(warm: LiveApp, warm_traffic: Traffic, step: str) -> None:
    """Before the commit point it is as it was, after it it is as it was to be; no command, no failed request."""
    before, since = warm.layout.current.resolve().name, warm_traffic.mark()
    version = "v1" if warm.version() == "v2" else "v2"
    killed = warm.kill_at("step-started", step, "deploy", version)
    status = warm.wait_until_whole()

    assert warm_traffic.report(since).failed == 0
    assert killed.status == -signal.SIGKILL
    is_new = status["last_outcome"] == "deployed"
    assert not (is_new and step in _CERTAINLY_OLD)
    assert is_new or step in _names(DEPLOY.before)
    new = killed.events[0]["release"]
    _must_be_entirely(warm, status, new if is_new else before)
    assert (warm.version() == version) is is_new


@pytest.mark.xdist_group("kill-deploy")
def test_the_next_deployment_after_all_these_kills_works(warm: LiveApp) -> None:
    """A command goes on where nothing was left behind."""
    warm.kill_at("step-started", "gate", "deploy", "v1")
    release = warm.deploy("v2", "--wait", "30").release  # the recovery may have the lock at this moment

    assert warm.status()["serving"] == release
    assert warm.version() == "v2"


@pytest.mark.xdist_group("kill-deploy")
def test_a_recovery_removes_what_killed_writes_left(warm: LiveApp) -> None:
    """A file that was never finished, which may hold settings, does not outlive the recovery."""
    layout = warm.layout
    below_state = (layout.rehearsal(0).parent, layout.report(0).parent, layout.snapshots, layout.frozen_settings)
    places = (layout.home, layout.releases, layout.state, *below_state, layout.environment.parent)
    for place in places:
        place.mkdir(exist_ok=True)
        (place / ".bp-new-999999999.1.00000000").write_text("SECRET_KEY")
    assert len(warm.leftovers()) == len(places)
    warm.kill_at("step-started", "fetch", "deploy", "v1")
    warm.wait_until_whole()

    assert not warm.leftovers()


@pytest.mark.xdist_group("kill-deploy")
@pytest.mark.parametrize("step", _UNDONE)
def test_a_deployer_killed_in_the_undo_leaves_the_host_as_it_was(
    warm: LiveApp, warm_traffic: Traffic, step: str
) -> None:
    """What it began to undo is undone to the end, and the old release serves all the while."""
    before, since = warm.layout.current.resolve().name, warm_traffic.mark()
    warm.kill_at("step-undone", step, "deploy", breaks_only_live(warm))
    status = warm.wait_until_whole()

    assert warm_traffic.report(since).failed == 0
    assert status["last_outcome"] == "undone"
    _must_be_entirely(warm, status, before)


@pytest.mark.xdist_group("kill-rollback")
@pytest.mark.parametrize("step", _names((*ACTIVATE.before, *ACTIVATE.after)))
def test_a_rollback_killed_at_any_step_leaves_the_host_whole(back: LiveApp, back_traffic: Traffic, step: str) -> None:
    """The same promise where nothing is built: by the journal old or new, no failed request."""
    earlier, later = sorted(back.releases(), key=lambda release: int(release.partition("-")[0]))
    before, since = back.layout.current.resolve().name, back_traffic.mark()
    wished = earlier if before == later else later
    killed = back.kill_at("step-started", step, "rollback", wished)
    status = back.wait_until_whole()

    assert back_traffic.report(since).failed == 0
    assert killed.events[0].items() >= {"kind": "rollback", "release": wished}.items()
    is_new = status["last_outcome"] == "deployed"
    assert not (is_new and step in _CERTAINLY_OLD)
    assert is_new or step in _names(ACTIVATE.before)
    _must_be_entirely(back, status, wished if is_new else before)
    assert back.releases() == {earlier, later}


@pytest.fixture(scope="module")
def back(make_lasting_app: Callable[[str], LiveApp]) -> LiveApp:
    """Another such app, so that its tests can run beside those of the first."""
    app = make_lasting_app("back")
    app.deploy("v1")
    app.deploy("v2")
    return app


@pytest.fixture(scope="module")
def back_traffic(back: LiveApp) -> Iterator[Traffic]:
    """The same for that one."""
    with back.under_load(LASTING) as traffic:
        yield traffic


# --- the deployer, nothing serves yet


@pytest.fixture(scope="module")
def fresh(make_lasting_app: Callable[[str], LiveApp]) -> LiveApp:
    """An app that was never deployed, or was destroyed since."""
    return make_lasting_app("fresh")


@pytest.fixture
def nothing(fresh: LiveApp) -> LiveApp:
    """The app while nothing of it is live, whatever became of an earlier test."""
    if fresh.layout.journal.exists() and fresh.status()["live"]:
        fresh.run("destroy", "--yes", "--wait", "30", status=0)
    return fresh


@pytest.mark.xdist_group("kill-first")
@pytest.mark.parametrize("step", _names((*FIRST.before, *FIRST.after)))
def test_a_first_deployment_killed_at_any_step_leaves_nothing_or_all(nothing: LiveApp, step: str) -> None:
    """Before the commit point there is nothing: no process, no database, no release; after it the app serves."""
    killed = nothing.kill_at("step-started", step, "deploy", "v1")
    status = nothing.wait_until_whole()

    is_new = status["last_outcome"] == "deployed"
    assert not (is_new and step in _CERTAINLY_OLD)
    assert is_new or step in _names(FIRST.before)
    if is_new:
        _must_be_entirely(nothing, status, killed.events[0]["release"])
        assert nothing.version() == "v1"
    else:
        _must_be_nothing(nothing)


@pytest.mark.xdist_group("kill-first")
@pytest.mark.parametrize("step", ["start", "open", "database", "settings", "build"])
def test_a_first_deployment_killed_in_the_undo_leaves_nothing(nothing: LiveApp, step: str) -> None:
    """What it began to undo is undone to the end, although nothing of the app runs any more by then."""
    nothing.configure(health={"deadline_seconds": 2, "timeout_seconds": 1})
    nothing.kill_at("step-undone", step, "deploy", "answers-500")
    status = nothing.wait_until_whole()
    nothing.configure()

    assert status["last_outcome"] == "undone"
    _must_be_nothing(nothing)


@pytest.mark.xdist_group("kill-first")
def test_the_next_first_deployment_works(nothing: LiveApp) -> None:
    """After a killed first deployment, `deploy` makes the app live as if nothing had been."""
    nothing.kill_at("step-started", "start", "deploy", "v1")
    release = nothing.deploy("v1", "--wait", "30").release
    status = nothing.wait_until_whole()

    _must_be_entirely(nothing, status, release)


@pytest.mark.xdist_group("kill-first")
def test_a_stop_that_is_killed_is_finished(fresh: LiveApp) -> None:
    """Once a stop is begun it ends by itself, and nothing runs; `start` brings the app back."""
    if not (fresh.layout.journal.exists() and fresh.status()["live"]):
        fresh.deploy("v1")
    fresh.kill_at("step-started", "close", "stop")
    status = fresh.wait_until_whole()

    assert status["wants_running"] is False
    assert not fresh.is_listening()
    until(lambda: not fresh.processes(), "a process outlived the stop")
    fresh.run("start", status=0)
    assert fresh.version() == "v1"


def _must_be_nothing(app: LiveApp) -> None:
    until(lambda: not app.processes(), f"processes are left: {app.processes()}")
    assert not app.layout.port.exists() or not app.is_listening()
    assert not app.database.exists()
    assert not app.releases()
    assert not app.leftovers()
    assert app.numbers() == {"processes": set(), "sockets": set(), "settings": set()}
    assert not app.layout.environment.exists()


# --- everything else


@pytest.fixture(scope="module")
def steady(make_lasting_app: Callable[[str], LiveApp]) -> LiveApp:
    """An app with v1 live, and with as many workers as an app gets that says nothing."""
    app = make_lasting_app("steady")
    app.settings["app"] = {"workers": 3}
    app.configure()
    app.deploy("v1")
    return app


def _kill(pid: int) -> None:
    process = psutil.Process(pid)
    process.kill()
    until(lambda: _is_dead(process))


def _is_dead(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True  # it was collected between the two questions


@pytest.mark.xdist_group("kill-others")
def test_the_app_serves_on_without_its_supervisor(steady: LiveApp) -> None:
    """kill -9 of the supervisor: no request fails, `status` says so, and the next command takes over what runs."""
    steady.run("start", "--wait", "30")
    pids = {name: steady.pid_of(name) for name in ("proxy", "relay")}
    with steady.under_load():
        _kill(steady.supervisor().pid)
        told = steady.run("status")
        assert told.out.startswith(f"{steady.name} serves ")
        assert "supervisor  not running" in told.out
        assert "hint: bulletproof restart" in told.out
        steady.change("restart").must(0, "deployed")

    assert {name: steady.pid_of(name) for name in pids} == pids
    assert steady.run("status").status == 0
    assert steady.numbers()["processes"] == {steady.status()["deployment"]}


@pytest.mark.xdist_group("kill-others")
def test_the_proxy_comes_back(steady: LiveApp) -> None:
    """kill -9 of Caddy: the supervisor runs it again within seconds, and `status` counts the crash."""
    pid = steady.pid_of("proxy")
    _kill(pid)
    until(lambda: steady.pid_of("proxy") != pid)
    until(steady.is_listening)

    assert steady.version() == "v1"
    assert re.search(r"proxy +running, crashed ", steady.run("status", status=0).out)


@pytest.mark.xdist_group("kill-others")
def test_the_relay_comes_back(steady: LiveApp) -> None:
    """kill -9 of the parking relay: nobody notices, and it runs again."""
    pid = steady.pid_of("relay")
    with steady.under_load():
        _kill(pid)
        until(lambda: re.search(r"relay +running, crashed ", steady.run("status").out))
        assert steady.pid_of("relay") != pid


@pytest.mark.xdist_group("kill-others")
def test_the_apps_server_comes_back(steady: LiveApp) -> None:
    """kill -9 of gunicorn's master: its workers go and it runs again; who asks while it boots waits and is answered."""
    number = steady.status()["deployment"]
    pid = steady.pid_of(f"web-{number}")
    family = [pid, *(child.pid for child in psutil.Process(pid).children())]
    _kill(pid)
    until(lambda: steady.pid_of(f"web-{number}") != pid)

    assert steady.version() == "v1"
    until(lambda: steady.run("status").status == 0)
    assert not [one for one in family if psutil.pid_exists(one)]
    assert ", crashed " in steady.run("status").out
    assert steady.status()["serving"] is not None


@pytest.mark.xdist_group("kill-others")
def test_a_worker_comes_back(steady: LiveApp) -> None:
    """kill -9 of one worker: its master starts another; the supervisor counts no crash for that."""
    until(lambda: steady.status()["processes"] == 4)
    web = f"web-{steady.status()['deployment']}"
    master, restarts = psutil.Process(steady.pid_of(web)), steady.status()["web"]
    victim = master.children()[0].pid
    os.kill(victim, signal.SIGKILL)

    until(lambda: victim not in {one.pid for one in master.children()} and len(master.children()) == 3)
    assert steady.status()["web"] == restarts
    assert steady.version() == "v1"


@pytest.mark.xdist_group("kill-others")
def test_an_app_that_crashes_again_and_again_is_started_again(steady: LiveApp) -> None:
    """Each crash is counted in `status`; the next deployment has an instance of its own, which begins at none."""
    number = steady.status()["deployment"]
    web = f"web-{number}"
    for _ in range(3):
        pid = until(lambda: steady.status()["web"]["phase"] == "running" and steady.pid_of(web))  # type: ignore[index]
        _kill(int(pid))
    told = until(lambda: (found := steady.run("status")).status == 0 and found)

    assert told
    assert re.search(r"crashed \d+ times", told.out)
    steady.deploy("v1")
    assert steady.status()["web"] == {"phase": "running", "restarts": 0, "words": ""}
