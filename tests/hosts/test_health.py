"""A server's health: the checks by the clock, and a doctor that mends owners and units."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.examining import LOOK, changed
from embedded.places import until
from hosts import lab
from hosts.conftest import NewServer
from hosts.servers import Access, ServerApp, living
from live_app import Event

pytestmark = [pytest.mark.skipif(bool(lab.why_not()), reason=lab.why_not()), pytest.mark.xdist_group("hosts")]

_TIMER_SECONDS = 75.0
"""It is due every minute, and a run takes a second."""


@pytest.fixture(scope="module")
def server(new_server: NewServer, set_up: Path, access: Access) -> Iterator[lab.Server]:
    """A server that was set up."""
    with lab.booted(new_server(set_up)) as booted:
        access.let_in(booted)
        yield booted


@pytest.fixture(scope="module")
def app(server: lab.Server, access: Access, datacharted: Path) -> Iterator[ServerApp]:
    """DataCharted v2 on it, looked at every minute."""
    with living(server, access, datacharted) as living_app:
        living_app.settings["check"] = {"schedule": "* * * * *"}
        living_app.configure()
        living_app.deploy("v2")
        yield living_app


PLACES = (
    "/opt/shop",
    "/var/lib/shop",
    "/var/lib/bulletproof",
    "/etc/bulletproof",
    "/var/log/shop",
    "/run/bulletproof",
    "/run/systemd/system",
    "/etc/systemd/system",
)
WRITTEN = {"/var/lib/shop/app.db-shm", "/var/log/shop", "/var/lib/bulletproof/shop"}
HOUR = """
import datetime, pathlib
from bulletproof.cli.check import ground_of
from bulletproof.cli.target import Target
from bulletproof.operations.checks import checks_of, run_checks
from bulletproof.operations.record import note_run

target = Target(root=pathlib.Path("/"), app="shop")
began = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
for minute in range(0, 61, 5):
    ground = ground_of(target)
    found = run_checks(ground, checks_of(ground.config))
    run = note_run(ground, found, began + datetime.timedelta(minutes=minute))
    print(run.state.word, len(found), run.words)
"""


def examined(app: ServerApp, *words: str) -> dict[str, Event]:
    """What `doctor` tells of each thing that is wrong."""
    done = app.run("doctor", "--json", *words)
    assert done.out, done
    return {one["name"]: one for one in json.loads(done.out)["diagnoses"]}


def picture(app: ServerApp) -> dict[str, str]:
    """All of the app's files; of what it and the timer write by themselves, only whose it is."""
    told = app.host.must("find", *PLACES, "-printf", LOOK)
    found = dict(line.split("\t") for line in told.splitlines() if "health" not in line)
    for path, one in found.items():
        if path.endswith(".log") or path in WRITTEN:
            found[path] = " ".join(one.split()[:3])
    return found


def web_unit(app: ServerApp) -> str:
    """The unit of what serves."""
    return app.host.must("sh", "-c", "basename /run/systemd/system/shop-web@*.service").strip()


def test_a_healthy_server_gives_no_alarm(app: ServerApp) -> None:
    """All is well after a deployment, and an hour of runs by the clock, with people at work, complains of nothing."""
    done = app.run("doctor")
    assert (done.status, done.out[:14]) == (0, "✓ all is well:"), done
    app.host.put("/root/hour.py", HOUR)
    with app.under_load():
        told = app.host.must("/opt/bulletproof/engine/current/bin/python", "/root/hour.py", seconds=300).splitlines()
    assert [line for line in told if not line.startswith("ok ")] == []
    assert len(told) == 13
    hour = json.loads(app.run("uptime", "--json", status=0).out)["uptime"]["24 hours"]
    assert (hour["down_seconds"], hour["share"]) == (0, 1.0)
    before = picture(app)
    for verb in ("doctor", "check", "status"):
        app.run(verb, status=0)
    different = changed(before, picture(app))
    assert not different, different


