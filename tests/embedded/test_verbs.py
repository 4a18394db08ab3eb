"""Every other verb on a live app: rollback, restart, env, status, releases, logs, run, stop, start, destroy."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from free_ports import free_port
from live_app import LiveApp, remove_sealed

pytestmark = [pytest.mark.xdist_group("verbs"), pytest.mark.timeout(600)]

MakeApp = Callable[[str], LiveApp]
CANARY = "c4n4ry-Zk8Qw2"


@pytest.fixture(scope="module")
def app(make_lasting_app: MakeApp) -> LiveApp:
    """An app whose v1 and then v2 were deployed; each test leaves v2 live."""
    app = make_lasting_app("verbs")
    app.settings["app"] = {"workers": 2}
    app.configure()
    app.deploy("v1")
    app.deploy("v2")
    return app


def test_rollback_goes_to_the_release_before_and_keeps_the_data(app: LiveApp) -> None:
    """Without a name it is the release built before the live one; no request fails, no write is lost."""
    first, second = app.history()[0]["release"], app.history()[1]["release"]
    with app.under_load():
        done = app.change("rollback").must(0, "deployed")
        assert (done.release, app.version()) == (first, "v1")
        done = app.change("rollback", str(second)).must(0, "deployed")
        assert (done.release, app.version()) == (second, "v2")
    number = str(first).partition("-")[0]
    assert app.change("rollback", number).must(0).release == first
    assert app.change("rollback", str(second).partition("-")[2]).must(0).release == second


def test_a_rollback_to_nowhere_is_refused_in_words(app: LiveApp) -> None:
    """A release that never was, or one older than the oldest, is a usage error and changes nothing."""
    before = len(app.history())

    unknown = app.run("rollback", "99-fffffff")

    assert unknown.status == 2
    assert "error: release-unknown" in unknown.err
    assert "hint: bulletproof releases" in unknown.err
    assert len(app.history()) == before
    assert app.version() == "v2"


def test_restart_replaces_the_processes_without_a_dropped_request(app: LiveApp) -> None:
    """The same release in new processes."""
    before, release = app.pid_of(f"web-{app.status()['deployment']}"), app.status()["serving"]
    with app.under_load():
        done = app.change("restart").must(0, "deployed")
    assert done.release == release
    assert app.pid_of(f"web-{app.status()['deployment']}") != before


def test_a_setting_takes_effect_and_is_never_printed(app: LiveApp) -> None:
    """A changed setting reaches the app without a dropped request; its value stands in no output, log or argv."""
    with app.under_load():
        told = app.run("env", "set", f"GREETING={CANARY}", status=0)
    piped = app.run("env", "set", "SECOND=-", stdin=f"{CANARY}-two\n", status=0)
    listed = app.run("env", "list", status=0)

    inside = app.run("run", "--", "python", "-c", "import os; print(os.environ['GREETING'], os.environ['SECOND'])")
    assert inside.out.split() == [CANARY, f"{CANARY}-two"]
    assert {"GREETING", "SECOND", "SECRET_KEY"} <= set(listed.out.split())
    assert CANARY not in "".join(done.out + done.err for done in (told, piped, listed))
    assert not [one for one in app.processes() if CANARY in " ".join(one.cmdline())]
    for path in _files(app):
        if CANARY.encode() in path.read_bytes():
            assert path.parent in {app.layout.frozen_settings, app.layout.environment.parent}, path
            assert path.stat().st_mode & 0o777 == 0o600
    app.run("env", "unset", "GREETING", "SECOND", status=0)
    assert "GREETING" not in app.run("env", "list").out


def test_a_setting_that_breaks_the_app_is_undone(app: LiveApp) -> None:
    """The app without its SECRET_KEY does not boot: the old processes go on, and the stored settings are as before."""
    before = json.loads(app.layout.environment.read_text())

    done = app.change("env", "unset", "SECRET_KEY").must(3, "undone")

    assert done.reference == "crashed-at-boot"
    assert json.loads(app.layout.environment.read_text()) == before
    assert app.version() == "v2"


@pytest.mark.parametrize("words", [("env", "set", "=x"), ("env", "set", "A"), ("env", "set", "BULLETPROOF_X=1")])
def test_a_malformed_setting_is_a_usage_error(app: LiveApp, words: tuple[str, ...]) -> None:
    """It is refused before anything is touched."""
    before = len(app.history())

    assert app.run(*words).status == 2
    assert len(app.history()) == before


def test_status_says_what_runs(app: LiveApp) -> None:
    """Text and JSON agree: the release, the address, one master and its workers."""
    text, found = app.run("status", status=0).out, app.status()

    assert f"{app.name} serves {found['serving']} at {app.address}" in text
    assert "3 processes (1 + 2 workers)" in text
    assert found["processes"] == 3
    assert (found["unfinished"], found["lock"]) == (None, None)


def test_releases_tell_every_deployment(app: LiveApp) -> None:
    """Newest first, the live one marked, each with its outcome; the JSON says who did it and from which commit."""
    lines = app.run("releases", "--all", status=0).out.splitlines()
    found = app.history()

    assert len(lines) == len(found)
    (marked,) = [line for line in lines if line.startswith("●")]
    assert marked.split()[1] == str(app.status()["deployment"])
    assert all(one["outcome"] for one in found)
    assert all(one["started_by"] and len(str(one["revision"])) == 40 for one in found)


def test_logs_follow_across_a_cutover(app: LiveApp) -> None:
    """`logs -f` shows the live instance's lines, and goes on with the new instance's after a restart."""
    argv = app.argv("logs", "-f", "-n", "0")
    with subprocess.Popen(argv, cwd=app.folder, stdout=subprocess.PIPE, text=True) as following:
        try:
            time.sleep(1.5)
            app.change("restart").must(0)
            number = app.status()["deployment"]
            assert following.stdout is not None
            seen = next(line for line in following.stdout if f"/{number}/web.sock" in line)
        finally:
            following.kill()
    assert "Listening at: unix:" in seen


def test_logs_of_a_rejected_release_are_kept(app: LiveApp) -> None:
    """The hint of a failed deployment leads somewhere, and the deployment log has a line for it."""
    done = app.change("deploy", "answers-500").must(3)

    assert app.run("logs", done.release or "").status == 0
    assert "health-gate" in done.reference
    assert f"(deploy {done.release})" in app.run("logs", "--deployments", "-n", "1").out
    assert '"status":' in app.run("logs", "--access", "-n", "1").out


def test_run_sees_what_the_release_sees(app: LiveApp) -> None:
    """A command runs in the release's folder with its packages, settings and database, and its exit status is ours."""
    code = "import os, sys, flask; print(os.getcwd(), os.environ['DATABASE_URL'], sys.prefix); sys.exit(7)"

    done = app.run("run", "--", "python", "-c", code)

    folder, url, prefix = done.out.split()
    release = str(app.status()["serving"])
    assert done.status == 7
    assert folder == str(app.layout.source(release))
    assert url == f"sqlite:///{app.database}"
    assert prefix == str(app.layout.venv(release))
    assert app.run("run", "no-such-command").status == 2


