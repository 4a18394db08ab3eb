"""One request to a TCP port or a unix socket of this machine, and what is known of its name outside."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow
from pathlib import Path

import msgspec

from bulletproof.domain.health import Answer
from bulletproof.domain.public import Public

_READ_AT_MOST = 1 << 20
_US = "127.0.0.1"


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask_socket(path: Path, target: str, public: Public, *, timeout_seconds: float) -> Answer:
    """GET `target` from the server behind a unix socket, with what the proxy would tell it of a client on this machine.

    An app may rely on all of that: one that asks for the client's address would fail without it, but only here.
    """
    client = {"X-Forwarded-For": _US, "X-Real-IP": _US}
    asked = {"Host": public.host, "X-Forwarded-Host": public.host, "X-Forwarded-Proto": public.scheme}
    return _ask(UnixConnection(path, timeout_seconds), target, client | asked)


def ask_port(port: int, target: str, *, host: str = _US, timeout_seconds: float) -> Answer:
    """GET `target` from a port of 127.0.0.1."""
    return _ask(http.client.HTTPConnection(_US, port, timeout=timeout_seconds), target, {"Host": host})


def ask_tls(port: int, target: str, public: Public, *, timeout_seconds: float) -> Answer:
    """The same over TLS. Whose certificate it is is not asked: this is our own machine, and `handshake` tells that."""
    return _ask(_TlsConnection(public.name, port, timeout_seconds), target, {"Host": public.host})


def connection_to(port: int, public: Public, timeout_seconds: float) -> http.client.HTTPConnection:
    """A connection to the proxy on this machine, for what the public would ask; the Host is the caller's to say."""
    if public.has_tls:
        return _TlsConnection(public.name, port, timeout_seconds)
    return http.client.HTTPConnection(_US, port, timeout=timeout_seconds)


class _TlsConnection(http.client.HTTPConnection):
    """TLS to this machine, by a public name."""

    def __init__(self, name: str, port: int, timeout: float) -> None:
        super().__init__(_US, port, timeout=timeout)
        self._name = name

    def connect(self) -> None:
        super().connect()
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.sock = context.wrap_socket(self.sock, server_hostname=self._name)


class Handshake(msgspec.Struct, frozen=True, kw_only=True):
    """How a name is served over TLS: until when its certificate is good, or what is wrong with it."""

    trouble: str = ""
    is_listening: bool = True
    is_shown: bool = True
    """Whether a certificate was shown at all."""
    issuer: str = ""
    good_until: float = 0.0
    """Seconds since 1970."""


def handshake(port: int, name: str, *, authority: Path | None, timeout_seconds: float) -> Handshake:
    """Look at the certificate that is shown on this machine for a name, as people's browsers would.

    They know the authorities of this system, or the one whose certificate is given.
    """
    try:
        context = ssl.create_default_context(cafile=str(authority) if authority else None)
        with socket.create_connection((_US, port), timeout_seconds) as plain:
            plain.settimeout(timeout_seconds)
            with context.wrap_socket(plain, server_hostname=name) as secure:
                shown = secure.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        return Handshake(trouble=error.verify_message or str(error))
    except OSError as error:
        listens = isinstance(error, (ssl.SSLError, TimeoutError, ConnectionResetError))
        return Handshake(trouble=str(error) or type(error).__name__, is_listening=listens, is_shown=False)
    issuer: dict[str, str] = dict(pair for part in shown.get("issuer", ()) for pair in part)  # type: ignore[misc]
    return Handshake(
        issuer=issuer.get("organizationName") or issuer.get("commonName", ""),
        good_until=ssl.cert_time_to_seconds(str(shown["notAfter"])),
    )


def addresses_of(name: str, *, timeout_seconds: float) -> tuple[str, ...] | None:
    """What the DNS says of a name: none for one that is not there, None when it did not answer in time."""
    pool = ThreadPoolExecutor(max_workers=1)
    try:
        found = pool.submit(socket.getaddrinfo, name, None, type=socket.SOCK_STREAM).result(timeout_seconds)
    except socket.gaierror as error:
        return () if error.errno in {socket.EAI_NONAME, socket.EAI_NODATA} else None
    except TooSlow:
        return None
    finally:
        pool.shutdown(wait=False)
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


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
        status, words = 0, f"no answer: {_why(error)}"
    finally:
        connection.close()
    return Answer(status=status, seconds=time.monotonic() - begun, words=words)


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
