"""More apps on one server: one of uploads and websockets; a hostile one, damaged files, names and disks of others."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

import workshop
from embedded.places import until
from hosts import lab
from hosts.conftest import NewServer
from hosts.servers import Access, ServerApp, living
from public_site import APP, MIGRATION, WebSocket

pytestmark = [pytest.mark.skipif(bool(lab.why_not()), reason=lab.why_not()), pytest.mark.xdist_group("hosts")]


@pytest.fixture(scope="module")
def server(new_server: NewServer, set_up: Path, access: Access) -> Iterator[lab.Server]:
    """A server that was set up, for apps of a user of their own."""
    with lab.booted(new_server(set_up)) as booted:
        access.let_in(booted)
        for user in ("blog", "desk", "talk"):
            booted.must("bulletproof", "setup", "--local", "--user", user)
        yield booted


@pytest.fixture(scope="module")
def app(server: lab.Server, access: Access, datacharted: Path) -> Iterator[ServerApp]:
    """DataCharted v2 on it, which does not run as www-data."""
    with living(server, access, datacharted, name="blog", user="blog") as living_app:
        living_app.deploy("v2")
        yield living_app


def test_an_upload_and_websockets_outlast_a_cutover_and_a_hold(
    server: lab.Server, access: Access, talking: Path
) -> None:
    """100 MiB by a client that is slow: stored whole, and once. A websocket is told goodbye, and what is waited for."""
    with living(server, access, talking, name="talk", user="talk") as talk, ThreadPoolExecutor() as pool:
        talk.configure(app={"server": "uvicorn"}, drain={"seconds": 8}, migrations={"command": "python migrate.py"})
        talk.deploy("--worktree")
        for way in ("cutover", "hold"):
            before = talk.fetch("/")[2]
            if way == "hold":
                workshop.commit(talk.folder, {"migrate.py": _MIGRATE.format("later")}, "A table")
            reached = threading.Event()
            with _websocket(talk) as socket:
                assert socket.echo("a") == f"{before} a"
                upload = pool.submit(_upload, talk, way, reached.wait)
                until(partial(_is_begun, talk, way, upload), "the upload does not reach the app", seconds=100)
                with talk.begun("deploy", "--worktree") as deploying:
                    assert deploying.read_until("step-started" if way == "hold" else "step-done", way)
                    assert way == "hold" or socket.echo("b") == f"{before} b"
                    reached.set()
                    assert socket.read() == ""
                    ended = deploying.end().must(0, "deployed")
            assert upload.result() == (201, f"{way} {_SIZE} by {before}")
            assert _stored(talk, way) == (1, 0)
            after = talk.fetch("/")[2]
            assert int(after) > int(before)
            if way == "cutover":
                assert "to the old release to end, at most 8 s" in ended.note("verify")
                assert "1 connection open after 8 s, such as websockets" in ended.note("drain")
            with _websocket(talk) as socket:
                assert socket.echo("c") == f"{after} c"


_SIZE = 100 << 20
_MIGRATE = MIGRATION.replace("{table}", "{0}")
_TALKING = (
    APP
    + """

import contextlib, hashlib


@contextlib.contextmanager
def stored():
    connection = sqlite3.connect(os.environ["DATABASE_URL"].removeprefix("sqlite:///"), timeout=30)
    with contextlib.closing(connection), connection:
        connection.execute("CREATE TABLE IF NOT EXISTS upload (token, size, state)")
        yield connection


