"""How long a disk lasts, by how much was free on it in the last days."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable

_DAY = 86400
LOOKED_BACK_DAYS = 14
_LEAST_DAYS = 3


def lost_per_day(free: Iterable[tuple[int, int]], now: float) -> float | None:
    """Bytes that the disk is filled by in a day; None when there are too few days to tell; of (when, free bytes).

    The median of the differences from one day's lowest value to the next one's: a day on which much was laid or
    removed, as a deployment or a clean-up does, is no trend.
    """
    lowest: dict[int, int] = {}
    for moment, amount in free:
        day = int((now - moment) // _DAY)
        if 0 <= day < LOOKED_BACK_DAYS:
            lowest[day] = min(amount, lowest.get(day, amount))
    if len(lowest) < _LEAST_DAYS:
        return None
    steps = itertools.pairwise(sorted(lowest.items()))  # from today backwards
    return statistics.median((older - amount) / (before - day) for (day, amount), (before, older) in steps)
