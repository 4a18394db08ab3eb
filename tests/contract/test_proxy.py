"""What every Proxy promises: Caddy with its switch, and the fake that other tests trust; then Caddy's own duties."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
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
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

from bulletproof.adapters.caddy import CaddyProxy
from bulletproof.adapters.caddy.text import PATIENCE_SECONDS
from bulletproof.adapters.embedded.client import EmbeddedSupervisor
from bulletproof.adapters.releases import BuiltReleases
from bulletproof.domain import config
from bulletproof.domain.layout import Layout
from bulletproof.domain.process import PROXY, RELAY
from bulletproof.effects import route
from bulletproof.errors import Refused, StepFailed
from bulletproof.ports import Proxy
from embedded.places import Place, new_place, until
from fakes.proxy import FakeProxy
from free_ports import free_port

Handler = Callable[[socket.socket, bytes], None]
"""Given a connection and all that came with the header, answer; the connection is closed afterwards."""


def answer(peer: socket.socket, body: bytes = b"ok", more: str = "") -> None:
    """One whole answer of HTTP."""
    peer.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body)


def answer_after(event: threading.Event) -> Handler:
    """A handler that answers when something has happened."""

    def handle(peer: socket.socket, _: bytes) -> None:
        event.wait(20)
        answer(peer)

    return handle


def read_header(peer: socket.socket) -> bytes:
    """What comes up to the end of the header and with it; empty when the other hung up."""
    received = b""
    while b"\r\n\r\n" not in received and (data := peer.recv(1 << 16)):
        received += data
    return received


class Instance:
    """A web server of a few lines on a unix socket, which remembers the headers of what it was asked."""

    def __init__(self, path: Path, handler: Handler = lambda peer, _: answer(peer)) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.asked: list[bytes] = []
        self.handler = handler
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(100)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed at the end of a test
            while True:
                peer, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(ConnectionError):
            received = read_header(peer)
            if received:
                self.asked.append(received)
                self.handler(peer, received)

    def header(self, name: str) -> list[str]:
        """The values of a header in the last request, under exactly this name but for its case."""
        lines = self.asked[-1].split(b"\r\n\r\n")[0].decode().splitlines()[1:]
        pairs = [line.split(": ", 1) for line in lines]
        return [value for key, value in pairs if key.lower() == name.lower()]

    def close(self) -> None:
        """Listen no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class Case(Protocol):
    """Proxies of one root, and what a test must be able to do around them."""

    def proxy(self, app: str = "demo", wished_port: int | None = None) -> Proxy:
        """The proxy of an app."""

    def listen(self, number: int) -> None:
        """Let the instance listen, and accept nothing."""

    def connect(self, number: int) -> Callable[[], None]:
        """Connect somebody to an instance; what is returned ends that connection on both sides."""

    def take(self, port: int) -> None:
        """Let another program listen on the port."""

    def start(self, proxy: Proxy) -> None:
        """Let the proxy's process run."""

    def stop(self) -> None:
        """End the proxy's process."""


