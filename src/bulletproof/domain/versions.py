"""Whether a command line and the engine on a host understand each other."""

from __future__ import annotations

from packaging.version import Version

_WORTH = 2
"""The first two numbers: between them a release may change what the two say to each other."""


def fit(one: str, other: str) -> bool:
    """Whether a command line of one version can give orders to an engine of the other."""
    return Version(one).release[:_WORTH] == Version(other).release[:_WORTH]


def is_older(one: str, other: str) -> bool:
    """Whether `one` came before `other`."""
    return Version(one) < Version(other)
