"""What killed calls left half-made is removed: names that mean nothing, but may hold what a setting says."""

from __future__ import annotations

from bulletproof.domain.layout import Layout
from bulletproof.effects import durable


def sweep(layout: Layout) -> None:
    """Remove what killed calls of ours left in the app's folders, in the cache, and on the way there from the root.

    What a living process writes stays.
    """
    ours = (
        layout.releases,
        layout.data,
        layout.state,
        layout.rehearsal(0).parent,
        layout.report(0).parent,
        layout.snapshots,
        layout.backups,
        layout.database_aside,
        layout.frozen_settings,
        layout.environment.parent,
        layout.logs,
        layout.sockets,
        layout.cache,
        *layout.cache.glob("*/"),
    )
    above = (parent for folder in ours for parent in folder.parents if parent.is_relative_to(layout.root))
    for folder in dict.fromkeys((*ours, *above)):
        if any(folder.glob(f"{durable.LEFTOVER_PREFIX}*")):
            durable.sweep(folder)
