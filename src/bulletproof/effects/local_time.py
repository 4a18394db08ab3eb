"""The time on the machine's wall clock, in its time zone with that zone's rules for times to come."""

from __future__ import annotations

import os
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

_LOCAL_TIME = Path("/etc/localtime")


def local_now() -> datetime:
    """Now, in the local time zone."""
    return datetime.now(local_zone())


def local_zone() -> tzinfo:
    """The zone that `TZ` names, else the machine's (localtime(5)), else UTC; read anew, since it may be changed."""
    name = os.environ.get("TZ", "").removeprefix(":")
    try:
        if name.startswith("/"):
            return _read(Path(name))
        return ZoneInfo(name) if name else _read(_LOCAL_TIME)
    except (OSError, ValueError, LookupError):
        return UTC


def _read(path: Path) -> tzinfo:
    with path.open("rb") as file:
        return ZoneInfo.from_file(file, key=str(path))
