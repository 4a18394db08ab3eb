"""How patient the embedded supervisor is: pauses between restarts, when it gives up, how often it looks around."""

from __future__ import annotations

import msgspec


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """All that a supervisor can be told about itself; the defaults are what people get, tests hurry them."""

    first_pause_seconds: float = 0.25
    """Before the first restart; it doubles with every crash in a row."""
    longest_pause_seconds: float = 10.0
    steady_seconds: float = 30.0
    """A run that lasted longer ends a row of crashes."""
    crashes: int = 8
    """So many in a row, and the supervisor gives up."""
    kill_patience_seconds: float = 30.0
    """From SIGKILL to the words that a process cannot be ended: one that waits for a broken disk cannot."""
    look_seconds: float = 0.5
    """How often it looks whether a deployer died, and whether its own folder is still there."""
    recover_argv: tuple[str, ...] = ()
    """What recovers after a dead deployer; empty means `bulletproof recover` of this installation."""
    recover_first_pause_seconds: float = 1.0
    """After a recovery that failed; it doubles with every one in a row."""
    recover_longest_pause_seconds: float = 60.0
    log_bytes: int = 20 << 20
    """A log that is longer is rotated."""
    log_look_seconds: float = 30.0


def doubling(first_seconds: float, longest_seconds: float, times: int) -> float:
    """The pause after `times` failures in a row (1 or more), in seconds."""
    return min(longest_seconds, first_seconds * 2.0 ** min(times - 1, 32))
