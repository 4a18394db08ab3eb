"""The ports: what an operation may ask of a host, in words only, and the Host that carries them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from bulletproof.domain.backup import Backup, Damaged, Proof, Reason
from bulletproof.domain.config import AppConfig
from bulletproof.domain.deployment import Live
from bulletproof.domain.durability import Seen
from bulletproof.domain.health import Answer
from bulletproof.domain.layout import Layout
from bulletproof.domain.maintenance import Maintenance
from bulletproof.domain.ownership import Owned
from bulletproof.domain.past import Replay
from bulletproof.domain.process import ProcessSpec, ProcessState
from bulletproof.domain.public import Public
from bulletproof.domain.repair import Change, Note
from bulletproof.domain.restore import RowChange
from bulletproof.domain.schema import Schema
from bulletproof.domain.settings import Settings
from bulletproof.domain.source import Source

NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a release is, as written in its release.json when it was fetched and completed when it was built."""

    release: str
    revision: str
    title: str
    config: AppConfig
    entry: str
    """`module:object` or `module:factory()`, as found or configured."""
    python: str = ""
    """The interpreter's version that it was built with."""
    lock: str = ""
    """sha256 of its lock of requirements."""
    dependencies: str = ""
    """The list that the lock was made from, such as `uv.lock`."""
    remarks: tuple[str, ...] = ()
    """What a person should know of its build, such as `built shop 1.2.0`."""
    packages: int = 0
    gunicorn: str = ""
    """Version of gunicorn in it, empty when there is none."""
    is_built: bool = False


REPLAY = "replay.json"
"""The file beside the database that a migrator's replay writes."""


class Releases(Protocol):
    """The immutable releases on disk."""

    def fetch(self, release: str, source: Source, config: AppConfig) -> Manifest:
        """Lay the source tree of a new release; whole or not at all. Raises StepFailed in words."""

    def build(self, release: str, settings: Mapping[str, str] = NO_SETTINGS) -> Manifest:
        """Make its virtual environment and bytecode, then seal it. Raises StepFailed with the builder's last lines.

        Of the settings those count that lead to packages, such as UV_INDEX_URL; no value is kept or told.
        """

    def discard(self, release: str) -> None:
        """Make it so that the release is not; also what a killed fetch or build left of it."""

    def manifest(self, release: str) -> Manifest:
        """What the release is. Raises StepFailed when it is missing or not whole."""

    def history(self, release: str) -> str:
        """The commits that its own comes after, by `domain.history`; empty when nobody knows."""

    def existing(self) -> tuple[str, ...]:
        """The ids of all releases that are on disk and built."""

    def recorded(self, release: str) -> Manifest:
        """What was written of it when it was built, whatever became of it since. Raises StepFailed."""

    def rebuild(self, release: str, number: int, settings: Mapping[str, str] = NO_SETTINGS) -> Manifest:
        """Build it anew from its own source and lock, beside it and named after deployment `number`.

        Raises StepFailed with the builder's last lines.
        """

    def exchange(self, release: str, number: int) -> None:
        """What deployment `number` rebuilt is the release, from one instant on; the former one stays. Idempotent."""

    def exchange_back(self, release: str, number: int) -> None:
        """The release is what it was before deployment `number`; idempotent, and able to run in another process."""

    def discard_rebuilt(self, release: str, number: int) -> None:
        """Nothing is left beside the release of what deployment `number` rebuilt or replaced; idempotent."""

    def has_program(self, release: str, program: str) -> bool:
        """Whether a command of the built release would find it: in its packages, its source, or on the machine."""

    def packages(self, release: str) -> Mapping[str, str]:
        """The versions of its packages by their names, as it is locked. Raises StepFailed when it is missing."""

    def notes(self, release: str) -> tuple[str, ...]:
        """What a person should know of how the release was built, such as a server that was added."""

    def cache_bytes(self) -> int:
        """What the cache of builds takes of the disk, which the next build makes again."""

    def empty_cache(self) -> None:
        """Remove all of it, downloads included; idempotent."""

    def prune_cache(self) -> int:
        """Remove what only older builds could use again; returns how many entries went."""

    def point_current_at(self, release: str, former: str | None) -> None:
        """Let the proxy give out the static files of this release, and where it has none, of the former one.

        People see by the same link which release is live.
        """


