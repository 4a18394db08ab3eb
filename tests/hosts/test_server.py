"""A server from a fresh Debian: set up by SSH, deployed to under load, kept from its own app, restarted by systemd."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from embedded.places import until
from hosts import lab
from hosts.conftest import NewServer
from hosts.servers import Access, ServerApp, laid, living, new_access, set_up_by_ssh
from live_app import branch

pytestmark = [pytest.mark.skipif(bool(lab.why_not()), reason=lab.why_not()), pytest.mark.xdist_group("hosts")]

_FROM_NOTHING_SECONDS = 600.0
"""What the guide says that a server takes, from a fresh Debian to an app that serves."""
_SAFE = 1.5
"""systemd-analyze security: the most that a unit of ours may be exposed."""


@pytest.fixture(scope="module")
def server(new_server: NewServer, set_up: Path, access: Access) -> Iterator[lab.Server]:
    """A server that was set up."""
    with lab.booted(new_server(set_up)) as booted:
        access.let_in(booted)
        yield booted


@pytest.fixture(scope="module")
def app(server: lab.Server, access: Access, datacharted: Path) -> Iterator[ServerApp]:
    """DataCharted v2 on it."""
    with living(server, access, datacharted) as living_app:
        living_app.deploy("v2")
        yield living_app


def test_a_fresh_debian_serves_within_ten_minutes(new_server: NewServer, access: Access, datacharted: Path) -> None:
    """The two commands of the guide; and the first, again, changes nothing, while it mends what is wrong."""
    with lab.booted(new_server()) as fresh:
        access.let_in(fresh)
        began = time.monotonic()
        first = set_up_by_ssh(fresh, access).stderr
        with living(fresh, access, datacharted) as app:
            app.deploy("v2")
            seconds = time.monotonic() - began
            assert app.version() == "v2"
        again = set_up_by_ssh(fresh, access).stderr
        by_itself = fresh.run("bulletproof", "setup", "--local")
        fresh.must("chmod", "777", "/var/lib/bulletproof-proxy")
        fresh.must("rm", "/etc/logrotate.d/bulletproof-shop")
        fresh.put("/etc/logrotate.d/bulletproof", "")
        mended = set_up_by_ssh(fresh, access).stderr

    assert seconds < _FROM_NOTHING_SECONDS
    assert "make the system user bulletproof-proxy" in first
    assert [line for line in again.splitlines() if line.startswith("  ")] == []
    assert (by_itself.returncode, by_itself.stderr.count("nothing to change")) == (0, 2), by_itself.stderr
    assert [line.strip() for line in mended.splitlines() if line.startswith("  ")] == [
        "give /var/lib/bulletproof-proxy to root with mode 755, not root:root 777",
        "write /etc/logrotate.d/bulletproof-shop",
        "remove /etc/logrotate.d/bulletproof, which named other programs' logs",
    ]


def test_deployments_under_load_lose_nothing(app: ServerApp) -> None:
    """Good ones, a migration, each kind of broken one and a rollback: no request fails, no write is lost."""
    with app.under_load():
        app.change("deploy", "answers-500").must(3, "undone")
        app.change("deploy", "crash-at-boot").must(3, "undone")
        app.change("deploy", "import-error").must(3, "undone")
        app.change("deploy", "migration-fails").must(3, "undone")
        app.change("deploy", "missing-dependency").must(3, "undone")
        assert app.version() == "v2"
        app.deploy("v3")
        assert app.version() == "v3"
        app.change("rollback").must(0, "deployed")
        assert app.version() == "v2"


def test_systemctl_restart_loses_no_request(app: ServerApp) -> None:
    """As the users of the old guide restart their app; and they see what it prints where they look for it."""
    before = len(app.history())
    with app.under_load():
        app.host.must("systemctl", "restart", app.name)

    assert len(app.history()) == before + 1
    assert app.host.must("systemctl", "is-active", app.name).strip() == "active"
    told = app.host.must("journalctl", "--unit", app.name, "--no-pager")
    assert "restarted" in told
    assert "Booting worker" in told


def test_systemctl_stops_and_starts(app: ServerApp) -> None:
    """A stop is one, also after what shows the logs was killed, and a start brings up what was live."""
    shown = ("systemctl", "show", "--property=MainPID,ActiveState", "--value", app.name)
    for killed_by in ("KILL", "TERM"):
        before = app.host.must(*shown)
        app.host.must("systemctl", "kill", f"--signal={killed_by}", app.name)
        until(partial(_is_another_one, app.host, shown, before), "the unit stays down")
    app.host.must("systemctl", "stop", app.name)
    assert not app.is_listening()
    assert app.run("status").out.startswith(f"{app.name} is stopped")
    app.host.must("systemctl", "start", app.name)
    assert app.version() == "v2"


def _is_another_one(host: lab.Server, shown: tuple[str, ...], before: str) -> bool:
    return "\nactive" in (now := host.must(*shown)) and now != before


@pytest.mark.parametrize("step", ["build", "rehearse", "hold", "swap", "gate"])
def test_a_killed_deployment_is_recovered_by_itself(app: ServerApp, step: str) -> None:
    """The deployer is killed on the server in the middle of a migration, and nobody does anything."""
    with app.under_load():
        with app.killed_at(step):
            app.change("deploy", "v4-expand").must(6)
        app.wait_until_whole()
        assert app.version() == "v2"


def test_losing_ssh_stops_watching_and_not_deploying(app: ServerApp) -> None:
    """At ten random moments the connection is cut: each deployment goes on by itself, to its end."""
    chance = random.Random("ssh")
    with app.under_load():
        for number in range(10):
            with app.begun("restart") as command:
                command.read_until("begun")
                time.sleep(chance.uniform(0, 3))
                command.send(signal.SIGKILL if number % 2 else signal.SIGHUP)
            app.host.must("sh", "-c", "kill -9 $(ps -eo pid,args | awk '/sshd: root@notty/ && !/awk/ {print $1}')")
            until(app.is_idle, "the deployment did not end by itself")
            assert app.history()[-1]["outcome"] == "deployed"
    assert app.version() == "v2"


def test_attach_and_abort_find_a_deployment_that_was_left(app: ServerApp) -> None:
    """`--detach` comes back at once; another command watches it from its beginning, another undoes it on purpose."""
    left = app.run("deploy", "v4-expand", "--detach").must(0)
    assert "goes on by itself" in left.err
    aborted = app.run("abort").must(0)
    assert "undone" in aborted.err
    assert app.version() == "v2"
    app.run("restart", "--detach").must(0)
    watched = app.run("attach").must(0)
    assert "preflight" in watched.err
    assert "restarted" in watched.err


def test_a_key_deploys_to_a_server_and_can_do_nothing_else(app: ServerApp, access: Access) -> None:
    """As root, whose forced command it is: no shell, no other verb; and it is told who it was."""
    private = app.run("keys", "add", "ci", "--can", "deploy,status", "--new", status=0).out
    with new_access() as own:
        (own.folder / "key").write_text(private)
        (own.folder / "key.pub").unlink()
        (own.folder / "known_hosts").write_text((access.folder / "known_hosts").read_text())
        ci = replace(app, access=own)
        ci.deploy("v2")
        assert ci.history()[-1]["started_by"].startswith('key "ci" from 10.77.0.2')  # type: ignore[attr-defined]
        refused = ci.run("rollback")
        assert refused.status != 0, refused
        shell = subprocess.run(
            [str(own.folder / "bin" / "ssh"), "far", "touch /root/pwned"], capture_output=True, check=False, timeout=60
        )
        assert shell.returncode != 0
    assert app.host.run("test", "-e", "/root/pwned").returncode != 0
    app.run("keys", "revoke", "ci", status=0)


def test_units_are_sandboxed_and_valid(app: ServerApp) -> None:
    """systemd itself judges them."""
    units = app.host.must("systemctl", "list-units", "--plain", "--no-legend", f"{app.name}-web@*", f"{app.name}@*")
    names = [line.split()[0] for line in units.splitlines() if ".service" in line]
    assert len(names) == 3
    for name in (*names, f"{app.name}.service"):
        told = app.host.must("systemd-analyze", "security", "--no-pager", name).strip().splitlines()[-1]
        assert float(told.split(":")[1].split()[0]) <= _SAFE, told
    # A worker that the kernel kills for want of memory is its master's to replace; systemd would end all of them.
    kept = {app.host.must("systemctl", "show", "--property=OOMPolicy", "--value", name).strip() for name in names}
    assert kept == {"continue"}
    verified = app.host.run("systemd-analyze", "verify", *names, f"{app.name}.service")
    assert (verified.returncode, verified.stderr) == (0, "")


def test_the_app_can_do_what_apps_do_in_its_sandbox(app: ServerApp) -> None:
    """It writes uploads, sends mail and asks other servers; its code it can read and not change."""
    app.configure(app={"persistent": ["uploads"]})
    source = (app.folder / "run.py").read_text()
    branch(app, {"run.py": source + _DOES_THINGS})
    app.deploy()
    app.host.must("systemd-run", "--unit=mail", "--collect", "python3", "-c", _MAIL_SERVER)
    until(_is_there_mail, "no mail server listens")

    status, _, told = app.fetch("/try")

    assert (status, told) == (200, "uploaded, 220 hello, EROFS, EACCES")
    upload = app.layout.data / "uploads" / "a.txt"
    assert upload.read_text() == "a"
    assert (upload.stat().st_uid, upload.stat().st_mode & 0o777) == (33, 0o660)


_DOES_THINGS = """

