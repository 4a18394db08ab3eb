"""One HTTP request to a TCP port or a unix socket of this machine."""

from __future__ import annotations

import http.client
import socket
import time
from pathlib import Path

from bulletproof.domain.health import Answer

_READ_AT_MOST = 1 << 20


class _UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask_socket(path: Path, target: str, *, host: str, timeout_seconds: float) -> Answer:
    """GET `target` from the server behind a unix socket, with what the proxy would tell it of a client on this machine.

    An app may rely on all of that: one that asks for the client's address would fail without it, but only here.
    """
    client = {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1"}
    public = {"Host": host, "X-Forwarded-Host": host, "X-Forwarded-Proto": "http"}
    return _ask(_UnixConnection(path, timeout_seconds), target, client | public)


def ask_port(port: int, target: str, *, timeout_seconds: float) -> Answer:
    """GET `target` from a port of 127.0.0.1."""
    return _ask(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_seconds), target, {})


def _ask(connection: http.client.HTTPConnection, target: str, headers: dict[str, str]) -> Answer:
    begun = time.monotonic()
    try:
        connection.request("GET", target, headers={"User-Agent": "bulletproof", "Connection": "close", **headers})
        response = connection.getresponse()
        response.read(_READ_AT_MOST)
        status, words = response.status, ""
    except TimeoutError:
        status, words = 0, "no answer in time"
    except (OSError, http.client.HTTPException) as error:
        status, words = 0, f"no answer: {str(error) or type(error).__name__}"
    finally:
        connection.close()
    return Answer(status=status, seconds=time.monotonic() - begun, words=words)
