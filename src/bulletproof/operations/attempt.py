"""Order and Attempt: what a person asked for, and what every step of a pipeline is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from bulletproof.domain.config import AppConfig
from bulletproof.domain.deployment import Deployment, Kind, Live
from bulletproof.domain.repair import NOTHING, Repairs
from bulletproof.domain.report import Report
from bulletproof.domain.restore import Restoration
from bulletproof.domain.settings import for_app
from bulletproof.domain.source import Source
from bulletproof.domain.web import database_setting
from bulletproof.errors import NeedsPerson
from bulletproof.ports import Command, Host, Manifest, SchemaState


def _nobody_asks(_: Restoration) -> None:
    """A person said yes beforehand."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asked for; it is not on disk, so no undo and no step after the commit point may need it."""

    kind: Kind
    source: Source | None = None
    config: AppConfig | None = None
    """For a deployment from source: the project's configuration."""
    release: str = ""
    """For a rollback: the release to make live."""
    set_values: Mapping[str, str] = msgspec.field(default_factory=dict)
    unset_names: tuple[str, ...] = ()
    first_settings: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Settings that are taken when the host has none yet: the project's .env."""
    backup: str = ""
    """For a restore, or a first deployment that begins with its data: the backup."""
    only_database: bool = False
    """Whether a restore leaves the persistent folders as they are."""
    may_change_schema: bool = False
    """Whether a restore may bring views and triggers that today's database does not have."""
    confirm: Callable[[Restoration], None] = _nobody_asks
    """Asked before a restore touches anything; raises for a no."""
    may_be_older: bool = False
    """Whether a commit may be deployed although what is live came after it."""
    may_lose_data: bool = False
    """Whether a migration may drop what users made."""
    database: Path | None = None
    """For a first deployment: the database to begin with, instead of the one that the app opens in its folder."""
    repairs: Repairs = NOTHING
    """For a repair: all of it."""
    has_new_database: bool = False
    """Whether a first deployment begins without data, whatever lies in the folder."""


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """A command that changes the data, and the release whose packages and scripts it needs."""

    manifest: Manifest
    command: Command


class Findings(msgspec.Struct, kw_only=True):
    """What the steps of one run tell the later ones; gone when the deployer dies, so no undo and no finish needs it."""

    schema: SchemaState = msgspec.field(default_factory=lambda: SchemaState(tool="none"))
    migration: Migration | None = None
    report: Report | None = None
    adopted: str = ""
    """What was adopted from an app's life before its first deployment, in words; empty when nothing was."""
    hold_until: float | None = None
    """By the host's clock: what is not done by then is undone."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What every step is given. Whatever else a step needs it derives or reads from the host."""

    host: Host
    deployment: Deployment
    lived: tuple[Live, ...] = ()
    """All that were live before, oldest first, by the journal."""
    order: Order | None = None
    """None in a recovery."""
    found: Findings = msgspec.field(default_factory=Findings)

    @property
    def ordered(self) -> Order:
        """The order; only steps before the commit point run with one."""
        if self.order is None:
            raise NeedsPerson("order-lost", "this step cannot be repeated by a recovery")
        return self.order

    @property
    def report(self) -> Report:
        """What the rehearsal found; only steps that come after it in the same run ask."""
        if self.found.report is None:
            raise NeedsPerson("rehearsal-lost", "this step cannot be repeated by a recovery")
        return self.found.report

    @property
    def number(self) -> int:
        """The deployment's number."""
        return self.deployment.number

    @property
    def manifest(self) -> Manifest:
        """What the release is."""
        return self.host.releases.manifest(self.deployment.release)

    def settings_of(self, manifest: Manifest, number: int) -> dict[str, str]:
        """The environment variables that processes of a release get with the settings of deployment `number`."""
        frozen = self.host.settings.frozen(number)
        return {**for_app(frozen), **database_setting(frozen, self.host.layout, manifest.config)}

    @property
    def database_setting(self) -> dict[str, str]:
        """The setting that points the app at its database."""
        return database_setting(self.host.settings.frozen(self.number), self.host.layout, self.manifest.config)

    @property
    def settings(self) -> dict[str, str]:
        """The environment variables that this deployment's processes get."""
        return self.settings_of(self.manifest, self.number)
