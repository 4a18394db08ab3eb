"""What is deployed while faults are injected: each scenario can be played again and again on one host."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from bulletproof.errors import BulletproofError
from bulletproof.prove.host import Host
from bulletproof.prove.subject import GROWS, PLAIN


def make_well(host: Host) -> None:
    """Every release boots on the live data; and an earlier revision is live, if the app has one."""
    host.go_back()
    host.marker.unlink(missing_ok=True)


def make_ill(host: Host) -> None:
    """A release whose revision says so does not boot on the live data."""
    host.marker.touch()


def back_up(host: Host) -> None:
    """There is a backup of what is live now."""
    make_well(host)
    host.must("backup", "create")


OTHER_RELEASE = "OTHER-RELEASE"
"""Stands for the release that is kept beside the live one."""
NEWEST_BACKUP = "NEWEST-BACKUP"
"""Stands for the backup that was made last."""


class Scenario(msgspec.Struct, frozen=True):
    """One command, on a host where something is live."""

    name: str
    words: tuple[str, ...]
    status: int = 0
    """How it ends when nothing is injected."""
    prepare: Callable[[Host], None] = make_well
    killed_in: str = ""
    """The faults meet the recovery of a deployment that was killed when this step began; empty: the command itself."""

    def command(self, host: Host) -> tuple[str, ...]:
        """Its words on this host."""
        layout = host.layout
        others = {path.name for path in layout.releases.iterdir()} - {layout.current.readlink().name}
        if not others:
            raise BulletproofError("release-missing", "no release is kept beside the live one")
        if self.words == ("deploy", PLAIN) or host.subject.has_former:
            return host.subject.again
        backups = [path.name for path in layout.backups.glob("b*")]
        stands_for = {OTHER_RELEASE: max(others), NEWEST_BACKUP: max(backups, key=_number, default="b0")}
        return tuple(stands_for.get(word, word) for word in self.words)


def _number(name: str) -> int:
    return int(name.removeprefix("b"))


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("deploy", ("deploy", PLAIN)),
        Scenario("migrate", ("deploy", GROWS)),
        Scenario("fail", ("deploy", "ill"), status=3, prepare=make_ill),
        Scenario("migrate-fail", ("deploy", "grows-ill"), status=3, prepare=make_ill),
        Scenario("rollback", ("rollback", OTHER_RELEASE)),
        Scenario("recover-undo", ("deploy", PLAIN), killed_in="verify"),
        Scenario("recover-finish", ("deploy", PLAIN), killed_in="adopt"),
        Scenario("recover-migrated", ("deploy", GROWS), killed_in="gate"),
        Scenario("restore", ("backup", "restore", NEWEST_BACKUP, "--yes"), prepare=back_up),
        Scenario("recover-restored", ("backup", "restore", NEWEST_BACKUP, "--yes"), prepare=back_up, killed_in="gate"),
        Scenario("recover-cutover", ("deploy", GROWS), killed_in="cutover"),
    )
}
OF_ANY_APP = ("deploy", "rollback", "recover-undo", "recover-finish")
"""Those that need no revisions made for them."""
MIGRATING = ("migrate", "recover-migrated", "recover-cutover")
"""Those that an app can meet of which there is an earlier revision, with other data."""
