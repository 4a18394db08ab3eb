"""Whether the names of an app have their certificates, and in words why not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psutil

from bulletproof.domain import config
from bulletproof.effects.logs import tail
from bulletproof.effects.probe import Handshake, addresses_of, handshake

_SECONDS = 5.0
_WAIT_SECONDS = 20.0
"""Let's Encrypt takes two to ten seconds for a name that leads here."""
_POLL_SECONDS = 0.2
_LINES = 400
_WEEK_SECONDS = 7 * 86400.0
"""Caddy renews when a third of the life is left: weeks before this for those of 90 days."""


class _Line(msgspec.Struct):
    """A line of Caddy's log, as far as it is about certificates."""

    logger: str = ""
    level: str = ""
    msg: str = ""
    identifier: str = ""
    error: str = ""


class Certificates(msgspec.Struct, frozen=True, kw_only=True):
    """Those of a proxy that does HTTPS itself, on `port` of this machine."""

    proxy: config.Proxy
    port: int
    storage: Path
    log: Path

    @property
    def names(self) -> tuple[str, ...]:
        """Domain and aliases."""
        return tuple(filter(None, (self.proxy.domain, *self.proxy.aliases)))

    @property
    def are_shown(self) -> bool:
        """Whether a certificate is shown for the domain, good or not; also when nobody listens, which others tell."""
        seen = self.look(self.names[0])
        return seen.is_shown or not seen.is_listening

    def look(self, name: str) -> Handshake:
        """At the certificate of a name."""
        is_internal = self.proxy.certificates is config.Certificates.INTERNAL
        root = self.storage / "pki" / "authorities" / "local" / "root.crt"
        return handshake(self.port, name, authority=root if is_internal else None, timeout_seconds=_SECONDS)

    def wait(self) -> None:
        """Until the domain's is shown, or Caddy says why it has none."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while not self.are_shown and not self._why(self.names[0]) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def troubles(self) -> tuple[str, ...]:
        """What is wrong, a line for each name."""
        return tuple(filter(None, map(self._trouble, self.names)))

    def _trouble(self, name: str) -> str:
        seen = self.look(name)
        if not seen.is_listening:
            return ""  # other words are there for a proxy that does not run
        if not seen.is_shown:
            return f"there is no certificate for {name} yet, so nobody gets a page there: {self._reason(name)}"
        if seen.trouble:
            return f"browsers do not trust the certificate of {name}: {seen.trouble}"
        if seen.good_until - time.time() < _WEEK_SECONDS and self.proxy.certificate:
            day = datetime.fromtimestamp(seen.good_until, UTC)
            yours = "and it is yours to replace, then: bulletproof restart"
            return f"the certificate of {name} is good only until {day:%Y-%m-%d}, {yours}"
        return ""

    def _reason(self, name: str) -> str:
        """Where a person has to look: the DNS first, then what the authority said."""
        again = "It is tried again by itself."
        addresses = addresses_of(name, timeout_seconds=_SECONDS)
        said = self._why(name)
        if addresses == ():
            return f"the DNS does not know that name; make a record that leads to this machine. {again}"
        mine = {address.address for some in psutil.net_if_addrs().values() for address in some}
        where = f"the DNS says {', '.join(addresses)}" if addresses else "the DNS did not answer"
        if addresses and not mine.intersection(addresses):
            ports = f"ports {self.proxy.http_port} and {self.port}"
            where += f", which is no address of this machine's own, so {ports} must lead here from there"
        return f"{where}. {f'The authority: {said}. ' if said else ''}{again}"

    def _why(self, name: str) -> str:
        """The last that went wrong with the name; empty when nothing did since it was last obtained."""
        why = ""
        for line in self._told(name):
            if line.error:
                why = line.error
            elif line.msg == "certificate obtained successfully":
                why = ""
        return why

    def _told(self, name: str) -> Iterator[_Line]:
        for text in tail(self.log, _LINES):
            try:
                line = msgspec.json.decode(text, type=_Line)
            except msgspec.MsgspecError:
                continue  # what a panic or a cut leaves is no line of ours
            if line.logger.startswith("tls") and line.identifier == name:
                yield line
