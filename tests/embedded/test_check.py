"""`check` on a real host: well when all is well, and what is broken is found, with the command that helps."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from bulletproof.domain.public import Public
from bulletproof.effects.visit import Visitor
from embedded.places import until
from live_app import Event, LiveApp, branch

pytestmark = [pytest.mark.xdist_group("check"), pytest.mark.timeout(600)]


OWN = """
[check.own.front]
url = "/auth/login"
text = "Log in"
[check.own.wish]
command = 'test ! -e "$HOME/slow" || sleep 60; test ! -e "$HOME/broken" || { echo "by hand | wishes=1"; exit 1; }'
timeout_seconds = 1.5
[check.own.inside]
entry = "checks:inside"
timeout_seconds = 20
[[check.visit.login]]
path = "/auth/login"
[[check.visit.login]]
path = "/auth/login"
send = { username = "checker", password = "$CHECK_PASSWORD" }
redirect = "/charts"
[[check.visit.login]]
path = "/charts"
no_text = "Log in"
[[check.visit.stranger]]
path = "/auth/login"
[[check.visit.stranger]]
path = "/auth/login"
send = { username = "checker", password = "not the password" }
status = [400]
[[check.visit.stranger]]
path = "/charts"
redirect = "/auth/login"
"""
INSIDE = """
import os, pathlib
import app.version
print("what a check prints is not its answer")
def inside():
    complaint = pathlib.Path(os.environ["HOME"], "complaint")
    return complaint.read_text() if complaint.exists() else None
