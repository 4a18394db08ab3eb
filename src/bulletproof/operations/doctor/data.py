"""Whether the data are well, and the app's to use: permissions, the database, its migrations, others beside it."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from bulletproof.domain.backup import Backup
from bulletproof.domain.check import State
from bulletproof.domain.config import Journal
from bulletproof.domain.doctor import Ill, Remedy
from bulletproof.domain.ownership import Owned
from bulletproof.domain.settings import for_app, other_database
from bulletproof.domain.web import database_setting as setting_of
from bulletproof.effects import mending
from bulletproof.effects.file_facts import mode_of, others_may, size_of
from bulletproof.effects.openers import openers_of
from bulletproof.effects.processes import opened_files
from bulletproof.effects.sqlite_file import read_schema
from bulletproof.effects.sqlite_found import describe_database, is_database
from bulletproof.errors import Refused
from bulletproof.operations.checks import data as checks
from bulletproof.operations.checks.ground import MIB, Ground
from bulletproof.ports import Trespass

_PRIVATE_FILE, _PRIVATE_FOLDER = 0o600, 0o700
_OTHERS = 0o007
_LATELY_SECONDS = 7 * 86400
_SQLITE = "sqlite"
_READING_SECONDS = 30.0
"""For all backups; what is not read by then is read when it is verified."""


def permissions(ground: Ground) -> Iterator[Ill]:
    """What belongs to others, or can be read or written by them, or not by the app."""
    known = ground.host.trespasses()
    yield from map(_trespass, known)
    told = {one.right.path for one in known if one.right}
    for path, mode, why in _wished(ground):
        if path not in told and path.exists() and stat.S_IMODE(path.stat().st_mode) != mode:
            words = f"{path} is {mode_of(path)}, and must be {mode:04o}"
            change = mending.permission(path, mode)
            yield Ill(words=words, why=why, remedy=Remedy(words=f"chmod {mode:o} {path}", changes=(change,)))


def _trespass(found: Trespass) -> Ill:
    if not isinstance(found.right, Owned):
        return Ill(words=found.words, command=" && ".join(found.commands))
    remedy = Remedy(words=" && ".join(found.commands), changes=(mending.as_change(found.right),))
    return Ill(words=found.words, remedy=remedy)


def _wished(ground: Ground) -> Iterator[tuple[Path, int, str]]:
    """Each place that has another mode than it must, with that and why."""
    layout = ground.host.layout
    why = "settings and keys are secrets"
    files = (layout.environment, layout.offsite, layout.replica, *layout.frozen_settings.glob("*.json"))
    yield from ((file, _PRIVATE_FILE, why) for file in files)
    for folder in (layout.state, layout.backups, layout.environment.parent):
        yield folder, _PRIVATE_FOLDER, "everything in it is for its owner alone"
    if not ground.host.database.exists():
        return
    file = layout.data / ground.config.database.file
    mode = stat.S_IMODE(file.stat().st_mode)
    if others_may(file):
        yield file, mode & ~_OTHERS | _PRIVATE_FILE, "everybody on this machine may read or write the database"
    elif mode & _PRIVATE_FILE != _PRIVATE_FILE:
        yield file, mode | _PRIVATE_FILE, "the app may not write its database"
    folder_mode = stat.S_IMODE(layout.data.stat().st_mode)
    if folder_mode & _PRIVATE_FOLDER != _PRIVATE_FOLDER or folder_mode & stat.S_IWOTH:
        wished = (folder_mode | _PRIVATE_FOLDER) & ~stat.S_IWOTH
        yield layout.data, wished, "SQLite makes files beside the database, and nobody else may"


def database(ground: Ground) -> Iterator[Ill]:
    """The database is there, and whole."""
    if other_database(ground.settings.get(ground.config.database.setting)):
        return
    backup = _best_backup(ground)
    command = f"bulletproof backup restore {backup} --preview" if backup else "bulletproof backup list"
    if not ground.host.database.exists():
        if backup:
            file = ground.host.layout.data / ground.config.database.file
            yield Ill(words=f"the database is gone: {file} is not there", command=command)
        return
    try:
        ground.host.database.check()
    except Refused as error:
        damaged = error.reference in {"database-not-whole", "database-not-sqlite"}
        yield Ill(words=error.message, why="; ".join(error.context), command=command if damaged else error.hint)


def _best_backup(ground: Ground) -> str:
    """The newest that has a database, a proven one if there is any."""
    whole = [one for one in ground.host.backups.all() if isinstance(one, Backup) and one.manifest.database]
    proven = [one for one in whole if one.is_proven]
    return (proven or whole)[-1].name if whole else ""


def migrations(ground: Ground) -> Iterator[Ill]:
    """The database is where the live release's migrations end."""
    host, manifest = ground.host, ground.manifest
    if not host.database.exists():
        return
    frozen = ground.settings
    given = {**for_app(frozen), **setting_of(frozen, host.layout, manifest.config)}
    state = host.migrator.state(manifest, given)
    if state.elsewhere or state.tool == "command":
        return
    if state.unknown:
        yield Ill(
            words=f"the database is at {', '.join(state.unknown)}, which {manifest.release} does not know",
            why="a newer release has migrated it, or it comes from another branch",
            command="bulletproof deploy, with the release that knows it",
        )
    elif state.is_unnoted:
        yield Ill(
            words=f"the database has tables, and no note of the migrations that made them ({state.tool})",
            why="it was made by the app itself, or its note was removed",
            command="bulletproof plan",
        )
    elif state.pending:
        yield Ill(
            words=f"{len(state.pending)} migrations of {manifest.release} are not in the database: {state.pending[0]}",
            why="somebody put an older database there, or took a migration back by hand",
            command="bulletproof restart, which rehearses them first",
        )