import errno as _errno
import socket as _socket
import pathlib as _pathlib

def _failing(act):
    try:
        act()
    except OSError as error:
        return _errno.errorcode[error.errno]
    return "nothing"


@app.route("/try")
def try_things():
    here = _pathlib.Path(__file__).parent
    (here / "uploads" / "a.txt").write_text("a")
    with _socket.create_connection(("127.0.0.1", 2525), timeout=5) as mail:
        hello = mail.recv(100).decode().strip()
    code = _failing(lambda: (here / "run.py").write_text("pwned"))
    secrets = _failing(lambda: _pathlib.Path("/var/lib/bulletproof/shop/journal.db").read_bytes())
    return f"uploaded, {hello}, {code}, {secrets}"
"""
_MAIL_SERVER = """
import socket
server = socket.create_server(("127.0.0.1", 2525))
while True:
    client, _ = server.accept()
    with client:
        client.sendall(b"220 hello\\r\\n")
"""


def test_nothing_of_the_apps_runs_as_root(app: ServerApp) -> None:
    """Neither what its packages do when they are built, nor migrations, nor workers and timers, nor commands."""
    app.configure(
        app={"persistent": ["uploads"]},
        **{
            "workers.idle": {"command": "sh -c 'id -un > uploads/worker; exec sleep 1000'"},
            "timers.tick": {"schedule": "* * * * *", "command": "sh -c 'id -un > uploads/timer'"},
        },
    )
    migration = (app.folder / "migrations" / "env.py").read_text()
    branch(
        app,
        {
            "setup.py": _SETUP,
            "pyproject.toml": _PYPROJECT,
            "helpers/shop_helpers/__init__.py": "",
            "migrations/env.py": f"{_NOT_ROOT}{migration}",
        },
    )
    app.deploy()
    assert app.run("run", "--", "id", "-un", status=0).out.strip() == "www-data"
    uploads = app.layout.data / "uploads"
    assert until(lambda: _written(uploads / "worker"), "the worker does not run") == "www-data"
    app.host.must("systemctl", "start", f"{app.name}-timer@{_number(app)}-tick.service")
    assert until(lambda: _written(uploads / "timer"), "the timer does not run") == "www-data"


def _written(file: Path) -> str:
    """What a shell wrote there: it makes the file before the command in front of `>` has begun."""
    return file.read_text().strip() if file.exists() else ""


def _number(app: ServerApp) -> int:
    return max(app.numbers()["sockets"])


_NOT_ROOT = "import os\nassert os.getuid() != 0, 'this runs as root'\n"
_SETUP = f"{_NOT_ROOT}from setuptools import setup\nsetup()\n"
_PYPROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "shop-helpers"
version = "1.0"

[tool.setuptools]
packages = ["shop_helpers"]
package-dir = {shop_helpers = "helpers/shop_helpers"}
"""


