"""The power comes back in any state: what served before serves again, without a person, and no write is lost.

The power is cut for real: what was not synced is lost, as on a machine whose plug is pulled.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bulletproof.demo.ledger import duplicated_writes, lost_writes
from bulletproof.demo.traffic import Traffic
from hosts import lab
from hosts.conftest import NewServer
from hosts.servers import Access, ServerApp, laid
from live_app import LASTING, Done

pytestmark = [pytest.mark.skipif(bool(lab.why_not()), reason=lab.why_not()), pytest.mark.xdist_group("hosts")]

_CUTS = int(os.environ.get("BULLETPROOF_POWER_CUTS", "4"))
"""How often the power is cut in the middle of a deployment; 50 by `make power-cuts`."""
_BOOT_SECONDS = 60.0
_LONGEST_DEPLOYMENT_SECONDS = 9.0


@pytest.fixture(scope="module")
def server(new_server: NewServer, set_up: Path, access: Access) -> Iterator[lab.Server]:
    """A server that was set up, on a disk of its own."""
    with lab.booted(new_server(set_up, disk_mib=4096)) as booted:
        access.let_in(booted)
        yield booted


@pytest.fixture(scope="module")
def app(server: lab.Server, access: Access, datacharted: Path) -> Iterator[ServerApp]:
    """DataCharted v2 on it; whoever asks it enters the network of the server that runs then."""
    with laid(server, access, datacharted) as laid_app:
        with server.network():
            laid_app.deploy("v2")
        yield laid_app


def _wait_until_serving(app: ServerApp) -> float:
    """How long after the boot the app served."""
    began = time.monotonic()
    while True:
        try:
            app.version()
        except (OSError, AssertionError):
            assert time.monotonic() - began < _BOOT_SECONDS, app.host.run("journalctl", "--boot", "--no-pager").stdout
            time.sleep(0.1)
        else:
            return time.monotonic() - began


def test_a_reboot_brings_back_what_served(app: ServerApp) -> None:
    """In order: shut down, booted, and `systemctl` knows it."""
    app.host.power_off()
    app.host.boot()
    with app.host.network():
        _wait_until_serving(app)
        assert app.version() == "v2"
    assert app.host.must("systemctl", "is-active", "--wait", app.name).strip() == "active"


def test_what_a_person_stopped_stays_stopped(app: ServerApp) -> None:
    """Until it is started."""
    app.host.must("systemctl", "stop", app.name)
    app.host.power_off()
    app.host.boot()
    with app.host.network():
        assert not app.is_listening()
    app.host.must("systemctl", "start", app.name)
    with app.host.network():
        assert app.version() == "v2"


@pytest.mark.parametrize("revision", ["answers-500", "crash-at-boot", "import-error", "missing-dependency"])
def test_a_reboot_after_a_broken_version_serves_the_one_before(app: ServerApp, revision: str) -> None:
    """What was rejected is never brought up."""
    with app.host.network():
        app.change("deploy", revision).must(3, "undone")
    app.host.kill()
    app.host.boot()
    with app.host.network():
        _wait_until_serving(app)
        assert app.version() == "v2"


@pytest.mark.parametrize("step", ["migrate", "swap", "start"])
def test_a_reboot_after_a_kill_serves_the_one_before(app: ServerApp, step: str) -> None:
    """The deployer is killed in the middle of a migration, and all else an instant later, whoever recovers then."""
    with app.host.network(), app.killed_at(step):
        app.change("deploy", "v3")
    app.host.kill()
    app.host.boot()
    with app.host.network():
        _wait_until_serving(app)
        assert app.version() == "v2"


@pytest.mark.parametrize("cut", range(_CUTS))
def test_power_cut_in_the_middle_of_a_migration(app: ServerApp, cut: int) -> None:
    """At a random moment, under load: entirely old or entirely new, and every acknowledged write is there."""
    moment = random.Random(f"power {cut}").uniform(0.3, _LONGEST_DEPLOYMENT_SECONDS)
    revision = "v3" if cut % 2 == 0 else "v4-expand"
    with app.host.network():
        before = app.version()
        with (
            Traffic.start(app.address, app.folder.parent, LASTING) as traffic,
            app.begun("deploy", revision) as command,
        ):
            time.sleep(moment)
            app.host.cut_power()
            tokens = traffic.acknowledged()
            command.process.kill()
        app.host.boot()
    with app.host.network():
        _wait_until_serving(app)
        after = app.version()
        whole = app.wait_until_whole()
        assert after in {before, {"v3": "v3", "v4-expand": "v4-expand"}[revision]}
        assert whole["serving"], whole
        assert not lost_writes(tokens, app.database), f"cut after {moment:.2f} s"
        assert not duplicated_writes(tokens, app.database)
        _go_back(app)


def _go_back(app: ServerApp) -> Done | None:
    """To v2, whatever a person has to say for it."""
    if app.version() == "v2":
        return None
    return app.change("rollback", "--allow-data-loss").must(0, "deployed")
