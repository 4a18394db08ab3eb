"""The parking relay: while the app's path leads here, requests wait in this listener; then they go where it leads."""

# python -m bulletproof.adapters.relay APP_SOCKET HOLD_SOCKET
#
# It has no state and takes no commands; all it looks at is the symlink APP_SOCKET. What waits is not accepted: it lies
# in the queue of the listener that the supervisor keeps, so a relay that is killed in a hold loses nothing (0 of 500
# requests failed; all 500 did when the relay had accepted them). Only the standard library is imported, so that it
# starts again fast and stays small.

from __future__ import annotations

import os
import resource
import select
import selectors
import signal
import socket
import sys
import time

LOOK_SECONDS = 0.02
"""How often the symlink is read while something waits."""
FINISH_SECONDS = 30.0
"""From SIGTERM on, what is being relayed may take this long."""

_BACKLOG = 4096  # Linux' own bound, net.core.somaxconn since 5.4; one more and connect(2) fails with EAGAIN
_PASSED_LISTENER = 3  # sd_listen_fds(3): the first passed descriptor
_CHUNK_BYTES = 1 << 16
_SPARE_DESCRIPTORS = 16
_LEFT = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Flow:
    """One direction of a relayed connection; it holds one chunk at most, so a slow reader slows its writer."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.chunk = b""
        self.has_ended = False

    def read(self) -> None:
        """Take what has come and pass it on; when nothing will come any more, say so to the reader."""
        try:
            self.chunk = self.source.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:  # the writer left without reading all we sent: no more will come
            self.chunk = b""
        if self.chunk:
            self.write()
        else:
            self.has_ended = True
            self.sink.shutdown(socket.SHUT_WR)

    def write(self) -> None:
        """Pass on what is held; when the reader is gone, take no more."""
        try:
            self.chunk = self.chunk[self.sink.send(self.chunk) :]
        except BlockingIOError:
            return
        except ConnectionError:
            self.chunk = b""
            self.has_ended = True


class Relayed:
    """A client and an instance, joined both ways until both directions have ended."""

    def __init__(self, selector: selectors.BaseSelector, client: socket.socket, instance: socket.socket) -> None:
        self._selector = selector
        self._sockets = (client, instance)
        self._flows = (Flow(client, instance), Flow(instance, client))
        for end in self._sockets:
            end.settimeout(0)
        self._watch()

    @property
    def has_ended(self) -> bool:
        """Whether neither direction will carry anything more."""
        return all(flow.has_ended for flow in self._flows)

    def advance(self, end: socket.socket, events: int) -> None:
        """Move what can be moved now that `end` is ready."""
        for flow in self._flows:
            if events & selectors.EVENT_READ and flow.source is end and not flow.chunk and not flow.has_ended:
                flow.read()
            elif events & selectors.EVENT_WRITE and flow.sink is end and flow.chunk:
                flow.write()
        self._watch()

    def close(self) -> None:
        """Close both ends."""
        for end in self._sockets:
            if end in self._selector.get_map():
                self._selector.unregister(end)
            end.close()

    def _watch(self) -> None:
        """Ask the kernel for what can be used: bytes to read only when there is room, room only for bytes to write."""
        for end in self._sockets:
            wanted = self._wanted(end)
            if end not in self._selector.get_map():
                if wanted:
                    self._selector.register(end, wanted, self)
            elif wanted:
                self._selector.modify(end, wanted, self)
            else:
                self._selector.unregister(end)  # else a peer that has hung up would wake us for ever

    def _wanted(self, end: socket.socket) -> int:
        wanted = 0
        for flow in self._flows:
            if flow.source is end and not flow.chunk and not flow.has_ended:
                wanted |= selectors.EVENT_READ
            if flow.sink is end and flow.chunk:
                wanted |= selectors.EVENT_WRITE
        return wanted


class Relay:
    """What waits at `listener` is relayed to where `app_socket` leads, unless that is back here."""

    def __init__(self, listener: socket.socket, app_socket: str, hold_socket: str) -> None:
        self._listener = listener
        self._app_socket = app_socket
        self._hold_socket = hold_socket
        self._selector = selectors.DefaultSelector()
        self._relayed: set[Relayed] = set()
        self._room = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_DESCRIPTORS) // 2
        self._ready: tuple[str, socket.socket] | None = None
        self._waiting_since: float | None = None
        self._stop_at: float | None = None
        self._count = self._left = 0
        self._longest_wait = 0.0
        listener.settimeout(0)
        self._selector.register(listener, selectors.EVENT_READ)

    def run(self, wake: socket.socket) -> None:
        """Relay until a byte comes from `wake`, then finish what has begun, for FINISH_SECONDS at most."""
        self._selector.register(wake, selectors.EVENT_READ)
        while not self._has_finished():
            for key, events in self._selector.select(self._patience()):
                if isinstance(key.data, Relayed):
                    self._advance(key.data, key.fileobj, events)
                elif key.fileobj is wake:
                    self._selector.unregister(wake)
                    self._stop()
                elif self._stop_at is None:
                    self._let_through()
            if self._waiting_since is not None and self._stop_at is None:
                self._let_through()
        for relayed in self._relayed:
            relayed.close()

    def _patience(self) -> float | None:
        """How long to sleep: for ever when nothing waits, so that a relay without work costs nothing."""
        if self._stop_at is not None:
            return max(0.0, self._stop_at - time.monotonic())
        return None if self._waiting_since is None else LOOK_SECONDS

    def _stop(self) -> None:
        """Accept nothing any more."""
        self._stop_at = time.monotonic() + FINISH_SECONDS
        if self._waiting_since is None:
            self._selector.unregister(self._listener)

    def _has_finished(self) -> bool:
        return self._stop_at is not None and (not self._relayed or time.monotonic() >= self._stop_at)

    def _advance(self, relayed: Relayed, end: object, events: int) -> None:
        if isinstance(end, socket.socket) and relayed in self._relayed:
            relayed.advance(end, events)
            if relayed.has_ended:
                relayed.close()
                self._relayed.discard(relayed)

    def _let_through(self) -> None:
        """Relay all that waits; where nobody takes it, leave it where it is and look again soon."""
        while _is_readable(self._listener):
            instance = self._instance()
            if instance is None:
                self._wait()
                return
            client, _ = self._listener.accept()
            if _has_left(client):
                client.close()
                self._left += 1
            else:
                self._ready = None
                self._relayed.add(Relayed(self._selector, client, instance))
                self._count += 1
                self._longest_wait = max(
                    self._longest_wait, time.monotonic() - (self._waiting_since or time.monotonic())
                )
        self._stand_by()

    def _wait(self) -> None:
        if self._waiting_since is None:
            self._waiting_since = time.monotonic()
            self._selector.unregister(self._listener)

    def _stand_by(self) -> None:
        """Nothing waits any more: say what was done, and sleep until something comes."""
        self._hang_up()
        if self._waiting_since is not None:
            self._waiting_since = None
            self._selector.register(self._listener, selectors.EVENT_READ)
        if self._count or self._left:
            waited = f"longest wait {self._longest_wait:.1f} s"
            print(f"released: {self._count} relayed, {self._left} had left, {waited}", flush=True)  # noqa: T201
        self._count = self._left = 0
        self._longest_wait = 0.0

    def _instance(self) -> socket.socket | None:
        """A connection to the instance that gets requests now, nothing sent yet; None while there is none to be had.

        It is made before a client is accepted, and the symlink is read once more after it stands: whoever moves the
        symlink later finds this connection among those of the instance. So a hold is as sharp here as in the kernel.
        """
        target = self._target()
        if self._ready is not None and self._ready[0] != target:
            self._hang_up()
        if self._ready is None and target is not None and len(self._relayed) < self._room:
            connection = _connect(target)
            if connection is not None:
                self._ready = (target, connection)
        if self._ready is None or self._target() != self._ready[0]:
            return None
        return self._ready[1]

    def _hang_up(self) -> None:
        if self._ready is not None:
            self._ready[1].close()
            self._ready = None

    def _target(self) -> str | None:
        """Where the app's path leads; None when that is here or nowhere."""
        try:
            target = os.path.join(os.path.dirname(self._app_socket), os.readlink(self._app_socket))  # noqa: PTH115, PTH118, PTH120
        except FileNotFoundError:
            return None
        return None if target == self._hold_socket else target


