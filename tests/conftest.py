"""What all rings share: chance that can be repeated."""

from __future__ import annotations

import os

from hypothesis import settings

# On a person's machine each run tries other examples; a gate must not fail for what the change did not touch.
settings.register_profile("gate", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("gate")
