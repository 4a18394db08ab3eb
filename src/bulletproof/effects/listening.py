"""What listens to the whole network, and which process that is."""

from __future__ import annotations

import msgspec
import psutil

_EVERYWHERE = frozenset({"0.0.0.0", "::", "*"})  # noqa: S104  it is looked for


class Listening(msgspec.Struct, frozen=True, kw_only=True):
    """A port that is open on every network of the machine."""

    port: int
    pid: int
    """0 when it is another user's, which only root is told."""
    command: str


def listening_to_all() -> tuple[Listening, ...]:
    """All of them, by their ports. Raises OSError."""
    found = set()
    for one in psutil.net_connections(kind="tcp"):
        place = one.laddr
        if one.status == psutil.CONN_LISTEN and place and place.ip in _EVERYWHERE:
            found.add((place.port, one.pid or 0))
    return tuple(Listening(port=port, pid=pid, command=_command(pid)) for port, pid in sorted(found))


def _command(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())[:60] if pid else ""
    except psutil.Error:
        return ""
