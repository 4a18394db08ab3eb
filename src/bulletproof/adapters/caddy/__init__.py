"""CaddyProxy: Caddy listens for the public and dials one path, which the switch leads to an instance."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec.structs import replace

from bulletproof.adapters.caddy import closed
from bulletproof.adapters.caddy.admin import Admin
from bulletproof.adapters.caddy.certificates import Certificates
from bulletproof.adapters.caddy.own import OwnCertificate
from bulletproof.adapters.caddy.ports import Kept, Ports, kept_proxy, read_port
from bulletproof.adapters.caddy.program import program
from bulletproof.adapters.caddy.text import GRACE_SECONDS, Places, caddyfile
from bulletproof.domain.account import Account
from bulletproof.domain.config import Proxy
from bulletproof.domain.difference import first_difference
from bulletproof.domain.health import Answer
from bulletproof.domain.layout import Layout
from bulletproof.domain.maintenance import Maintenance
from bulletproof.domain.process import PROXY, RELAY, ProcessSpec
from bulletproof.domain.public import Public, has_tls, public_of, wished_port
from bulletproof.effects import arrivals, durable, probe, process, route
from bulletproof.errors import BulletproofError, StepFailed

GOODBYE_SECONDS = 2.0
"""So long before a reload each connection ends with its next answer. A reload closes idle ones at once, and a request
that comes at that very instant would be lost."""
_STOP_MARGIN_SECONDS = 5
"""SIGKILL only comes when a process did not end by itself after its grace."""
_RELOAD_SECONDS = 15.0
"""One that crashed is back by then."""
QUIET_SECONDS = 0.7
"""So long no new connection comes before a reload; a client repeats its SYN after one second."""
_POLL_SECONDS = 0.1
_VALIDATE_SECONDS = 60.0


class CaddyProxy(msgspec.Struct, frozen=True):
    """The proxy of one app: Caddy for the public, a symlink for the switch, the parking relay for the hold."""

    layout: Layout
    wished: Proxy
    """What the configuration asks for; without a port in it one is chosen."""
    account: Account | None = None
    """As whom it runs, if not as we do: one that may read our Caddyfile and not make a log beside its own."""

    def process(self) -> ProcessSpec:
        """Caddy's process, its configuration written durably.

        Raises Refused: `port-taken` when another program listens on the port by now, `path-not-servable` when Caddy
        cannot be told of the root folder, `caddy-missing`, and as `port` does; StepFailed `proxy-not-valid`.
        """
        port = self._ports.to_begin_with()
        self._make_folders()
        proxy = kept_proxy(self.layout) or self.wished
        text = caddyfile(self._places, proxy, port)
        self._validate(proxy, port)
        durable.write_file(self._caddyfile, text, mode=self._readable)
        self._own(proxy).note()
        return self._caddy()

    def processes(self) -> tuple[ProcessSpec, ...]:
        """Caddy's process and the relay's as they are to be, touching nothing. Raises Refused `caddy-missing`."""
        return self._caddy(), self._relay()

    def drift(self) -> str:
        """How Caddy's file differs from what was written for it; empty when it does not, or is not there yet."""
        kept, port, found = kept_proxy(self.layout), read_port(self.layout.port), self._text()
        if kept is None or port is None:
            return ""
        if found is None:
            return f"{self._caddyfile} is gone"
        wanted = caddyfile(self._places, kept, port)
        return f"{self._caddyfile} was edited by hand: {first_difference(wanted, found)}" if found != wanted else ""

    def _caddy(self) -> ProcessSpec:
        return ProcessSpec(
            name=PROXY,
            argv=(str(program()), "run", "--config", str(self._caddyfile), "--adapter", "caddyfile"),
            folder=self.layout.proxy_home,
            log=self._log,
            runtime=self._runtime,
            environment={**self._environment, "GODEBUG": "multipathtcp=0"},  # whose listeners cannot be held
            stop_seconds=GRACE_SECONDS + _STOP_MARGIN_SECONDS,
        )

    def relay(self) -> ProcessSpec:
        """The parking relay's process; the supervisor keeps its listener."""
        self._make_folders()
        return self._relay()

    def _relay(self) -> ProcessSpec:
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
        """The port of the proxy, chosen once and kept; that of one that listens only changes by `adopt`.

        Raises Refused as `check`, and `no-free-port` when none is left to choose.
        """
        return self._ports.port()

    def check(self) -> None:
        """Raise Refused for ports that cannot be had: `port-taken`, `port-forbidden`; and `certificate-unreadable`."""
        self._ports.check()
        if self.wished != kept_proxy(self.layout):
            self._own(self.wished).refuse_unreadable()

    def public(self) -> Public:
        """How people will ask for the app once what is wished is in force."""
        return public_of(self.wished, wished_port(self.wished) or self.port())

    def adopt(self, number: int, *, runs: bool) -> str:
        """What is wished is in force, and kept; of a proxy that runs no request is dropped. Says what changed.

        Raises StepFailed `proxy-not-valid` or `proxy-not-reloaded`, with the old one in force, and Refused.
        """
        self._make_folders()
        before = Kept(proxy=kept_proxy(self.layout), port=read_port(self.layout.port), caddyfile=self._text())
        kept = before.port if runs else self._ports.to_begin_with()
        port = wished_port(self.wished) or kept or self._ports.choose()
        wished = Kept(proxy=self.wished, port=port, caddyfile=caddyfile(self._places, self.wished, port))
        if wished == before:
            return self._renew(port) if runs else ""
        self._validate(self.wished, port)
        for other in self._caddyfile.parent.glob("proxy-before-*.json"):
            durable.remove(other)
        durable.write_file(self._before(number), msgspec.json.encode(before), mode=0o600)
        self._put(wished)
        remark = self._reload(wished.caddyfile) if runs and wished.caddyfile is not None else ""
        self._own(self.wished).note()
        is_known = (before.proxy, before.port) == (self.wished, port)
        return "\n".join(filter(None, ("" if is_known else public_of(self.wished, port).address, remark)))

    def _renew(self, port: int) -> str:
        """The proxy that runs works by the certificate as it is now; says so, or why not: that stops no deployment."""
        own = self._own(self.wished)
        try:
            own.refuse_unreadable()
            if not own.is_renewed():
                return ""
            self._validate(self.wished, port)
            remark = self._reload(self._caddyfile.read_text(encoding="utf-8"), always=True)
        except BulletproofError as error:
            return f"the certificate that was read before stays in use: {error.message}"
        own.note()
        return "\n".join(filter(None, ("the renewed certificate is in use", remark)))

    def give_back(self, number: int, *, runs: bool) -> None:
        """What was in force before deployment `number` adopted another one is so again; idempotent."""
        try:
            before = msgspec.json.decode(self._before(number).read_bytes(), type=Kept)
        except FileNotFoundError:
            return
        self._put(before)
        if runs and before.caddyfile is not None:
            self._reload(before.caddyfile)
        durable.remove(self._before(number))

    def end_streams(self) -> None:
        """End what would never end by itself, such as websockets, with a word to both sides.

        A request that is only slow goes on. Raises OSError where no proxy runs, StepFailed `proxy-not-reloaded`.
        """
        with self._nobody_new():
            Admin(self._admin).load(self._caddyfile.read_text(encoding="utf-8"), always=True)

    def let_in(self) -> None:
        """New connections are taken, should a call that let them wait have been killed; idempotent."""
        for pid, inodes in route.listening_with(str(self._caddyfile)):
            with contextlib.suppress(OSError):  # what may not be had was not kept waiting either
                arrivals.let_in(pid, inodes)

    def ask(self, path: str, timeout_seconds: float) -> Answer:
        """GET a path as the public does; by our own door where the public gets no answer of the app's."""
        proxy, port = kept_proxy(self.layout) or self.wished, self.port()
        public = public_of(proxy, port)
        if self.maintenance() is not None or (has_tls(proxy) and not self._certificates(proxy).are_shown):
            return probe.ask_socket(self._door, path, public, timeout_seconds=timeout_seconds)
        if has_tls(proxy):
            return probe.ask_tls(port, path, public, timeout_seconds=timeout_seconds)
        return probe.ask_port(port, path, host=public.host, timeout_seconds=timeout_seconds)

    def is_listening(self) -> bool:
        """Whether our Caddy accepts connections on the port, looked up without connecting.

        Raises StepFailed (`port-shared`) when two programs do: Caddy binds with SO_REUSEPORT, so a second one of the
        same user gets a part of the connections instead of an error.
        """
        port, proxy = self.port(), kept_proxy(self.layout) or self.wished
        counts = {one: len(route.listeners(one)) for one in ((port, proxy.http_port) if has_tls(proxy) else (port,))}
        for one, count in counts.items():
            if count > 1:
                raise StepFailed("port-shared", f"{count} programs listen on port {one}, and each gets some requests")
        # One that listens may be another's, who chose the same port at the same time and was quicker.
        return counts[port] == 1 and route.is_listening_with(str(self._caddyfile), port)

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

    def maintenance(self) -> Maintenance | None:
        """Whether the app is closed to the public."""
        return closed.read(self._pages)

    def maintain(self, wish: Maintenance | None) -> None:
        """From one instant on the app is closed to the public as wished, or open to it; whatever runs or starts."""
        self._make_folders()
        closed.write(self._pages, wish)

    def notes(self) -> tuple[str, ...]:
        """What a person should know of how the public gets the app, in words."""
        proxy, shut = kept_proxy(self.layout) or self.wished, self.maintenance()
        on = f"maintenance is on since {shut.since}; people get its page: bulletproof maintenance off" if shut else ""
        return (*filter(None, (on,)), *(self._certificates(proxy).troubles() if has_tls(proxy) else ()))

    def await_certificate(self) -> None:
        """Come back when people can be served over TLS, or it is known that they cannot be yet."""
        proxy = kept_proxy(self.layout) or self.wished
        if has_tls(proxy):
            self._certificates(proxy).wait()

    @property
    def _caddyfile(self) -> Path:
        return self.layout.proxy_home / "Caddyfile"

    @property
    def _storage(self) -> Path:
        return self.layout.proxy_storage

    @property
    def _pages(self) -> Path:
        """What Caddy looks for at every request, and what it gives out then."""
        return self._caddyfile.parent

    @property
    def _readable(self) -> int:
        return 0o644 if self.account else 0o600

    @property
    def _runtime(self) -> Path:
        """Where it makes the sockets that are for us alone."""
        return self.layout.sockets / PROXY

    @property
    def _admin(self) -> Path:
        return self._runtime / "admin.sock"

    @property
    def _door(self) -> Path:
        return self._runtime / "door.sock"

    @property
    def _log(self) -> Path:
        return self.layout.logs / "proxy.log"

    @property
    def _environment(self) -> dict[str, str]:
        return dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), str(self._storage))

    @property
    def _places(self) -> Places:
        layout = self.layout
        return Places(
            app=layout.app,
            storage=self._storage,
            access_log=layout.access_log,
            app_socket=layout.app_socket,
            admin=self._admin,
            door=self._door,
            static=layout.current / layout.public("-").name,
            former=layout.former / layout.public("-").name,
            maintenance=self._pages / closed.LINK,
            goodbye=self._pages / "goodbye",
            rolls=self.account is None,
        )

    @property
    def _ports(self) -> Ports:
        return Ports(layout=self.layout, wished=self.wished, argument=str(self._caddyfile))

    def _certificates(self, proxy: Proxy) -> Certificates:
        return Certificates(proxy=proxy, port=self.port(), storage=self._storage, log=self._log)

    def _own(self, proxy: Proxy) -> OwnCertificate:
        return OwnCertificate(proxy=proxy, reader=self.account, noted=self._pages / "certificate-read")

    def _before(self, number: int) -> Path:
        return self._caddyfile.with_name(f"proxy-before-{number}.json")

    def _text(self) -> str | None:
        try:
            return self._caddyfile.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def _put(self, kept: Kept) -> None:
        """Make it what is in force at the proxy's next start."""
        if kept.proxy is None:
            durable.remove(self.layout.proxy_kept)
        else:
            durable.write_file(self.layout.proxy_kept, msgspec.json.encode(kept.proxy), mode=0o600)
        if kept.port is None:
            durable.remove(self.layout.port)
        else:
            durable.write_file(self.layout.port, f"{kept.port}\n")
        if kept.caddyfile is not None:
            durable.write_file(self._caddyfile, kept.caddyfile, mode=self._readable)

    def _validate(self, proxy: Proxy, port: int) -> None:
        """Raise StepFailed for what Caddy would not take; it writes its files elsewhere meanwhile. Raises Refused."""
        self._own(proxy).refuse_unreadable()
        with tempfile.TemporaryDirectory(prefix="bulletproof-proxy-") as name:
            scratch = Path(name)
            tried = replace(self._places, storage=scratch / "caddy", access_log=scratch / "access.log")
            durable.write_file(scratch / "Caddyfile", caddyfile(tried, proxy, port))
            process.run_checked(
                (program(), "validate", "--config", scratch / "Caddyfile", "--adapter", "caddyfile"),
                folder=scratch,
                reference="proxy-not-valid",
                failure="the proxy cannot work by [proxy] of the configuration",
                environment=dict.fromkeys(self._environment, name),
                timeout_seconds=_VALIDATE_SECONDS,
                hint="correct [proxy] in bulletproof.toml, then: bulletproof deploy",
            )

    def _reload(self, text: str, *, always: bool = False) -> str:
        """Let the Caddy that runs, or comes back after a crash, work by that; says what may be wrong with it.

        Raises StepFailed.
        """
        admin, deadline = Admin(self._admin), time.monotonic() + _RELOAD_SECONDS
        while True:
            try:
                if not always and admin.has(text):
                    return ""
                with self._goodbye(), self._nobody_new() as remark:
                    admin.load(text, always=always)
                return remark
            except OSError as error:
                if time.monotonic() >= deadline:
                    words = f"the proxy could not be told of its new configuration: {error}"
                    hint = "bulletproof stop && bulletproof deploy"
                    raise StepFailed("proxy-not-reloaded", words, hint=hint) from error
                time.sleep(_POLL_SECONDS)

    @contextlib.contextmanager
    def _nobody_new(self) -> Iterator[str]:
        """New connections wait in the network, and what came before them was read; or says why they do not."""
        with contextlib.ExitStack() as stack:
            remark = ""
            for pid, inodes in route.listening_with(str(self._caddyfile)):
                try:
                    stack.enter_context(arrivals.held(pid, inodes))
                except PermissionError:
                    remark = "connections that came in that instant may have been cut: the kernel lets us hold none"
            time.sleep(QUIET_SECONDS)
            yield remark

    @contextlib.contextmanager
    def _goodbye(self) -> Iterator[None]:
        """Each connection was told that it ends, and has ended if it was in use."""
        durable.write_file(self._places.goodbye, "")
        try:
            time.sleep(GOODBYE_SECONDS)
            yield
        finally:
            durable.remove(self._places.goodbye)

    def _make_folders(self) -> None:
        durable.make_folder(self.layout.logs)
        durable.make_folder(self.layout.sockets, mode=0o700)
        durable.make_folder(self.layout.state.parent)
        durable.make_folder(self.layout.state, mode=0o700)
        durable.make_folder(self.layout.proxy_home, mode=0o700)
        durable.make_folder(self._storage, mode=0o700)
