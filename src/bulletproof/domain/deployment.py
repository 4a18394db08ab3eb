"""A deployment: one attempt to make a release live, told by what the journal keeps of it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec


class Kind(StrEnum):
    """Why a deployment was begun."""

    DEPLOY = "deploy"
    ROLLBACK = "rollback"
    RESTART = "restart"
    SETTINGS = "settings"
    RESTORE = "restore"
    START = "start"
    STOP = "stop"
    DESTROY = "destroy"
    REPAIR = "repair"

    @property
    def makes_live(self) -> bool:
        """Whether its release is the live one once it is committed."""
        return self not in {Kind.STOP, Kind.DESTROY, Kind.REPAIR}

    @property
    def stops_app(self) -> bool:
        """Whether a person wants it stopped, or gone; not the contrary of `makes_live`: a repair is neither."""
        return self in {Kind.STOP, Kind.DESTROY}


class Outcome(StrEnum):
    """How a deployment ended."""

    DEPLOYED = "deployed"
    UNDONE = "undone"
    REFUSED = "refused"
    FAILED = "failed"


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """What serves: a release, in the instance that deployment `number` started."""

    number: int
    release: str


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt; whatever it makes is named after its number, so that an undo in another process finds it."""

    number: int
    kind: Kind
    release: str
    revision: str
    previous: Live | None
    """What was live when it began."""
    started_at: str
    """UTC, ISO 8601; for people and for names that must not repeat, never to compare."""


def release_id(number: int, revision: str) -> str:
    """The id of the release that deployment `number` builds: its number, so that ids sort, and the short revision."""
    return f"{number}-{revision[:7]}"


def built_by(release: str) -> int:
    """The number of the deployment that built the release."""
    return int(release.partition("-")[0])


def earlier_release(lived: Sequence[Live]) -> str:
    """The release to roll back to, of all that were live, the live one last; empty when none is older than that."""
    earlier = [one.release for one in lived if built_by(one.release) < built_by(lived[-1].release)]
    return max(earlier, key=built_by, default="")
