"""Where a host is: what a person writes after `--to`, and what ssh is given of it."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from bulletproof.errors import UsageError

ADDRESS = r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*@)?(?:[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
"""No part can begin with a dash, so that ssh takes none for an option."""

_PARTS = re.compile(
    r"(?:(?P<user>[^@]+)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^:@]+)(?::(?P<port>[0-9]{1,5}))?",
)
_LARGEST_PORT = 65535


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A host as ssh is asked for it; what is empty is left to the person's own ssh configuration."""

    called: str
    """What the person wrote, and what hints say again."""
    host: str
    user: str = ""
    port: int | None = None


def find_address(wish: str, hosts: Mapping[str, str]) -> Address:
    """The host that a person means: a name of the `[hosts]` table, or [USER@]HOST[:PORT].

    Raises UsageError `host-malformed`.
    """
    text = hosts.get(wish, wish)
    found = _PARTS.fullmatch(text) if re.fullmatch(ADDRESS, text) else None
    port = int(found["port"]) if found and found["port"] else None
    if found is None or (port is not None and not 0 < port <= _LARGEST_PORT):
        known = f", nor one of [hosts]: {', '.join(sorted(hosts))}" if hosts else ""
        raise UsageError(
            "host-malformed",
            f"`{''.join(filter(str.isprintable, text))}` is no [USER@]HOST[:PORT]{known}",
            hint="bulletproof status --to deploy@example.org",
        )
    return Address(called=wish, host=found["host"].strip("[]"), user=found["user"] or "", port=port)
