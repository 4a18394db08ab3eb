"""The oracle: looks at a host from outside, past the tool, and tells what is not as it was promised."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import re
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bulletproof.demo.ledger import duplicated_writes, lost_writes
from bulletproof.domain.layout import Layout
from bulletproof.prove.host import Host, processes
from bulletproof.prove.load import Load
from bulletproof.prove.subject import CANARY, GROWS

_WELL = range(200, 400)
_DEPLOYMENT = re.compile(r"(?:^|\0)BULLETPROOF_DEPLOYMENT=(\d+)(?:\0|$)")
_IGNORED = re.compile(r"(^|/)(journal\.db-(wal|shm)|[^/]+-(wal|shm|journal)|lock|spare|health\.jsonl(\.lock)?)$")
"""What comes and goes with whoever looks: also what the checks by the clock found."""
_ASIDE = re.compile(r"/set-aside(/\d+-(migrated|replaced)[\w-]*\.db)?$")
"""What an undo sets aside, which nothing ever deletes."""
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
_GROWN = re.compile(r"grown_\d+_")
_NUMBER = re.compile(r"\d+")
_COMMITTED = """
SELECT number, release, title, kind FROM deployment
WHERE number IN (SELECT deployment FROM record WHERE kind = 'commit')
ORDER BY number
"""
_RESTORED = """
SELECT count(*) FROM deployment
WHERE kind = 'restore' AND number IN (SELECT deployment FROM record WHERE kind = 'commit')
"""
_LIVE = """
SELECT number, release FROM deployment
WHERE number IN (SELECT deployment FROM record WHERE kind = 'commit') ORDER BY number DESC LIMIT 1
"""
_OPEN = """
SELECT count(*) FROM deployment WHERE number NOT IN (SELECT deployment FROM record WHERE kind = 'close')
"""


class Commit(NamedTuple):
    """A deployment that was committed."""

    number: int
    release: str
    title: str
    """Of the revision."""
    kind: str


_LEFT_TO_SWEEP = re.compile(r"(^|/)\.bp-(new|gone)-|/room(/|$)")
"""What a fault in a deletion may leave, and the next command deletes; its names change each time that it is begun."""


class World(msgspec.Struct, frozen=True):
    """What is true of a host at one instant."""

    number: int
    """The deployment that the journal says is live."""
    release: str
    committed: tuple[Commit, ...]
    """Oldest first."""
    files: frozenset[str]
    schema: tuple[str, ...]
    rows: Mapping[str, int]
    """How many each table has."""
    processes: Mapping[str, int]
    """How many of each kind run."""
    restored: int
    """How many restores were committed."""

    def committed_since(self, before: World) -> tuple[Commit, ...]:
        """The deployments that were committed since then."""
        return self.committed[len(before.committed) :]

    @classmethod
    def of(cls, host: Host) -> World:
        """As it is now."""
        with _read(host.layout.journal) as journal:
            number, release = journal.execute(_LIVE).fetchone() or (0, "")
            (restored,) = journal.execute(_RESTORED).fetchone()
        with _read(host.database) as database:
            schema = tuple(str(row[0]) for row in database.execute("SELECT sql FROM sqlite_master ORDER BY name"))
            tables = [str(row[0]) for row in database.execute(_TABLES)]
            rows = {name: _count(database, name) for name in tables}
        return cls(
            number=number,
            release=release,
            committed=commits(host.layout),
            files=frozenset(files(host.layout)),
            schema=schema,
            rows=rows,
            processes=_kinds(host, number),
            restored=int(restored),
        )


def commits(layout: Layout) -> tuple[Commit, ...]:
    """Every deployment that was committed, oldest first."""
    with _read(layout.journal) as journal:
        return tuple(Commit(*row) for row in journal.execute(_COMMITTED))


def is_quiet(layout: Layout) -> bool:
    """Whether nobody is at work: the lock is free without a note, and nothing in the journal is open."""
    if _lock(layout):
        return False
    try:
        return _open_deployments(layout.journal) == 0
    except sqlite3.Error:  # on a disk that is full not even a reader finds room for its lock
        with tempfile.TemporaryDirectory() as elsewhere:
            for file in (layout.journal, layout.journal.with_name("journal.db-wal")):
                if file.exists():
                    shutil.copy(file, elsewhere)
            return _open_deployments(Path(elsewhere, "journal.db")) == 0


def _open_deployments(file: Path) -> int:
    with _read(file) as journal:
        return int(journal.execute(_OPEN).fetchone()[0])


def problems(host: Host, before: World, load: Load) -> list[str]:
    """What is wrong with the host now, as it follows from what it was before."""
    try:
        now = World.of(host)
        found = [*_lock(host.layout), *_unity(host, now), *_processes(before, now), *_data(host, load)]
        found += _backups(host.layout, now.restored - before.restored)
    except (sqlite3.Error, OSError) as error:
        return [f"not even this can be read: {error}"]
    new = now.committed_since(before)
    if not is_quiet(host.layout):
        found.append("a deployment is not closed")
    if now.number != (new[-1].number if new else before.number):
        found.append(f"deployment {now.number} is live, committed since were {list(new) or 'none'}")
    if new and host.subject.schema:
        found += _same_schema(host.subject.schema, now.schema)
    elif not (new and host.subject.has_former):
        found += _schema(before, now, new)
    if now.restored == before.restored:
        found += [f"rows are gone from {name}" for name, count in before.rows.items() if now.rows.get(name, 0) < count]
    return found + _leftovers(before, now, len(new))


def unswept(layout: Layout) -> list[str]:
    """What should be gone after a command in which nothing went wrong, whatever came before it."""
    return [f"left for ever: {path}" for path in files(layout) if _LEFT_TO_SWEEP.search(path)]


def secrets_told(host: Host) -> list[str]:
    """Where the secret of the settings can be read and must not."""
    layout = host.layout
    logs = [
        *layout.logs.glob("*"),
        layout.journal,
        *layout.state.glob("journal.db-wal"),
        *layout.state.glob("reports/*"),
    ]
    told = [str(path) for path in logs if CANARY.encode() in path.read_bytes()]
    return told + [command for _, command, _ in processes(layout.root) if CANARY in command]


def files(layout: Layout) -> list[str]:
    """Every path of the app but what is inside a release, the cache, backups, and what is kept for people."""
    closed = {str(place) for place in (layout.cache, layout.logs, layout.report(0).parent, layout.told, layout.backups)}
    root, releases, found = str(layout.root), str(layout.releases), []
    for folder, folders, names in os.walk(root):  # in strings: this is asked ten times a second
        folders[:] = [name for name in folders if f"{folder}/{name}" not in closed]
        if folder.rpartition("/")[0] == releases:
            folders[:] = []
        found += [f"{folder}/{name}"[len(root) + 1 :] for name in (*folders, *names)]
    return [path for path in found if not _IGNORED.search(path)]


def is_recovering(host: Host) -> bool:
    """Whether the recovery that was met by an order still runs under strace."""
    trace = str(host.base / "recovery-trace-")
    return any(trace in command for _, command, _ in processes(host.base))


@contextlib.contextmanager
def _read(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as connection:
        yield connection


def _count(database: sqlite3.Connection, table: str) -> int:
    quoted = table.replace('"', '""')
    return int(database.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0])  # noqa: S608  quoted


def _lock(layout: Layout) -> list[str]:
    """The lock is free, and no note is left in it."""
    with layout.lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return ["somebody holds the lock"]
        note = file.read()
    return [f"the lock's note is left: {note!r}"] if note else []


def _unity(host: Host, now: World) -> list[str]:
    """Proxy, symlinks and journal name one deployment, and nothing is held."""
    layout, found = host.layout, []
    target = layout.app_socket.readlink().as_posix()
    if not target.endswith(f"{now.number}/web.sock"):
        found.append(f"the proxy's path leads to {target}, {now.number} is live")
    found += [f"{link.name} leads nowhere" for link in (layout.current, layout.former) if not link.exists()]
    current = layout.current.readlink().name
    if current != now.release:
        found.append(f"current leads to {current}, {now.release} is live")
    try:
        status, number = _ask(host)
    except (OSError, http.client.HTTPException) as error:
        return [*found, f"the proxy does not answer: {error!r}"]
    if status not in _WELL or (host.subject.has_ledger and number != str(now.number)):
        found.append(f"the proxy answers {status} from deployment {number or '?'}, {now.number} is live")
    return found


def _ask(host: Host) -> tuple[int, str]:
    for path in host.subject.paths:
        connection = http.client.HTTPConnection(host.address.removeprefix("http://"), timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
        if answer.status != HTTPStatus.NOT_FOUND:
            break
    return answer.status, answer.headers.get("X-Deployment", "")


def _kinds(host: Host, live: int) -> Counter[str]:
    """The host's processes: supervisor, proxy, relay, those of the live deployment, and what should not be."""
    kinds: Counter[str] = Counter()
    for pid, command, environment in processes(host.layout.root):
        deployment = _DEPLOYMENT.search(environment)
        if deployment:
            kind = "of the live deployment" if int(deployment[1]) == live else f"of deployment {deployment[1]}"
        elif "embedded.supervisor" in command:
            kind = "supervisor"
        elif "caddy run" in command:
            kind = "proxy"
        elif "adapters.relay" in command:
            kind = "relay"
        else:
            kind = f"that should be gone: {pid} {command[:120]}"
        kinds[kind] += 1
    return kinds


