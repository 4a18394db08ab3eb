"""Space is required before anything is made, room for copies of the database included."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from bulletproof.domain.config import AppConfig, Require
from bulletproof.domain.deployment import Deployment, Kind
from bulletproof.errors import Refused
from bulletproof.operations.attempt import Attempt
from bulletproof.operations.preflight import check_space
from bulletproof.ports import Resources
from crash_model import World

MIB = 1 << 20
CONFIG = AppConfig(name="app", require=Require(free_disk_mib=100, free_memory_mib=50))


def attempt(*, disk_mib: int = 1000, memory_mib: int = 1000, database_mib: int = 0) -> Attempt:
    """An attempt on a host with so much left, and a database of that size."""
    world = World()
    world.database.tables = ("table",) * (database_mib * MIB // 4096)
    resources = Resources(free_disk=disk_mib * MIB, free_memory=memory_mib * MIB)
    deployment = Deployment(number=1, kind=Kind.DEPLOY, release="1-a", revision="a", previous=None, started_at="")
    return Attempt(host=replace(world.host(), resources=lambda: resources), deployment=deployment)


@pytest.mark.parametrize(("database_mib", "disk_mib", "words"), [
    (0, 99, "99 MiB of disk are free, 100 MiB are required"),
    (10, 139, "139 MiB of disk are free, 140 MiB are required, 40 of them for copies of the database"),
])  # fmt: skip
def test_too_little_disk(database_mib: int, disk_mib: int, words: str) -> None:
    """What a rehearsal and a swap would write must fit: a disk that fills up would hurt the live app."""
    with pytest.raises(Refused) as caught:
        check_space(attempt(database_mib=database_mib, disk_mib=disk_mib), CONFIG)

    assert caught.value.reference == "disk-low"
    assert caught.value.message == words
    check_space(attempt(database_mib=database_mib, disk_mib=disk_mib + 1), CONFIG)


def test_too_little_memory() -> None:
    """The same for memory."""
    with pytest.raises(Refused, match="49 MiB of memory are free, 50 MiB are required") as caught:
        check_space(attempt(memory_mib=49), CONFIG)

    assert caught.value.reference == "memory-low"
    check_space(attempt(memory_mib=50), CONFIG)
