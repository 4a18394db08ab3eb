"""What killed calls left half-made is removed: names that mean nothing, but may hold what a setting says."""

from __future__ import annotations

from bulletproof.domain.layout import Layout
from bulletproof.effects import durable


def sweep(layout: Layout) -> None:
    """Remove what killed calls of ours left in the app's folders; what a living process writes stays."""
    for folder in (
        layout.home,
        layout.releases,
        layout.data,
        layout.state,
        layout.frozen_settings,
        layout.environment.parent,
        layout.logs,
        layout.sockets,
    ):
        if any(folder.glob(f"{durable.LEFTOVER_PREFIX}*")):
            durable.sweep(folder)