def test_a_second_deployment_is_refused_or_waits(app: LiveApp) -> None:
    """The lock names its owner and step, exit 5; with --wait the second one waits and then deploys."""
    with app.begun("restart") as command:
        assert command.read_until("step-started", "gate")
        second = app.run("restart")
        waiting = app.change("restart", "--wait", "120")
        command.end()

    assert second.status == 5
    assert "error: lock-held" in second.err
    assert "`restart` of deployment" in second.err
    assert "--wait" in second.err
    waiting.must(0, "deployed")


def test_stop_and_start(app: LiveApp) -> None:
    """Stopped it stays stopped and is told so; settings are stored meanwhile; start serves what served before."""
    release = app.status()["serving"]
    app.change("stop").must(0)
    assert not app.is_listening()
    assert app.processes() == []
    assert "is stopped" in app.run("status", status=0).out
    app.run("env", "set", "WHILE=stopped", status=0)

    done = app.change("start").must(0, "deployed")

    assert done.release == release
    assert app.run("run", "--", "sh", "-c", "echo $WHILE").out == "stopped\n"
    app.run("env", "unset", "WHILE", status=0)


@pytest.mark.parametrize("verb", [("start",), ("deploy", "v2")])
def test_after_a_reboot(app: LiveApp, verb: tuple[str, ...]) -> None:
    """All was killed and the sockets are gone: start brings back what was live, and so does a deployment first."""
    live = app.status()["serving"]
    app.change("deploy", "import-error").must(3)
    app.kill_all()
    shutil.rmtree(app.layout.sockets)
    assert app.run("status").status == 4

    done = app.change(*verb).must(0, "deployed")

    assert app.version() == "v2"
    started = [one for one in app.history() if one["kind"] == "start"][-1]
    assert started["release"] == live
    assert verb == ("start",) or done.release != live


def test_start_leaves_a_serving_app_alone(app: LiveApp) -> None:
    """There is nothing to start: no new processes, no deployment, no waiting request."""
    before, number = len(app.history()), app.status()["deployment"]
    pid = app.pid_of(f"web-{number}")

    done = app.run("start", status=0)

    assert "it serves already" in done.err
    assert app.pid_of(f"web-{number}") == pid
    assert len(app.history()) == before


def test_a_setting_that_is_unset_while_stopped_is_not_missed(app: LiveApp) -> None:
    """What a person took away on purpose does not keep the app from starting."""
    app.run("env", "set", "EXTRA=1", status=0)
    app.change("stop").must(0)

    told = app.run("env", "unset", "EXTRA", status=0)

    assert "stored; the next start takes it" in told.err
    app.change("start").must(0, "deployed")
    assert "EXTRA" not in app.run("env", "list").out


def test_another_database_file_is_refused(app: LiveApp) -> None:
    """A configuration that would leave the data behind is refused by a deployment, and no business of a restart."""
    app.configure(database={"file": "other.db"})
    try:
        refused = app.run("deploy", "v2")
        app.change("restart").must(0, "deployed")
    finally:
        app.configure()

    assert refused.status == 1
    assert "error: database-renamed" in refused.err
    assert app.version() == "v2"


