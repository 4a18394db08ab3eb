"""Whether the data are well: the database, what a power cut may cost, what lies beside it, and the backups."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bulletproof.domain.backup import Backup, Damaged, Reason
from bulletproof.domain.check import Seen, Severity
from bulletproof.domain.cron import NEVER
from bulletproof.domain.durability import Durability, has_reset_bug
from bulletproof.effects.file_facts import mode_of, others_may, size_of
from bulletproof.effects.sqlite_file import read_schema
from bulletproof.effects.sqlite_found import database_files
from bulletproof.errors import Refused
from bulletproof.operations.checks.ground import MIB, NO_DATABASE, Ground

_WITHDRAWN = "3.52.0"
"""By its authors, in favour of 3.51.3 (sqlite.org/changes.html)."""
_TESTS = frozenset({"tests", "test", "fixtures", "testdata"})
"""Folders of a source whose databases nobody takes for the app's."""
_MOST_STRAY = 3
_STRAY_SECONDS = 0.2


def database_file(ground: Ground) -> Seen:
    """The database is there, nobody else may read it, and its log does not grow without end."""
    file = ground.host.layout.data / ground.config.database.file
    if not ground.host.database.exists():
        return NO_DATABASE
    if others_may(file):
        words = f"everybody on this machine may read or write {file} ({mode_of(file)})"
        return Seen(words=words, is_good=False, hint=f"chmod o= {file}", severity=Severity.WANTED)
    wal = size_of(file.with_name(f"{file.name}-wal"))
    if wal > ground.config.check.wal_mib * MIB:
        words = f"its -wal has {wal // MIB} MiB: something reads for too long, or wrote very much at once"
        return Seen(words=words, is_good=False, hint="bulletproof doctor --only wal", severity=Severity.WANTED)
    return Seen(words=f"{size_of(file) / MIB:.1f} MiB, {mode_of(file)}")


def database(ground: Ground) -> Seen:
    """It can be read as a database, and has tables."""
    if not ground.host.database.exists():
        return NO_DATABASE
    reading = read_schema(ground.host.layout.data / ground.config.database.file, patience_seconds=1.0)
    noted = ", ".join(one for some in reading.versions.values() for one in some)
    return Seen(words=f"{len(reading.tables)} tables, {reading.mode}{f', at {noted}' if noted else ''}")


def durability(ground: Ground) -> Seen:
    """What a power cut may cost, by what the release did with its database when it was rehearsed."""
    told = _told(ground)
    if isinstance(told, str):
        return Seen(words=told)
    if told.warnings:
        return Seen(words=f"{told.words}; {told.warnings[0]}", is_good=False, hint="bulletproof plan")
    return Seen(words="; ".join((told.words, *told.advice)))


def sqlite(ground: Ground) -> Seen:
    """The library that the app uses is none that its authors took back, and none that the app drives into a fault."""
    told = _told(ground)
    if isinstance(told, str):
        return Seen(words=told)
    if told.sqlite == _WITHDRAWN:
        words = f"SQLite {told.sqlite} was withdrawn by its authors"
        return Seen(words=words, is_good=False, hint="apt upgrade, or another Python; then bulletproof deploy")
    if told.mmap_size and told.mode == "WAL" and has_reset_bug(told.sqlite):
        words = f"SQLite {told.sqlite} with mmap_size = {told.mmap_size} in WAL mode has damaged databases"
        return Seen(words=words, is_good=False, hint="set PRAGMA mmap_size = 0 in the app; then bulletproof deploy")
    return Seen(words=told.sqlite)


def _told(ground: Ground) -> Durability | str:
    """What the rehearsal of the live deployment saw, or why that is not known."""
    try:
        content = ground.host.layout.report(ground.number).read_bytes()
    except FileNotFoundError:
        return "not known before the next deployment is rehearsed"
    return msgspec.json.decode(content, type=_Reported).durability or "not known: the rehearsal could not tell"


class _Reported(msgspec.Struct):
    """The part of a rehearsal's report that is asked for."""

    durability: Durability | None = None


def stray_databases(ground: Ground) -> Seen:
    """No other database lies where the app might use it by mistake."""
    found = [f"{file} has {tables} tables" for file, tables in itertools.islice(_strays(ground), _MOST_STRAY)]
    if found:
        words = f"{'; '.join(found)}, and no backup has it"
        return Seen(words=words, is_good=False, hint="bulletproof check --explain stray-databases")
    return Seen(words="none besides the app's own")


def strays(ground: Ground) -> Iterator[Path]:
    """Databases with tables that lie beside the app's own."""
    return (file for file, _ in _strays(ground))


def _strays(ground: Ground) -> Iterator[tuple[Path, int]]:
    for file in _candidates(ground):
        try:
            tables = len(read_schema(file, patience_seconds=_STRAY_SECONDS).tables)
        except Refused:
            continue  # what cannot be read as a database, the app does not use as one
        if tables:
            yield file, tables


def _candidates(ground: Ground) -> Iterator[Path]:
    layout, config = ground.host.layout, ground.config
    live = layout.data / config.database.file
    folders = [layout.data / name for name in config.app.persistent]
    for file in database_files(layout.data):
        if file != live and not any(file.is_relative_to(folder) for folder in folders):
            yield file
    source = layout.source(ground.manifest.release)
    for file in database_files(source):
        is_of_tests = bool(_TESTS & set(file.relative_to(source).parts[:-1]))
        if not is_of_tests and not file.resolve().is_relative_to(layout.data):
            yield file


def backups(ground: Ground) -> Seen:
    """There is a backup that is not old, and proven."""
    if not ground.host.database.exists() and not ground.config.app.persistent:
        return Seen(words="there is nothing to back up")
    everything = ground.host.backups.all()
    damaged = [one.name for one in everything if isinstance(one, Damaged)]
    if damaged:
        words = f"{', '.join(damaged)} cannot be read"
        return Seen(words=words, is_good=False, hint="bulletproof backup list")
    usual = {Reason.ASKED, Reason.SCHEDULE}
    made = [one for one in everything if isinstance(one, Backup) and one.manifest.reason in usual]
    is_asked_for = ground.config.backup.schedule != NEVER
    if not made:
        words = "there is no backup yet"
        return Seen(words=words, is_good=not is_asked_for, hint="bulletproof backup create")
    newest = made[-1]
    hours = (datetime.now(UTC) - datetime.fromisoformat(newest.manifest.taken_at)).total_seconds() / 3600
    if not newest.is_proven:
        why = newest.proof.trouble if newest.proof else "nobody has tried yet"
        words = f"{newest.name} is not proven: {why}"
        return Seen(words=words, is_good=False, hint=f"bulletproof backup verify {newest.name}")
    if is_asked_for and hours > ground.config.check.backup_hours:
        words = f"the newest, {newest.name}, is {hours:.0f} hours old"
        return Seen(words=words, is_good=False, hint="bulletproof logs backup")
    return Seen(words=f"{len(made)}, the newest {newest.name}, {hours:.0f} hours old, proven")