class CaddyCase:
    """Caddy, real sockets, real links."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._sockets: list[socket.socket] = []
        self._listeners: dict[int, socket.socket] = {}
        self._caddy: Running | None = None

    def proxy(self, app: str = "demo", wished_port: int | None = None) -> Proxy:
        """The proxy of an app under this root."""
        return CaddyProxy(self._place.layout(app), config.Proxy(port=wished_port))

    def listen(self, number: int) -> None:
        """Bind the instance's socket."""
        path = self._place.layout().web_socket(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        listener = self._new(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(10)
        self._listeners[number] = listener

    def connect(self, number: int) -> Callable[[], None]:
        """Connect to it; the connection is accepted when it is ended."""
        client = self._new(socket.AF_UNIX)
        client.connect(str(self._place.layout().web_socket(number)))

        def end() -> None:
            client.close()
            self._listeners[number].accept()[0].close()

        return end

    def take(self, port: int) -> None:
        """Listen on it, unless somebody else does so already."""
        listener = self._new(socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what lingers there is no listener
        with contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            listener.listen()

    def start(self, proxy: Proxy) -> None:
        """Start Caddy."""
        self._caddy = Running(proxy)

    def stop(self) -> None:
        """End Caddy and all sockets."""
        if self._caddy:
            self._caddy.stop()
        for each in self._sockets:
            each.close()

    def _new(self, family: int) -> socket.socket:
        self._sockets.append(socket.socket(family))
        return self._sockets[-1]


class FakeCase:
    """The fake."""

    def __init__(self) -> None:
        self._claims: dict[str, int] = {}
        self._taken: set[int] = set()
        self._connections: dict[int, int] = {}
        self._last = FakeProxy()

    def proxy(self, app: str = "demo", wished_port: int | None = None) -> Proxy:
        """A fake that shares its world with the others."""
        self._last = FakeProxy(
            app=app,
            wished_port=wished_port,
            claims=self._claims,
            taken=self._taken,
            open_connections=self._connections,
            is_up=False,
        )
        return self._last

    def listen(self, number: int) -> None:
        """Nothing to do."""

    def connect(self, number: int) -> Callable[[], None]:
        """Count one more, and one less at its end."""
        self._connections[number] = self._connections.get(number, 0) + 1

        def end() -> None:
            self._connections[number] -= 1

        return end

    def take(self, port: int) -> None:
        """Note it."""
        self._taken.add(port)

    def start(self, proxy: Proxy) -> None:
        """Note it."""
        self._last.is_up = bool(proxy)

    def stop(self) -> None:
        """Note it."""
        self._last.is_up = False


class Running:
    """Caddy as its ProcessSpec says, started by hand."""

    def __init__(self, proxy: Proxy) -> None:
        spec = proxy.process()
        self.port = proxy.port()
        assert spec.runtime is not None
        spec.runtime.mkdir(mode=0o700, exist_ok=True)
        with spec.log.open("ab") as log:
            self.process = subprocess.Popen(spec.argv, cwd=spec.folder, env=spec.environment, stdout=log, stderr=log)
        until(lambda: route.listeners(self.port) or self.process.poll() is not None)

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        self.process.terminate()
        return self.process.wait(40)


@pytest.fixture
def place() -> Iterator[Place]:
    """An empty root."""
    with new_place() as place:
        yield place


@pytest.fixture(params=["caddy", "fake"])
def case(request: pytest.FixtureRequest, place: Place) -> Iterator[Case]:
    """One of the implementations."""
    case: Case = CaddyCase(place) if request.param == "caddy" else FakeCase()
    try:
        yield case
    finally:
        case.stop()


def test_a_new_proxy_leads_nowhere(case: Case) -> None:
    """Before the first cutover no instance gets requests, nobody is connected, and closing it is no error."""
    proxy = case.proxy()
    assert (proxy.target(), proxy.connections(1)) == (None, 0)
    proxy.close()
    assert proxy.target() is None


def test_the_last_order_decides_where_requests_go(case: Case) -> None:
    """A cutover, a hold, a way back and a close each replace what was before."""
    proxy = case.proxy()
    to_7, to_12 = functools.partial(proxy.route_to, 7), functools.partial(proxy.route_to, 12)
    orders: list[Callable[[], None]] = [to_7, to_12, proxy.hold, to_7, proxy.close, proxy.hold, proxy.close]
    seen = []
    for order in orders:
        order()
        seen.append(proxy.target())
    assert seen == [7, 12, None, 7, None, None, None]


def test_connections_are_counted_for_each_instance_by_itself(case: Case) -> None:
    """Those of an instance count until they have ended, wherever new requests go meanwhile; others do not."""
    proxy = case.proxy()
    for number in (1, 11, 111):
        case.listen(number)
    assert [proxy.connections(number) for number in (1, 11, 111)] == [0, 0, 0]
    proxy.route_to(11)
    ends = [case.connect(11), case.connect(11), case.connect(111)]
    proxy.hold()
    assert [proxy.connections(number) for number in (1, 11, 111)] == [0, 2, 1]
    for end in ends:
        end()
    assert [proxy.connections(number) for number in (1, 11, 111)] == [0, 0, 0]


def test_the_port_is_chosen_once(case: Case) -> None:
    """Without a wish it is the first free one from 8000, and it stays the same whatever is taken later."""
    port = case.proxy().port()
    assert port >= 8000
    case.take(port)
    assert case.proxy().port() == port


def test_a_taken_port_is_passed_over(case: Case) -> None:
    """What another program listens on is not chosen, nor what another app of this root has, though it does not run."""
    first = case.proxy("one").port()
    second = case.proxy("two").port()
    free = next(port for port in range(second + 1, 9000) if route.may_listen(port))
    case.take(free)
    assert len({first, second, free, case.proxy("three").port()}) == 4


def test_a_wish_is_granted_and_may_change(case: Case) -> None:
    """The wished port is taken, and another one when the wish changes; without a wish the last one stays."""
    one, two = free_port(), free_port()
    assert [case.proxy(wished_port=wish).port() for wish in (one, one, two, None)] == [one, one, two, two]


@pytest.mark.parametrize("owner", ["program", "app"])
def test_a_wish_for_what_is_taken_is_refused_in_words(case: Case, owner: str) -> None:
    """A wished port of another program or another app is refused, with the port and the key that changes it."""
    port = free_port()
    if owner == "program":
        case.take(port)
    else:
        case.proxy("other", port).port()
    with pytest.raises(Refused) as refused:
        case.proxy(wished_port=port).port()
    assert refused.value.reference == "port-taken"
    assert str(port) in refused.value.message
    assert "`port` under [proxy]" in refused.value.hint


def test_it_listens_from_its_start_to_its_end(case: Case) -> None:
    """The port is served while the process runs and not otherwise."""
    proxy = case.proxy(wished_port=free_port())
    assert not proxy.is_listening()
    case.start(proxy)
    assert proxy.is_listening()
    case.stop()
    assert not proxy.is_listening()


def test_its_processes_have_their_names(case: Case) -> None:
    """The supervisor is asked for a proxy and a relay, and keeps the relay's listener."""
    proxy = case.proxy(wished_port=free_port())
    assert (proxy.process().name, proxy.relay().name) == (PROXY, RELAY)
    assert proxy.relay().listen is not None


# What Caddy alone must do.


class Site:
    """Caddy with instances behind it."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.proxy = CaddyProxy(layout, config.Proxy(port=free_port()))
        self._instances: list[Instance] = []
        self._running = Running(self.proxy)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._running.port

    @property
    def pid(self) -> int:
        """Caddy's."""
        return self._running.process.pid

    def instance(self, handler: Handler = lambda peer, _: answer(peer), number: int = 1) -> Instance:
        """An instance that gets the requests."""
        self._instances.append(Instance(self.layout.web_socket(number), handler))
        self.proxy.route_to(number)
        return self._instances[-1]

    def ask(
        self, method: str = "GET", path: str = "/", body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, str]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read().decode()

    def connect(self) -> socket.socket:
        """A connection of one's own making."""
        return socket.create_connection(("127.0.0.1", self.port), 20)

    def stop(self) -> int:
        """SIGTERM to Caddy; its exit status."""
        return self._running.stop()

    def close(self) -> None:
        """End all of it."""
        for instance in self._instances:
            instance.close()
        self._running.process.kill()
        self._running.process.wait()


@pytest.fixture
def site(place: Place) -> Iterator[Site]:
    """A running Caddy."""
    site = Site(place.layout())
    try:
        yield site
    finally:
        site.close()


def test_the_configuration_is_valid_and_in_canonical_form(place: Place) -> None:
    """Caddy accepts the whole file and its formatter would change nothing."""
    spec = CaddyProxy(place.layout(), config.Proxy(port=free_port())).process()
    caddy, configuration = spec.argv[0], spec.argv[3]
    for argv in ((caddy, "validate", *spec.argv[2:]), (caddy, "fmt", configuration)):
        done = subprocess.run(argv, env=spec.environment, cwd=spec.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "not formatted" not in done.stderr
    assert done.stdout == Path(configuration).read_text()


def test_the_process_is_described_the_same_every_time(place: Place) -> None:
    """A supervisor that runs it already sees nothing new in it, also while it runs."""
    with contextlib.closing(Site(place.layout())) as site:
        assert CaddyProxy(place.layout(), config.Proxy(port=site.port)).process() == site.proxy.process()
        assert site.proxy.relay() == site.proxy.relay()


def test_a_root_with_blanks_and_odd_signs_is_served(place: Place) -> None:
    """A root folder may be called almost anything."""
    layout = Layout(place.root / "ein Büro's #1 $HOME", "demo", place.root / "so ck:ets")
    with contextlib.closing(Site(layout)) as site:
        site.instance()
        assert site.ask()[0] == 200
        assert layout.access_log.exists()


@pytest.mark.parametrize("name", ["{env.HOME}", "a|b", 'a"b', "a\\", "a\nb"])
def test_a_root_that_caddy_cannot_be_told_of_is_refused(place: Place, name: str) -> None:
    """What Caddy would understand as something else is refused in words, not served wrongly."""
    layout = Layout(place.root / name, "demo", place.root / "run")
    with pytest.raises(Refused) as refused:
        CaddyProxy(layout, config.Proxy(port=free_port())).process()
    assert refused.value.reference == "path-not-servable"


def test_it_listens_on_loopback_only(site: Site) -> None:
    """No address but 127.0.0.1 is opened, and there is no port of administration."""
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    rows = [row.split() for table in tables for row in table]
    mine = {f"socket:[{inode}]" for inode in (row[9] for row in rows if row[3] == "0A")}
    files = {str(file.readlink()) for file in Path(f"/proc/{site.pid}/fd").iterdir()}
    assert files & mine == {f"socket:[{inode}]" for inode in route.listeners(site.port)}


def test_nothing_is_written_outside_the_root(site: Site, place: Place) -> None:
    """Caddy's own files, its logs and its home lie below the root, private to their owner."""
    site.instance()
    site.ask()
    environment = Path(f"/proc/{site.pid}/environ").read_text().split("\0")[:-1]
    assert {value.split("=", 1)[1] for value in environment} == {str(site.layout.proxy_storage), "multipathtcp=0"}
    assert site.layout.proxy_storage.stat().st_mode & 0o777 == 0o700
    assert (site.layout.proxy_home / "Caddyfile").stat().st_mode & 0o777 == 0o600
    assert place.root in site.layout.access_log.parents


def test_the_app_learns_who_asks_and_nothing_that_the_client_made_up(site: Site) -> None:
    """Address, scheme and host are the real ones; what a client says of proxies before it never arrives."""
    instance = site.instance()
    lies = {
        "Host": "shop.example:8000",
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Prefix": "/evil",
        "X-Forwarded-Ssl": "on",
        "X-Real-IP": "6.6.6.6",
        "Forwarded": "for=6.6.6.6",
        "X_Forwarded_For": "6.6.6.6",
        "SCRIPT_NAME": "/evil",
        "X-Mine": "kept",
    }
    site.ask(headers=lies)
    told = {name: instance.header(name) for name in lies}
    assert told == {
        "Host": ["shop.example:8000"],
        "X-Forwarded-For": ["127.0.0.1"],
        "X-Forwarded-Proto": ["http"],
        "X-Forwarded-Host": ["shop.example:8000"],
        "X-Forwarded-Prefix": [],
        "X-Forwarded-Ssl": [],
        "X-Real-IP": ["127.0.0.1"],
        "Forwarded": [],
        "X_Forwarded_For": [],
        "SCRIPT_NAME": [],
        "X-Mine": ["kept"],
    }
    with site.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        read_header(client)
    assert (instance.header("Host"), instance.header("Accept-Encoding")) == (["x"], [])


def test_the_answer_reveals_no_programs(site: Site) -> None:
    """What the app's server or the proxy say of themselves does not reach the client."""
    site.instance(lambda peer, _: answer(peer, more="Server: gunicorn\r\nX-Mine: kept\r\n"))
    _, headers, _ = site.ask()
    assert (headers["Server"], headers["Via"], headers["X-Mine"]) == (None, None, "kept")


def test_no_idle_connection_to_the_app_is_kept(site: Site) -> None:
    """A client keeps its connection over several requests; the app's ends with each, so a cutover meets all of it."""
    site.instance()
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
    with contextlib.closing(connection):
        for number in (1, 2, 3):
            connection.request("GET", "/")
            assert connection.getresponse().read() == b"ok"
            until(lambda: site.proxy.connections(1) == 0)
            assert connection.sock is not None, f"closed after request {number}"


def test_a_request_in_flight_is_a_connection(site: Site) -> None:
    """What an instance has not answered counts as its connection, though new requests go elsewhere."""
    go_on = threading.Event()
    site.instance(answer_after(go_on))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        asked = pool.submit(site.ask)
        until(lambda: site.proxy.connections(1) == 1)
        site.instance(number=2)
        assert (site.proxy.connections(1), site.ask()[0]) == (1, 200)
        go_on.set()
        assert asked.result()[0] == 200
    until(lambda: site.proxy.connections(1) == 0)


def test_without_an_app_it_says_so(site: Site) -> None:
    """After a short patience a browser gets a page and others a sentence: not running, and when to come again."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        begun = time.monotonic()
        page = pool.submit(site.ask, headers={"Accept": "text/html,*/*;q=0.8"})
        words = pool.submit(site.ask, "POST", body=b"x" * 1000)
        (status, headers, text), (other_status, other_headers, other_text) = page.result(), words.result()
    assert PATIENCE_SECONDS <= time.monotonic() - begun < PATIENCE_SECONDS + 5
    assert (status, other_status) == (503, 503)
    assert text.startswith("<!doctype html>")
    assert "demo is not running" in text
    assert "http" not in text.split("</head>")[1]
    assert other_text == "demo is not running. Please try again in a few seconds."
    assert (headers["Content-Type"], other_headers["Content-Type"].split(";")[0]) == (
        "text/html; charset=utf-8",
        "text/plain",
    )
    for each in (headers, other_headers):
        assert (each["Retry-After"], each["Cache-Control"], each["Server"]) == ("5", "no-store", None)


def test_a_request_waits_for_an_app_that_starts_again_and_is_sent_once(site: Site) -> None:
    """While the app's socket is missing a request waits, body and all, and reaches the app once, whole."""
    bodies: list[bytes] = []

    def remember(peer: socket.socket, received: bytes) -> None:
        header, _, body = received.partition(b"\r\n\r\n")
        length = next(int(line.split()[1]) for line in header.splitlines() if line.startswith(b"Content-Length"))
        while len(body) < length:
            body += peer.recv(1 << 16)
        bodies.append(body)
        answer(peer)

    sent = [bytes([number]) * size for number, size in enumerate([10, 1000, 300_000, 3_000_000] * 3)]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(site.ask, "POST", body=body) for body in sent]
        time.sleep(1)
        site.instance(remember)
        assert [each.result()[0] for each in asked] == [200] * 12
    assert sorted(bodies) == sorted(sent)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_was_sent_is_never_sent_again(site: Site, method: str) -> None:
    """When the app hangs up without an answer, the client is told that nobody knows, and the app was asked once."""
    instance = site.instance(lambda _peer, _received: None)
    status, headers, text = site.ask(method)
    assert (status, headers["Retry-After"], len(instance.asked)) == (502, None, 1)
    assert "may have been carried out or not" in text


def test_the_apps_own_errors_pass_unchanged(site: Site) -> None:
    """A 503 that the app answers itself is the app's, page and all."""
    site.instance(lambda peer, _: peer.sendall(b"HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nmine"))
    status, headers, text = site.ask()
    assert (status, text, headers["Retry-After"]) == (503, "mine", None)


def test_a_slow_upload_does_not_occupy_the_app(site: Site) -> None:
    """A small body that trickles in is collected first, so that it costs no worker while it comes."""
    instance = site.instance()
    with site.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
        time.sleep(0.3)
        assert (instance.asked, site.proxy.connections(1)) == ([], 0)
        client.sendall(b"67890")
        assert client.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("size", [1000, 400_000])
def test_half_a_form_never_reaches_the_app(site: Site, size: int) -> None:
    """When a client leaves in the middle of its body the app is not asked: gunicorn would carry out the half."""
    instance = site.instance()
    with site.connect() as client:
        client.sendall(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode() + b"x" * (size // 2))
    until(lambda: site.layout.access_log.exists() and site.layout.access_log.read_text())
    assert (instance.asked, site.proxy.connections(1)) == ([], 0)


@pytest.mark.parametrize("kind", ["text/event-stream", "text/plain"])
def test_a_streamed_answer_comes_as_it_is_made(site: Site, kind: str) -> None:
    """What the app has said reaches the client while the app still thinks about the rest."""
    go_on = threading.Event()

    def stream(peer: socket.socket, _: bytes) -> None:
        peer.sendall(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        peer.sendall(b"3\r\none\r\n")
        go_on.wait(20)
        peer.sendall(b"3\r\ntwo\r\n0\r\n\r\n")

    site.instance(stream)
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        response = connection.getresponse()
        assert response.read1(100) == b"one"
        go_on.set()
        assert response.read() == b"two"


def test_a_websocket_passes_both_ways_over_a_cutover(site: Site) -> None:
    """After the upgrade bytes go both ways, and go on when new requests are led elsewhere."""

    def upgrade(peer: socket.socket, _: bytes) -> None:
        peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        while data := peer.recv(100):
            peer.sendall(data.upper())

    site.instance(upgrade)
    with site.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert read_header(client).startswith(b"HTTP/1.1 101")
        for hold in (site.proxy.hold, site.proxy.close):
            client.sendall(b"hello")
            assert b"".join(client.recv(1) for _ in range(5)) == b"HELLO"
            hold()
        assert site.proxy.connections(1) == 1


class TestStaticFiles:
    """What the releases' `public` folders hold never troubles the app."""

    @pytest.fixture
    def app(self, site: Site) -> Instance:
        """The app behind the proxy, in which every path exists."""
        return site.instance()

    @staticmethod
    def lay(site: Site, release: str, **contents: str) -> None:
        """A release that is live now, with these files below /static; `app_css` is app.css."""
        folder = site.layout.release(release) / "source" / "shop" / "static"
        folder.mkdir(parents=True)
        for name, content in contents.items():
            (folder / name.replace("_", ".")).write_text(content)
        site.layout.public(release).mkdir()
        (site.layout.public(release) / "static").symlink_to("../source/shop/static")
        former = site.layout.current.readlink().name if site.layout.current.is_symlink() else None
        BuiltReleases(site.layout, lambda _source, _server: "app:app").point_current_at(release, former)

    def test_the_live_release_comes_first_and_then_the_one_before(self, site: Site, app: Instance) -> None:
        """A page of the release before finds its files; of two with one name it is the live one's."""
        self.lay(site, "1-aaa", app_css="old", app_27e20196a850_css="hashed", gone_css="gone soon")
        self.lay(site, "2-bbb", app_css="new", gone_css="still there")
        self.lay(site, "3-ccc", app_css="newest")
        found = {name: site.ask(path=f"/static/{name}")[2] for name in ("app.css", "gone.css", "app.27e20196a850.css")}
        assert found == {"app.css": "newest", "gone.css": "still there", "app.27e20196a850.css": "ok"}
        assert len(app.asked) == 1, "only what neither of them has is the app's to answer"

    def test_only_a_name_with_a_hash_in_it_may_be_kept(self, site: Site, app: Instance) -> None:
        """All others are asked for again each time, which costs an empty answer when nothing changed."""
        kept = ["a.27e20196a850.css", "a-5f3c9e21.js", "a.27e20196a850.css.map"]
        asked = ["a.css", "a-20241127.css", "a.facadefa.css", "my-stylesheet.css", "a.1234567f.css.d/b.css"]
        self.lay(site, "1-aaa")
        folder = site.layout.public("1-aaa") / "static"
        for name in (*kept, *asked):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("content")
        told = {name: site.ask(path=f"/static/{name}")[1]["Cache-Control"] for name in (*kept, *asked)}
        assert {name for name, words in told.items() if words == "public, max-age=31536000, immutable"} == set(kept)
        assert {name for name, words in told.items() if words == "no-cache"} == set(asked)
        status, headers, body = site.ask(path="/static/a.css")
        assert (status, body, headers["Content-Type"]) == (200, "content", "text/css; charset=utf-8")
        assert site.ask(path="/static/a.css", headers={"If-None-Match": headers["Etag"]})[0] == 304
        assert not app.asked

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/static/a.css"),
            ("GET", "/static/"),
            ("GET", "/static"),
            ("GET", "/a.css"),
            ("GET", "/static/../shop.py"),
            ("GET", "/static/%2e%2e/shop.py"),
            ("GET", "/static/..%2fshop.py"),
            ("GET", "/"),
        ],
    )
    def test_whatever_is_no_such_file_is_the_apps(self, site: Site, app: Instance, method: str, path: str) -> None:
        """A folder, another method, a way out of the folder: the app answers, as it did before."""
        self.lay(site, "1-aaa", a_css="content", index_html="never a folder's page")
        (site.layout.source("1-aaa") / "shop" / "shop.py").write_text("SECRET = 1")
        status, _, body = site.ask(method, path)
        assert (status, body, len(app.asked)) == (200, "ok", 1)


def test_sigterm_finishes_what_is_in_flight(site: Site) -> None:
    """On SIGTERM Caddy lets a request finish, whose client gets its whole answer, and exits 0."""
    go_on = threading.Event()
    site.instance(answer_after(go_on))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        asked = pool.submit(site.ask)
        until(lambda: site.proxy.connections(1) == 1)
        ended = pool.submit(site.stop)
        until(lambda: not route.listeners(site.port))
        go_on.set()
        assert (asked.result()[0], asked.result()[2], ended.result()) == (200, "ok", 0)


def test_a_changed_configuration_is_taken_up_without_losing_a_request(site: Site) -> None:
    """SIGUSR1 lets Caddy read its file again: requests in flight and kept connections go on."""
    go_on = threading.Event()
    site.instance(answer_after(go_on))
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        asked = [pool.submit(site.ask) for _ in range(10)]
        until(lambda: site.proxy.connections(1) == 10)
        os.kill(site.pid, signal.SIGUSR1)
        until(lambda: "successfully reloaded" in (site.layout.logs / "proxy.log").read_text())
        go_on.set()
        assert [each.result()[0] for each in asked] == [200] * 10
    assert site.ask()[0] == 200


def test_the_access_log_tells_of_requests_and_keeps_secrets_out(site: Site) -> None:
    """Each request is a line of JSON with who, what and how long, and without cookies, keys and passwords."""
    site.instance(lambda peer, _: answer(peer, more="Set-Cookie: id=secret1\r\nX-Token: secret2\r\n"))
    secrets = {"Cookie": "id=secret3", "Authorization": "Bearer secret4", "X-Api-Key": "secret5"}
    site.ask("POST", "/login?next=/", b"password=secret6", {"User-Agent": "tests/1", **secrets})
    line = until(lambda: site.layout.access_log.exists() and site.layout.access_log.read_text())
    assert isinstance(line, str)
    entry = json.loads(line)
    assert (entry["status"], entry["size"], entry["user_agent"]) == (200, 2, "tests/1")
    assert (entry["request"]["method"], entry["request"]["uri"]) == ("POST", "/login?next=/")
    assert entry["request"]["client_ip"] == "127.0.0.1"
    assert entry["duration"] > 0
    assert "secret" not in line


def test_a_port_that_another_program_took_meanwhile_is_refused_at_the_start(place: Place) -> None:
    """Caddy would share it silently with another Caddy, so the program is named and the start refused."""
    proxy = CaddyProxy(place.layout(), config.Proxy(port=free_port()))
    port = proxy.port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(Refused) as refused:
            proxy.process()
    assert refused.value.reference == "port-taken"
    assert f"(pid {os.getpid()})" in refused.value.message


def test_another_that_listens_is_not_taken_for_our_own(place: Place) -> None:
    """Two hosts that chose one port at the same time: the slower one must not believe that its proxy is up."""
    proxy = CaddyProxy(place.layout(), config.Proxy(port=free_port()))
    port = proxy.port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        assert not proxy.is_listening()


def test_two_proxies_on_one_port_are_noticed(site: Site, place: Place) -> None:
    """Should a second Caddy get onto the port all the same, both say so instead of sharing the requests."""
    environment = {"HOME": str(place.root), "XDG_DATA_HOME": str(place.root)}
    argv = (site.proxy.process().argv[0], "respond", "--listen", f"127.0.0.1:{site.port}", f"--body={place.root}")
    with (place.root / "other.log").open("ab") as log:
        other = subprocess.Popen(argv, env=environment, stdout=log, stderr=log, cwd=place.root)
    try:
        until(lambda: len(route.listeners(site.port)) == 2)
        with pytest.raises(StepFailed) as failed:
            site.proxy.is_listening()
    finally:
        other.kill()
        other.wait()
    assert failed.value.reference == "port-shared"
    assert site.proxy.is_listening()


def test_the_port_that_leads_to_https_is_one_apps(place: Place) -> None:
    """Whether that app runs or not: Caddies of one user would share it, and each lose the other's requests."""
    https, http, other = (free_port() for _ in range(3))
    internal = config.Proxy(
        domain="a.test", certificates=config.Certificates.INTERNAL, https_port=https, http_port=http
    )
    first = CaddyProxy(place.layout("first"), internal)
    first.adopt(1, runs=False)
    plain = config.Proxy(domain="b.test", certificates=config.Certificates.NONE, http_port=http)
    beside = msgspec.structs.replace(internal, domain="c.test", https_port=other)
    for wished in (plain, beside):
        with pytest.raises(Refused, match=f"port {http} belongs to the app first"):
            CaddyProxy(place.layout("second"), wished).check()

    old = place.layout("old")  # as one that an older Bulletproof let have it, while the first was stopped
    old.state.mkdir(parents=True)
    old.port.write_text(f"{http}\n")
    with pytest.raises(Refused, match=f"port {http} belongs to the app old"):
        first.process()


@pytest.mark.skipif(os.getuid() == 0, reason="root may listen on every port")
def test_a_port_for_root_alone_is_refused_in_words(place: Place) -> None:
    """A wish for a port that this user may not have says so."""
    start = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if start < 2:
        pytest.skip("this machine lets everybody listen on every port")
    with pytest.raises(Refused) as refused:
        CaddyProxy(place.layout(), config.Proxy(port=start - 1)).port()
    assert refused.value.reference == "port-forbidden"


def test_a_listener_on_another_address_is_not_taken_for_the_proxy(place: Place) -> None:
    """What listens on the same port of another address of this machine says nothing about the proxy."""
    proxy = CaddyProxy(place.layout(), config.Proxy(port=free_port()))
    with socket.socket() as other:
        other.bind(("127.0.0.99", proxy.port()))
        other.listen()
        assert not proxy.is_listening()


def test_apps_that_choose_at_once_choose_different_ports(place: Place) -> None:
    """Eight apps of a root that choose their port in the same instant get eight ports."""
    barrier = threading.Barrier(8)

    def choose(number: int) -> int:
        proxy = CaddyProxy(place.layout(f"app-{number}"), config.Proxy())
        barrier.wait()
        return proxy.port()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(choose, range(8)))) == 8


def test_a_damaged_port_file_is_told_of(place: Place) -> None:
    """A file of the port without a port in it is refused with its name, not overwritten."""
    layout = place.layout()
    layout.port.parent.mkdir(parents=True)
    layout.port.write_text("eighty")
    with pytest.raises(Refused) as refused:
        CaddyProxy(layout, config.Proxy()).port()
    assert (refused.value.reference, refused.value.hint) == ("port-file-damaged", f"rm {layout.port}")


def test_another_process_sees_the_same_target(place: Place) -> None:
    """Where requests go is on disk, relative and therefore movable, so another command finds it."""
    CaddyProxy(place.layout(), config.Proxy()).route_to(7)
    assert CaddyProxy(place.layout(), config.Proxy(port=8123)).target() == 7
    assert str(place.layout().app_socket.readlink()) == "7/web.sock"
    CaddyProxy(place.layout(), config.Proxy()).hold()
    assert str(place.layout().app_socket.readlink()) == "hold.sock"


def test_the_path_is_never_missing_during_a_switch(place: Place) -> None:
    """Whoever follows the path at any instant finds one instance or the other."""
    proxy = CaddyProxy(place.layout(), config.Proxy())
    proxy.route_to(1)
    seen: set[int | None] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.add(proxy.target())

    looker = threading.Thread(target=look)
    looker.start()
    deadline = time.monotonic() + 30
    for number in itertools.cycle([2, 1]):
        proxy.route_to(number)
        if (len(seen) > 1 and number == 1) or time.monotonic() > deadline:
            break
    for number in [2, 1] * 30:
        proxy.route_to(number)
    done.set()
    looker.join()
    assert seen == {1, 2}


def test_counting_is_exact_and_cheap(place: Place) -> None:
    """A listener is no connection; waiting, accepted, half-closed and abandoned ones each count once, in under 5 ms."""
    path = place.root / "a b" / "web.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as neighbour:
        listener.bind(str(path))
        listener.listen()
        neighbour.bind(str(path) + "2")
        assert route.connections(path) == 0
        clients = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        for client in clients:
            client.connect(str(path))
        servers = [listener.accept()[0] for _ in range(2)]
        assert route.connections(path) == 4
        clients[0].shutdown(socket.SHUT_RDWR)
        for client in clients[1:]:
            client.close()
        assert route.connections(path) == 4
        for server in (*servers, listener.accept()[0], listener.accept()[0], clients[0]):
            server.close()
        assert route.connections(path) == 0
        assert min(timed(path) for _ in range(20)) < 0.005


def test_nothing_is_only_believed_when_it_is_seen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's list may skip a connection while others end, so a drain never trusts a single look."""
    looks = iter([0, 0, 1])
    monkeypatch.setattr(route, "_walk", lambda _: next(looks))
    assert route.connections(Path("/web.sock")) == 1


def timed(path: Path) -> float:
    """Seconds that one count takes."""
    begun = time.perf_counter()
    route.connections(path)
    return time.perf_counter() - begun


def test_the_supervisor_runs_proxy_and_relay(place: Place) -> None:
    """Under the embedded supervisor a request that is held survives the relay's death and is answered afterwards."""
    layout = place.layout()
    proxy, supervisor = CaddyProxy(layout, config.Proxy(port=free_port())), EmbeddedSupervisor(layout)
    instance = Instance(layout.web_socket(1))
    try:
        proxy.hold()
        supervisor.start(proxy.relay())
        supervisor.start(proxy.process())
        until(proxy.is_listening)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            asked = pool.submit(ask_port, proxy.port())
            until(lambda: route.connections(layout.hold_socket) == 1)
            pid = supervisor.state(RELAY).pid
            assert pid
            os.kill(pid, signal.SIGKILL)
            until(lambda: supervisor.state(RELAY).restarts == 1)
            proxy.route_to(1)
            assert asked.result() == 200
        assert "released: 1 relayed, 0 had left" in (layout.logs / "relay.log").read_text()
    finally:
        supervisor.shutdown()
        instance.close()


def ask_port(port: int) -> int:
    """The status of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        connection.request("POST", "/", b"body")
        response = connection.getresponse()
        response.read()
        return response.status


def test_the_program_is_found_where_it_was_installed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caddy is found beside Python, or through its package when Python lies elsewhere; its absence is told in words."""
    proxy = CaddyProxy(place.layout(), config.Proxy(port=free_port()))
    beside = proxy.process().argv[0]
    assert Path(beside) == Path(sys.executable).parent / "caddy"
    monkeypatch.setattr(sys, "executable", str(place.root / "python"))
    assert Path(proxy.process().argv[0]).resolve() == Path(beside).resolve()
    monkeypatch.setattr("importlib.metadata.files", lambda _: None)
    with pytest.raises(Refused) as refused:
        proxy.process()
    assert refused.value.reference == "caddy-missing"
