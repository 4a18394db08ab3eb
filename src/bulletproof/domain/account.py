"""The users of a server that an app's processes run as: none of them is root, and none is another's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from bulletproof.domain.layout import Layout
from bulletproof.domain.process import PROXY, RELAY

PROXY_USER = "bulletproof-proxy"
"""Runs Caddy and the parking relay of every app: it has the certificates' keys, and no app may read them."""
BUILD_USER = "bulletproof-build"
"""Runs what packages do when they are built; it owns nothing that outlives a build but downloads."""
OURS = frozenset({PROXY_USER, BUILD_USER})
"""No app may run as one of these."""

_SETPRIV = "/usr/bin/setpriv"
"""Of util-linux, which every Debian has."""
_UNSHARE = "/usr/bin/unshare"


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A user of the machine, and its group."""

    name: str
    user: int
    group: int

    def argv(self, argv: Sequence[str | Path]) -> tuple[str, ...]:
        """The command line that root starts for it to be run as this user, with no right and no group besides."""
        who = (f"--reuid={self.user}", f"--regid={self.group}", "--clear-groups")
        rights = ("--no-new-privs", "--inh-caps=-all", "--bounding-set=-all")
        return (_SETPRIV, *who, *rights, "--", *map(str, argv))

    def argv_alone(self, argv: Sequence[str | Path]) -> tuple[str, ...]:
        """The same in a process namespace of its own: whatever it leaves running dies with it."""
        return (_UNSHARE, "--pid", "--fork", "--kill-child", "--mount-proc", "--", *self.argv(argv))


class Accounts(msgspec.Struct, frozen=True, kw_only=True):
    """Who runs what of one app on a server."""

    app: Account
    """The app itself: `user` under [app]."""
    proxy: Account
    builder: Account


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a process runs as, and all that it may write."""

    account: Account
    joins: tuple[str, ...] = ()
    """Groups of which it is as well."""
    writable: tuple[Path, ...] = ()
    is_apps: bool = False
    """Whether it is the app's own, whose files its group may write as well."""
    has_low_ports: bool = False
    """Whether it may listen on ports below 1024."""


def sandbox_of(process: str, layout: Layout, accounts: Accounts) -> Sandbox | None:
    """What a process of the app is kept to, by its name; None for what is ours, and runs as root."""
    if process.startswith(("web-", "worker-", "timer-")):
        return Sandbox(account=accounts.app, writable=(layout.data,), is_apps=True)
    if process in {PROXY, RELAY}:
        return Sandbox(
            account=accounts.proxy,
            joins=(accounts.app.name,),
            writable=(layout.proxy_storage, layout.access_log) if process == PROXY else (),
            has_low_ports=process == PROXY,
        )
    return None
