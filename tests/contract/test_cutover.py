"""The cutover and the hold under load: real Caddy before gunicorn and uvicorn, not one request may fail."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import fcntl
import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bulletproof.adapters.caddy import CaddyProxy
from bulletproof.domain.config import Proxy
from bulletproof.domain.process import ProcessSpec
from bulletproof.domain.public import Public
from bulletproof.effects import probe, route
from embedded.places import Place, new_place, until
from free_ports import free_port

PACKAGES = ("flask", "gunicorn", "uvicorn", "uvicorn-worker")
SLOW_SECONDS = 1.0
PAUSE_SECONDS = 0.003
"""Between two requests of a client, so that on two cores the servers get a turn as well."""

WSGI_APP = """
import os, time
from flask import Flask, jsonify, request
from werkzeug.middleware.proxy_fix import ProxyFix

app = Flask(__name__)
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)
ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@app.get("/up")
def up():
    time.sleep(float(request.args.get("seconds", "0")))
    return jsonify(number=os.environ["NUMBER"], address=request.remote_addr, url=request.url_root)

@app.post("/write/<word>")
def write(word):
    size = len(request.get_data())
    os.write(ledger, f"{word}\\n".encode())
    return jsonify(number=os.environ["NUMBER"], size=size)
"""

ASGI_APP = """
import asyncio, json, os, urllib.parse
ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("this app has no lifespan")
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    said = {"number": os.environ["NUMBER"], "size": size}
    if scope["path"].startswith("/write/"):
        os.write(ledger, scope["path"].removeprefix("/write/").encode() + b"\\n")
    else:
        query = urllib.parse.parse_qs(scope["query_string"].decode())
        await asyncio.sleep(float(query.get("seconds", ["0"])[0]))
        host = dict(scope["headers"])[b"host"].decode()
        said |= {"address": scope["client"] and scope["client"][0], "url": f"{scope['scheme']}://{host}/"}
    body = json.dumps(said).encode()
    length = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": body})
"""

GUNICORN = ("gunicorn", "--workers", "2", "--graceful-timeout", "20", "--no-control-socket", "--bind", "unix:{socket}")
SERVERS = {
    "sync": (*GUNICORN, "wsgi:app"),
    "gthread": (*GUNICORN, "--threads", "4", "wsgi:app"),
    "uvicorn": (
        *("uvicorn", "--workers", "2", "--no-access-log", "--lifespan", "off", "--proxy-headers"),
        *("--forwarded-allow-ips", "*", "--uds", "{socket}", "asgi:app"),
    ),
    "uvicorn-worker": (
        *GUNICORN,
        *("--forwarded-allow-ips", "*", "--worker-class", "uvicorn_worker.UvicornWorker", "asgi:app"),
    ),
}


@pytest.fixture(scope="session")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the servers, made once for all workers of a test run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "servers"
    uv = Path(sys.executable).parent / "uv"
    with (shared / "servers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "bin" / "gunicorn").exists():
            subprocess.run((uv, "venv", "--quiet", "--python", sys.executable, folder), check=True)
            install = (uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python", *PACKAGES)
            subprocess.run(install, check=True)
    return folder


def ask(port: int, path: str, body: bytes | None = None) -> dict[str, str]:
    """One request on a connection of its own; what the app says. Raises whatever goes wrong."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        return ask_on(connection, path, body)


def ask_on(connection: http.client.HTTPConnection, path: str, body: bytes | None = None) -> dict[str, str]:
    """One request on a connection that may be kept."""
    connection.request("GET" if body is None else "POST", path, body, {"Host": "shop.example"})
    response = connection.getresponse()
    said = response.read()
    if response.status != 200:
        raise ConnectionError(f"{response.status} {said[:200]!r}")
    answer: dict[str, str] = json.loads(said)
    return answer


