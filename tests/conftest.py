"""What all rings share: chance that can be repeated."""

from __future__ import annotations

import os
import signal
from types import FrameType

from hypothesis import settings

# On a person's machine each run tries other examples; a gate must not fail for what the change did not touch.
settings.register_profile("gate", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("gate")
for name in ("CI", "GITHUB_ACTIONS"):
    os.environ.pop(name, None)  # the commands in tests are typed by a person, wherever the tests run


def _end(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt(f"signal {number}")


# A cancelled run ends as one that a person interrupts: what its fixtures started is ended.
signal.signal(signal.SIGTERM, _end)
# A shell lets what it runs in the background ignore SIGINT, and so would what the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
