"""The port of an app's proxy: chosen once, kept, and nobody else's."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bulletproof.domain.config import Proxy
from bulletproof.domain.layout import Layout
from bulletproof.domain.public import has_tls, wished_port
from bulletproof.effects import durable, route
from bulletproof.errors import Refused

_PORTS = range(8000, 9000)


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """Those of one app, whose proxy is the program that was started with `argument`."""

    layout: Layout
    wished: Proxy
    argument: str

    def port(self) -> int:
        """The port of the proxy, chosen once and kept; that of one that listens only changes by `adopt`.

        Raises Refused: `port-taken` when the wished one is another app's or another program's, `port-forbidden` when
        this user may not listen on it, `no-free-port` when none is left to choose.
        """
        kept = read_port(self.layout.port)
        is_settled = kept_proxy(self.layout) is not None or wished_port(self.wished) in {None, kept}
        if kept is not None and (is_settled or route.listeners(kept)):
            return kept
        return self.choose()

    def check(self) -> None:
        """Raise Refused when the ports that are wished cannot be had, as `port` does."""
        port, wish = self.port(), wished_port(self.wished)
        if wish is not None and wish != port:
            self._checked(wish)
        if has_tls(self.wished):
            kept = kept_proxy(self.layout)
            if kept is None or not has_tls(kept) or kept.http_port != self.wished.http_port:
                self._checked(self.wished.http_port, "http_port")

    def to_begin_with(self) -> int:
        """The port; a chosen one that was taken before the proxy first started is replaced: nobody knows it yet."""
        port, proxy = self.port(), kept_proxy(self.layout) or self.wished
        if has_tls(proxy):
            # Two programs of one user may listen on it at once, and each would get some of the other's requests.
            self._checked(proxy.http_port, "http_port")
        try:
            self._refuse_foreign(port, _key_of(self.wished))
        except Refused:
            if wished_port(self.wished) is not None or Path(self.argument).exists():
                raise
            durable.remove(self.layout.port)
            return self.port()
        return port

    def _refuse_foreign(self, port: int, key: str) -> None:
        """Raise Refused when a program listens on the port that is not our own Caddy."""
        if not route.may_listen(port, key) and not route.is_listening_with(self.argument, port):
            raise _port_taken(port, f"is taken by {route.program_on(port)}", key)

    def choose(self) -> int:
        """Choose one, and keep it."""
        wish = wished_port(self.wished)
        durable.make_folder(self.layout.state.parent)
        durable.make_folder(self.layout.state, mode=0o700)
        with _choosing(self.layout.state.parent):
            port = self._free_port() if wish is None else self._checked(wish)
            durable.write_file(self.layout.port, f"{port}\n")
        return port

    def _free_port(self) -> int:
        claims = self._claims()
        for port in _PORTS:
            if port not in claims and route.may_listen(port):
                return port
        raise Refused(
            "no-free-port",
            f"every port from {_PORTS[0]} to {_PORTS[-1]} is taken",
            hint="choose another with `port` under [proxy] in bulletproof.toml",
        )

    def _checked(self, port: int, key: str = "") -> int:
        key = key or _key_of(self.wished)
        if owner := self._claims().get(port):
            raise _port_taken(port, f"belongs to the app {owner}", key)
        self._refuse_foreign(port, key)
        return port

    def _claims(self) -> dict[int, str]:
        """The ports of the other apps under this root, whether they run or not, and whose each is."""
        files = [file for file in self.layout.state.parent.glob("*/port") if file != self.layout.port]
        plain = {_plain_port(file.with_name(self.layout.proxy_kept.name)): file.parent.name for file in files}
        ports = {**plain, **{read_port(file): file.parent.name for file in files}}
        return {port: app for port, app in ports.items() if port is not None}


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force, or was before a deployment."""

    proxy: Proxy | None = None
    port: int | None = None
    caddyfile: str | None = None


def kept_proxy(layout: Layout) -> Proxy | None:
    """The [proxy] that is in force; None before the first deployment. Raises Refused for a damaged file."""
    try:
        return msgspec.json.decode(layout.proxy_kept.read_bytes(), type=Proxy)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        words = f"{layout.proxy_kept} cannot be understood: {error}"
        raise Refused("proxy-file-damaged", words, hint=f"rm {layout.proxy_kept} && bulletproof deploy") from error


def _plain_port(file: Path) -> int | None:
    """The port on which another app sends people on to HTTPS; None when it does not, or its file cannot be read."""
    try:
        proxy = msgspec.json.decode(file.read_bytes(), type=Proxy)
    except (OSError, msgspec.MsgspecError):
        return None
    return proxy.http_port if has_tls(proxy) else None


def _key_of(proxy: Proxy) -> str:
    """The key of [proxy] that chooses the port."""
    return "port" if proxy.domain is None else "https_port" if has_tls(proxy) else "http_port"


def _port_taken(port: int, words: str, key: str) -> Refused:
    return Refused(
        "port-taken",
        f"port {port} {words}",
        hint=f"choose another with `{key}` under [proxy] in bulletproof.toml, or end what listens there",
    )


def read_port(file: Path) -> int | None:
    """The port that an app has chosen; None when it has none yet."""
    try:
        return int(file.read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Refused("port-file-damaged", f"{file} holds no port", hint=f"rm {file}") from error


@contextlib.contextmanager
def _choosing(folder: Path) -> Iterator[None]:
    """Let one process at a time choose a port under a root."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
