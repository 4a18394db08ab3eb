"""A repair in the model of a host: what is wrong beforehand, what is asked for, and what may come of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from bulletproof.domain.repair import Permission, Repairs, Text
from fakes.mender import FakeMender

if TYPE_CHECKING:
    from crash_model import World

_BROKEN = (
    Permission(path="/data", owner=33, group=33, mode=0o777, is_folder=True),
    Permission(path="/data/app.db", owner=0, group=0, mode=0o600),
    Text(path="/unit", text="edited by hand"),
)
_MENDED = (
    Permission(path="/data", owner=0, group=33, mode=0o1770, is_folder=True),
    Permission(path="/data/app.db", owner=0, group=33, mode=0o660),
    Text(path="/unit", text="as it is written"),
)
_LOG = "/logs/long.log"
OLD = "0-eeeeeee"
"""A release that a killed deployment left."""


def break_all(world: World, damaged: tuple[str, ...]) -> None:
    """Things are wrong from now on; `damaged` is what a release has that is built anew."""
    world.mender = FakeMender(now={one.path: one for one in _BROKEN}, damaged=damaged)
    world.mender.reread()
    built = world.releases.built
    built.update({OLD: replace(next(iter(built.values())), release=OLD)})


def wished(releases: tuple[str, ...]) -> Repairs:
    """All of it: the live release is built anew, one that nobody needs and all that can be made again is removed."""
    return Repairs(changes=_MENDED, rebuilds=(releases[-1],), releases=(OLD,), has_cache=True, logs=(_LOG,))


def judge(world: World, number: int, live: str, *, is_done: bool, promise: Callable[..., Any]) -> str:
    """All is as it was, or all is mended, by whether deployment `number` was committed; says which."""
    mender, releases = world.mender, world.releases
    wanted = {one.path: one for one in (_MENDED if is_done else _BROKEN)}
    promise(mender.now == wanted, f"owners, modes and files are {mender.now}")
    promise(mender.read == {path: one for path, one in wanted.items() if isinstance(one, Text)}, "others are in force")
    promise(not mender.notes, f"the notes {set(mender.notes)} are left")
    promise(not releases.beside, f"{set(releases.beside)} lie beside the releases")
    is_anew = str(number) in releases.manifest(live).remarks
    promise(is_anew == is_done, f"the release is built anew: {is_anew}")
    promise((OLD in releases.built) != is_done, f"releases: {releases.existing()}")
    promise(mender.rotated == ([_LOG] if is_done else []), f"rotated: {mender.rotated}")
    return "new" if is_done else "old"
