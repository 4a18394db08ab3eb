"""What a bundle says of itself: a source on its way to a host, and the settings of a first deployment."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from bulletproof.domain.config import AppConfig
from bulletproof.errors import BulletproofError, Refused

FORMAT = 1
_DAY = dt.timedelta(days=1)
"""Two clocks may differ by some minutes; a bundle that is a day old was not made for this deployment."""
_AGAIN = "bulletproof deploy"
_FORMAT = re.compile(rb'"format":\s*(\d{1,9})\b')


class BundleManifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first line of a bundle; the files follow it as a compressed tar."""

    format: int
    made_at: str
    """UTC, ISO 8601, by the clock of the machine that made it."""
    revision: Annotated[str, Meta(pattern=r"^(?:[0-9a-f]{40}|[0-9a-f]{64}|worktree|files)$(?!\n)")]
    title: Annotated[str, Meta(max_length=10_000)]
    files: Annotated[int, Meta(ge=1)]
    """How many there are."""
    size: Annotated[int, Meta(ge=1)]
    """The bytes that follow."""
    unpacked: Annotated[int, Meta(ge=1)]
    """The bytes of the tar when it is no more compressed."""
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
    """Of the bytes that follow."""
    config: AppConfig
    history: Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/=]*$(?!\n)", max_length=200_000)] = ""
    """The commits that it comes after, by `domain.history`."""
    settings: dict[str, str]
    """For a first deployment: the project's .env."""


def read_manifest(line: bytes, now: dt.datetime) -> BundleManifest:
    """What the first line of a bundle says; `now` is the time by the clock of this host, UTC.

    Raises Refused `bundle-format-unknown`, `bundle-altered` or `bundle-outdated`.
    """
    found = _FORMAT.search(line)
    if found and int(found[1]) != FORMAT:
        words = f"the bundle is of format {int(found[1])}, and this engine reads format {FORMAT}"
        raise Refused("bundle-format-unknown", words, hint="bulletproof setup")
    try:
        manifest = msgspec.json.decode(line, type=BundleManifest)
        age = now - dt.datetime.fromisoformat(manifest.made_at)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise altered(f"what it says of itself cannot be read: {error}") from error
    if abs(age) > _DAY:
        words = f"the bundle was made at {manifest.made_at}, and here it is {now.isoformat(timespec='seconds')}"
        raise Refused("bundle-outdated", f"{words}: it is old, or one of the clocks is wrong", hint="date; timedatectl")
    return manifest


def altered(why: str) -> BulletproofError:
    """The error for a bundle that is not what was packed."""
    return Refused("bundle-altered", f"the bundle is not what was sent: {why}", hint=_AGAIN)


def truncated() -> BulletproofError:
    """The error for a bundle that ends too early."""
    words = "the bundle ends too early: the connection broke while it was sent"
    return Refused("bundle-truncated", words, hint=_AGAIN)


def bomb(why: str) -> BulletproofError:
    """The error for a bundle that would fill the disk."""
    return Refused("bundle-too-large", f"the bundle is refused: {why}", hint="take large files out of the source")