def stray_databases(ground: Ground) -> Iterator[Ill]:
    """Other databases with tables, told from each other by who uses them."""
    for file in checks.strays(ground):
        found, files = describe_database(file), [file, file.with_name(f"{file.name}-wal")]
        users = openers_of(files)
        age = time.time() - max(one.stat().st_mtime for one in files if one.exists())
        if users:
            why, command = f"{users[0]} has it open", "bulletproof doctor --explain stray-databases"
        elif age < _LATELY_SECONDS:
            why, command = "it was written in the last days, so somebody may use it by mistake", f"ls -l {file}"
        else:
            why, command = "nobody has it open: the app used it before", f"mv {file} {Path.home()}"
        yield Ill(words=f"{file} holds {found.words}, and no backup has it", why=why, command=command)


def misplaced_database(ground: Ground) -> Iterator[Ill]:
    """Databases that the running app has open outside its data."""
    family = ground.status.family
    data = ground.host.layout.data.resolve()
    opened = {file for pid in (family.pids if family else ()) for file in opened_files(pid)}
    for file in sorted(opened):
        if file.is_relative_to(data) or not is_database(file):
            continue
        place = f'[database] links = ["{_in_source(ground, file)}"], then bulletproof deploy'
        yield Ill(
            words=f"the app has {file} open, which lies outside its data ({data})",
            why="its path is written down in the app's code",
            command=place,
        )


def _in_source(ground: Ground, file: Path) -> Path:
    source = ground.host.layout.source(ground.manifest.release).resolve()
    return file.relative_to(source) if file.is_relative_to(source) else file


