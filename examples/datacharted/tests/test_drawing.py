"""Numbers as bars."""

from __future__ import annotations

from app.drawing import HEIGHT, WIDTH, Bar, bars


def test_positive_and_negative_bars() -> None:
    """Bars stand on the line of zero or hang from it, in proportion to their numbers, from left to right."""
    assert bars([3, -1]) == [Bar(x=20, y=0, width=160, height=90), Bar(x=220, y=90, width=160, height=30)]


def test_bars_of_one_sign() -> None:
    """The line of zero is at the bottom of positive numbers and at the top of negative ones, whatever they are."""
    assert [(bar.y, bar.height) for bar in bars([1, 2])] == [(60, 60), (0, 120)]
    assert [(bar.y, bar.height) for bar in bars([-1, -2])] == [(0, 60), (0, 120)]


def test_all_zero() -> None:
    """Zeros are bars without height."""
    assert [bar.height for bar in bars([0, 0.0])] == [0, 0]


def test_bars_stay_inside_the_drawing() -> None:
    """The largest and smallest numbers that are allowed still fit."""
    for bar in bars([10**15, -(10**15), 0.001] * 33):
        assert 0 <= bar.x <= bar.x + bar.width <= WIDTH
        assert 0 <= bar.y <= bar.y + bar.height <= HEIGHT + 0.01