def test_a_domain_is_enough_for_https(app: ServerApp) -> None:
    """On the usual ports, by a proxy that is not root; plain requests are sent on."""
    app.configure(proxy={"domain": "shop.test", "certificates": "internal"})
    app.deploy("--worktree")
    assert _secure(app, " %{http_version} %{http_code}").endswith(" 2 200")
    moved = app.host.must("curl", "-s", "-H", "Host: shop.test", "-w", "%{redirect_url}", "http://127.0.0.1/up")
    assert moved == "https://shop.test/up"
    assert app.run("check", "--only", "public", "--only", "response").status in {0, 1}


def _secure(app: ServerApp, told: str = " %{http_code}") -> str:
    """What a user of the domain is told, and of it what curl says by that format."""
    curl = ("curl", "-sk", "--resolve", "shop.test:443:127.0.0.1", "-w", told)
    return app.host.must(*curl, "https://shop.test/up")


def test_logs_are_rotated_and_written_on(app: ServerApp) -> None:
    """By Debian's logrotate, while the app and the proxy have them open, and beside another server's rule."""
    app.host.put("/var/log/apache2/access.log", "theirs")
    app.host.put("/etc/logrotate.d/apache2", "/var/log/apache2/*.log {\n  rotate 1\n}\n")
    app.host.must("logrotate", "--force", "/etc/logrotate.conf")
    assert (app.host.memory / "var/log/apache2/access.log.1").exists()
    assert app.layout.access_log.stat().st_size == 0
    assert app.layout.access_log.with_name("access.log.1").stat().st_size > 0
    _secure(app)
    until(lambda: app.layout.access_log.stat().st_size > 0, "the access log is not written on")


