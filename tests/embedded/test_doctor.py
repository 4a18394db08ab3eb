"""`doctor` on a real host: each thing is broken for real, told in its own words, mended, and green again."""

from __future__ import annotations

import re
import secrets
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from embedded.examining import examined, only
from live_app import LiveApp, branch

pytestmark = [pytest.mark.xdist_group("doctor"), pytest.mark.timeout(600)]

BOTH = ("--only", "packages", "--only", "permissions")
BROKEN = """
import os, pathlib, socket, sqlite3
_here = pathlib.Path(os.environ["HOME"])
if (_here / "break-me").exists():
    raise RuntimeError("no house is built on sand")
"""


@pytest.fixture(scope="module")
def app(make_lasting_app: Callable[[str], LiveApp]) -> LiveApp:
    """An app with a release to go back to, a backup, and settings that are wrong."""
    made = make_lasting_app("doctor")
    elsewhere = f"DATABASE_URL=sqlite:///{made.root}/{made.name}-elsewhere.db"
    made.run("env", "set", "FLASK_DEBUG=1", "DEBUG=True", "SECRET_KEY=dev", elsewhere, status=0)
    made.deploy("v1")
    source = (made.folder / "run.py").read_text()
    branch(made, {"run.py": BROKEN + source})
    made.deploy()
    made.run("backup", "create", status=0)
    return made


def packages_of(app: LiveApp, release: str) -> Path:
    """Where a release's packages lie, opened for who damages them."""
    folder = next(app.layout.venv(release).glob("lib/python*/site-packages"))
    for place in (folder, folder / "flask"):
        place.chmod(0o755)
    return folder


def damage(app: LiveApp, release: str) -> None:
    """Change a byte of a package, of which a glance at its length tells nothing."""
    file = packages_of(app, release) / "flask" / "app.py"
    file.chmod(0o644)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"#")


def _beside(app: LiveApp) -> list[Path]:
    """What was built anew or replaced, and is still there."""
    return [place for place in app.layout.releases.glob(".*") if place.name.startswith((".rebuilt", ".bp"))]


def test_all_that_can_be_mended_is_mended_at_once(app: LiveApp) -> None:
    """A dozen things are wrong; two deployments mend what can be, no request fails, and what is left is told."""
    layout, live = app.layout, str(app.status()["live"])
    (before,) = app.releases() - {live}
    damage(app, live)
    shutil.rmtree(packages_of(app, before) / "flask")
    layout.environment.chmod(0o640)
    app.database.chmod(0o400)
    with (layout.proxy_home / "Caddyfile").open("a") as caddyfile:
        caddyfile.write("# by hand\n")
    log = layout.logs / "mine.log"
    with log.open("wb") as file:
        file.truncate(70 << 20)
    for proof in layout.backups.glob("b*/verified.json"):
        proof.unlink()

    found = examined(app)
    asked = app.run("doctor", "--fix", stdin="")
    with app.under_load():
        mended = app.run("doctor", "--fix", "--yes")

    assert {name: one["state"] for name, one in found.items()} == {
        "packages": "warning",  # of two, the one that was told last
        "permissions": "critical",
        "database-setting": "warning",
        "backups": "warning",
        "logs": "warning",
        "proxy": "warning",
        "debug": "critical",
        "secret-key": "critical",
    }
    assert "flask/" in str(found["packages"]["words"])
    assert str(found["proxy"]["words"]).endswith("is `# by hand`, and was not there")
    assert (asked.status, "wants --yes" in asked.err) == (2, True)
    assert mended.status == 4, mended.out + mended.err
    assert "rebuild " in mended.err
    assert mended.err.count("serving at") == 2
    left = examined(app)
    assert {name: one["fix"] for name, one in left.items()} == {"debug": "", "secret-key": ""}
    assert left["debug"]["command"] == "bulletproof env set DEBUG=False"
    assert "only 3 letters" in str(left["secret-key"]["words"])
    assert (log.stat().st_size, log.with_name("mine.log.1").stat().st_size) == (0, 20 << 20)
    assert app.database.stat().st_mode & 0o777 == 0o600
    assert not _beside(app)
    assert not list((layout.state / "repairs").iterdir())


def test_a_healthy_host_gives_no_alarm(app: LiveApp) -> None:
    """Once a person has done the rest, all is well, and stays so."""
    app.change("env", "set", "DEBUG=False", f"SECRET_KEY={secrets.token_hex(32)}").must(0, "deployed")
    for _ in range(2):
        done = app.run("doctor")
        assert (done.status, done.out.splitlines()[0][:14]) == (0, "✓ all is well:"), done.out
    again = app.run("doctor", "--fix", "--yes")
    assert (again.status, again.err) == (0, "")


def test_an_app_that_does_not_start(app: LiveApp) -> None:
    """Its reason is told in a sentence; what does not help is undone, and a person is asked for."""
    (app.layout.data / "break-me").touch()
    app.kill_all()
    down = examined(app, "--only", "service")["service"]
    failed = app.run("doctor", "--fix", "--yes")
    told = only(app, "service")
    (app.layout.data / "break-me").unlink()
    assert str(down["words"]).startswith("the supervisor does not run")
    assert failed.status in {2, 4}
    # gunicorn's master ends with 1 or with 3: whichever of its workers it notices first.
    assert re.search(r"exited with status [13]: RuntimeError: no house is built on sand", failed.err), failed.err
    assert "--fix could not: start the live release again" in failed.out
    assert (told["state"], told["why"]) == ("critical", "RuntimeError: no house is built on sand")
    assert str(told["words"]).startswith("nothing runs, and nobody has stopped it")


def test_a_kill_in_the_middle_of_a_repair(app: LiveApp) -> None:
    """It is undone by itself, and the release is damaged as before; then all is mended, a Python that is gone too."""
    app.run("doctor", "--fix", "--yes", status=0)
    live = str(app.status()["live"])
    damage(app, live)
    app.layout.environment.chmod(0o640)
    app.kill_at("step-started", "exchange", "doctor", "--fix", "--yes", *BOTH)
    app.wait_until_whole()
    outcome, found = app.history()[-1]["outcome"], examined(app, *BOTH)
    assert (outcome, [*found]) in [("undone", ["packages", "permissions"]), ("deployed", [])], found
    assert not _beside(app)

    if not found:
        damage(app, live)
    with app.begun("restart") as restart:
        assert restart.read_until("step-done", "settings")
        app.supervisor().send_signal(signal.SIGKILL)
        restart.send(signal.SIGKILL)
        restart.end()
    app.kill_all()
    binaries = app.layout.venv(live) / "bin"
    binaries.chmod(0o755)
    for link in binaries.glob("python*"):
        link.unlink()
        link.symlink_to("/opt/python-that-was/bin/python3")
    found = examined(app)
    assert {"half-done", "interpreter", "service", "packages"} <= found.keys()
    assert str(found["interpreter"]["words"]).endswith("is gone (/opt/python-that-was/bin/python3)")
    assert found["half-done"]["fix"] == "undo it"

    mended = app.run("doctor", "--fix", "--yes")
    assert mended.status == 0, mended.out + mended.err
    assert app.ask()[0] == 200
    assert examined(app) == {}


def test_a_repair_is_no_wish_to_run(app: LiveApp) -> None:
    """What a person stopped is mended, and stays stopped."""
    app.run("stop", status=0)
    damage(app, str(app.status()["live"]))
    app.run("doctor", "--fix", "--yes", status=0)
    assert examined(app) == {}
    assert not app.processes()
    assert app.run("status").out.startswith(f"{app.name} is stopped")