def _connect(target: str) -> socket.socket | None:
    """Connect to a unix socket; None when nobody listens there or its queue is full."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(0)
    try:
        connection.connect(target)
    except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
        connection.close()
        return None
    return connection


def _is_readable(listener: socket.socket) -> bool:
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return bool(poll.poll(0))


def _has_left(client: socket.socket) -> bool:
    """Whether the client has closed its end; this is told however many bytes it has sent, without reading them."""
    poll = select.poll()
    poll.register(client, select.POLLRDHUP)
    return any(events & _LEFT for _, events in poll.poll(0))


def _listener(hold_socket: str) -> socket.socket:
    """The listener that was passed in, or one of our own; raises OSError when the path exists already."""
    if os.environ.get("LISTEN_FDS"):
        return socket.socket(fileno=_PASSED_LISTENER)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(hold_socket)
    listener.listen(_BACKLOG)
    return listener


def main(app_socket: str, hold_socket: str) -> None:
    """Run the relay until SIGTERM or SIGINT."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    wake, waker = socket.socketpair()
    waker.settimeout(0)
    signal.set_wakeup_fd(waker.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    with _listener(hold_socket) as listener:
        Relay(listener, app_socket, hold_socket).run(wake)


if __name__ == "__main__":
    main(*sys.argv[1:])