class Supervisor(Protocol):
    """What runs the app's processes, restarts them when they crash, and is the only one that may."""

    def ensure_running(self) -> None:
        """The supervisor runs when this returns. Raises StepFailed when it cannot."""

    def shutdown(self) -> None:
        """Stop every process, then the supervisor itself; idempotent."""

    def is_running(self) -> bool:
        """Whether the supervisor answers."""

    def start(self, process: ProcessSpec) -> None:
        """Run it, and run it again whenever it crashes; idempotent by name. Raises StepFailed.

        One with a schedule is run whenever that is due, one run at a time, and nothing is caught up.
        """

    def stop(self, name: str) -> None:
        """Its stop signal, then after its `stop_seconds` SIGKILL to all that it started; idempotent.

        It returns when nothing of the process is left and its runtime folder is gone. One with a schedule may first go
        on for its `drain_seconds`.
        """

    def ask_to_stop(self, name: str) -> None:
        """Begin what `stop` does and return at once, so that several can be stopped in the time of one; idempotent."""

    def state(self, name: str) -> ProcessState:
        """What is known of the process; phase ABSENT when it was never asked for or the supervisor does not run."""

    def names(self) -> tuple[str, ...]:
        """The processes that it was asked to run."""


class Proxy(Protocol):
    """What listens for the public and dials one path, and the switch of where that path leads."""

    def process(self) -> ProcessSpec:
        """The proxy's process, its configuration written durably."""

    def processes(self) -> tuple[ProcessSpec, ...]:
        """The proxy's process and the relay's as they are to be, touching nothing."""

    def drift(self) -> str:
        """How what it reads at its next start differs from what was written for it, in words; empty when it does not.

        Nothing is told of one that was never set up.
        """

    def relay(self) -> ProcessSpec:
        """The parking relay's process."""

    def port(self) -> int:
        """The port it listens on, chosen once and kept. Raises Refused when the wished one is taken."""

    def check(self) -> None:
        """Raise Refused when what is wished cannot be had: a port that is taken, or forbidden."""

    def public(self) -> Public:
        """How people ask for the app once what is wished is in force."""

    def adopt(self, number: int, *, runs: bool) -> str:
        """What is wished is in force, and kept; says what changed. One that `runs` drops no request.

        Raises StepFailed `proxy-not-valid` or `proxy-not-reloaded`: the old one is in force then.
        """

    def give_back(self, number: int, *, runs: bool) -> None:
        """What was in force before deployment `number` adopted another one is so again; idempotent."""

    def end_streams(self) -> None:
        """End what would never end by itself, such as websockets, with a word to both sides. Raises StepFailed."""

    def let_in(self) -> None:
        """New connections are taken, should a call that let them wait have been killed; idempotent."""

    def maintenance(self) -> Maintenance | None:
        """Whether the app is closed to the public, who gets a page instead."""

    def maintain(self, wish: Maintenance | None) -> None:
        """Close the app to the public from one instant on, or open it; it stays so whatever runs or starts."""

    def notes(self) -> tuple[str, ...]:
        """What a person should know of how the public gets the app: maintenance, and certificates that are not good."""

    def await_certificate(self) -> None:
        """Come back when people can be served over TLS, or when it is known that they cannot be yet."""

    def is_listening(self) -> bool:
        """Whether something accepts connections on the port."""

    def route_to(self, number: int) -> None:
        """The cutover: new requests go to deployment `number`'s instance, from one instant on."""

    def hold(self) -> None:
        """New requests wait at the parking relay."""

    def close(self) -> None:
        """The path leads nowhere."""

    def target(self) -> int | None:
        """The number of the instance that gets new requests; None when they are held or go nowhere."""

    def connections(self, number: int) -> int:
        """How many connections to deployment `number`'s instance are open or waiting to be accepted."""


