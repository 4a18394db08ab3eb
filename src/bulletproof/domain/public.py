"""Where the public finds an app: its address, what a client says of it, and which keys of [proxy] fit together."""

from __future__ import annotations

import ipaddress

import msgspec

from bulletproof.domain.config import Certificates, Proxy

_HTTPS_PORT = 443


class Public(msgspec.Struct, frozen=True, kw_only=True):
    """How an app is asked by the public: what comes in Host, and whether over TLS."""

    host: str
    scheme: str = "http"
    has_tls: bool = False
    """Whether the proxy itself does HTTPS, and not somebody in front of it."""

    @property
    def name(self) -> str:
        """The host without its port."""
        return self.host.partition(":")[0]

    @property
    def address(self) -> str:
        """What a person types."""
        return f"{self.scheme}://{self.host}"


def public_of(proxy: Proxy, port: int) -> Public:
    """How the app is asked behind a proxy that listens on `port`."""
    if proxy.domain is None:
        return Public(host=f"127.0.0.1:{port}")
    # What does HTTPS in front of this machine is asked on the usual port, wherever it asks us.
    is_usual = port == _HTTPS_PORT or proxy.certificates is Certificates.NONE
    host = proxy.domain if is_usual else f"{proxy.domain}:{port}"
    return Public(host=host, scheme="https", has_tls=has_tls(proxy))


def wished_port(proxy: Proxy) -> int | None:
    """The port that serves the app; None lets one be chosen."""
    if proxy.domain is None:
        return proxy.port
    return proxy.http_port if proxy.certificates is Certificates.NONE else proxy.https_port


def has_tls(proxy: Proxy) -> bool:
    """Whether the proxy itself does HTTPS."""
    return proxy.domain is not None and proxy.certificates is not Certificates.NONE


def network_fault(text: str) -> str:
    """Why a text is no address and no network; empty when it is one."""
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        return str(error)
    return ""


def faults(proxy: Proxy) -> dict[str, str]:
    """What does not fit together: words that follow the key that is to be corrected."""
    found = {}
    if proxy.domain is None:
        found = {
            key: "has a meaning only with a `domain`"
            for key in ("aliases", "certificate", "key", "http3")
            if getattr(proxy, key)
        }
    elif proxy.port is not None:
        found["port"] = "is for an app without a domain; with one it is `https_port` and `http_port`"
    if (proxy.certificate is None) != (proxy.key is None):
        here, other = ("certificate", "key") if proxy.certificate else ("key", "certificate")
        found.setdefault(here, f"needs `{other}` beside it")
    if proxy.certificate and proxy.certificates is not Certificates.AUTOMATIC:
        found["certificates"] = "cannot stand beside a `certificate` of your own"
    if proxy.domain in proxy.aliases:
        found["aliases"] = f"has {proxy.domain}, which is the domain itself"
    if proxy.domain and proxy.http_port == proxy.https_port:
        found["http_port"] = "is the same as `https_port`"
    return found
