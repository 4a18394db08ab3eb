"""Whose a backup is: deployments of two machines have the same numbers."""

from __future__ import annotations

from bulletproof.domain.backup import Reason
from bulletproof.domain.deployment import Deployment, Kind
from bulletproof.operations.backups import backup_of
from bulletproof.ports import Taking
from crash_model import World


def test_a_backup_of_another_machines_deployment_is_not_ours() -> None:
    """The number alone tells nothing: it was begun at another time."""
    world = World()
    world.backups.take(
        Taking(
            reason=Reason.RESTORE,
            release="1-abc",
            revision="",
            settings=1,
            taken_by="",
            folders={},
            deployment=2,
            begun_at="2026-01-01T00:00:00+00:00",
        )
    )
    for begun_at, is_ours in (("2026-01-01T00:00:00+00:00", True), ("2026-01-02T00:00:00+00:00", False)):
        mine = Deployment(number=2, kind=Kind.RESTORE, release="1-abc", revision="", previous=None, started_at=begun_at)
        assert bool(backup_of(world.host(), mine, Reason.RESTORE)) is is_ours
        assert not backup_of(world.host(), mine, Reason.MIGRATION)
