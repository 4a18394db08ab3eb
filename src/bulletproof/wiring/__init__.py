"""The composition root: an app's name and a root in, a Host out; the only importer of adapters."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import time
from pathlib import Path

import msgspec
import psutil
from msgspec.structs import replace

from bulletproof.adapters import litestream
from bulletproof.adapters.adoption import CheckoutAdoption
from bulletproof.adapters.backups import FolderBackups
from bulletproof.adapters.caddy import CaddyProxy
from bulletproof.adapters.caddy.ports import kept_proxy
from bulletproof.adapters.depots import open_depot
from bulletproof.adapters.embedded.client import EmbeddedSupervisor
from bulletproof.adapters.mender import FileMender
from bulletproof.adapters.migrators import Migrators, collect_static
from bulletproof.adapters.rehearsal import CellRehearsal
from bulletproof.adapters.releases import BuiltReleases
from bulletproof.adapters.settings import FileSettings
from bulletproof.adapters.sqlite import SqliteDatabase
from bulletproof.adapters.swap import SqliteSwap
from bulletproof.domain.account import Accounts
from bulletproof.domain.config import AppConfig
from bulletproof.domain.deployment import Live
from bulletproof.domain.health import Answer
from bulletproof.domain.layout import Layout, PlannedLayout, runtime_folder
from bulletproof.domain.offsite import Connection
from bulletproof.domain.ownership import SET_ASIDE
from bulletproof.domain.process import since_start
from bulletproof.effects import durable
from bulletproof.effects.aside import set_aside
from bulletproof.effects.depot import Depot
from bulletproof.effects.health_record import lock_of
from bulletproof.effects.logs import tail
from bulletproof.effects.newer import newer_versions
from bulletproof.effects.ownership import acting_as
from bulletproof.effects.probe import ask_socket
from bulletproof.engine.journal import utc_now
from bulletproof.errors import NeedsPerson, StepFailed
from bulletproof.operations.detect import find_entry
from bulletproof.ports import Host, Resources, SettingsStore
from bulletproof.wiring.known import config_of, is_server, known_config, user_of
from bulletproof.wiring.server import accounts_of, as_server

__all__ = [
    "accounts_of",
    "config_of",
    "is_server",
    "known_config",
]


def layout_of(root: Path, app: str) -> Layout:
    """Where everything of the app lies under `root`."""
    return Layout(root=root, app=app, runtime=runtime_folder(root, os.getuid()))


def connect_backups(layout: Layout) -> FolderBackups:
    """The backups alone, also of an app that was never deployed here."""
    return FolderBackups(layout, layout.data / "app.db", utc_now)


def connection_of(layout: Layout) -> Connection | None:
    """Where backups go off site; None when nowhere. Raises NeedsPerson for a file that is not ours."""
    try:
        return msgspec.json.decode(layout.offsite.read_bytes(), type=Connection)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        words = f"{layout.offsite} cannot be understood: {error}"
        raise NeedsPerson("offsite-unreadable", words, hint="bulletproof backup connect URL") from error


def keep_connection(layout: Layout, connection: Connection | None) -> None:
    """Write it down, 0600; or, with None, forget it."""
    if connection is None:
        durable.remove(layout.offsite)
        return
    durable.make_folder(layout.offsite.parent, mode=0o700)
    durable.write_file(layout.offsite, msgspec.json.encode(connection) + b"\n", mode=0o600)


def depot_of(connection: Connection) -> Depot:
    """The place itself. Raises UsageError for an address that is none, Refused without the package for it."""
    return open_depot(connection.url, connection.secrets)


def connect_replica(layout: Layout, file: Path) -> litestream.LitestreamReplica:
    """The replica of the database `file`, where backups go now."""
    return litestream.LitestreamReplica(layout, file, lambda: connection_of(layout))


def require_replicable(connection: Connection) -> None:
    """Raise Refused when nothing could be replicated there from here, in words."""
    litestream.require_possible(connection)


def revision_of(layout: Layout, live: Live | None) -> str:
    """The revision of a release; empty when it is not there any more."""
    try:
        return BuiltReleases(layout, find_entry).manifest(live.release).revision if live else ""
    except StepFailed:
        return ""


def connect_settings(layout: Layout) -> SettingsStore:
    """The settings alone, for a verb that only reads them."""
    return FileSettings(layout)


def connect(root: Path, app: str, config: AppConfig, *, has_new_proxy: bool = False, is_looking: bool = False) -> Host:
    """The host of an app: a server that was set up, or the embedded one of a folder.

    Its proxy stays as it is unless a deployment brings another configuration of it. Who is only looking changes
    nothing, and leaves data that are not whose they should be as they are: `unsafe_data` tells. Raises Refused.
    """
    layout, accounts = layout_of(root, app), accounts_of(root, config)
    kept = None if has_new_proxy else kept_proxy(layout)
    config = replace(config, proxy=kept) if kept else config
    host = _connect(layout, config, accounts)
    if accounts is None:
        return host
    return as_server(host, config, accounts, lambda other: user_of(layout_of(root, other)), is_looking=is_looking)


def connect_planned(layout: PlannedLayout, config: AppConfig) -> Host:
    """A host on which a deployment can be prepared and rehearsed, and not made live: it only reads what is live.

    All that is made lies below the layout's root, and below its runtime folder.
    """
    _lend(layout.live, layout)
    accounts = accounts_of(layout.live.root, config)
    if accounts is not None:
        for place in (layout.root, layout.root.parent):  # builder and app find their way in it, and see nothing else
            place.chmod(0o711)
    releases = _releases(layout, layout.data, accounts, lent=layout.live.cache)
    return replace(
        _connect(layout, config, accounts), releases=releases, resources=lambda: _resources(layout.live.home)
    )


def connect_bench(layout: PlannedLayout, config: AppConfig, file: Path) -> Host:
    """The same, with rehearsals on copies of the database `file` instead of the live one."""
    host, accounts = connect_planned(layout, config), accounts_of(layout.live.root, config)
    user = accounts.app if accounts else None
    rehearsal = CellRehearsal(layout, file, host.proxy.public, user)
    return replace(host, rehearsal=rehearsal)


def _releases(layout: Layout, data: Path, accounts: Accounts | None, lent: Path | None = None) -> BuiltReleases:
    builder = accounts.builder if accounts else None
    return BuiltReleases(
        layout,
        find_entry,
        lent=lent,
        collect_static=functools.partial(collect_static, data, builder),
        builder=builder,
        user=accounts.app if accounts else None,
    )


def _lend(live: Layout, layout: Layout) -> None:
    """Let a planned deployment see which releases there are, and which ports are taken; and have a place for logs."""
    durable.make_folder(layout.logs)
    others = (file for file in live.state.parent.glob(f"*/{live.proxy_kept.name}") if file != live.proxy_kept)
    for known in (*live.state.parent.glob("*/port"), *others):
        durable.make_folder(layout.state.parent / known.parent.name, mode=0o700)
        durable.copy_file(known, layout.state.parent / known.parent.name / known.name, mode=0o600)
    durable.make_folder(layout.releases)
    for release in live.releases.glob("[!.]*"):
        durable.replace_symlink(layout.releases / release.name, release)


def _resources(home: Path) -> Resources:
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    return Resources(free_disk=shutil.disk_usage(place).free, free_memory=psutil.virtual_memory().available)


def _connect(layout: Layout, config: AppConfig, accounts: Accounts | None) -> Host:
    proxy = CaddyProxy(layout, config.proxy, account=accounts.proxy if accounts else None)
    file = layout.data / config.database.file
    user = accounts.app if accounts else None

    def ask_instance(number: int, path: str, timeout_seconds: float) -> Answer:
        public = proxy.public()
        with acting_as(accounts.proxy if accounts else None, user.group if user else None):
            return ask_socket(layout.web_socket(number), path, public, timeout_seconds=timeout_seconds)

    return Host(
        layout=layout,
        releases=_releases(layout, layout.data, accounts),
        supervisor=EmbeddedSupervisor(layout),
        proxy=proxy,
        database=SqliteDatabase(file),
        migrator=Migrators(layout, file, account=user),
        migrator_of=lambda other: Migrators(layout, other, account=user),
        settings=FileSettings(layout),
        rehearsal=CellRehearsal(layout, file, proxy.public, user),
        swap=SqliteSwap(layout, file),
        mender=FileMender(layout),
        backups=FolderBackups(layout, file, utc_now, user),
        replica=connect_replica(layout, file),
        engine=(sys.executable, "-P", "-m", "bulletproof", "--root", str(layout.root)),
        adoption=CheckoutAdoption(layout, file, user),
        claim_data=lambda: None,
        as_app=lambda argv: user.argv(argv) if user else argv,
        trespasses=lambda: (),
        unsafe_data=lambda: "",
        drifts=lambda _: (),
        newer=lambda name: newer_versions(layout.release(name), FileSettings(layout).today(), user),
        reread=lambda: None,
        keep_report=lambda number, content: _keep_report(layout, number, content),
        resources=lambda: _resources(layout.home),
        ask_instance=ask_instance,
        ask_public=proxy.ask,
        log_tail=lambda number, lines: since_start(tail(layout.web_log(number), lines)),
        set_data_aside=lambda name: _set_data_aside(layout, name),
        wipe=lambda: _wipe(layout),
        chronicle=lambda line: durable.append_line(layout.deployment_log, line, mode=0o640),
        lead_log=lambda number: durable.replace_symlink(layout.error_log, layout.web_log(number).name),
        prune_logs=lambda number: _prune_logs(layout, number),
        clock=time.monotonic,
        sleep=time.sleep,
    )


def _set_data_aside(layout: Layout, started_at: str) -> str:
    """Move the data and the settings it needs under a name that cannot have been used before."""
    stamp = "".join(letter for letter in started_at if letter.isdigit())[:14]
    place = layout.set_aside / f"{layout.app}-{stamp}"
    durable.make_folder(place, mode=0o700)
    for file in (layout.environment, layout.offsite):
        if file.exists():
            durable.copy_file(file, place / file.name, mode=0o600)
    own = {"backups": layout.backups, "set-aside": layout.database_aside}
    for name, folder in own.items():
        if folder.exists() and not (place / name).exists():
            durable.rename(folder, place / name)
    kept = set_aside(layout.data, place / "data", SET_ASIDE, stamp)
    return f"data set aside in {place}" + (f", and in {kept}" if kept else "")


def _keep_report(layout: Layout, number: int, content: bytes) -> None:
    durable.make_folder(layout.report(number).parent, mode=0o700)
    durable.write_file(layout.report(number), content, mode=0o600)


def _prune_logs(layout: Layout, before: int) -> None:
    kinds = ("web", "worker", "timer", "rehearsal")
    logs = [log for kind in kinds for log in layout.logs.glob(f"{kind}-*.log*")]
    for log in (*logs, *layout.report(0).parent.glob("*"), *layout.told.glob("*")):
        number = log.name.rpartition("-")[2].partition(".")[0]
        if number.isdigit() and int(number) < before:
            durable.remove(log)


def _wipe(layout: Layout) -> None:
    """Everything of the app but data that was set aside and the journal, which closes last."""
    for path in (
        layout.home,
        layout.environment.parent,
        layout.logs,
        layout.sockets,
        layout.frozen_settings,
        layout.told,
        layout.replica_work,
        layout.proxy_home,
    ):
        durable.remove_tree(path)
    for file in (layout.port, layout.proxy_kept, layout.replica, layout.health, lock_of(layout.health)):
        durable.remove(file)
