"""The supervisor's end of the control socket: many clients at once, none of which can hold up another."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec

from bulletproof.adapters.embedded import wire
from bulletproof.adapters.embedded.wire import Answer, Request
from bulletproof.effects import durable

Reply = Callable[[Answer], None]
"""Says the answer, now or later; to a client that has left, nothing."""

_BACKLOG = 128
_LONGEST_REQUEST_BYTES = 1 << 20


class Control:
    """Listens at `path`; gives every request, with a way to answer it, to `handle`."""

    def __init__(self, path: Path, handle: Callable[[Request, Reply], None]) -> None:
        self._path = path
        self._handle = handle
        self._clients: dict[int, _Client] = {}
        self._listener = _listen(path)

    def descriptors(self) -> list[int]:
        """What to poll for being readable."""
        self._clients = {number: client for number, client in self._clients.items() if not client.is_closed}
        return [self._listener.fileno(), *self._clients]

    def serve(self, ready: set[int]) -> None:
        """Take new clients and read from those that are `ready`."""
        if self._listener.fileno() in ready:
            self._accept()
        for descriptor in ready & self._clients.keys():
            self._read(self._clients[descriptor])

    def is_reachable(self) -> bool:
        """Whether the socket is still where clients look for it."""
        return self._path.is_socket()

    def listen_again(self) -> None:
        """Take the place of a socket that somebody removed."""
        self._listener.close()
        self._listener = _listen(self._path)

    def close(self) -> None:
        """Leave: the socket is gone from its place, and every client that still waits sees the end."""
        self._listener.close()
        durable.remove(self._path)
        for client in self._clients.values():
            client.close()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):  # it has left before we came
            connection, _ = self._listener.accept()
            connection.settimeout(0)
            self._clients[connection.fileno()] = _Client(connection)

    def _read(self, client: _Client) -> None:
        line = client.read_line()
        if line is None:
            return
        try:
            request = wire.decode(line, Request)
        except msgspec.DecodeError as error:
            client.answer(Answer(reference="request-not-understood", message=str(error)))
            return
        self._handle(request, client.answer)


class _Client:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = b""
        self._has_asked = False
        self.is_closed = False

    def read_line(self) -> bytes | None:
        """Read what is there: the request when it is whole. Whoever leaves or says too much is forgotten."""
        try:
            received = self._connection.recv(1 << 16)
        except BlockingIOError:
            return None
        except ConnectionError:
            received = b""
        self._received += received
        if not received or len(self._received) > _LONGEST_REQUEST_BYTES:
            self.close()
            return None
        if self._has_asked or b"\n" not in self._received:
            return None
        self._has_asked = True
        return self._received.partition(b"\n")[0]

    def answer(self, answer: Answer) -> None:
        """Say it and hang up; an answer is far shorter than a socket's buffer, so that one call takes it whole."""
        if not self.is_closed:
            with contextlib.suppress(BlockingIOError, ConnectionError):  # it did not wait for the answer
                self._connection.send(wire.encode(answer))
            self.close()

    def close(self) -> None:
        self._connection.close()
        self.is_closed = True


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    durable.remove(path)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(_BACKLOG)
    listener.settimeout(0)
    return listener
