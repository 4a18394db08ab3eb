"""AppConfig: the frozen, validated meaning of bulletproof.toml."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from bulletproof.domain.address import ADDRESS
from bulletproof.domain.check import Severity

# The descriptions are what a person reads when a value does not fit: "`name` must be <description>, not ...".
# A pattern ends in `$(?!\n)` because Python's `$` alone lets a line end pass; JSON Schema reads both the same.

Name = Annotated[
    str,
    Meta(
        pattern=r"^(?!bulletproof(?:-set-aside|-proxy)?$)[a-z][a-z0-9-]{0,30}[a-z0-9]$(?!\n)",
        description="2 to 32 lower case letters, digits and dashes, a letter first and no dash last",
    ),
]
Entry = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*:[A-Za-z_]\w*(\(\))?$(?!\n)",
        description='"module:object" or "module:factory()"',
    ),
]
"""What a server loads; it becomes a word of the server's command line, so it cannot begin like an option."""
Folder = Annotated[
    str,
    Meta(
        pattern=r"^(?!/)(?!(.*/)?\.{1,2}(/|$))(?!.*//)[^\x00-\x1f]+$(?!\n)",
        max_length=200,
        description='a folder inside the source, such as "uploads"',
    ),
]
HealthPath = Annotated[
    str, Meta(pattern=r"^/[^\s]*$(?!\n)", max_length=500, description='a path that begins with /, such as "/up"')
]
SettingName = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$(?!\n)", description="the name of an environment variable"),
]
FileName = Annotated[
    str,
    Meta(
        pattern=r"^(?!\.{1,2}$)[^/\x00-\x1f]+$(?!\n)",
        max_length=100,
        description='the name of a file, without a folder, such as "app.db"',
    ),
]
AbsolutePath = Annotated[
    str,
    Meta(
        pattern=r"^/(?!(.*/)?\.{1,2}(/|$))[^\x00-\x1f]+$(?!\n)",
        max_length=500,
        description='a path that begins with /, such as "/srv/models"',
    ),
]
Command = Annotated[
    str, Meta(pattern=r"^[^\x00]*$", max_length=2000, description='a command, such as "python migrate.py"')
]
Revision = Annotated[
    str, Meta(pattern=r"^\S+$(?!\n)", max_length=100, description='a migration\'s revision, such as "3f2c9a"')
]
ProcessName = Annotated[
    str,
    Meta(
        pattern=r"^(?!(?:web|release)$)[A-Za-z][A-Za-z0-9_-]{0,30}$(?!\n)",
        description="named with at most 31 letters, digits, dashes and underscores, a letter first,"
        " and not web or release",
    ),
]
ProcessCommand = Annotated[
    str,
    Meta(
        pattern=r"^[^\x00\n]*[^\x00\s][^\x00\n]*$(?!\n)",
        max_length=2000,
        description='a command, such as "python worker.py"',
    ),
]
"""Quotes are judged as well, by `domain.command`."""
Schedule = Annotated[
    str,
    Meta(max_length=200, description='five fields as in a crontab, such as "*/5 * * * *", or "@hourly"'),
]
"""Its fields are judged as well, by `domain.cron`."""
BackupSchedule = Annotated[
    str,
    Meta(max_length=200, description='five fields as in a crontab, such as "30 3 * * *", or "@daily", or "never"'),
]
"""Its fields are judged as well, by `domain.cron`."""
CheckSchedule = Annotated[
    str,
    Meta(max_length=200, description='five fields as in a crontab, such as "*/15 * * * *", or "@hourly", or "never"'),
]
"""Its fields are judged as well, by `domain.cron`."""
CheckName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,30}$(?!\n)",
        description="named with at most 31 letters, digits, dashes and underscores, a letter first",
    ),
]
CheckUrl = Annotated[
    str,
    Meta(
        pattern=r"^(https?://[^\s/?#@]+|/)[^\s]*$(?!\n)",
        max_length=1000,
        description='an address such as "https://example.org/", or a path of the app such as "/search"',
    ),
]
CheckEntry = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$(?!\n)",
        max_length=300,
        description='"module:function"',
    ),
]
HttpStatus = Annotated[int, Meta(ge=100, le=599)]
Text = Annotated[str, Meta(max_length=1000)]
HostName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$(?!\n)",
        description="named with at most 63 letters, digits, dots, dashes and underscores, a letter or digit first",
    ),
]
HostAddress = Annotated[
    str,
    Meta(
        pattern=rf"^{ADDRESS}$(?!\n)",
        max_length=300,
        description='[USER@]HOST[:PORT], such as "deploy@example.org"',
    ),
]
UserName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z_][a-z0-9_-]{0,31}$(?!\n)",
        description="the name of a user of the machine: at most 32 lower case letters, digits, dashes and underscores",
    ),
]
Domain = Annotated[
    str,
    Meta(
        pattern=r"^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$(?!\n)",
        max_length=253,
        description='a domain in lower case and nothing else, such as "example.org"',
    ),
]
Network = Annotated[
    str, Meta(max_length=50, description='an address or a network, such as "10.0.0.5" or "173.245.48.0/20"')
]
"""Judged as well, by `domain.public`."""
SourceFile = Annotated[
    str,
    Meta(
        pattern=r"^(?!/)(?!(.*/)?\.{1,2}(/|$))(?!.*//)[^\x00-\x1f]+[^/\x00-\x1f]$(?!\n)",
        max_length=200,
        description='a file of the source, such as "templates/maintenance.html"',
    ),
]
Port = Annotated[int, Meta(ge=1, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=3600)]
Mebibytes = Annotated[int, Meta(ge=0, le=1 << 30)]


