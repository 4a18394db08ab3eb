"""An ASGI app that says what it sees, takes uploads, streams and echoes; and its users, over TLS as browsers are."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import ssl
from collections.abc import Iterable, Iterator
from pathlib import Path

import h2.connection
import h2.events
import httpx

APP = """\
import asyncio
import json
import os
import sqlite3

RELEASE = os.environ.get("BULLETPROOF_DEPLOYMENT", "")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await echo(receive, send)
    elif scope["path"] == "/stream":
        await stream(send)
    else:
        await look(scope, receive, send)


async def echo(receive, send):
    while (message := await receive())["type"] != "websocket.disconnect":
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "websocket.send", "text": f"{RELEASE} {message['text']}"})


async def stream(send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(60):
        await send({"type": "http.response.body", "body": f"{number}\\n".encode(), "more_body": True})
        await asyncio.sleep(0.1)
    await send({"type": "http.response.body", "body": f"all from {RELEASE}".encode()})


async def received(receive):
    size = 0
    while (message := await receive())["type"] != "http.disconnect":
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            return size


async def look(scope, receive, send):
    size = await received(receive)
    if size is None:
        return
    headers = [[name.decode(), value.decode()] for name, value in scope["headers"]]
    told = {
        "release": RELEASE,
        "size": size,
        "client": scope["client"][0],
        "scheme": scope["scheme"],
        "path": scope["path"],
        "headers": [pair for pair in headers if pair[0].startswith("x-") or pair[0] == "host"],
    }
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})
"""
MIGRATION = """\
import os, sqlite3
with sqlite3.connect(os.environ["DATABASE_URL"].removeprefix("sqlite:///")) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS {table} (id INTEGER PRIMARY KEY)")
"""
FILES = {"app.py": APP, "requirements.txt": "uvicorn\nwebsockets\n", "migrate.py": MIGRATION.format(table="one")}
DOMAIN = "shop.test"
WWW = "www.shop.test"


class Browser:
    """Somebody who finds the domain at this machine and trusts one authority."""

    def __init__(self, port: int, root: Path) -> None:
        self.port = port
        self._root = root

    def trust(self, *protocols: str) -> ssl.SSLContext:
        """The one authority, and what is spoken over TLS."""
        context = ssl.create_default_context(cafile=str(self._root))
        context.set_alpn_protocols(list(protocols))
        return context

    def client(self, *, http2: bool = False) -> httpx.Client:
        """One that keeps its connections, as browsers do."""
        return httpx.Client(transport=_Here(verify=self.trust(), http2=http2), timeout=60)

    def get(self, path: str, name: str = DOMAIN, **headers: str) -> httpx.Response:
        """One request on a connection of its own, over HTTP/2."""
        with self.client(http2=True) as client:
            return client.get(f"https://{name}:{self.port}{path}", headers=headers)

    def connect(self, *protocols: str) -> ssl.SSLSocket:
        """A connection of one's own making."""
        plain = socket.create_connection(("127.0.0.1", self.port), 60)
        return self.trust(*protocols).wrap_socket(plain, server_hostname=DOMAIN)

    @contextlib.contextmanager
    def websocket(self) -> Iterator[WebSocket]:
        """A websocket."""
        with self.connect("http/1.1") as secure:
            yield WebSocket(secure, f"{DOMAIN}:{self.port}")


class _Here(httpx.HTTPTransport):
    """Whatever the name, it leads to this machine; Host and SNI stay the name's."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions = {**request.extensions, "sni_hostname": request.url.host}
        request.url = request.url.copy_with(host="127.0.0.1")
        return super().handle_request(request)


class Http2:
    """A connection of HTTP/2, one request at a time; told that it ends, it lets the request end first (RFC 9113, 6.8).

    httpx fails the request instead.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._socket = browser.connect("h2")
        self._engine = h2.connection.H2Connection()
        self._engine.initiate_connection()
        self._ends = False
        self.connections = 1

    def post(self, path: str, body: Iterable[bytes]) -> tuple[int, bytes]:
        """The status and the body of the answer."""
        if self._ends:
            self._renew()
        stream = self._engine.get_next_available_stream_id()
        fields = {":method": "POST", ":path": path, ":scheme": "https", ":authority": f"{DOMAIN}:{self._browser.port}"}
        self._engine.send_headers(stream, list(fields.items()))
        answer: list[bytes] = []
        status = 0
        for part in body:
            view = memoryview(part)
            while view:
                room = min(self._engine.local_flow_control_window(stream), self._engine.max_outbound_frame_size)
                if room <= 0:
                    self._read(stream)
                    continue
                self._engine.send_data(stream, view[:room].tobytes())
                self._flush()
                view = view[room:]
        self._engine.end_stream(stream)
        while True:
            for event in self._read(stream):
                if isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers)[b":status"])
                elif isinstance(event, h2.events.DataReceived):
                    answer.append(event.data)
                    self._engine.acknowledge_received_data(event.flow_controlled_length, stream)
                elif isinstance(event, h2.events.StreamEnded):
                    return status, b"".join(answer)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _renew(self) -> None:
        count = self.connections + 1
        self.close()
        self.__init__(self._browser)  # type: ignore[misc]
        self.connections = count

    def _read(self, stream: int) -> list[h2.events.Event]:
        self._flush()
        received = self._socket.recv(1 << 16)
        if not received:
            raise ConnectionError("closed in the middle of a request")
        events = []
        for event in self._frames(received):
            if isinstance(event, h2.events.StreamReset) and event.stream_id == stream:
                raise ConnectionError(f"reset: {event.error_code}")
            events.append(event)
        return events

    def _frames(self, received: bytes) -> list[h2.events.Event]:
        events = self._engine.receive_data(received)
        for event in events:
            if isinstance(event, h2.events.ConnectionTerminated):
                if event.error_code:
                    raise ConnectionError(f"ended: {event.error_code}")
                self._ends = True
                # The engine would take no further frame, although the one request's are to come.
                self._engine.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN
        return events

    def _flush(self) -> None:
        self._socket.sendall(self._engine.data_to_send())


class WebSocket:
    """The client's end, of short texts."""

    def __init__(self, stream: socket.socket, host: str) -> None:
        self._file = stream.makefile("rwb")
        key = base64.b64encode(os.urandom(16)).decode()
        lines = (
            "GET /echo HTTP/1.1",
            f"Host: {host}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
        )
        self._file.write("\r\n".join((*lines, "", "")).encode())
        self._file.flush()
        self.status = int(self._file.readline().split()[1])
        while self._file.readline().strip():
            pass

    def echo(self, text: str) -> str:
        """What is answered; empty when the other side said goodbye."""
        content, mask = text.encode(), os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(content))
        self._file.write(bytes((0x81, 0x80 | len(content))) + mask + masked)
        self._file.flush()
        return self.read()

    def read(self) -> str:
        """The next text; empty for a farewell, which is a frame of its own and no broken line."""
        kind, length = self._file.read(2)
        content = self._file.read(length)
        assert kind in {0x81, 0x88}, kind
        return content.decode() if kind == 0x81 else ""
