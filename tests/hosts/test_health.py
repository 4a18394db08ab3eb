"""A server's health: the checks by the clock, and a doctor that mends owners and units."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

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


def examined(app: ServerApp, *words: str) -> dict[str, Event]:
    """What `doctor` tells of each thing that is wrong."""
    done = app.run("doctor", "--json", *words)
    assert done.out, done
    return {one["name"]: one for one in json.loads(done.out)["diagnoses"]}


def test_a_healthy_server_gives_no_alarm(app: ServerApp) -> None:
    """All is well after a deployment."""
    done = app.run("doctor")
    assert (done.status, done.out[:14]) == (0, "✓ all is well:"), done


def test_wrong_owners_are_mended(app: ServerApp) -> None:
    """Code that the app could change, a log that its writer may not write; and data, which any verb takes back."""
    app.host.must("chown", "www-data:www-data", "/opt/shop/releases")
    app.host.must("chown", "root:root", "/var/log/shop/access.log")
    app.host.must("chmod", "0777", "/var/log/shop")
    app.host.must("chown", "root:root", "/var/lib/shop/app.db", "/var/lib/shop")
    found = app.run("doctor")
    mended = app.run("doctor", "--fix", "--yes")
    assert found.status == 2
    assert "/opt/shop/releases is www-data:www-data 751, and must be root:www-data 751" in found.out
    assert "/var/log/shop is root:root 777, and must be root:root 755" in found.out
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
        time.sleep(2)


def test_a_unit_that_was_edited_is_written_again(app: ServerApp) -> None:
    """The proxy's own and the app's; what systemctl edit laid over one may be meant, and is only told."""
    units = "/run/systemd/system"
    web = app.host.must("sh", "-c", f"basename {units}/shop-web@*.service").strip()
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