class Host:
    """A proxy, its relay with the listener that is kept here, and instances of an app by number."""

    def __init__(self, place: Place, venv: Path, server: str) -> None:
        self._layout = place.layout()
        self._venv = venv
        self._server = SERVERS[server]
        self._place = place
        self._processes: list[subprocess.Popen[bytes]] = []
        self.ledger = place.file("ledger")
        self.proxy = CaddyProxy(self._layout, Proxy(port=free_port()))
        place.file("wsgi.py").write_text(WSGI_APP)
        place.file("asgi.py").write_text(ASGI_APP)
        self.listener = socket.socket(socket.AF_UNIX)
        self.caddy = self.run(self.proxy.process())
        self.listener.bind(str(self._layout.hold_socket))
        self.listener.listen(4096)
        self.relay = self.run_relay()
        until(self.proxy.is_listening)

    @property
    def port(self) -> int:
        """Where the proxy listens."""
        return self.proxy.port()

    def run_relay(self) -> subprocess.Popen[bytes]:
        """Start the relay with the listener as descriptor 3."""
        pass_it = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execv(sys.argv[2], sys.argv[2:])"
        self.relay = self.run(self.proxy.relay(), (sys.executable, "-c", pass_it, str(self.listener.fileno())))
        return self.relay

    def run(self, spec: ProcessSpec, launcher: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """Start a process as a supervisor would."""
        kept = (self.listener.fileno(),) if launcher else ()
        environment = spec.environment | {"PLACE": str(self._place.root)}
        if spec.runtime is not None:
            spec.runtime.mkdir(mode=0o700, exist_ok=True)
        with spec.log.open("ab") as log:
            process = subprocess.Popen(
                (*launcher, *spec.argv), cwd=spec.folder, env=environment, stdout=log, stderr=log, pass_fds=kept
            )
        self._processes.append(process)
        return process

    def start(self, number: int) -> subprocess.Popen[bytes]:
        """Start an instance and wait until it answers on its own socket."""
        path = self._layout.web_socket(number)
        path.parent.mkdir(parents=True)
        program, *arguments = (word.format(socket=path) for word in self._server)
        spec = ProcessSpec(
            name=f"web-{number}",
            argv=(str(self._venv / "bin" / program), *arguments),
            folder=self._place.root,
            log=self._layout.web_log(number),
            environment={"LEDGER": str(self.ledger), "NUMBER": str(number), "HOME": str(self._place.root)},
        )
        process = self.run(spec)
        until(
            lambda: probe.ask_socket(path, "/up", Public(host="localhost"), timeout_seconds=5).status == 200,
            f"instance {number} did not start",
        )
        return process

    def drain(self, number: int, process: subprocess.Popen[bytes]) -> None:
        """Wait for the last request of an instance, then end it."""
        time.sleep(0.2)
        until(lambda: self.proxy.connections(number) == 0)
        process.terminate()
        process.wait(30)

    def access_log(self) -> str:
        """What the proxy has written of requests that have ended."""
        return self._layout.access_log.read_text()

    def executed(self) -> collections.Counter[str]:
        """How often the app has carried out each write."""
        return collections.Counter(self.ledger.read_text().split())

    def close(self) -> None:
        """End all of it."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()
        self.listener.close()


@contextlib.contextmanager
def new_host(venv: Path, server: str) -> Iterator[Host]:
    """A host in an empty root, of which nothing is left."""
    with new_place() as place:
        host = Host(place, venv, server)
        try:
            yield host
        finally:
            host.close()


@dataclass
class Load:
    """Six clients without pause: what each request was answered by, and when."""

    port: int
    answered: list[tuple[float, float, int]] = field(default_factory=list)
    """When it began, when it ended, and the number of the instance."""
    failed: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    _done: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Begin: two write over new connections, one reads, two read over kept ones, one asks for what takes long."""
        for client in (self._write, self._write, self._read, self._keep, self._keep, self._slow):
            self._threads.append(threading.Thread(target=self._repeat, args=(client,)))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, with the last requests answered."""
        self._done.set()
        for thread in self._threads:
            thread.join()

    def longest_gap(self) -> float:
        """The longest time without an answer."""
        ends = sorted(end for _, end, _ in self.answered)
        return max(later - earlier for earlier, later in itertools.pairwise(ends))

    def _repeat(self, client: Callable[[], None]) -> None:
        while not self._done.is_set():
            try:
                client()
                time.sleep(PAUSE_SECONDS)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failed.append(f"{client.__name__}: {error!r}")

    def _note(self, call: Callable[[], dict[str, str]]) -> None:
        begun = time.monotonic()
        number = int(call()["number"])
        self.answered.append((begun, time.monotonic(), number))

    def _write(self) -> None:
        word = os.urandom(8).hex()
        self._note(lambda: ask(self.port, f"/write/{word}", b"x" * 100))
        self.written.append(word)

    def _read(self) -> None:
        self._note(lambda: ask(self.port, "/up"))

    def _slow(self) -> None:
        self._note(lambda: ask(self.port, f"/up?seconds={SLOW_SECONDS}"))

    def _keep(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            while not self._done.is_set():
                self._note(lambda: ask_on(connection, "/up"))
                time.sleep(PAUSE_SECONDS)


@pytest.mark.parametrize("server", SERVERS)
def test_a_cutover_under_load(venv: Path, server: str, record_property: Callable[[str, object], None]) -> None:
    """Four cutovers under six clients: no request fails, and from the rename on each new one meets the new instance.

    The app knows its clients' addresses, the scheme and the host, whatever a client says of itself.
    """
    with new_host(venv, server) as host:
        old = host.start(1)
        host.proxy.route_to(1)
        assert who_is(host, "127.0.0.1") == ("127.0.0.1", "http://shop.example/")
        assert who_is(host, "127.0.0.77") == ("127.0.0.77", "http://shop.example/")
        load = Load(host.port)
        load.start()
        moments = []
        try:
            for number in range(2, 6):
                new = host.start(number)
                host.proxy.route_to(number)
                moments.append((time.monotonic(), number))
                assert [int(ask(host.port, "/up")["number"]) for _ in range(30)] == [number] * 30
                host.drain(number - 1, old)
                old = new
        finally:
            load.stop()
        assert load.failed == []
        late = [at for at, number in moments for begun, _, by in load.answered if begun > at and by < number]
        assert late == []
        assert sum(end - begun >= SLOW_SECONDS for begun, end, _ in load.answered) >= 4
        assert host.executed() == dict.fromkeys(load.written, 1)
        record_property("requests", len(load.answered))
        record_property("longest_gap_seconds", round(load.longest_gap(), 3))
        print(f"\n{server}: {len(load.answered)} requests, longest gap {load.longest_gap():.3f} s")  # noqa: T201


def who_is(host: Host, address: str) -> tuple[str, str]:
    """What the app says of a client with this address that lies about itself: its address and where it thinks it is."""
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=30, source_address=(address, 0))
    with contextlib.closing(connection):
        lies = {"Host": "shop.example", "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"}
        connection.request("GET", "/up", headers=lies)
        said = json.loads(connection.getresponse().read())
    return said["address"], said["url"]


def kill_relay(host: Host) -> None:
    """SIGKILL the relay and start another, as a supervisor does."""
    host.relay.kill()
    host.relay.wait()
    host.run_relay()


def reload_proxy(host: Host) -> None:
    """Let Caddy read its configuration again."""
    host.caddy.send_signal(signal.SIGUSR1)


def do_nothing(_: Host) -> None:
    """An undisturbed hold."""


@pytest.mark.parametrize(
    ("server", "disturb"),
    [("sync", do_nothing), ("gthread", kill_relay), ("gthread", reload_proxy), ("uvicorn", kill_relay)],
)
def test_a_hold(venv: Path, server: str, disturb: Callable[[Host], None]) -> None:
    """Of 200 requests in a hold of two seconds none fails, and each is carried out once, by the new instance.

    Requests of clients that gave up in the hold are never carried out.
    """
    with new_host(venv, server) as host, concurrent.futures.ThreadPoolExecutor(200) as pool:
        old = host.start(1)
        host.proxy.route_to(1)
        assert ask(host.port, "/write/before", b"x")["number"] == "1"
        host.proxy.hold()
        begun = time.monotonic()
        asked = [pool.submit(ask, host.port, f"/write/stays-{number}", b"x" * 50 * number) for number in range(200)]
        gone = [give_up(host.port, f"/write/leaves-{number}", 20_000 * number) for number in range(20)]
        host.drain(1, old)
        host.start(2)
        until(lambda: route.connections(host.proxy.layout.hold_socket) >= 200)
        disturb(host)
        for client in gone:
            client.close()
        until(lambda: host.access_log().count("/write/leaves-") == 20, "the proxy did not notice who left")
        time.sleep(max(0.0, begun + 2 - time.monotonic()))
        assert host.executed() == {"before": 1}
        host.proxy.route_to(2)
        assert [answer.result()["number"] for answer in asked] == ["2"] * 200
        time.sleep(0.3)
        assert host.executed() == {"before": 1} | {f"stays-{number}": 1 for number in range(200)}


def give_up(port: int, path: str, size: int) -> socket.socket:
    """A client that has sent its whole request and will not wait for the answer."""
    client = socket.create_connection(("127.0.0.1", port), 30)
    client.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode() + b"x" * size)
    return client