def test_wrong_owners_and_settings_are_mended(app: ServerApp) -> None:
    """Code that the app could change, a log that its writer may not write, data of root's: looking leaves all of it."""
    app.change("env", "set", "FLASK_DEBUG=1", "DATABASE_URL=sqlite:////srv/other.db").must(0, "deployed")
    app.host.must("chown", "www-data:www-data", "/opt/shop/releases")
    app.host.must("chown", "root:root", "/var/log/shop/access.log")
    app.host.must("chmod", "0777", "/var/log/shop")
    app.host.must("chown", "root:root", "/var/lib/shop/app.db", "/var/lib/shop")
    before = picture(app)
    found = app.run("doctor")
    checked = app.run("check", "--only", "database")
    app.run("status")
    different = changed(before, picture(app))
    assert not different, different
    mended = app.run("doctor", "--fix", "--yes")
    assert found.status == 2
    assert "/opt/shop/releases is www-data:www-data 751, and must be root:www-data 751" in found.out
    assert "/var/log/shop is root:root 777, and must be root:root 755" in found.out
    assert "/var/lib/shop is root:root 1770, and must be root:www-data 1770" in found.out
    assert "note: the data were not opened" in found.out
    assert "it was not opened, since /var/lib/shop is root:root 1770" in checked.out
    assert "FLASK_DEBUG is 1 in the settings, which is for development" in found.out
    assert "DATABASE_URL in the settings leads to /srv/other.db, which is not there" in found.out
    assert (mended.status, "mended 1-" in mended.err) == (0, True), mended
    places = (
        "/opt/shop/releases",
        "/var/log/shop",
        "/var/log/shop/access.log",
        "/var/lib/shop",
        "/var/lib/shop/app.db",
    )
    assert app.host.must("stat", "--format=%U:%G %a", *places).splitlines() == [
        "root:www-data 751",
        "root:root 755",
        "bulletproof-proxy:bulletproof-proxy 640",
        "root:www-data 1770",
        "root:www-data 660",
    ]
    with app.under_load():
        assert examined(app) == {}


def test_what_does_not_start_and_what_listens(app: ServerApp) -> None:
    """The reason is of the last start; a package that is gone is built anew; Redis for the whole network is named."""
    argv = ("/usr/bin/python3", "-m", "http.server", "6379", "--directory", "/srv")
    app.host.must("systemd-run", "--unit=a-redis", *argv)
    line = "ModuleNotFoundError: No module named 'mended_long_ago'"
    app.host.must("sh", "-c", f'echo "{line}" >> /var/log/shop/web-$1.log', "sh", web_unit(app).partition("@")[2][:-8])
    app.host.must("sh", "-c", "mv /opt/shop/current/venv/lib/python3*/site-packages/flask /root/flask")
    app.host.must("systemctl", "restart", web_unit(app))
    until(lambda: "auto-restart" in app.host.run("systemctl", "show", "-p", "SubState", web_unit(app)).stdout)
    found = examined(app, "--only", "service", "--only", "packages", "--only", "exposed-ports")
    app.host.must("systemctl", "stop", "a-redis")
    mended = app.run("doctor", "--fix", "--yes")
    assert str(found["service"]["words"]).startswith("the app does not run: it is backing-off")
    assert str(found["service"]["why"]).startswith("the module flask is missing")
    assert found["exposed-ports"]["words"] == "Redis listens on port 6379 of every network"
    assert "http.server 6379" in str(found["exposed-ports"]["why"])
    assert mended.status == 0, mended
    assert examined(app) == {}


def test_a_unit_that_was_edited_is_written_again(app: ServerApp) -> None:
    """The proxy's own and the app's; what systemctl edit laid over one may be meant, and is only told."""
    units, web = "/run/systemd/system", web_unit(app)
    app.host.must("sed", "-i", "s/^ProtectHome=.*/ProtectHome=no/", f"{units}/{web}", f"{units}/shop@proxy.service")
    app.host.must("systemctl", "daemon-reload")
    app.host.put("/etc/systemd/system/shop@relay.service.d/override.conf", "[Service]\nNice=1\n")
    found = app.run("doctor").out
    with app.under_load():
        mended = app.run("doctor", "--fix", "--yes")
    assert f"{units}/{web} is not what would be written: line " in found
    assert "is `ProtectHome=no`, and was `ProtectHome=yes`" in found
    assert "override.conf is laid over shop@relay.service" in found
    assert mended.status == 1, mended
    assert app.host.must("systemctl", "show", "--value", "-p", "ProtectHome", "shop@proxy.service").strip() == "yes"
    assert "systemctl revert shop@relay.service" in mended.out
    app.host.must("rm", "-r", "/etc/systemd/system/shop@relay.service.d")
    assert examined(app) == {}


def test_the_timer_fires(app: ServerApp) -> None:
    """Every minute a line, in which all is well."""
    log, deadline = app.layout.health_log, time.monotonic() + _TIMER_SECONDS
    before = log.read_text().splitlines()
    while len(lines := log.read_text().splitlines()) == len(before):
        assert time.monotonic() < deadline, app.host.run("systemctl", "list-timers", "--all").stdout
        time.sleep(0.5)
    assert "  ok  " in lines[-1], lines
    assert app.run("logs", "health", status=0).out.splitlines()[-1] == lines[-1]
