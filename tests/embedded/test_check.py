"""`check` on a real host: well when all is well, and what is broken is found, with the command that helps."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import pytest

from embedded.places import until
from live_app import Event, LiveApp

pytestmark = [pytest.mark.xdist_group("check"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def app(make_lasting_app: Callable[[str], LiveApp]) -> LiveApp:
    """An app with a release to go back to, and a backup."""
    made = make_lasting_app("check")
    made.deploy("v1")
    made.deploy("v2")
    made.run("backup", "create", status=0)
    return made


def findings(app: LiveApp, *words: str) -> dict[str, Event]:
    """What each check says, by its name."""
    found = json.loads(app.run("check", "--format", "json", *words).out)
    return {one["name"]: one for one in found["checks"]}


def broken(app: LiveApp) -> dict[str, str]:
    """The states of all that is not well."""
    return {name: str(one["state"]) for name, one in findings(app).items() if one["state"] != "ok"}


def test_a_healthy_host_gives_no_alarm(app: LiveApp) -> None:
    """Ten times over, all is well, in every format."""
    for _ in range(10):
        done = app.run("check")
        assert done.status == 0, done.out
        assert done.out.count("✓") == len(done.out.splitlines()) == 14
    assert app.run("check", "--format", "nagios", status=0).out.startswith(f"OK - {app.name}: 14 checks are well | ")
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
    assert found["response"] in {"critical", "unknown"}
    os.kill(pid, signal.SIGKILL)
    until(lambda: findings(app)["service"]["state"] == "warning" and findings(app)["response"]["state"] == "ok")
    assert "crashed 1 times" in str(findings(app)["service"]["words"])
    assert findings(app)["service"]["hint"] == "bulletproof logs"


def test_a_stopped_app_is_no_alarm(app: LiveApp) -> None:
    """A person stopped it; that is said, and nothing else."""
    app.run("stop", status=0)
    assert broken(app) == {}
    assert findings(app)["service"]["words"] == "it was stopped by a person"
