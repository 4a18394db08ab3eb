"""What is asked of the model of a host, and what may come of that."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from bulletproof.domain.config import App, AppConfig, Database, Journal, Keep, Timer, Worker
from bulletproof.domain.deployment import Kind

CONFIG = AppConfig(name="app", keep=Keep(releases=2), database=Database(journal=Journal.WAL))
WITH_WORKERS = msgspec.structs.replace(
    CONFIG,
    workers={"mail": Worker(command="mail")},
    timers={"tidy": Timer(schedule="@daily", command="tidy")},
)
WITH_FOLDERS = msgspec.structs.replace(WITH_WORKERS, app=App(persistent=("uploads",)))


@dataclass(frozen=True)
class Scenario:
    """A host, what is asked of it, and what may come of that."""

    name: str
    kind: Kind = Kind.DEPLOY
    before: tuple[Kind, ...] = (Kind.DEPLOY,)
    """What was done before, undisturbed."""
    bad: frozenset[str] = frozenset()
    """What is wrong with the new release or instance."""
    reboot: bool = False
    """The machine was rebooted before: nothing runs."""
    set_values: tuple[tuple[str, str], ...] = ()
    migrates: bool = False
    """Whether the releases from the new one on need a table more."""
    has_stranger: bool = False
    """Whether somebody writes past the app."""
    is_strict: bool = False
    """Whether no release can work with a table that it does not know."""
    at_boot: bool = False
    """Whether the new release makes the table by booting, and its migrator knows nothing of it."""
    has_workers: bool = False
    """Whether the app has a worker and a timer."""
    has_new_proxy: bool = False
    """Whether the new release brings another configuration of the proxy."""
    has_origin: bool = False
    """Whether the app had data before its first deployment."""
    has_past: bool = False
    """Whether the database may hold more than the live release knows, because an earlier one was rolled back."""

    def __str__(self) -> str:
        return self.name

    @property
    def fails(self) -> bool:
        """Whether it can only end undone."""
        return bool(self.bad)

    @property
    def brings_back(self) -> bool:
        """Whether what was live is started by a deployment of its own first."""
        return self.reboot and self.kind is not Kind.START

    @property
    def only_forward(self) -> bool:
        """Whether there is nothing to undo."""
        return self.kind is Kind.STOP

    @property
    def config(self) -> AppConfig:
        """The app's configuration."""
        if self.kind is Kind.RESTORE:
            return WITH_FOLDERS
        return WITH_WORKERS if self.has_workers else CONFIG


_TWO = (Kind.DEPLOY, Kind.DEPLOY)
SCENARIOS = (
    Scenario("first deployment", before=()),
    Scenario("first deployment crashes", before=(), bad=frozenset({"crash"})),
    Scenario("first deployment with data", before=(), has_origin=True),
    Scenario("first deployment with data that it migrates", before=(), has_origin=True, migrates=True),
    Scenario(
        "first deployment with data that it migrates crashes",
        before=(),
        has_origin=True,
        migrates=True,
        bad=frozenset({"crash"}),
    ),
    Scenario("deployment"),
    Scenario("third deployment prunes", before=_TWO),
    Scenario("build fails", bad=frozenset({"build"})),
    Scenario("crashes at boot", bad=frozenset({"crash"})),
    Scenario("answers 500", bad=frozenset({"500"})),
    Scenario("not verified through the proxy", bad=frozenset({"public"}), has_workers=True),
    Scenario("schema cannot be compared", bad=frozenset({"state"})),
    Scenario("deployment with another proxy", has_new_proxy=True),
    Scenario("another proxy, and answers 500 behind it", has_new_proxy=True, bad=frozenset({"public"})),
    Scenario("another proxy that cannot be had", has_new_proxy=True, bad=frozenset({"adopt"})),
    Scenario("migration with another proxy crashes", has_new_proxy=True, migrates=True, bad=frozenset({"crash"})),
    Scenario("deployment with another proxy after a stop", has_new_proxy=True, before=(Kind.DEPLOY, Kind.STOP)),
    Scenario("first deployment with a proxy crashes", has_new_proxy=True, before=(), bad=frozenset({"crash"})),
    Scenario("rollback", kind=Kind.ROLLBACK, before=_TWO),
    Scenario("rollback to a release that crashes", kind=Kind.ROLLBACK, before=_TWO, bad=frozenset({"crash"})),
    Scenario("restart", kind=Kind.RESTART),
    Scenario("settings", kind=Kind.SETTINGS, set_values=(("KEY", "new"),)),
    Scenario("settings that break", kind=Kind.SETTINGS, set_values=(("KEY", "bad"),), bad=frozenset({"500"})),
    Scenario("stop", kind=Kind.STOP, has_workers=True),
    Scenario("start", kind=Kind.START, before=(Kind.DEPLOY, Kind.STOP)),
    Scenario("start after a reboot", kind=Kind.START, reboot=True),
    Scenario("deployment after a stop", before=(Kind.DEPLOY, Kind.STOP)),
    Scenario("deployment after a reboot", reboot=True),
    Scenario("migration", migrates=True),
    Scenario("migration at boot", migrates=True, at_boot=True),
    Scenario("migration fails", migrates=True, bad=frozenset({"migration"}), has_workers=True),
    Scenario("migrated release crashes", migrates=True, bad=frozenset({"crash"})),
    Scenario(
        "migrated release answers 500 beside a stranger", migrates=True, bad=frozenset({"500"}), has_stranger=True
    ),
    Scenario("migration cannot be put in place", migrates=True, bad=frozenset({"put"})),
    Scenario("migration after a stop", migrates=True, before=(Kind.DEPLOY, Kind.STOP)),
    Scenario("deployment with workers", has_workers=True),
    Scenario("migration with workers", has_workers=True, migrates=True),
    Scenario("restore", kind=Kind.RESTORE),
    Scenario("restore after a stop", kind=Kind.RESTORE, before=(Kind.DEPLOY, Kind.STOP)),
    Scenario("restore after which it crashes", kind=Kind.RESTORE, bad=frozenset({"crash"})),
    Scenario("restore whose folders cannot be exchanged", kind=Kind.RESTORE, bad=frozenset({"exchange"})),
    Scenario("rollback with code alone", kind=Kind.ROLLBACK, before=_TWO, migrates=True),
    Scenario("repair", kind=Kind.REPAIR, before=_TWO),
    Scenario("repair of a release that cannot be built", kind=Kind.REPAIR, bad=frozenset({"rebuild"})),
    Scenario("repair that gives no whole release", kind=Kind.REPAIR, bad=frozenset({"damage"})),
    Scenario("repair after a stop", kind=Kind.REPAIR, before=(Kind.DEPLOY, Kind.STOP)),
    Scenario("rollback with a down migration", kind=Kind.ROLLBACK, before=_TWO, migrates=True, is_strict=True),
)