def _processes(before: World, now: World) -> list[str]:
    """As many of each kind as before, and nothing else."""
    wanted = before.processes
    return [
        f"{now.processes.get(kind, 0)} processes {kind}, not {wanted.get(kind, 0)}"
        for kind in sorted(now.processes.keys() | wanted.keys())
        if now.processes.get(kind, 0) != wanted.get(kind, 0)
    ]


def _data(host: Host, load: Load) -> list[str]:
    """The database is whole, and holds each acknowledged write once."""
    tokens = load.acknowledged()
    with _read(host.database) as database:
        integrity = [str(row[0]) for row in database.execute("PRAGMA integrity_check")]
        orphans = database.execute("PRAGMA foreign_key_check").fetchall()
    found = [] if integrity == ["ok"] else [f"integrity_check: {integrity[:3]}"]
    found += [f"foreign_key_check: {orphans[:3]}"] if orphans else []
    if tokens and (lost := _lost(tokens, host)):
        found.append(f"{len(lost)} acknowledged writes are lost: {sorted(lost)[:3]}")
    if tokens and (twice := duplicated_writes(tokens, host.database)):
        found.append(f"{len(twice)} acknowledged writes are there twice: {sorted(twice)[:3]}")
    return found


def _lost(tokens: frozenset[str], host: Host) -> frozenset[str]:
    """The acknowledged writes that are nowhere: neither live nor in what a restore replaced, which nothing prunes."""
    lost = lost_writes(tokens, host.database)
    for file in _replaced(host.layout):
        if lost:
            with tempfile.TemporaryDirectory() as elsewhere:
                lost = lost_writes(lost, Path(shutil.copy(file, Path(elsewhere, "replaced.db"))))
    return lost


