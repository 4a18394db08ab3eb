"""What the app has of the machine: its disk, its logs, its proxy's file and its units."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bulletproof.domain.doctor import Ill, Remedy
from bulletproof.domain.retention import releases_to_remove
from bulletproof.effects.file_facts import bytes_below, size_of
from bulletproof.operations.checks.ground import MIB, Ground

_LONGEST_LOG_MIB = 64
"""The supervisor rotates at 20 MiB, logrotate at 10: a log of this size nobody rotates."""
_COPIES = 3
"""Of the database, which a migration needs room for."""


def logs(ground: Ground) -> Iterator[Ill]:
    """Logs that nobody rotates."""
    for log in sorted(ground.host.layout.logs.glob("*.log")):
        size = size_of(log) // MIB
        if size > _LONGEST_LOG_MIB and not log.is_symlink():
            remedy = Remedy(words=f"rotate {log}, of which the end is kept", logs=(str(log),))
            yield Ill(words=f"{log} has {size} MiB, and nothing rotates it", remedy=remedy)


def disk(ground: Ground) -> Iterator[Ill]:
    """A disk on which the next deployment, or the next write, may find no room."""
    host = ground.host
    free, least = host.resources().free_disk // MIB, ground.config.require.free_disk_mib
    copies = _COPIES * host.database.size() // MIB
    if free >= least + copies:
        return
    doomed = _old_releases(ground)
    removable = {f"release {name}": host.layout.release(name) for name in doomed}
    removable["the cache of builds"] = host.layout.cache
    sizes = {words: bytes_below(place) // MIB for words, place in removable.items()}
    gain = sum(sizes.values())
    words = f"{free} MiB of disk are free, and {least + copies} are required" + (
        f", {copies} of them for copies of the database" if copies else ""
    )
    remedy = Remedy(words=f"remove what can be made again, {gain} MiB", releases=doomed, has_cache=True)
    yield Ill(words=words, remedy=remedy if gain else Remedy(), command="df -h", more=tuple(_shares(ground, sizes)))


def _old_releases(ground: Ground) -> tuple[str, ...]:
    """Releases that the next deployment would remove."""
    lived = [one.release for one in ground.lived]
    return releases_to_remove(ground.host.releases.existing(), lived, ground.config.keep.releases) if lived else ()


def _shares(ground: Ground, sizes: dict[str, int]) -> Iterator[str]:
    """What takes how much, and whose decision it is to remove it."""
    layout = ground.host.layout
    yield from (f"{size:6} MiB  {words}: --fix removes it" for words, size in sizes.items() if size)
    yours: dict[str, Path] = {
        "backups: bulletproof backup prune": layout.backups,
        "snapshots of migrations": layout.snapshots,
        "data that a deployment set aside": layout.database_aside,
        "data of removed apps": layout.set_aside,
    }
    for words, place in yours.items():
        if size := bytes_below(place) // MIB:
            yield f"{size:6} MiB  {words}, in {place}"
    rotated = [log for pattern in ("*.log.[0-9]*", "access-*.log*") for log in layout.logs.glob(pattern)]
    if size := sum(map(size_of, rotated)) // MIB:
        yield f"{size:6} MiB  rotated logs: rm {layout.logs}/*.log.[0-9]*"


def proxy(ground: Ground) -> Iterator[Ill]:
    """The proxy's file as it was written."""
    if words := ground.host.proxy.drift():
        restarts = ground.status.wants_running
        mended = Remedy(words="write the Caddyfile again, and let the proxy read it", restarts=True)
        yield Ill(words=words, remedy=mended if restarts else Remedy(), command="bulletproof start")


def units(ground: Ground) -> Iterator[Ill]:
    """Units as they would be written."""
    live = ground.status.live
    if live is None or not ground.status.wants_running:
        return
    for one in ground.host.drifts(live):
        remedy = Remedy(words=f"write {one.path} again, and restart", changes=one.changes, restarts=True)
        yield Ill(words=one.words, remedy=remedy if one.changes else Remedy(), command=one.command)
