"""Which releases are kept: a pure function of what exists and the policy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def releases_to_remove(existing: Iterable[str], lived: Sequence[str], keep: int) -> tuple[str, ...]:
    """The releases that are neither live nor among the last `keep` that were.

    `lived` are the releases that the journal says were live, oldest first, the live one last; a release that was
    live twice counts once, at its last time. Order comes from the journal, never from a clock or a file's date.
    """
    recent = list(dict.fromkeys(reversed(lived)))[:keep]
    return tuple(sorted(set(existing) - set(recent)))