class Database(Protocol):
    """The app's single database."""

    def exists(self) -> bool:
        """Whether there is one; a file of zero bytes is none."""

    def size(self) -> int:
        """Its bytes, with what is not yet in its file; 0 when there is none."""

    def check(self) -> str:
        """Read it through and say what it is in a few words. Raises Refused when it is not reachable or not whole."""

    def use_wal(self) -> bool:
        """Put it into WAL mode, which stays with it; idempotent. False when there is none.

        Raises StepFailed `database-not-wal`.
        """

    def empty_wal(self, longer_than: int) -> int:
        """Give back the disk that a -wal of more bytes than this takes; returns how many, 0 when it is still read.

        No content changes: SQLite does the same whenever the last one closes the database.
        """

    def remove(self) -> None:
        """Make it so that it is not, with what belongs to it; only for one that never served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaState:
    """How a release's schema stands to the database."""

    tool: str
    """`flask-migrate`, `alembic`, `django`, `command`, `create-all` or `none`."""
    current: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    """What the release would do to the database, in order, in its tool's words; empty when they fit."""
    unknown: tuple[str, ...] = ()
    """Revisions that the database has and the release does not know: it is older than the data."""
    known: tuple[str, ...] = ()
    """All revisions of the release that can be replayed on an empty database, in order, in its tool's words."""
    is_unnoted: bool = False
    """Whether the database has tables and no note of the migrations that made them."""
    elsewhere: str = ""
    """The kind of the app's database when that is not SQLite's, such as `PostgreSQL`: nobody looks into it."""
    others: tuple[str, ...] = ()
    """Databases besides the app's one, in words: they are left where they are, and nobody migrates them."""
    stamp: tuple[str, ...] = ()
    """What the database has to note before anything else, since its schema is exactly that of these revisions."""

    @property
    def fits(self) -> bool:
        """Whether the release can serve this database as it is."""
        return not (self.pending or self.unknown or self.stamp)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program of a release that changes a database; it is run where the live paths lead to a copy."""

    words: str
    """What a person would type."""
    argv: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = field(repr=False)
    """All of it, the settings and the database's address at its live path included."""
    reads: tuple[Path, ...] = ()
    """Files and folders besides the release that it needs."""


class Migrator(Protocol):
    """What brings a database to the schema that a release needs."""

    def state(self, manifest: Manifest, settings: Mapping[str, str]) -> SchemaState:
        """Compare the release with the live database, touching nothing. Raises StepFailed when it cannot tell."""

    def upgrade(self, manifest: Manifest, settings: Mapping[str, str], stamp: tuple[str, ...] = ()) -> Command | None:
        """What brings the database at the live path to what the release needs; None when it has no such tool.

        With `stamp` the database notes these revisions first.
        """

    def make_all(self, manifest: Manifest, settings: Mapping[str, str]) -> Command | None:
        """What makes all tables of the release's models at once, without migrations; None where that cannot be."""

    def replay(self, manifest: Manifest, settings: Mapping[str, str]) -> Command | None:
        """What runs each migration on an empty database at the live path, for `Rehearsal.replay`; None without such."""

    def downgrade(self, manifest: Manifest, settings: Mapping[str, str], older: Manifest) -> Command | None:
        """What brings it, with this release's scripts, to where `older` ends; None when that cannot be.

        Not to be tried when a revision on the way has no downgrade of its own.
        """

    def misfits(self, manifest: Manifest, settings: Mapping[str, str], schema: Schema) -> tuple[str, ...]:
        """In words, why the release's models cannot work with a database of this schema; empty when they can.

        A table or column of the models that is missing, and a column that the database requires, gives no default
        for, and the models do not know. Empty as well when the app has no models that can be asked.
        """

    def create(self, manifest: Manifest, settings: Mapping[str, str]) -> str:
        """Make the schema in a database that does not exist yet and say what was done. Raises StepFailed."""


