"""A proxy in memory: where its one path leads, who is connected to which instance, and which ports are taken."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

from bulletproof.domain.maintenance import Maintenance
from bulletproof.domain.process import PROXY, RELAY, ProcessSpec
from bulletproof.domain.public import Public
from bulletproof.errors import Refused

_HELD = -1


@dataclass
class FakeProxy:
    """`leads_to` is an instance's number, or nothing when requests are held or go nowhere."""

    leads_to: int | None = None
    open_connections: dict[int, int] = field(default_factory=dict)
    is_up: bool = True
    """Whether something accepts connections on the port."""
    app: str = "app"
    wished_port: int | None = None
    claims: dict[str, int] = field(default_factory=dict)
    """The ports that apps have chosen; one dictionary for all apps of a root."""
    taken: set[int] = field(default_factory=set)
    """The ports that other programs listen on."""
    wish: str | None = None
    """The configuration that the next deployment brings; None for none."""
    kept: str = "first"
    in_force: str = "first"
    """What the process works by."""
    before: dict[int, str] = field(default_factory=dict)
    closed: Maintenance | None = None

    def process(self) -> ProcessSpec:
        """The proxy's process; once it is started it works by what is kept."""
        self.in_force = self.kept
        return ProcessSpec(name=PROXY, argv=("proxy",), folder=Path("/"), log=Path("/dev/null"))

    def processes(self) -> tuple[ProcessSpec, ...]:
        """Both, and nothing is touched."""
        return ProcessSpec(name=PROXY, argv=("proxy",), folder=Path("/"), log=Path("/dev/null")), self.relay()

    def drift(self) -> str:
        """Nobody edits it."""
        return ""

    def relay(self) -> ProcessSpec:
        """The relay's process."""
        return ProcessSpec(
            name=RELAY, argv=("relay",), folder=Path("/"), log=Path("/dev/null"), listen=Path("/hold.sock")
        )

    def port(self) -> int:
        """The wished one or the first free one, chosen once. Raises Refused when the wished one is taken."""
        kept = self.claims.get(self.app)
        if kept is not None and self.wished_port in {None, kept}:
            return kept
        others = {port for app, port in self.claims.items() if app != self.app} | self.taken
        if self.wished_port in others:
            words = f"port {self.wished_port} is taken"
            raise Refused("port-taken", words, hint="choose another with `port` under [proxy] in bulletproof.toml")
        free = (port for port in itertools.count(8000) if port not in others)
        self.claims[self.app] = self.wished_port or next(free)
        return self.claims[self.app]

    def check(self) -> None:
        """Refuse what is taken."""
        self.port()

    def public(self) -> Public:
        """Its port on this machine."""
        return Public(host=f"127.0.0.1:{self.port()}")

    def adopt(self, number: int, *, runs: bool) -> str:
        """Keep what is wished; a running proxy works by it."""
        if self.wish in {None, self.kept}:
            return ""
        self.before[number] = self.kept
        self.kept = self.wish or ""
        if runs:
            self.in_force = self.kept
        return self.kept

    def give_back(self, number: int, *, runs: bool) -> None:
        """Keep what was kept before."""
        if number in self.before:
            self.kept = self.before[number]
            if runs:
                self.in_force = self.kept
            del self.before[number]

    def end_streams(self) -> None:
        """There are none."""

    def let_in(self) -> None:
        """Nobody waits."""

    def maintenance(self) -> Maintenance | None:
        """What was wished last."""
        return self.closed

    def maintain(self, wish: Maintenance | None) -> None:
        """Note it."""
        self.closed = wish

    def notes(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def await_certificate(self) -> None:
        """Nothing to wait for."""

    def is_listening(self) -> bool:
        """At once, unless a test says otherwise."""
        return self.is_up

    def route_to(self, number: int) -> None:
        """New requests go to that instance."""
        self.leads_to = number

    def hold(self) -> None:
        """New requests wait."""
        self.leads_to = _HELD

    def close(self) -> None:
        """New requests go nowhere."""
        self.leads_to = None

    @property
    def is_held(self) -> bool:
        """Whether requests wait."""
        return self.leads_to == _HELD

    def target(self) -> int | None:
        """The instance that gets new requests."""
        return None if self.leads_to == _HELD else self.leads_to

    def connections(self, number: int) -> int:
        """How many connections the instance has."""
        return self.open_connections.get(number, 0)
