"""Where everything lies: each path is a pure function of (root, app, release or deployment number)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

SOCKET_PATH_BYTES = 107
"""Longest path of a unix socket on Linux: sun_path has 108 bytes with its closing zero (unix(7))."""

_LONGEST_SOCKET = f"{'a' * 32}/r9999999/web.sock"
"""The longest name below the runtime folder: apps have at most 32 characters, numbers at most seven digits."""


def runtime_folder(root: Path, user_id: int) -> Path:
    """The folder for sockets under `root`, or a short one in /tmp when their paths would be too long to bind.

    It depends on nothing but its arguments, so that every process of this user finds the same folder.
    """
    inside = root / "run" / "bulletproof"
    if len(bytes(inside / _LONGEST_SOCKET)) <= SOCKET_PATH_BYTES:
        return inside
    digest = hashlib.sha256(bytes(root)).hexdigest()[:12]
    return Path(f"/tmp/bulletproof-{user_id}") / digest  # noqa: S108  owner and mode are checked before use


class Layout(msgspec.Struct, frozen=True):
    """The tree of one app below `root` ("/" on a server); `runtime` is the folder for sockets of that root."""

    root: Path
    app: str
    runtime: Path

    @property
    def home(self) -> Path:
        """The app's code: its releases and nothing that users made."""
        return self.root / "opt" / self.app

    @property
    def releases(self) -> Path:
        """The folder of all releases."""
        return self.home / "releases"

    def release(self, release: str) -> Path:
        """The immutable folder of a release."""
        return self.releases / release

    def source(self, release: str) -> Path:
        """The source tree of a release."""
        return self.release(release) / "source"

    def venv(self, release: str) -> Path:
        """The virtual environment of a release, shared with no other."""
        return self.release(release) / "venv"

    def manifest(self, release: str) -> Path:
        """What the release is: revision, configuration and lock, as JSON."""
        return self.release(release) / "release.json"

    @property
    def current(self) -> Path:
        """A symlink to the live release, for people to look at and for the proxy's static files."""
        return self.home / "current"

    @property
    def former(self) -> Path:
        """A symlink to the release that was live before, whose static files its pages still ask for."""
        return self.home / "former"

    def public(self, release: str) -> Path:
        """The release's static files as the proxy gives them out: each at the path of its URL."""
        return self.release(release) / "public"

    @property
    def data(self) -> Path:
        """What users made: the database and the persistent folders."""
        return self.root / "var" / "lib" / self.app

    @property
    def persistent(self) -> Path:
        """Where the persistent folders are made: in the data."""
        return self.data

    @property
    def state(self) -> Path:
        """What Bulletproof knows of the app; private to its owner."""
        return self.root / "var" / "lib" / "bulletproof" / self.app

    @property
    def journal(self) -> Path:
        """The journal of deployments."""
        return self.state / "journal.db"

    @property
    def rooms(self) -> tuple[Path, Path]:
        """Where room is put by while a deployment is at work: for what we keep, and for the data on another disk."""
        return self.state / "room", self.data / ".bp-room"

    @property
    def lock(self) -> Path:
        """The deployment lock."""
        return self.state / "lock"

    @property
    def proxy_home(self) -> Path:
        """What the proxy reads, which it may not change."""
        return self.root / "var" / "lib" / "bulletproof-proxy" / self.app

    @property
    def proxy_storage(self) -> Path:
        """Where the proxy keeps what it makes itself."""
        return self.proxy_home / "storage"

    @property
    def port(self) -> Path:
        """The port that the proxy listens on, chosen once."""
        return self.state / "port"

    @property
    def proxy_kept(self) -> Path:
        """The [proxy] that is in force, as JSON; a rollback leaves it, as it leaves the settings."""
        return self.state / "proxy.json"

    @property
    def frozen_settings(self) -> Path:
        """The folder of each deployment's own copy of the settings."""
        return self.state / "settings"

    def settings(self, number: int) -> Path:
        """The settings as deployment `number` runs with them."""
        return self.frozen_settings / f"{number}.json"

    def rehearsal(self, number: int) -> Path:
        """The scratch of deployment `number`'s rehearsal: a copy of the data, private and soon gone."""
        return self.state / "rehearsal" / str(number)

    def restored(self, number: int) -> Path:
        """The database of the backup that deployment `number` restores, in the scratch of its rehearsal."""
        return self.rehearsal(number) / "backup.db"

    @property
    def snapshots(self) -> Path:
        """The database from before each migration."""
        return self.state / "snapshots"

    def snapshot(self, number: int) -> Path:
        """The database as it was when deployment `number` migrated it."""
        return self.snapshots / f"{number}.db"

    @property
    def backups(self) -> Path:
        """The folder of all backups, each in a folder of its own name."""
        return self.state / "backups"

    def replaced(self, number: int) -> Path:
        """What deployment `number` restores into the data and takes out of them, beside both so that a rename does."""
        return self.data / f".bulletproof-{number}"

    @property
    def database_aside(self) -> Path:
        """Where an undo puts a migrated database before it puts the old one back; nothing deletes it."""
        return self.state / "set-aside"

    def report(self, number: int) -> Path:
        """What the rehearsal of deployment `number` found, as JSON."""
        return self.state / "reports" / f"{number}.json"

    def repair(self, number: int) -> Path:
        """How what deployment `number` mends was before, and what it removes, as JSON; gone when it is done."""
        return self.state / "repairs" / f"{number}.json"

    @property
    def told(self) -> Path:
        """The folder of what each deployment told."""
        return self.state / "told"

    def events(self, number: int) -> Path:
        """What deployment `number` told from its beginning, one JSON object per line."""
        return self.told / f"deployment-{number}.jsonl"

    @property
    def health(self) -> Path:
        """What the checks by the clock found, one JSON object per line."""
        return self.state / "health.jsonl"

    @property
    def environment(self) -> Path:
        """The settings that the next deployment takes."""
        return self.root / "etc" / "bulletproof" / self.app / "env.json"

    @property
    def offsite(self) -> Path:
        """Where backups go off site, with the keys to it."""
        return self.root / "etc" / "bulletproof" / self.app / "offsite.json"

    @property
    def replica(self) -> Path:
        """What the replica of the live database has to know, with the keys to where it goes."""
        return self.state / "replica.json"

    @property
    def replica_work(self) -> Path:
        """What was changed in the live database and is not, or not long, at its replica."""
        return self.state / "replica"

    @property
    def replica_log(self) -> Path:
        """What the replica prints."""
        return self.logs / "replica.log"

    @property
    def set_aside(self) -> Path:
        """Where data goes that nobody may delete: outside the app, so that `destroy` leaves it."""
        return self.root / "var" / "lib" / "bulletproof-set-aside"

    @property
    def cache(self) -> Path:
        """What can be made again: locks of requirements and pristine virtual environments."""
        return self.root / "var" / "cache" / "bulletproof"

    @property
    def logs(self) -> Path:
        """The folder of all logs."""
        return self.root / "var" / "log" / self.app

    def web_log(self, number: int) -> Path:
        """What the app's processes of deployment `number` print."""
        return self.logs / f"web-{number}.log"

    def worker_log(self, number: int, name: str) -> Path:
        """What a worker of deployment `number` prints, all of its processes together."""
        return self.logs / f"worker-{name}-{number}.log"

    def timer_log(self, number: int, name: str) -> Path:
        """What the runs of a timer of deployment `number` print."""
        return self.logs / f"timer-{name}-{number}.log"

    def rehearsal_log(self, number: int) -> Path:
        """What the app printed when deployment `number` was rehearsed."""
        return self.logs / f"rehearsal-{number}.log"

    @property
    def access_log(self) -> Path:
        """One JSON line per request, written by the proxy."""
        return self.logs / "access.log"

    @property
    def error_log(self) -> Path:
        """A symlink to the log of what is live: what the app prints."""
        return self.logs / "error.log"

    @property
    def backup_log(self) -> Path:
        """What the backups by the clock print."""
        return self.logs / "backup.log"

    @property
    def health_log(self) -> Path:
        """One line per check by the clock, for people and `tail`."""
        return self.logs / "health.log"

    @property
    def deployment_log(self) -> Path:
        """One line per deployment, for people and `tail`."""
        return self.logs / "deployment.log"

    @property
    def sockets(self) -> Path:
        """The folder of the app's sockets; the app's own processes write only below their number."""
        return self.runtime / self.app

    @property
    def app_socket(self) -> Path:
        """The one path that the proxy dials: a symlink, whose rename is the cutover."""
        return self.sockets / "app.sock"

    @property
    def hold_socket(self) -> Path:
        """The parking relay's socket: requests sent here wait."""
        return self.sockets / "hold.sock"

    @property
    def supervisor_socket(self) -> Path:
        """The control socket of the embedded supervisor."""
        return self.sockets / "supervisor.sock"

    def instance(self, number: int) -> Path:
        """The runtime folder of deployment `number`'s instance, its own."""
        return self.sockets / str(number)

    def web_socket(self, number: int) -> Path:
        """The socket that deployment `number`'s instance binds."""
        return self.instance(number) / "web.sock"

    @property
    def folders(self) -> tuple[Path, ...]:
        """All folders that are ours, and no part of an app's source even when they lie in it."""
        return (self.root, self.home, self.data, self.state, self.cache, self.logs, self.runtime)