class SettingsStore(Protocol):
    """The settings, 0600 and outside every release; each deployment has a copy of its own."""

    def today(self) -> Settings:
        """What the next deployment takes; empty when nothing was ever set."""

    def write(self, settings: Settings) -> None:
        """Replace what the next deployment takes."""

    def freeze(self, number: int, settings: Settings) -> None:
        """Write deployment `number`'s own copy."""

    def frozen(self, number: int) -> Settings:
        """Deployment `number`'s own copy; empty when there is none."""

    def discard(self, number: int) -> None:
        """Make it so that the copy is not."""

    def numbers(self) -> tuple[int, ...]:
        """The deployments that have a copy."""


class Rehearsal(Protocol):
    """A release on a copy of the live data, kept from everything live.

    The copy lies where the live database lies, for whatever runs on it. There is one at a time for each deployment.
    """

    def why_not(self) -> str:
        """Why nothing can be kept from the live data on this machine; empty when it can."""

    def proof(self) -> str:
        """What keeps a rehearsed release from the live data, in words."""

    def prepare(self, number: int) -> int:
        """Lay a consistent copy of the live data; returns its bytes, 0 when there is none. Raises StepFailed."""

    def rewind(self, number: int, timeout_seconds: float) -> None:
        """Make the copy equal to deployment `number`'s snapshot again. Raises StepFailed."""

    def run(self, number: int, manifest: Manifest, command: Command, timeout_seconds: float) -> None:
        """Run a command on the copy to its end. Raises StepFailed `migration-failed` or `migration-too-slow`."""

    def make(self, number: int, manifest: Manifest, command: Command, timeout_seconds: float) -> Schema:
        """What a command makes where no database is, beside the copy; the copy is not touched. Raises StepFailed."""

    def replay(self, number: int, manifest: Manifest, command: Command, timeout_seconds: float) -> Replay:
        """Run a migrator's replay where no database is, beside the copy; the copy is not touched. Raises StepFailed."""

    def boot(self, number: int, manifest: Manifest, process: ProcessSpec, settings: Mapping[str, str]) -> None:
        """Start the process on the copy. It reaches nothing else, and dies with us. Raises StepFailed."""

    def ask(self, number: int, path: str, timeout_seconds: float) -> Answer:
        """GET a path of it as the proxy would: (number, path, time-out in seconds)."""

    def state(self, number: int) -> ProcessState:
        """Whether it runs, or how it ended."""

    def log_tail(self, number: int, lines: int) -> tuple[str, ...]:
        """The last lines that it printed."""

    def end(self, number: int) -> None:
        """End what runs on the copy. Raises StepFailed `rehearsal-not-isolated` when it reached for anything else."""

    def would_write(self, number: int) -> tuple[str, ...]:
        """The places in its own source that the release would have written when it ran, where that can be told."""

    def seen(self, number: int) -> Seen:
        """How what ran last used the copy, as far as that can be told; nothing runs on it."""

    def use_wal(self, number: int) -> None:
        """The copy, on which nothing runs, is in WAL mode; idempotent. Raises StepFailed `database-not-wal`."""

    def lay(self, number: int, file: Path) -> None:
        """Make the copy equal to a database file that nobody uses. Raises StepFailed."""

    def compare(self, number: int, file: Path) -> tuple[RowChange, ...]:
        """What a restore of that file would do to the rows of the live data, as they were copied. Raises StepFailed."""

    def look(self, number: int) -> Schema:
        """What the copy holds; nothing runs on it."""

    def is_changed(self, number: int) -> bool:
        """Whether the copy holds anything else than when it was laid; nothing runs on it."""

    def copy(self, number: int) -> Path:
        """The copy's file; nothing runs on it any more."""

    def discard(self, number: int) -> None:
        """Make it so that nothing of it is left; idempotent, and able to run in another process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where an app had its data before it was deployed: the files of the folder that it was developed in."""

    file: Path | None = None
    """The database that the app opens there; None when there is none with tables."""
    words: str = ""
    """What it holds."""
    size: int = 0
    """Its bytes."""
    users: tuple[str, ...] = ()
    """Who has it open, each with how to end it."""
    opens: str = ""
    """What the app opens there, whether it is there or not; empty when nobody knows."""
    others: tuple[str, ...] = ()
    """Databases beside it that the app does not open, each with what it holds."""
    folders: tuple[str, ...] = ()
    """Folders of the source that its configuration says users fill."""
    trouble: str = ""
    """Why the app could not be asked."""


