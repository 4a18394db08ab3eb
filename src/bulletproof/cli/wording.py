"""Numbers as a person reads them."""

from __future__ import annotations

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def duration(seconds: float) -> str:
    """A length of time in its two largest units at most."""
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def size(count: float) -> str:
    """A number of bytes."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:  # noqa: PLR2004  by definition
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def moment(iso: str) -> str:
    """A time of the journal, to the second."""
    return iso[:19].replace("T", " ")
