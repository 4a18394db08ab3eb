"""The Host that carries the ports, and what it tells of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from bulletproof.domain.deployment import Live
from bulletproof.domain.health import Answer
from bulletproof.domain.layout import Layout
from bulletproof.domain.ownership import Owned
from bulletproof.domain.repair import Change
from bulletproof.ports.backups import Backups, Replica
from bulletproof.ports.data import Database, Migrator, Swap
from bulletproof.ports.rehearsal import Adoption, Rehearsal
from bulletproof.ports.releases import Mender, Releases, SettingsStore
from bulletproof.ports.serving import Proxy, Supervisor


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """What the host has left, in bytes."""

    free_disk: int
    free_memory: int


class Trespass(msgspec.Struct, frozen=True, kw_only=True):
    """A permission that is wrong."""

    words: str
    commands: tuple[str, ...] = ()
    """What would put it right."""
    right: Owned | None = None
    """How it is to be, where that is more than a person's decision."""


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was written for the machine, and is not as it was written."""

    words: str
    path: Path
    changes: tuple[Change, ...] = ()
    """What makes it so again; nothing where it may be meant."""
    command: str = ""
    """What a person types instead."""


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """A server (or a folder that stands for one) with one app's ports."""

    layout: Layout
    releases: Releases
    supervisor: Supervisor
    proxy: Proxy
    database: Database
    migrator: Migrator
    migrator_of: Callable[[Path], Migrator]
    """The same for a database file that nobody uses, instead of the live one."""
    settings: SettingsStore
    rehearsal: Rehearsal
    swap: Swap
    mender: Mender
    backups: Backups
    replica: Replica
    engine: tuple[str, ...]
    """Our own command line, as a supervisor runs it: the words of a verb come behind it."""
    adoption: Adoption
    claim_data: Callable[[], None]
    """Let what was just made in the data be ours to protect and the app's to write; where all is one user's, nothing.

    Raises Refused for a link in the place of something of ours. Idempotent.
    """
    as_app: Callable[[tuple[str, ...]], tuple[str, ...]]
    """The command line by which a program of the app's is run: as its own user, where we are another."""
    trespasses: Callable[[], tuple[Trespass, ...]]
    """What belongs to others than it should, or can be read or written by them; none where all is one user's.

    Raises Refused `place-not-plain`.
    """
    unsafe_data: Callable[[], str]
    """Why nobody but the app should open its data now, in words: it could exchange them for a link. Mostly empty.

    Raises Refused `place-not-plain`.
    """
    drifts: Callable[[Live], tuple[Drift, ...]]
    """The units of systemd of what is live that somebody changed; none where it does not run the app."""
    newer: Callable[[str], Mapping[str, tuple[str, str]]]
    """Of a release's packages those that their index has newer versions of: the version that there is, and the newest.

    Raises StepFailed `index-not-asked`.
    """
    reread: Callable[[], None]
    """Let whatever runs the processes read its files again."""
    keep_report: Callable[[int, bytes], None]
    """Write what deployment `number`'s rehearsal found, for people and for `releases`."""
    resources: Callable[[], Resources]
    ask_instance: Callable[[int, str, float], Answer]
    """GET a path of an instance on its private socket as the proxy would: (number, path, time-out in seconds)."""
    ask_public: Callable[[str, float], Answer]
    """GET a path through the proxy: (path, time-out in seconds)."""
    log_tail: Callable[[int, int], tuple[str, ...]]
    """The last lines that an instance printed since its last start: (number, how many)."""
    set_data_aside: Callable[[str], str]
    """Move what users made to where nothing deletes it, under a name with this time in it; idempotent; says where."""
    wipe: Callable[[], None]
    """Make it so that nothing of the app is left but its data and its journal; idempotent."""
    chronicle: Callable[[str], None]
    """Append a line to the deployment log, for people and `tail`."""
    lead_log: Callable[[int], None]
    """Let the log that people look into be what instance `number` prints."""
    prune_logs: Callable[[int], None]
    """Remove the logs of instances whose deployment came before this number."""
    clock: Callable[[], float]
    """Monotonic seconds."""
    sleep: Callable[[float], None]