class Adoption(Protocol):
    """Takes over what an app's users made before its first deployment; the originals stay as they are."""

    def find(self, number: int, manifest: Manifest, folder: Path, settings: Mapping[str, str]) -> Origin:
        """Ask a built release, kept from everything, what it opens with these settings where `folder` is its source."""

    def describe(self, file: Path) -> Origin:
        """The same of a database that a person named. Raises StepFailed `database-not-found`."""

    def take(self, number: int, file: Path) -> str:
        """Copy that database, as it is at one instant, to where the live one lies; says what came. Raises StepFailed.

        Nothing may lie there. It is whole or not at all.
        """

    def discard(self, number: int) -> None:
        """Make it so that nothing is left of a copy that deployment `number` did not finish; idempotent."""

    def fill(self, folder: Path, names: tuple[str, ...]) -> int:
        """Copy what lies in these folders of `folder` into the persistent ones, over nothing; says how many files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """A backup to be made."""

    reason: Reason
    release: str
    """What is live, or was when these data were."""
    revision: str
    settings: int
    """The deployment whose settings it runs with."""
    taken_by: str
    folders: Mapping[str, Path]
    """The persistent folders that go into it, by their names."""
    deployment: int | None = None
    """The deployment that changed or replaced these data."""
    begun_at: str = ""
    """When that began: its number alone may be another machine's as well."""
    database: Path | None = None
    """A database file that nobody writes to any more, instead of a copy of the live one."""
    taken_at: str = ""
    """When the data were so, if that is not now."""
    may_be_damaged: bool = False
    has_database: bool = True
    """Whether there is one that can be copied."""
    compress: bool = False


class Backups(Protocol):
    """Backups of the data on this host, each sealed by digests, and there as a whole or not at all."""

    def take(self, wish: Taking) -> Backup:
        """Make one; it holds all that was committed before. Raises StepFailed, Refused for a damaged database."""

    def all(self) -> tuple[Backup | Damaged, ...]:
        """What there is, oldest first."""

    def get(self, name: str) -> Backup:
        """That one. Raises UsageError when there is none, Refused when it is not what was written."""

    def make_place(self, file: Path) -> None:
        """The folder that the file is to be laid in is there, and private."""

    def check(self, backup: Backup) -> None:
        """Read every byte of it. Raises Refused when one is not what was written."""

    def lay_database(self, backup: Backup, target: Path) -> str:
        """Lay its database as a new file and read that through; says what it holds. Raises Refused."""

    def lay_folders(self, backup: Backup, target: Path, links: tuple[str, ...] = ()) -> int:
        """Lay its persistent folders in a new folder; says how many files. Raises Refused.

        Those of `links` that lie in them lead to the live database.
        """

    def note_proof(self, backup: Backup, proof: Proof) -> None:
        """Write down what a trial found."""

    def discard(self, name: str) -> None:
        """Make it so that the backup is not; idempotent."""

    def free_bytes(self) -> int:
        """What the disk has left for backups."""

    def refuse_unmovable(self, names: tuple[str, ...]) -> None:
        """Raise StepFailed for a persistent folder that cannot be exchanged in one step."""

    def exchange(self, number: int, names: tuple[str, ...]) -> None:
        """Put the folders that were laid for deployment `number` where today's are, which stay beside; idempotent."""

    def exchange_back(self, number: int) -> None:
        """Today's folders are where they were; idempotent."""

    def replaced(self, number: int) -> Mapping[str, Path]:
        """The folders that deployment `number` took out of the data, by their names."""

    def discard_replaced(self, number: int) -> None:
        """Make it so that nothing of them is left; idempotent."""


