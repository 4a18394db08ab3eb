"""Numbers as the bars of an SVG drawing."""

from __future__ import annotations

from dataclasses import dataclass

WIDTH = 400
HEIGHT = 120
FILLED = 0.8  # part of a bar's place that is ink


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, in the units of a drawing WIDTH wide and HEIGHT high; y grows downwards."""

    x: float
    y: float
    width: float
    height: float


def bars(numbers: list[int | float]) -> list[Bar]:
    """A bar for each number, from left to right; negative ones hang below the line of zero."""
    highest, lowest = max(0, *numbers), min(0, *numbers)
    scale = HEIGHT / ((highest - lowest) or 1)
    place = WIDTH / len(numbers)
    return [
        Bar(
            x=round(place * (position + (1 - FILLED) / 2), 2),
            y=round((highest - max(0, number)) * scale, 2),
            width=round(place * FILLED, 2),
            height=round(abs(number) * scale, 2),
        )
        for position, number in enumerate(numbers)
    ]
