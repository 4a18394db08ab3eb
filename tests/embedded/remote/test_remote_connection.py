"""A host is reached by the person's own ssh, or it is told in words why it is not."""

from __future__ import annotations

import getpass
import json
import subprocess

import pytest

from bulletproof.cli.client import Client, as_word
from bulletproof.domain.errand import CLIENT
from free_ports import free_port
from remote_host import ENGINE, FarApp, know

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("remote")]


@pytest.mark.parametrize("key", ["other_key", None])
def test_a_host_whose_key_is_not_known_is_never_taken(app: FarApp, key: str | None) -> None:
    """Another key, or none that is known: refused in words, nothing accepted, no command given to the host."""
    host = app.host
    assert host is not None
    host.forget_connections()
    before = host.commands()
    if key:
        know(host, key)
    else:
        host.known_hosts.write_text("")
    known = host.known_hosts.read_text()
    try:
        done = app.change("restart")
        assert host.known_hosts.read_text() == known
    finally:
        know(host, "host_key")

    assert (done.status, done.reference) == (1, "host-key-changed" if key else "host-key-unknown")
    assert host.commands() == before


def test_a_name_of_the_configuration_leads_to_its_host(app: FarApp) -> None:
    """`[hosts]` gives user, host and port; hints say the name."""
    assert app.host is not None
    app.configure(hosts={"prod": f"{getpass.getuser()}@127.0.0.1:{app.host.port}"})
    try:
        found = app.run("status", "--json", "--to", "prod", status=0)
        refused = app.run("abort", "--to", "prod", status=1)
    finally:
        app.configure()

    assert json.loads(found.out)["app"] == app.name
    assert "hint: bulletproof --to prod status" in refused.err


def test_a_host_that_cannot_be_reached_is_told(app: FarApp) -> None:
    """With what ssh said, and what to try."""
    done = app.run("status", "--to", f"127.0.0.1:{free_port()}")

    assert done.status == 1
    assert "host-unreachable" in done.err
    assert "Connection refused" in done.err
    assert "hint: ssh -p" in done.err


def test_a_host_that_does_not_let_us_in_is_told(app: FarApp) -> None:
    """A key that it does not know."""
    assert app.host is not None
    app.host.forget_connections()
    keys = app.host.folder / "authorized_keys"
    content = keys.read_text()
    keys.write_text("")
    try:
        done = app.run("status")
    finally:
        keys.write_text(content)

    assert done.status == 1
    assert "ssh-refused" in done.err


def test_a_host_without_an_engine_says_what_helps(app: FarApp) -> None:
    """It was never set up."""
    assert app.host is not None
    link = app.host.home / ENGINE / "current"
    target = link.readlink()
    link.unlink()
    try:
        done = app.run("restart")
    finally:
        link.symlink_to(target)

    assert done.status == 1
    assert "engine-missing" in done.err
    assert "hint: bulletproof setup --to far" in done.err


def test_a_client_that_does_not_fit_is_sent_back(app: FarApp) -> None:
    """An engine does nothing for a command line of another generation."""
    assert app.host is not None
    client = as_word(Client(version="99.0.0", host="far"))
    argv = [*app.host.prefix, "ssh", "far", f"env {CLIENT}={client} {ENGINE}/current/bin/bulletproof restart"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL)

    assert done.returncode == 2
    assert "engine-older" in done.stderr
    assert "hint: bulletproof --to far setup" in done.stderr