class Replica(Protocol):
    """Sends every change of the live database away as it is made, to where a point in time can be got from."""

    def process(self) -> ProcessSpec | None:
        """The process that does it, its configuration written durably; None, and none left, when nobody wishes it.

        Its name changes with what it does. Raises Refused `litestream-not-installed`, NeedsPerson and OSError.
        """


class Swap(Protocol):
    """Puts a migrated copy in the live database's place, and puts what was there back."""

    def openers(self, besides: frozenset[int]) -> tuple[str, ...]:
        """Who has the database open, in words; not we, nor the processes `besides` and what they started."""

    def seize(self, patience_seconds: float) -> None:
        """Have the database alone until `release`, or until we die; an empty one is made where there is none.

        Raises StepFailed `database-in-use`, with who has it open as context, or `database-not-reachable`.
        """

    def snapshot(self, number: int, timeout_seconds: float) -> int:
        """Copy the seized database as deployment `number`'s snapshot; returns its bytes. Raises StepFailed."""

    def put(self, copy: Path, check: Callable[[], None]) -> None:
        """Give the seized database the content of `copy`, whole or not at all.

        `check` is called all the while and may raise. Raises StepFailed.
        """

    def release(self) -> None:
        """Let others have it; idempotent."""

    def put_back(self, number: int, used: Path | None = None) -> str:
        """Give the database the content of the snapshot again; what it holds otherwise is set aside, never deleted.

        Returns where it was set aside, empty when there was nothing to. It takes the place on the disk of `used`, the
        copy that was put and is of no more use. Idempotent. Raises StepFailed.
        """

    def discard(self, number: int) -> None:
        """Make it so that deployment `number` has no snapshot."""

    def set_aside(self, number: int) -> Path:
        """Move the snapshot to where nothing deletes it; says where. Idempotent."""

    def numbers(self) -> tuple[int, ...]:
        """The deployments that have a snapshot, oldest first."""


class Mender(Protocol):
    """Owners, modes, files of ours and logs, and the notes of how they were before they were mended."""

    def found(self, changes: tuple[Change, ...]) -> tuple[Change, ...]:
        """How each of these is now; what is gone is none of them. Raises OSError."""

    def make(self, change: Change) -> None:
        """Make it so, following no link; idempotent. Raises OSError, and Refused `place-not-plain`."""

    def keep(self, number: int, note: Note) -> None:
        """Deployment `number`'s note is on disk when this returns."""

    def kept(self, number: int) -> Note | None:
        """That note; None when it was not written yet, or is not needed any more."""

    def forget(self, number: int) -> None:
        """Make it so that the note is not; idempotent."""

    def damage(self, release: str) -> tuple[str, ...]:
        """The files of its packages that are not what was installed."""

    def rotate(self, log: str) -> None:
        """Let a log begin anew, with its end kept beside it; idempotent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What the host has left, in bytes."""

    free_disk: int
    free_memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trespass:
    """A permission that is wrong."""

    words: str
    commands: tuple[str, ...] = ()
    """What would put it right."""
    right: Owned | None = None
    """How it is to be, where that is more than a person's decision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A file that was written for the machine, and is not as it was written."""

    words: str
    path: Path
    changes: tuple[Change, ...] = ()
    """What makes it so again; nothing where it may be meant."""
    command: str = ""
    """What a person types instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
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