def test_a_damaged_live_release_can_be_replaced_and_removed(make_app: MakeApp) -> None:
    """After the live release's Python went, status, stop and a corrected deployment work, and so does destroy."""
    app = make_app("damaged")
    release = str(app.deploy("v1").release)
    python = app.layout.venv(release) / "bin" / "python"
    python.parent.chmod(0o755)
    python.rename(python.with_name("python.off"))

    assert app.run("status").status == 0
    app.change("stop").must(0)
    assert app.change("start").status in {1, 3}
    app.deploy("v2")
    assert app.version() == "v2"
    app.run("destroy", "--yes", status=0)
    for aside in app.layout.set_aside.glob(f"{app.name}-*"):
        remove_sealed(aside)


def test_a_killed_destroy_is_finished_and_the_app_can_come_back(make_app: MakeApp) -> None:
    """Killed while it wipes, the next deployment finishes it first and then is a first one, with a new database."""
    app = make_app("again")
    app.deploy("v1")
    app.kill_at("step-started", "wipe", "destroy", "--yes")

    done = app.deploy("v2")

    assert done.release == app.status()["serving"]
    assert app.rows() == 0
    assert len(list(app.layout.set_aside.glob(f"{app.name}-*"))) == 1
    for aside in app.layout.set_aside.glob(f"{app.name}-*"):
        remove_sealed(aside)


def test_destroy_sets_the_data_aside(make_app: MakeApp) -> None:
    """It asks; confirmed, nothing of the app is left but its data and settings, set aside and whole."""
    app = make_app("destroy")
    app.deploy("v2")
    with app.under_load():
        pass
    rows = app.rows()
    assert app.run("destroy").status == 2
    assert app.version() == "v2"

    done = app.run("destroy", "--yes", status=0)

    (aside,) = app.layout.set_aside.glob(f"{app.name}-*")
    assert str(aside) in done.err
    with sqlite3.connect(aside / "data" / "app.db") as database:
        assert database.execute("SELECT count(*) FROM chart").fetchone() == (rows,)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    assert json.loads((aside / "env.json").read_text())["SECRET_KEY"]
    gone = (app.layout.home, app.layout.data, app.layout.logs, app.layout.state, app.layout.sockets)
    assert [path for path in gone if path.exists()] == []
    assert app.processes() == []
    remove_sealed(aside)


def test_two_apps_on_one_root_do_not_disturb_each_other(app: LiveApp, make_app: MakeApp) -> None:
    """Another app is deployed, broken, stopped and removed while this one serves under load on its own port."""
    other = make_app("other")
    with app.under_load():
        other.deploy("v1")
        assert other.address != app.address
        other.change("deploy", "crash-at-boot").must(3)
        other.change("stop").must(0)
        other.run("destroy", "--yes", status=0)
    assert app.version() == "v2"
    for aside in app.layout.set_aside.glob(f"{other.name}-*"):
        remove_sealed(aside)


def test_another_port_takes_effect_with_the_next_deployment(app: LiveApp) -> None:
    """The proxy that runs moves there; one that is taken is refused in words, and nothing is changed."""
    before, pid, port = app.port, app.pid_of("proxy"), free_port()
    try:
        app.configure(proxy={"port": port})
        app.deploy("v2")
        assert (app.address, app.version()) == (f"http://127.0.0.1:{port}", "v2")
        with socket.socket() as other:
            other.bind(("127.0.0.1", taken := free_port()))
            other.listen()
            app.configure(proxy={"port": taken})
            assert app.change("deploy", "v2").must(1).reference == "port-taken"
        assert (app.address, app.version()) == (f"http://127.0.0.1:{port}", "v2")
    finally:
        app.configure(proxy={"port": before})
        app.deploy("v2")
        app.configure()
    assert app.pid_of("proxy") == pid


def test_help_is_quick() -> None:
    """`--help` and `--version` import nothing heavy."""
    for option in ("--help", "--version"):
        ended = subprocess.run(
            (sys.executable, "-X", "importtime", "-m", "bulletproof", option),
            capture_output=True,
            text=True,
            check=True,
        )
        names = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
        assert "click" in names
        assert not names & {"rich", "msgspec", "sqlite3", "psutil", "asyncio", "subprocess", "tomllib"}


def test_a_closed_output_is_no_error(app: LiveApp) -> None:
    """Whoever reads our output may go away: no traceback, and the app serves on."""
    shell = " ".join(("exec", *app.argv("releases", "--all", "--json"), "|", "true"))
    ended = subprocess.run(("sh", "-c", shell), cwd=app.folder, capture_output=True, text=True, check=False)

    assert "Traceback" not in ended.stderr
    assert app.version() == "v2"


def _files(app: LiveApp) -> list[Path]:
    """Every file of the app that is neither code nor the database."""
    layout = app.layout
    places = (layout.state, layout.logs, layout.sockets, layout.environment.parent)
    manifests = [layout.manifest(release) for release in app.releases()]
    return [path for place in places for path in place.rglob("*") if path.is_file()] + manifests