async def look(scope, receive, send):
    status, words, token = 200, RELEASE, scope["path"].removeprefix("/upload/")
    if scope["method"] == "POST":
        with stored() as table:
            table.execute("INSERT INTO upload VALUES (?, 0, 'begun')", [token])
        size = await received(receive)
        if size is None:
            return
        with stored() as table:
            table.execute("UPDATE upload SET size = ?, state = 'done' WHERE token = ?", [size, token])
        status, words = 201, f"{token} {size} by {RELEASE}"
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": words.encode()})
"""
)


@pytest.fixture(scope="module")
def talking() -> Iterator[Path]:
    """An ASGI app that echoes, and takes uploads into its database."""
    with tempfile.TemporaryDirectory(prefix="bp-talking-") as folder:
        place = Path(folder, "app")
        files = {"app.py": _TALKING, "requirements.txt": "uvicorn\nwebsockets\n", "migrate.py": _MIGRATE.format("one")}
        place.mkdir()
        workshop.git(place, "init", "--quiet")
        workshop.commit(place, files)
        yield place


@contextlib.contextmanager
def _websocket(app: ServerApp) -> Iterator[WebSocket]:
    port = int(app.layout.port.read_text())
    with socket.create_connection(("127.0.0.1", port), 60) as stream:
        yield WebSocket(stream, f"127.0.0.1:{port}")


def _upload(app: ServerApp, token: str, wait: Callable[[float], bool]) -> tuple[int, str]:
    """All of it, the second half only when `wait` comes back, and that slowly."""

    def body() -> Iterator[bytes]:
        for number in range(100):
            if number == 50:
                assert wait(120)
            time.sleep(0.02 if number > 50 else 0)
            yield bytes(_SIZE // 100)

    with app.host.network():  # a thread of its own
        connection = http.client.HTTPConnection("127.0.0.1", int(app.layout.port.read_text()), timeout=120)
        with contextlib.closing(connection):
            connection.request("POST", f"/upload/{token}", body(), {"Content-Length": str(_SIZE)})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()


def _is_begun(app: ServerApp, token: str, upload: Future[tuple[int, str]]) -> bool:
    assert not upload.done(), f"the upload is over: {upload.exception() or upload.result()}\n{app.diaries()}"
    return _stored(app, token) == (0, 1)


def _stored(app: ServerApp, token: str) -> tuple[int, int]:
    """How many uploads of that name are in the database whole, and how many not."""
    whole = f"SELECT coalesce(sum(size = {_SIZE}), 0), coalesce(sum(state = 'begun'), 0) FROM upload"
    words = ("sqlite3", "-readonly", f"/var/lib/{app.name}/app.db", f"{whole} WHERE token = '{token}'")
    good, bad = (app.host.run(*words).stdout.strip() or "0|0").split("|")
    return int(good), int(bad)


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


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_a_certificate_of_ones_own_is_read_by_the_proxy_and_again_when_it_was_renewed(app: ServerApp) -> None:
    """One that only root can read is refused before anything changes; a restart is enough after it was replaced."""
    app.configure(proxy={"domain": "blog.test", "certificate": "/etc/ssl/own.pem", "key": "/etc/ssl/own.key"})
    first = _lay_certificate(app.host, key_mode=0o600)
    refused = app.change("deploy", "--worktree").must(1, "refused")
    assert (refused.reference, "Permission denied" in refused.out) == ("certificate-unreadable", True)
    app.host.must("chgrp", "bulletproof-proxy", "/etc/ssl/own.key")
    app.host.must("chmod", "640", "/etc/ssl/own.key")
    app.deploy("--worktree")
    assert _shown_certificate() == first
    assert app.change("restart").must(0).note("proxy") == ""
    second = _lay_certificate(app.host, key_mode=0o644)
    assert app.change("restart").must(0).note("proxy") == "the renewed certificate is in use"
    assert _shown_certificate() == second


def _lay_certificate(server: lab.Server, key_mode: int) -> bytes:
    """A new certificate and its key, as DER."""
    with tempfile.TemporaryDirectory(prefix="bp-certificate-") as folder:
        place = Path(folder)
        made = ("-keyout", str(place / "own.key"), "-out", str(place / "own.pem"), "-days", "30")
        names = ("-subj", "/CN=blog.test", "-addext", "subjectAltName=DNS:blog.test")
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        subprocess.run(["openssl", "req", "-x509", *curve, *names, *made], check=True, capture_output=True)
        server.put("/etc/ssl/own.key", (place / "own.key").read_text(), mode=key_mode)
        server.put("/etc/ssl/own.pem", text := (place / "own.pem").read_text())
    return ssl.PEM_cert_to_DER_cert(text)


def _shown_certificate() -> bytes | None:
    """What people are shown."""
    context = ssl._create_unverified_context()  # noqa: S323  it is what is looked at
    with (
        socket.create_connection(("127.0.0.1", 443), 60) as plain,
        context.wrap_socket(plain, server_hostname="blog.test") as secure,
    ):
        return secure.getpeercert(binary_form=True)