class PlannedLayout(Layout, frozen=True):
    """The tree of a deployment that is only planned: what it makes lies below a root of its own, soon gone.

    What it only reads is the live app's: data, releases, settings, and where the proxy's path leads.
    """

    live: Layout
    release_made: str
    """The one release that is made here."""
    number: int
    """The number that the deployment would have."""
    has_data: bool = True
    """Whether there are live data; those of a first deployment would be made, so in a plan they are made here."""

    def release(self, release: str) -> Path:
        """The folder of the new release is ours, that of any other the live one."""
        return self.releases / release if release == self.release_made else self.live.release(release)

    @property
    def data(self) -> Path:
        """The live data, which whatever runs in a rehearsal finds a copy in place of."""
        return self.live.data if self.has_data else self.persistent

    @property
    def persistent(self) -> Path:
        """Not in the live data, where a plan makes nothing."""
        return self.root / "var" / "lib" / self.app

    def settings(self, number: int) -> Path:
        """The settings of the planned deployment are ours, those of any other the live ones."""
        return self.frozen_settings / f"{number}.json" if number == self.number else self.live.settings(number)

    @property
    def environment(self) -> Path:
        """The settings that the next deployment takes."""
        return self.live.environment

    @property
    def backups(self) -> Path:
        """The live app's, to be looked at."""
        return self.live.backups

    def replaced(self, number: int) -> Path:
        """Not in the live data, where a plan lays nothing."""
        return self.root / "replaced" / str(number)

    @property
    def app_socket(self) -> Path:
        """Where the live proxy's path leads, to be looked at."""
        return self.live.app_socket

    @property
    def folders(self) -> tuple[Path, ...]:
        """The live app's as well."""
        return (*super().folders, *self.live.folders)
