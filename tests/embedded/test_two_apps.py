"""Two apps below one root, each with its own port, supervisor and proxy: neither notices what happens to the other."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from live_app import LiveApp, new_app, remove_sealed

pytestmark = [pytest.mark.xdist_group("two-apps"), pytest.mark.timeout(600)]


@pytest.fixture
def pair(house: Path, project: Path) -> Iterator[tuple[LiveApp, LiveApp]]:
    """Two apps whose configurations say nothing of ports."""
    with ExitStack() as ends:
        apps = [new_app(house / "root", project, f"pair-{secrets.token_hex(2)}") for _ in range(2)]
        for app in apps:
            ends.callback(app.end)
        yield apps[0], apps[1]
        for app in apps:
            for aside in app.layout.set_aside.glob(f"{app.name}-*"):
                remove_sealed(aside)


def test_each_has_a_port_of_its_own_and_its_own_life(pair: tuple[LiveApp, LiveApp]) -> None:
    """Ports are chosen, shown and kept; one is deployed, crashed, stopped, started and removed beside the other."""
    one, other = pair
    assert "serving at http://127.0.0.1:" in one.run("deploy", "v1", status=0).err
    with one.under_load() as traffic:
        told = other.run("deploy", "v1", status=0)
        address = other.address
        assert address != one.address
        assert f"serving at {address}\n" in told.err
        assert f"serves {other.status()['serving']} at {address}\n" in other.run("status", status=0).out
        assert not {path.pid for path in one.processes()} & {path.pid for path in other.processes()}

        other.deploy("v2")
        other.kill_all()
        other.run("start", status=0)
        other.run("stop", status=0)
        assert not other.is_listening()
        other.run("start", status=0)
        assert (other.address, other.version()) == (address, "v2")
        other.run("destroy", "--yes", status=0)
        assert other.run("status").status == 2
        assert set(traffic.report(traffic.began).versions) == {"v1"}

    assert one.status()["serving"] == one.history()[-1]["release"]
