"""A server on which things are not as they should be: a hostile app, damaged files, names and disks that are taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts import lab
from hosts.conftest import NewServer
from hosts.servers import Access, ServerApp, living

pytestmark = [pytest.mark.skipif(bool(lab.why_not()), reason=lab.why_not()), pytest.mark.xdist_group("hosts")]


@pytest.fixture(scope="module")
def server(new_server: NewServer, set_up: Path, access: Access) -> Iterator[lab.Server]:
    """A server that was set up, for apps of a user of their own."""
    with lab.booted(new_server(set_up)) as booted:
        access.let_in(booted)
        for user in ("blog", "desk"):
            booted.must("bulletproof", "setup", "--local", "--user", user)
        yield booted


@pytest.fixture(scope="module")
def app(server: lab.Server, access: Access, datacharted: Path) -> Iterator[ServerApp]:
    """DataCharted v2 on it, which does not run as www-data."""
    with living(server, access, datacharted, name="blog", user="blog") as living_app:
        living_app.deploy("v2")
        yield living_app


@pytest.mark.parametrize(
    ("name", "user", "reference"),
    [("apt", "desk", "place-taken"), ("private", "desk", "place-taken"), ("desk", "bulletproof-proxy", "user-is-ours")],
)
def test_what_is_another_programs_is_not_taken(
    server: lab.Server, access: Access, datacharted: Path, name: str, user: str, reference: str
) -> None:
    """Neither by a name that is that of a program's folder, nor by our own users."""
    server.must("mkdir", "-p", "/var/lib/private/systemd")
    folders = ("stat", "-c", "%U:%G %a %n", "/var/lib/apt", "/var/log/apt", "/var/lib/private", "/var/log/private")
    before = server.must(*folders)
    with living(server, access, datacharted, name=name, user=user) as odd:
        assert odd.change("deploy", "--worktree").must(1).reference == reference
    assert server.must(*folders) == before


def test_a_damaged_release_hands_its_data_to_nobody_else(app: ServerApp) -> None:
    """Verbs that find no configuration of what is live leave its data its user's, and tell what is wrong."""
    whose = ("sh", "-c", "stat -c '%U:%G %a %n' /opt/blog /opt/blog/releases /var/lib/blog /var/lib/blog/*")
    before = app.host.must(*whose)
    (record,) = app.layout.releases.glob("*/release.json")
    text = record.read_text()
    record.write_text("")
    try:
        assert "serves" in app.host.must("bulletproof", "status", "--app", app.name)
        assert app.change("restart").must(1).reference == "release-damaged"
        assert "release.json cannot be read" in app.host.run("bulletproof", "doctor", "--app", app.name).stdout
        assert app.host.must(*whose) == before
    finally:
        record.write_text(text)


def test_an_app_cannot_keep_us_from_stopping_it(app: ServerApp) -> None:
    """By what it lays beside its database: links, pipes, another name for the database itself."""
    script = f"cd {_DATA}; ln -s /etc/shadow app.db-journal; ln app.db twice; mkfifo pipe; ls -l"
    done = app.host.run(
        "setpriv", "--reuid=blog", "--regid=blog", "--clear-groups", "sh", "-ec", f"cd {_DATA}; {script}"
    )
    assert done.returncode == 0, done
    shadow = app.host.must("stat", "-c", "%U:%G %a", "/etc/shadow")
    app.host.must("systemctl", "stop", app.name)
    assert not app.is_listening()
    app.host.must("systemctl", "start", app.name)
    assert app.version() == "v2"
    assert app.host.must("stat", "-c", "%U:%G %a", "/etc/shadow") == shadow
    assert [file.name for file in app.layout.data.glob("app.db-journal*") if file.name != "app.db-journal"]


_DATA = "/var/lib/blog"


def test_an_app_whose_data_are_a_disk_of_their_own_is_destroyed(
    server: lab.Server, access: Access, datacharted: Path
) -> None:
    """The data stay on it, out of the way; a new app of that name begins with none."""
    server.must("mkdir", "-p", "/var/lib/desk")
    server.must("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/var/lib/desk")
    with living(server, access, datacharted, name="desk", user="desk") as desk:
        desk.deploy("v2")
        desk.run("destroy", "--yes", status=0)
        assert "/app.db" in server.must("sh", "-c", "ls /var/lib/desk/set-aside-*/app.db")
        desk.deploy("v2")
        desk.run("destroy", "--yes", status=0)
    assert len(server.must("sh", "-c", "ls -d /var/lib/desk/*").split()) == 2
