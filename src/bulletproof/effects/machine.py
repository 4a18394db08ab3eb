"""What the machine says of itself: its clock, whether it waits for a reboot, which libraries were replaced."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterable
from pathlib import Path

_CLOCK_IS_NOT_SYNCHRONISED = 5
"""TIME_ERROR of adjtimex(2)."""
_REBOOT = Path("/run/reboot-required")
"""Made by Debian's and Ubuntu's packages (update-notifier, unattended-upgrades)."""
_LIBRARY = re.compile(r"\s(/[^\s].*\.so(?:\.[\w.]+)?) \(deleted\)$")


class _Timex(ctypes.Structure):
    """The beginning of `struct timex`, and room for the rest of it (adjtimex(2))."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("frequency", ctypes.c_long),
        ("most_error", ctypes.c_long),
        ("guessed_error", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def clock_error() -> float | None:
    """By how many seconds the clock may be wrong at most, as the kernel has it; None when nobody keeps it.

    Raises OSError where the kernel does not tell.
    """
    told = _Timex()
    library = ctypes.CDLL(None, use_errno=True)
    state = library.adjtimex(ctypes.byref(told))
    if state < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return None if state == _CLOCK_IS_NOT_SYNCHRONISED else told.most_error / 1e6


def reboot_wanted_by(flag: Path = _REBOOT) -> tuple[str, ...] | None:
    """The packages for which the system waits for a reboot, as far as it says; None when it does not wait."""
    if not flag.exists():
        return None
    try:
        packages = flag.with_name(f"{flag.name}.pkgs").read_text(encoding="utf-8").split()
    except FileNotFoundError:
        packages = []
    return tuple(dict.fromkeys(packages))


def replaced_libraries(pids: Iterable[int], besides: Path) -> tuple[str, ...]:
    """Libraries that these processes run although they lie on the disk no more; not those below the folder `besides`.

    Raises OSError for a process whose memory we may not see.
    """
    found: dict[str, None] = {}
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        for line in text.splitlines():
            library = _LIBRARY.search(line)
            if library and not Path(library[1]).is_relative_to(besides):
                found[Path(library[1]).name] = None
    return tuple(found)
