"""Order and Attempt: what a person asked for, and what every step of a pipeline is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bulletproof.domain.config import AppConfig
from bulletproof.domain.deployment import Deployment, Kind, Live
from bulletproof.domain.source import Source
from bulletproof.domain.web import database_setting
from bulletproof.errors import NeedsPerson
from bulletproof.ports import Host, Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a person asked for; it is not on disk, so no undo and no step after the commit point may need it."""

    kind: Kind
    source: Source | None = None
    config: AppConfig | None = None
    """For a deployment from source: the project's configuration."""
    release: str = ""
    """For a rollback: the release to make live."""
    set_values: Mapping[str, str] = field(default_factory=dict)
    unset_names: tuple[str, ...] = ()
    first_settings: Mapping[str, str] = field(default_factory=dict)
    """Settings that are taken when the host has none yet: the project's .env."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What every step is given. Whatever else a step needs it derives or reads from the host."""

    host: Host
    deployment: Deployment
    lived: tuple[Live, ...] = ()
    """All that were live before, oldest first, by the journal."""
    order: Order | None = None
    """None in a recovery."""

    @property
    def ordered(self) -> Order:
        """The order; only steps before the commit point run with one."""
        if self.order is None:
            raise NeedsPerson("order-lost", "this step cannot be repeated by a recovery")
        return self.order

    @property
    def number(self) -> int:
        """The deployment's number."""
        return self.deployment.number

    @property
    def manifest(self) -> Manifest:
        """What the release is."""
        return self.host.releases.manifest(self.deployment.release)

    @property
    def database_setting(self) -> dict[str, str]:
        """The setting that points the app at its database."""
        return database_setting(self.host.settings.frozen(self.number), self.host.layout, self.manifest.config)

    @property
    def settings(self) -> dict[str, str]:
        """The environment variables that this deployment's processes get."""
        return {**self.host.settings.frozen(self.number), **self.database_setting}