def _replaced(layout: Layout) -> list[Path]:
    """The databases that restores replaced: as backups, or set aside where no backup could be made."""
    kept = (one["name"] for one in _manifests(layout) if one["reason"] == "restore")
    return [
        *(layout.backups / str(name) / "database.db" for name in kept),
        *layout.database_aside.glob("*-replaced.db"),
    ]


def _manifests(layout: Layout) -> Iterator[dict[str, Any]]:
    for path in layout.backups.glob("b*/manifest.json"):
        yield json.loads(path.read_bytes())


def _backups(layout: Layout, restored: int) -> list[str]:
    """Every backup is whole, nothing lies beside them, and each restore has left one of what it replaced."""
    names = {path.name for path in layout.backups.glob("*") if not _LEFT_TO_SWEEP.search(path.name)}
    found = [f"left beside the backups: {name}" for name in names if not re.fullmatch(r"b\d+", name)]
    for manifest in _manifests(layout):
        place = layout.backups / str(manifest["name"])
        parts = [part for part in (manifest["database"], manifest["archive"]) if part]
        digests = {part["name"]: hashlib.sha256((place / part["name"]).read_bytes()).hexdigest() for part in parts}
        found += [f"{place.name}/{one['name']} is damaged" for one in parts if digests[one["name"]] != one["sha256"]]
    lacks = len(_replaced(layout)) < restored
    return [*found, *(["a restore left nothing of what it replaced"] if lacks else [])]


def _schema(before: World, now: World, new: Iterable[Commit]) -> list[str]:
    """The data fit the release that serves: each time that one became live that grows, its own table came, no other."""
    grown: Counter[str] = Counter()
    for commit in new:
        if commit.kind == "restore":  # of a backup that was made just before, and runs no migration
            grown.clear()
        elif commit.title.startswith(GROWS):
            grown[commit.release] += 1
    wanted, there = _grown(before) + grown, _grown(now)
    if there != wanted:
        few, many = sorted((wanted - there).elements()), sorted((there - wanted).elements())
        return [f"the schema is not what the serving release needs: tables of {few} are missing, of {many} too many"]
    return _same_schema(before.schema, now.schema) if not grown else []


def _same_schema(wanted: tuple[str, ...], there: tuple[str, ...]) -> list[str]:
    differs = sorted(set(there) ^ set(wanted))
    return [f"the schema is not what the serving release needs: {differs}"] if there != wanted else []


def _grown(world: World) -> Counter[str]:
    """How many tables each release has added that grows; of the tiny app alone."""
    return Counter(name.split("_", 2)[2] for name in world.rows if _GROWN.match(name))


def _leftovers(before: World, now: World, new: int) -> list[str]:
    """What is there now and was not before; after new deployments, of what kind there is more than they may add."""
    if not new:
        is_swept = any(map(_LEFT_TO_SWEEP.search, before.files))
        new_files = [path for path in now.files - before.files if not _ASIDE.search(path)]
        left = [path for path in new_files if not (is_swept and _LEFT_TO_SWEEP.search(path))]
        gone = [path for path in before.files - now.files if not _LEFT_TO_SWEEP.search(path)]
        return [*(f"left over: {path}" for path in sorted(left)), *(f"gone: {path}" for path in sorted(gone))]
    lasting = ([path for path in world.files if not _LEFT_TO_SWEEP.search(path)] for world in (now, before))
    shapes, baseline = (Counter(_NUMBER.sub("#", path) for path in paths) for paths in lasting)
    return [f"one {shape} too many" for shape, count in sorted(shapes.items()) if count > baseline[shape] + new]
