"""The way back that a rehearsal tells of a migration: why none of the better ones leads there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from bulletproof.domain.config import AppConfig
from bulletproof.domain.deployment import Deployment, Kind, Live
from bulletproof.domain.report import Way
from bulletproof.domain.schema import Schema
from bulletproof.errors import StepFailed
from bulletproof.operations import rehearse
from bulletproof.operations.attempt import Attempt
from bulletproof.ports import Command, Host, Manifest

NOTHING = Schema(tables={})
CONFIG = AppConfig(name="shop")


def attempt(*, command: bool, fails: str) -> Attempt:
    """One whose older release cannot work with the migrated copy; with a down migration, which may fail."""

    def run(*_: object) -> None:
        if fails:
            raise StepFailed("migration-failed", fails)

    def downgrade(*_: object) -> Command | None:
        return Command(words="down", argv=(), folder=Path("/"), environment={}) if command else None

    host = SimpleNamespace(
        releases=SimpleNamespace(
            manifest=lambda release: Manifest(release=release, revision="", title="", config=CONFIG, entry="app:app")
        ),
        settings=SimpleNamespace(frozen=lambda _: {}),
        layout=SimpleNamespace(data=SimpleNamespace(__truediv__=lambda *_: "")),
        migrator=SimpleNamespace(downgrade=downgrade, misfits=lambda *_: ("table chart lacks column created",)),
        rehearsal=SimpleNamespace(look=lambda _: NOTHING, run=run),
        proxy=SimpleNamespace(target=lambda: None),
        clock=lambda: 0.0,
    )
    previous = Live(number=1, release="1-aaa")
    deployment = Deployment(
        number=2, kind=Kind.DEPLOY, release="2-bbb", revision="bbb", previous=previous, started_at=""
    )
    return Attempt(host=cast("Host", host), deployment=deployment)


LACKS = "table chart lacks column created"
ENDED = "`down` ended with status 1"


@pytest.mark.parametrize(
    ("command", "fails", "why"),
    [
        (False, "", LACKS),
        (True, ENDED, f"{LACKS}; a down migration does not help: {ENDED}"),
        (True, "", f"{LACKS}; a down migration does not help: {LACKS}"),
    ],
)
def test_a_restore_is_the_last_of_all_ways(
    *, monkeypatch: pytest.MonkeyPatch, command: bool, fails: str, why: str
) -> None:
    """It is said why the code alone does not do, and why a down migration does not."""
    monkeypatch.setattr(Attempt, "settings", {})
    monkeypatch.setattr(Attempt, "settings_of", lambda *_: {})
    way, told, _ = rehearse._way_back(attempt(command=command, fails=fails), NOTHING)
    assert (way, told) == (Way.RESTORE, f"only with a restore ({why})")
