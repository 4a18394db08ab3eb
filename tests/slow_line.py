"""A line between two sides on loopback, which can be slow and can be cut."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

_CHUNK = 32768


@dataclass(slots=True)
class Line:
    """What is sent to `port` goes to `to`, and back."""

    to: int
    port: int
    passed: int = 0
    """Bytes in both directions since it was last set to 0."""
    bytes_per_second: float = 0.0
    """How fast it is in all; 0 is as fast as it can."""
    cut_after: int = 0
    """Cut it once when so many bytes have passed; 0 is never."""
    cuts: int = 0
    _ends: list[socket.socket] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def cut(self) -> None:
        """Break every connection, with nobody saying goodbye."""
        with self._lock:
            ends, self._ends = self._ends, []
            self.cuts += 1
        for end in ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)

    def calm(self) -> None:
        """Be an ordinary line again."""
        self.passed, self.bytes_per_second, self.cut_after, self.cuts = 0, 0.0, 0, 0

    def serve(self, listener: socket.socket) -> None:
        """Take connections until the listener is closed."""
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(("127.0.0.1", self.to))
        except OSError:
            near.close()
            return
        with self._lock:
            self._ends += [near, far]
        back = threading.Thread(target=self._carry, args=(far, near), daemon=True)
        back.start()
        self._carry(near, far)
        back.join()
        near.close()
        far.close()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(_CHUNK):
                target.sendall(chunk)
                self._count(len(chunk))
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _count(self, sent: int) -> None:
        with self._lock:
            self.passed += sent
            is_over = 0 < self.cut_after <= self.passed
            if is_over:
                self.cut_after = 0
            if self.bytes_per_second:
                time.sleep(sent / self.bytes_per_second)
        if is_over:
            self.cut()


@contextlib.contextmanager
def line(to: int) -> Iterator[Line]:
    """Yield a line to a port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        made = Line(to=to, port=listener.getsockname()[1])
        server = threading.Thread(target=made.serve, args=(listener,), daemon=True)
        server.start()
        try:
            yield made
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            made.cut()
            server.join(10)
