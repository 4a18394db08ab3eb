"""What the embedded supervisor says of itself, line by line in its log."""

from __future__ import annotations

import contextlib
import os
import time


def note(words: str) -> None:
    """Add a line with the time to the supervisor's log, which is its standard output."""
    line = f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {words}\n"
    with contextlib.suppress(OSError):  # a full disk may cost a line of the log, never the supervision
        os.write(1, line.encode(errors="replace"))