def _is_there_mail() -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", 2525)) == 0


def _as_app(app: ServerApp, script: str) -> tuple[int, str]:
    """Run a shell script as the app's user, outside its sandbox: what an attacker may do who broke out of that."""
    done = app.host.run("setpriv", "--reuid=www-data", "--regid=www-data", "--clear-groups", "sh", "-c", script)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "script",
    [
        "echo pwned > /opt/shop/current/source/run.py",
        "touch /opt/shop/current/source/new.py",
        "rm /opt/shop/current",
        "mv /var/lib/shop/app.db /var/lib/shop/other.db",
        "rm -f /var/lib/shop/app.db",
        "mv /var/lib/shop /var/lib/shop2",
        "ln -sf /etc/shadow /run/bulletproof/shop/app.sock",
        "ls /var/lib/bulletproof",
        "cat /etc/bulletproof/shop/env.json",
        "ls /var/lib/bulletproof-proxy/shop",
        "echo > /var/log/shop/deployment.log",
        "cat /var/log/shop/access.log",
    ],
)
def test_the_apps_user_cannot(app: ServerApp, script: str) -> None:
    """Write code, exchange the database, read other's secrets, nor change what the switch leads to."""
    status, said = _as_app(app, script)
    assert status != 0
    assert "ermission denied" in said or "not permitted" in said, said


def test_a_second_app_has_a_user_of_its_own(app: ServerApp, access: Access, datacharted: Path) -> None:
    """With the first one's it would see that one's settings, so it is refused; neither reads the other's data."""
    with laid(app.host, access, datacharted, name="blog") as blog:
        app.host.put("/etc/systemd/system/blog.service", "[Service]\nExecStart=/usr/bin/true\n")
        app.host.must("systemctl", "daemon-reload")
        assert "unit-foreign" in blog.run("deploy", "v2", status=1).err
        app.host.must("rm", "/etc/systemd/system/blog.service")
        app.host.must("systemctl", "daemon-reload")
        refused = blog.change("deploy", "v2")
        assert (refused.status, refused.reference) == (1, "permissions-wrong")
        assert "shop runs as www-data as well" in refused.err + refused.out
        blog.configure(app={"user": "blog"})
        missing = blog.change("deploy", "--worktree")
        assert missing.status == 1
        assert "user-missing" in missing.out + missing.err
        with app.host.network():
            set_up_by_ssh(app.host, access, "--user", "blog")
        blog.deploy("--worktree")
        assert blog.version() == "v2"
        assert _secure(app).endswith(" 200")
        blog.configure(app={"user": "www-data"})
        changed = blog.change("deploy", "--worktree")
        assert (changed.status, changed.reference) == (1, "user-changed")
        assert blog.version() == "v2"
        told = app.host.must("ps", "-eo", "user:20,args")
        assert "blog " in told
        status, said = _as_app(app, "cat /var/lib/blog/app.db")
        assert status != 0
        assert "ermission denied" in said
        blog.run("destroy", "--yes", status=0)


def test_root_follows_no_link_that_the_app_lays(app: ServerApp) -> None:
    """Among uploads, in a backup: what only root can read does not come into it."""
    app.host.put("/etc/secret", "canary-7f3a", mode=0o600)
    status, said = _as_app(app, "ln -sf /etc/secret /var/lib/shop/uploads/leak; mkdir -p /var/lib/shop/uploads/d")
    assert status == 0, said
    app.run("backup", "create", status=0)
    newest = max(app.layout.backups.iterdir(), key=lambda path: int(path.name[1:]))
    assert b"canary-7f3a" not in b"".join(file.read_bytes() for file in newest.iterdir())