"""
COSTLY = ["inside", "login", "stranger"]
"""They import the app and check passwords, so they are made only where they are meant."""
CHECKS = 20 + 2
"""Without those that are skipped."""


@pytest.fixture(scope="module")
def app(make_lasting_app: Callable[[str], LiveApp]) -> LiveApp:
    """An app with a release to go back to, a backup, and checks of its own."""
    made = make_lasting_app("check")
    made.run("env", "set", "CHECK_PASSWORD=correct horse", status=0)
    made.deploy("v1")
    made.settings["check"] = {"skip": ["clock", "reboot", *COSTLY]}
    made.configure()
    with (made.folder / "bulletproof.toml").open("a") as config:
        config.write(OWN)
    branch(made, {"checks.py": INSIDE})
    made.deploy()
    made.run("backup", "create", status=0)
    port = int(made.layout.port.read_text())
    visitor = Visitor(port, Public(host=f"127.0.0.1:{port}"))
    visitor.get("/auth/register", timeout_seconds=30)
    visitor.send("/auth/register", {"username": "checker", "password": "correct horse"}, timeout_seconds=30)
    return made


def findings(app: LiveApp, *words: str) -> dict[str, Event]:
    """What each check says, by its name."""
    found = json.loads(app.run("check", "--format", "json", *words).out)
    return {one["name"]: one for one in found["checks"]}


def broken(app: LiveApp, *names: str) -> dict[str, str]:
    """The states of all, or of those of these names, that are not well."""
    only = (word for name in names for word in ("--only", name))
    return {name: str(one["state"]) for name, one in findings(app, *only).items() if one["state"] != "ok"}


def test_a_healthy_host_gives_no_alarm(app: LiveApp) -> None:
    """Four times over, all is well, in every format."""
    for _ in range(4):
        done = app.run("check")
        assert done.status == 0, done.out
        assert done.out.count("✓") == len(done.out.splitlines()) == CHECKS
    told = app.run("check", "--format", "nagios", status=0).out
    assert told.startswith(f"OK - {app.name}: {CHECKS} checks are well | ")
    assert (
        f'bulletproof_check_state{{app="{app.name}",check="disk"}} 0' in app.run("check", "--format", "prometheus").out
    )
    assert "WAL journal, synchronous " in str(findings(app)["durability"]["words"])
    assert list(findings(app, "--only", "disk", "--only", "service")) == ["service", "disk"]


def test_what_is_broken_is_found_and_only_that(app: LiveApp) -> None:
    """Each mishap in turn, made for real: its check alone speaks, and is well again when it is mended."""
    layout = app.layout
    release = layout.current.resolve()
    package = next(release.glob("venv/lib/python*/site-packages/flask/app.py"))
    backup = next(layout.backups.glob("b*/database.db"))

    layout.environment.chmod(0o644)
    assert broken(app) == {"settings": "critical"}
    assert findings(app)["settings"]["hint"] == f"chmod 600 {layout.environment}"
    layout.environment.chmod(0o600)

    app.database.chmod(0o666)
    closed = [folder for folder in app.database.parents if not folder.stat().st_mode & 0o001]
    modes = [folder.stat().st_mode & 0o7777 for folder in closed]
    assert closed
    assert broken(app) == {}
    for folder in closed:
        folder.chmod(0o711)
    assert broken(app) == {"database-file": "warning"}
    assert app.run("check").status == 1
    app.database.chmod(0o640)
    for folder, mode in zip(closed, modes, strict=True):
        folder.chmod(mode)

    package.parent.chmod(0o755)
    package.rename(package.with_suffix(".away"))
    assert broken(app) == {"release": "critical"}
    assert broken(app, "inside", "wish") == {"inside": "critical"}
    assert "flask/app.py" in str(findings(app)["release"]["words"])
    assert app.run("check").status == 2
    package.with_suffix(".away").rename(package)
    package.parent.chmod(0o555)

    manifest = backup.with_name("manifest.json")
    manifest.rename(manifest.with_suffix(".away"))
    assert broken(app) == {"backups": "warning"}
    manifest.with_suffix(".away").rename(manifest)

    with layout.access_log.open("a") as log:
        log.write('{"status": 500}\n' * 200)
    assert broken(app) == {"errors": "warning"}
    with layout.access_log.open("a") as log:
        log.write('{"status": 200}\n' * 20000)
    assert broken(app) == {}


def test_checks_of_their_own(app: LiveApp) -> None:
    """Each tells in its own words what it found; when a wrong password is let in, that is seen."""
    (app.layout.data / "broken").touch()
    (app.layout.data / "complaint").write_text("the queue is full")
    own = [word for name in ("front", "wish", *COSTLY) for word in ("--only", name)]
    found = findings(app, *own)
    assert {name for name, one in found.items() if one["state"] != "ok"} == {"wish", "inside"}
    assert (found["wish"]["state"], found["wish"]["words"]) == ("warning", "by hand")
    assert (found["inside"]["state"], found["inside"]["words"]) == ("critical", "the queue is full")
    (app.layout.data / "broken").unlink()
    (app.layout.data / "slow").touch()
    assert findings(app, "--only", "wish")["wish"]["words"] == "it did not end within 1.5 seconds"
    (app.layout.data / "slow").unlink()
    (app.layout.data / "complaint").unlink()

    with closing(sqlite3.connect(app.database, isolation_level=None)) as database:
        (good,) = database.execute("SELECT password_hash FROM user WHERE username = 'checker'").fetchone()
        digest = hashlib.pbkdf2_hmac("sha256", b"not the password", b"salt", 1000).hex()
        other = f"pbkdf2:sha256:1000$salt${digest}"  # as werkzeug writes it
        database.execute("UPDATE user SET password_hash = ? WHERE username = 'checker'", (other,))
        found = findings(app, *own)
        database.execute("UPDATE user SET password_hash = ? WHERE username = 'checker'", (good,))
    assert {name: one["words"] for name, one in found.items() if one["state"] != "ok"} == {
        "login": "step 2, /auth/login: it answered 400",
        "stranger": "step 2, /auth/login: it answered 303, to /charts",
    }
    assert broken(app, "front", "wish", *COSTLY) == {}
    assert "[check.visit.login]" in app.run("check", "--explain", "login", status=0).out
    assert "the app was started again" in app.run("check", "--explain", "service", status=0).out
    assert "there is no check lgin; there are service, " in app.run("check", "--only", "lgin").err


def test_what_lies_beside(app: LiveApp) -> None:
    """Another database with tables, a damaged release to go back to, and a disk that fills are told."""
    stray = app.layout.data / "app_dev.sqlite3"
    with closing(sqlite3.connect(stray)) as database:
        database.execute("CREATE TABLE user (id INTEGER)")
    assert broken(app) == {"stray-databases": "warning"}
    assert str(findings(app)["stray-databases"]["words"]).startswith(f"{stray} has 1 tables")
    stray.unlink()

    package = next(app.layout.releases.glob("1-*/venv/lib/python*/site-packages/flask/app.py"))
    package.parent.chmod(0o755)
    package.rename(package.with_suffix(".away"))
    assert broken(app) == {"previous": "warning"}
    package.with_suffix(".away").rename(package)
    package.parent.chmod(0o555)

    free, now = shutil.disk_usage(app.root).free, time.time()
    runs = [
        {"at": int(now - ago), "until": 0, "checks": {}, "free_bytes": free + int(ago * free / 86400)}
        for ago in range(0, 6 * 86400, 3600)
    ]
    app.layout.health.write_text("".join(f"{json.dumps(run)}\n" for run in runs))
    assert broken(app) == {"disk-trend": "warning"}
    assert str(findings(app)["disk-trend"]["words"]).endswith(": full in 1 days")
    app.layout.health.unlink()


def test_an_app_that_does_not_answer(app: LiveApp) -> None:
    """Stopped in its tracks it is alive and silent, which is no health; killed, it is said to have crashed."""
    pid = app.pid_of(f"web-{app.status()['deployment']}")
    family = [process.pid for process in app.processes() if process.ppid() == pid]
    for one in family:
        os.kill(one, signal.SIGSTOP)
    try:
        found = broken(app)
    finally:
        for one in family:
            os.kill(one, signal.SIGCONT)
    assert found["response"] == "critical"
    os.kill(pid, signal.SIGKILL)
    until(lambda: findings(app)["service"]["state"] == "warning" and findings(app)["response"]["state"] == "ok")
    assert "crashed 1 times" in str(findings(app)["service"]["words"])
    assert findings(app)["service"]["hint"] == "bulletproof logs"


def test_a_stopped_app_is_no_alarm(app: LiveApp) -> None:
    """A person stopped it; that is said, and nothing else."""
    app.run("stop", status=0)
    assert broken(app) == {}
    assert findings(app)["service"]["words"] == "it was stopped by a person"