class Server(StrEnum):
    """The program that runs the app's code."""

    GUNICORN = "gunicorn"
    UVICORN = "uvicorn"


class StopSignal(StrEnum):
    """What asks a worker to finish what it does and to end."""

    TERM = "TERM"
    INT = "INT"
    QUIT = "QUIT"


class Certificates(StrEnum):
    """Where the certificate of a domain comes from."""

    AUTOMATIC = "automatic"
    INTERNAL = "internal"
    NONE = "none"


class Journal(StrEnum):
    """What becomes of the database's journal mode."""

    AS_IT_IS = "as-it-is"
    WAL = "wal"


class App(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the app is run."""

    entry: Entry | None = None
    """`module:object` or `module:factory()`; found in the source when missing."""
    server: Server = Server.GUNICORN
    workers: Annotated[int, Meta(ge=1, le=64)] = 3
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    """Threads per gunicorn worker; more than one means gunicorn's `gthread` worker."""
    timeout_seconds: Annotated[float, Meta(ge=1, le=3600)] = 30.0
    """A gunicorn worker that is silent for longer is restarted; gunicorn counts whole seconds, and 0 is never."""
    user: UserName = "www-data"
    """As whom the app runs on a server that was set up by root; on the embedded host it is whoever deploys."""
    persistent: tuple[Folder, ...] = ()
    """Folders of the source that users fill; they live in the data folder and every release has a link to them."""


class Health(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a release is healthy."""

    paths: tuple[HealthPath, ...] = ()
    """What must answer 2xx or 3xx; empty means `/up`, or `/` when the app has no `/up`."""
    passes: Annotated[int, Meta(ge=1, le=20)] = 3
    """How many good answers in a row."""
    deadline_seconds: Seconds = 30.0
    """All passes must be there this long after the start."""
    timeout_seconds: Seconds = 5.0
    """One answer may take this long."""


class Database(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The app's single database."""

    setting: SettingName = "DATABASE_URL"
    """The environment variable that tells the app its database's URL."""
    file: FileName = "app.db"
    """Name of the SQLite file in the data folder."""
    links: tuple[Folder, ...] = ()
    """Files of the source that the app opens as its database whatever the setting says; each release has links there
    that lead to the file in the data folder."""
    journal: Journal = Journal.AS_IT_IS
    """`wal` puts a new database, or one that the first deployment takes over, into WAL mode before it serves, and any
    other when a deployment migrates it; an app that sets a mode itself has the last word."""


class Proxy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What listens for the public."""

    port: Port | None = None
    """Without a domain: the port on 127.0.0.1; the first free one from 8000 when missing."""
    domain: Domain | None = None
    """Where people find the app. With it the proxy listens on all addresses of the machine, for HTTPS and HTTP/2."""
    aliases: tuple[Domain, ...] = ()
    """Other domains, such as `["www.example.org"]`: they lead to the domain, for good, with path and query."""
    certificates: Certificates = Certificates.AUTOMATIC
    """`automatic` from Let's Encrypt, `internal` from an authority of the proxy's own, `none` when something in front
    of this machine does HTTPS."""
    certificate: AbsolutePath | None = None
    """A certificate of your own with its chain, a PEM file on the host; with `key`, instead of `certificates`."""
    key: AbsolutePath | None = None
    """Its private key, a PEM file that the proxy may read."""
    https_port: Port = 443
    http_port: Port = 80
    """What comes here is sent on to HTTPS."""
    http3: bool = False
    """Whether HTTP/3 is offered too, over UDP on the HTTPS port."""
    trusted_proxies: tuple[Network, ...] = ()
    """Load balancers and CDNs in front of this machine, whose word on a client's address is taken; nobody else's is."""
    max_body_mib: Annotated[int, Meta(ge=1, le=1 << 20)] | None = None
    """A request with a larger body is refused with 413; any size is let through when missing."""
    static_files: bool = True
    """Whether it gives out the app's static files itself; otherwise the app does, with whatever it asks for first."""
    maintenance_page: SourceFile | None = None
    """An HTML page of your own for `bulletproof maintenance on`, with `{{ message }}` where that belongs."""


class Drain(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an instance ends."""

    seconds: Seconds = 30.0
    """Requests in flight may take this long after the cutover."""
    stop_seconds: Seconds = 10.0
    """The processes may take this long after they were told to stop; then SIGKILL."""


class Migrations(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What brings the database to the schema that a release needs."""

    command: Command = ""
    """A shell command, run in the source with the release's packages first in PATH; Alembic is found when empty."""
    allow_data_loss: tuple[Revision, ...] = ()
    """Migrations that may drop what users made, by their revision; `command` allows the command."""


class Hold(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long requests may wait while a migration is put in place."""

    seconds: Annotated[float, Meta(ge=5, le=600)] = 30.0
    """From the first request that waits to the first that is answered, the way back included."""


class Rehearsal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a release gets while it is rehearsed on a copy of the data."""

    memory_mib: Annotated[int, Meta(ge=64, le=1 << 20)] = 2048
    """For each of its processes, and for all of them together."""
    allow: tuple[AbsolutePath, ...] = ()
    """Files and folders of the machine that the app must read to boot."""


class Worker(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A process that runs beside the web app for as long as its release is live, and again when it crashes."""

    command: ProcessCommand
    """A shell command, run in the source with the release's packages first in PATH, and the web app's settings."""
    count: Annotated[int, Meta(ge=1, le=64)] = 1
    """So many of it."""
    stop_seconds: Seconds = 30.0
    """It may take this long to finish what it does after it was asked to; then SIGKILL."""
    stop_signal: StopSignal | None = None
    """What asks it to finish: `TERM`, unless it is known to drop its work then, as huey's consumer does."""
    overlap: bool = False
    """Whether a new release's may start before the old release's has ended."""


class Timer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command that runs at given times, one run at a time."""

    schedule: Schedule
    """Minute, hour, day of month, month, day of week in the machine's time zone; or `@hourly`, `@daily`, `@weekly`"""
    command: ProcessCommand
    """A shell command, run in the source with the release's packages first in PATH, and the web app's settings."""
    timeout_seconds: Annotated[float, Meta(gt=0, le=86400)] = 3600.0
    """A run that takes longer gets SIGTERM."""
    stop_seconds: Seconds = 30.0
    """A run may go on for this long when its release is replaced or stopped; then SIGTERM."""


class Keep(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept for a rollback."""

    releases: Annotated[int, Meta(ge=2, le=100)] = 5
    backups: Annotated[int, Meta(ge=1, le=100)] = 3
    """The last backups, whatever they were made for; and as many points in time that were fetched."""
    daily: Annotated[int, Meta(ge=0, le=366)] = 7
    """Besides, the last backup of so many days that have one."""
    weekly: Annotated[int, Meta(ge=0, le=520)] = 4
    """And of so many weeks."""
    monthly: Annotated[int, Meta(ge=0, le=120)] = 3
    """And of so many months."""


class Backup(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How backups are made."""

    schedule: BackupSchedule = "30 3 * * *"
    """When one is made and proven by itself, while the app runs; or `never`"""
    compress: bool = False
    """Whether they are packed with zstd: smaller, and slower to make."""


class OwnCheck(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A check of your own, by exactly one of `url`, `command` and `entry`."""

    url: CheckUrl | None = None
    """An address, or a path of the app's that is asked through the proxy; it is not redirected."""
    command: ProcessCommand | None = None
    """A shell command, run as a timer's is; status 0 is good, 1 a warning, 2 critical, anything else unknown, and the
    first line that it prints is what is told."""
    entry: CheckEntry | None = None
    """A function of the app's without arguments, called in a process of its own with the release's packages and the
    app's settings; None or True is good, and a text says what is not."""
    status: tuple[HttpStatus, ...] = ()
    """Of the `url`: the answer has one of these; empty means 200 to 399."""
    text: Text = ""
    """Of the `url`: the answer has this in it."""
    latency_ms: Annotated[int, Meta(ge=1, le=60000)] | None = None
    """Of the `url`: it answers within this time."""
    certificate_days: Annotated[int, Meta(ge=0, le=3650)] | None = None
    """Of the `url`: its certificate is good for so many days more."""
    severity: Severity = Severity.REQUIRED
    """What it means when it fails: `required` is critical, `wanted` a warning."""
    timeout_seconds: Annotated[float, Meta(gt=0, le=60)] = 4.0
    """When there is no answer by then, it fails."""


class Step(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A step of a visit: pages are asked for through the proxy one after the other, as a browser does, with cookies."""

    path: HealthPath
    """What is asked for."""
    send: dict[str, str] = {}
    """What a person types into the form on the page before, which is sent to `path` with its hidden fields and so with
    its token against forgery; `$NAME` is the value of a setting, and `$$` a dollar sign."""
    status: tuple[HttpStatus, ...] = ()
    """The answer has one of these; empty means 200 to 299, and after `send` up to 399."""
    redirect: HealthPath | None = None
    """The answer leads to this path."""
    text: Text = ""
    """The answer has this in it."""
    no_text: Text = ""
    """The answer does not have this in it."""


class Check(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `check` looks at, when, and from where on it complains."""

    schedule: CheckSchedule = "*/15 * * * *"
    """When everything is looked at and noted for `history` and `uptime`, while the app runs; or `never`"""
    skip: tuple[CheckName, ...] = ()
    """Checks that are not to be made, such as `["clock"]`."""
    errors_percent: Annotated[float, Meta(ge=0, le=100)] = 1.0
    """So many of the last requests may be answered with 5xx."""
    latency_ms: Annotated[int, Meta(ge=1, le=60000)] | None = None
    """A health check may take this long to be answered; it is slow, and no outage, when it takes longer."""
    memory_mib: Annotated[int, Meta(ge=1, le=1 << 20)] | None = None
    """Each process of the web app may use this much."""
    wal_mib: Annotated[int, Meta(ge=1, le=1 << 20)] = 256
    """The database's `-wal` may have this size."""
    backup_hours: Annotated[float, Meta(gt=0, le=8760)] = 50.0
    """The newest backup may be this old, if they are made by the clock: two nights and a little."""
    disk_days: Annotated[float, Meta(ge=0, le=365)] = 7.0
    """The disk must last for so many days if it goes on being filled as in the last two weeks."""
    own: dict[CheckName, OwnCheck] = {}
    visit: dict[CheckName, tuple[Step, ...]] = {}
    """Visits by their names, each a list of steps: `[[check.visit.login]]` once for each."""


class Require(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the host must have before a deployment begins."""

    free_disk_mib: Mebibytes = 256
    free_memory_mib: Mebibytes = 128


class AppConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that bulletproof.toml can say; each key but the name has a default."""

    name: Name
    app: App = App()
    health: Health = Health()
    database: Database = Database()
    proxy: Proxy = Proxy()
    drain: Drain = Drain()
    keep: Keep = Keep()
    backup: Backup = Backup()
    check: Check = Check()
    migrations: Migrations = Migrations()
    hold: Hold = Hold()
    rehearsal: Rehearsal = Rehearsal()
    require: Require = Require()
    workers: dict[ProcessName, Worker] = {}
    timers: dict[ProcessName, Timer] = {}
    hosts: dict[HostName, HostAddress] = {}
    """Short names for `--to`, each with its `[USER@]HOST[:PORT]`, such as `prod = "deploy@example.org"`"""
