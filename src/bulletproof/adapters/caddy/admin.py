"""What a running Caddy is told by its admin socket: to show its configuration, and to take another one."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

from bulletproof.effects.probe import UnixConnection
from bulletproof.errors import StepFailed

_SECONDS = 30.0
"""A reload took 13 ms on an idle machine; one with certificates to read, on a loaded one, may need far longer."""


class Admin:
    """Each method raises OSError when no Caddy answers at the socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def has(self, caddyfile: str) -> bool:
        """Whether that is what it works by."""
        adapted = json.loads(self._ask("POST", "/adapt", caddyfile))["result"]
        return bool(adapted == json.loads(self._ask("GET", "/config/")))

    def load(self, caddyfile: str, *, always: bool = False) -> None:
        """Let it work by that from now on; with `always`, begin anew even with the same.

        Raises StepFailed `proxy-not-reloaded` when it cannot; it works by the old one then.
        """
        self._ask("POST", "/load", caddyfile, {"Cache-Control": "must-revalidate"} if always else {})

    def _ask(self, method: str, path: str, body: str = "", headers: dict[str, str] | None = None) -> str:
        connection = UnixConnection(self._socket, _SECONDS)
        try:
            connection.request(method, path, body, {"Content-Type": "text/caddyfile", **(headers or {})})
            response = connection.getresponse()
            said = response.read().decode()
        except http.client.HTTPException as error:
            raise ConnectionError(f"the proxy broke off: {error!r}") from error
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            words = f"the proxy refused its new configuration: {_why(said)}"
            raise StepFailed("proxy-not-reloaded", words)
        return said


def _why(said: str) -> str:
    try:
        return str(json.loads(said)["error"])
    except (ValueError, KeyError, TypeError):
        return said.strip()[:500]