def database_setting(ground: Ground) -> Iterator[Ill]:
    """A setting that leads elsewhere than to the data."""
    name = ground.config.database.setting
    given = ground.host.settings.today().get(name, "")
    address = urlsplit(given)
    if address.scheme.partition("+")[0] != _SQLITE or not address.path.startswith("//"):
        return  # another kind of database, or a place that the app's code decides on where it is developed
    file, live = Path(address.path[1:]), ground.host.layout.data / ground.config.database.file
    if os.path.realpath(file) == os.path.realpath(live):
        return
    is_there = "which holds other data" if file.exists() else "which is not there"
    yield Ill(
        words=f"{name} in the settings leads to {file}, {is_there}",
        why=f"the app is given {live} instead, and who reads the settings works with another file",
        remedy=Remedy(words=f"unset {name}, without a dropped request", unset_names=(name,)),
    )


def backups(ground: Ground) -> Iterator[Ill]:
    """Missing, old, damaged or unproven backups; of each that there is time for, every byte is read."""
    everything = ground.host.backups.all()
    whole = [one for one in everything if isinstance(one, Backup)]
    altered = dict(_altered(ground, whole))
    damaged = {one.name: (one.words, one.place) for one in everything if not isinstance(one, Backup)}
    damaged |= {name: (words, ground.host.layout.backups / name) for name, words in altered.items()}
    for words, place in damaged.values():
        yield Ill(words=f"of the backups, {words}", command=f"rm -r {place}")
    seen = checks.backups(ground)
    if (damaged or not seen.is_good) and not _is_fresh(ground, [one for one in whole if one.name not in altered]):
        words = "no backup is left that is whole, proven and fresh" if damaged else seen.words
        yield Ill(words=words, remedy=Remedy(words="make a backup, and prove it", backs_up=True))


def _altered(ground: Ground, whole: list[Backup]) -> Iterator[tuple[str, str]]:
    """The names of those of which a byte is not what was written, and how that is told; the newest are read first."""
    deadline = time.monotonic() + _READING_SECONDS
    for one in reversed(whole):
        if time.monotonic() > deadline:
            return
        try:
            ground.host.backups.check(one)
        except Refused as error:
            yield one.name, error.message


def _is_fresh(ground: Ground, whole: list[Backup]) -> bool:
    proven = [one for one in whole if one.is_proven]
    if not proven:
        return False
    age = datetime.now(UTC) - datetime.fromisoformat(proven[-1].manifest.taken_at)
    return age.total_seconds() < ground.config.check.backup_hours * 3600


def durability(ground: Ground) -> Iterator[Ill]:
    """The database has the journal mode that the configuration asks for."""
    if ground.config.database.journal is not Journal.WAL or not ground.host.database.exists():
        return
    file = ground.host.layout.data / ground.config.database.file
    mode = read_schema(file, patience_seconds=1.0).mode
    if mode.upper() != "WAL":
        yield Ill(
            words=f"{file} is in {mode} mode, and [database] journal asks for wal",
            why="somebody put another file there, or the app changes it when it boots",
            state=State.WARNING,
            command=f"sqlite3 {file} 'PRAGMA journal_mode = wal'",
        )


def wal(ground: Ground) -> Iterator[Ill]:
    """A -wal that takes more room than it should, and whoever may keep it from being emptied."""
    file = ground.host.layout.data / ground.config.database.file
    beside = file.with_name(f"{file.name}-wal")
    size = size_of(beside) // MIB
    if size <= ground.config.check.wal_mib:
        return
    words = f"{beside} has {size} MiB, and {ground.config.check.wal_mib} are the most it should have"
    supervisor = ground.host.supervisor
    ours = frozenset(pid for name in supervisor.names() if (pid := supervisor.state(name).pid))
    if others := openers_of([beside], besides=ours):
        why = f"{others[0]} has the database open, and may keep it from being emptied"
        yield Ill(words=words, why=why, command=f"end it (kill {others[0].pid}), then bulletproof doctor --fix")
    elif ground.status.wants_running:
        remedy = Remedy(words="restart without a dropped request, and empty it", restarts=True)
        yield Ill(words=words, why="a request that never ends reads from it, or very much was written", remedy=remedy)
    else:
        yield Ill(words=words, why="the app was killed before it was stopped", command="bulletproof start")
