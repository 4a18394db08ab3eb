"""A package index on the loopback that only answers who knows its password (PEP 503)."""

from __future__ import annotations

import base64
import contextlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

USER = "joe"


@dataclass(frozen=True)
class PrivateIndex:
    """A running index."""

    host: str
    password: str
    asked: list[tuple[str, bool]] = field(default_factory=list)
    """Each path that was asked for, and whether with the password."""
    seen_in: list[str] = field(default_factory=list)
    """Command lines of this machine that had the password while a page was asked for."""

    @property
    def address(self) -> str:
        """Where its pages are, without a password."""
        return f"http://{self.host}/simple"

    @property
    def address_with_password(self) -> str:
        """The same, with it."""
        return f"http://{USER}:{self.password}@{self.host}/simple"

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """What nobody may find: the password, as it is and as it goes over the wire."""
        return self.password.encode(), _credentials(self.password).encode()


def _command_lines() -> Iterator[str]:
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield file.read_text(errors="replace")


def _credentials(password: str) -> str:
    return base64.b64encode(f"{USER}:{password}".encode()).decode()


@contextlib.contextmanager
def private_index(wheel: Path, password: str) -> Iterator[PrivateIndex]:
    """An index of this one wheel."""
    asked: list[tuple[str, bool]] = []
    seen_in: list[str] = []
    name = wheel.name.partition("-")[0]
    page = f'<!DOCTYPE html><html><body><a href="/files/{wheel.name}">{wheel.name}</a></body></html>'
    contents = {f"/simple/{name}/": page.encode(), f"/files/{wheel.name}": wheel.read_bytes()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_known = self.headers.get("Authorization") == f"Basic {_credentials(password)}"
            asked.append((self.path, is_known))
            seen_in.extend(line for line in _command_lines() if password in line)
            content = contents.get(self.path, b"")
            self.send_response(401 if not is_known else 200 if content else 404)
            if not is_known:
                self.send_header("WWW-Authenticate", 'Basic realm="packages"')
            self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/octet-stream")
            self.send_header("Content-Length", str(len(content) if is_known else 0))
            self.end_headers()
            if is_known and self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815  the name that http.server looks for

        def log_message(self, *_: object) -> None:
            """Nothing is told."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield PrivateIndex(host=f"127.0.0.1:{server.server_port}", password=password, asked=asked, seen_in=seen_in)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
