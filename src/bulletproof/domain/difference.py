"""How a text that was written differs from what is found in its place, for people."""

from __future__ import annotations

import itertools


def first_difference(wanted: str, found: str) -> str:
    """The first line in which they differ."""
    for number, (right, wrong) in enumerate(itertools.zip_longest(wanted.splitlines(), found.splitlines()), 1):
        if right is None:
            return f"line {number} is `{_plain(wrong)}`, and was not there"
        if wrong is None:
            return f"line {number}, `{_plain(right)}`, is missing"
        if right != wrong:
            return f"line {number} is `{_plain(wrong)}`, and was `{_plain(right)}`"
    return "its last line has no end"


def _plain(line: str) -> str:
    return line.strip()
