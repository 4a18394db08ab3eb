"""The checks: each looks at one thing of an app that runs, and changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from bulletproof.domain.backup import Backup, Damaged, Reason
from bulletproof.domain.check import Finding, Seen, Severity, State
from bulletproof.domain.config import AppConfig, Server
from bulletproof.domain.cron import NEVER
from bulletproof.domain.durability import Durability
from bulletproof.domain.health import Answer, falls_back_to_root
from bulletproof.domain.process import Phase
from bulletproof.effects.file_facts import free_inodes, is_private, mode_of, others_may, size_of
from bulletproof.effects.logs import tail
from bulletproof.effects.records import damaged_packages
from bulletproof.effects.sqlite_file import read_schema
from bulletproof.errors import BulletproofError, StepFailed
from bulletproof.operations.status import Status
from bulletproof.operations.workers import is_in_trouble
from bulletproof.ports import Host, Manifest

PATIENCE_SECONDS = 5.0
"""A look that takes longer is unknown, never ok."""
_MIB = 1 << 20
_LINES = 1000
_BAD_SHARE = 0.01
"""Of the last requests that were answered with 500 to 599."""
_FEW_INODES = 1000
_LARGE_WAL = 256 * _MIB
_OLD_BACKUP_HOURS = 50.0
"""Two nights and a little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What all checks look at."""

    host: Host
    status: Status

    @property
    def manifest(self) -> Manifest:
        """What is live. Raises StepFailed when it is damaged, or nothing is."""
        if self.status.live is None:
            raise StepFailed("nothing-deployed", "nothing was ever live")
        return self.host.releases.manifest(self.status.live.release)

    @property
    def config(self) -> AppConfig:
        """The live release's configuration."""
        return self.manifest.config


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One look."""

    looks_at: str
    look: Callable[[Ground], Seen]
    severity: Severity = Severity.REQUIRED


def _release(ground: Ground) -> Seen:
    """The live release's virtual environment is what was installed: every file of every package is there, as long."""
    manifest = ground.manifest
    bad = damaged_packages(ground.host.layout.venv(manifest.release))
    if bad:
        words = f"{len(bad)} files of its packages are not what was installed: {', '.join(bad[:3])}"
        return Seen(words=words, is_good=False, hint="bulletproof deploy")
    return Seen(words=f"{manifest.release}, {manifest.packages} packages, Python {manifest.python}")


def _previous(ground: Ground) -> Seen:
    """There is a release to go back to."""
    live = ground.status.live
    others = [one for one in ground.host.releases.existing() if live and one != live.release]
    if not others:
        return Seen(words="none besides the live one: nothing to roll back to yet")
    return Seen(words=f"{len(others)} releases besides the live one")


def _database_file(ground: Ground) -> Seen:
    """The database is there, nobody else may read it, and its log does not grow without end."""
    file = ground.host.layout.data / ground.config.database.file
    if not ground.host.database.exists():
        return Seen(words="the app has no database here")
    if others_may(file):
        words = f"everybody on this machine may read or write {file} ({mode_of(file)})"
        return Seen(words=words, is_good=False, hint=f"chmod o= {file}", severity=Severity.WANTED)
    wal = size_of(file.with_name(f"{file.name}-wal"))
    if wal > _LARGE_WAL:
        words = f"its -wal has {wal // _MIB} MiB: a reader that never ends keeps it from being emptied"
        return Seen(words=words, is_good=False, hint="bulletproof restart", severity=Severity.WANTED)
    return Seen(words=f"{size_of(file) / _MIB:.1f} MiB, {mode_of(file)}")


def _database(ground: Ground) -> Seen:
    """It can be read as a database, and has tables."""
    if not ground.host.database.exists():
        return Seen(words="the app has no database here")
    reading = read_schema(ground.host.layout.data / ground.config.database.file, patience_seconds=1.0)
    noted = ", ".join(one for some in reading.versions.values() for one in some)
    return Seen(words=f"{len(reading.tables)} tables, {reading.mode}{f', at {noted}' if noted else ''}")


def _service(ground: Ground) -> Seen:
    """What should run runs: the supervisor, the app, the proxy and the relay, and none of them crashes."""
    status = ground.status
    if not status.wants_running:
        return Seen(words="it was stopped by a person")
    if not status.is_supervised:
        return Seen(words="the supervisor does not run", is_good=False, hint="bulletproof start")
    for name, state in (("app", status.web), ("proxy", status.proxy), ("relay", status.relay)):
        if state.phase is not Phase.RUNNING:
            return Seen(words=f"the {name} is {state.phase}: {state.words}", is_good=False, hint="bulletproof restart")
    crashes = status.web.restarts
    if crashes:
        words = f"the app crashed {crashes} times since it was started: {status.web.words}"
        return Seen(words=words, is_good=False, hint="bulletproof logs", severity=Severity.WANTED)
    return Seen(words="supervisor, app, proxy and relay run")


def _processes(ground: Ground) -> Seen:
    """As many processes as the configuration says."""
    status, config = ground.status, ground.config
    if not status.wants_running:
        return Seen(words="it was stopped by a person")
    if status.family is None:
        return Seen(words="the app has no process", is_good=False, hint="bulletproof restart")
    wanted = 1 + config.app.workers if config.app.server is Server.GUNICORN or config.app.workers > 1 else 1
    memory = status.family.memory / _MIB
    if status.family.count < wanted:
        words = f"{status.family.count} processes, not {wanted} (1 + {config.app.workers} workers)"
        return Seen(words=words, is_good=False, hint="bulletproof logs")
    return Seen(words=f"{status.family.count} (1 + {config.app.workers} workers), {memory:.0f} MiB")


def _background(ground: Ground) -> Seen:
    """Workers and timers run."""
    states = ground.status.background
    bad = [name for name, some in states.items() if any(map(is_in_trouble, some))]
    if bad:
        words = f"{', '.join(bad)}: {states[bad[0]][0].words}"
        return Seen(words=words, is_good=False, hint=f"bulletproof logs {bad[0]}")
    return Seen(words=f"{len(states)} run" if states else "the app has none")


def _response(ground: Ground) -> Seen:
    """The app answers its health checks, on its own socket and through the proxy."""
    if not ground.status.wants_running or ground.status.live is None:
        return Seen(words="it was stopped by a person")
    health, number = ground.config.health, ground.status.live.number
    asks: Mapping[str, Callable[[str], Answer]] = {
        "its socket": lambda path: ground.host.ask_instance(number, path, PATIENCE_SECONDS),
        "the proxy": lambda path: ground.host.ask_public(path, PATIENCE_SECONDS),
    }
    slowest = 0.0
    for where, ask in asks.items():
        for path in health.paths or ("/up",):
            answer = ask(path)
            if falls_back_to_root(health.paths, answer):
                answer = ask("/")
            if not answer.is_healthy:
                words = f"{path} through {where} answered {answer}"
                return Seen(words=words, is_good=False, hint="bulletproof logs")
            slowest = max(slowest, answer.seconds)
    return Seen(words=f"healthy on its socket and through the proxy, {slowest * 1000:.0f} ms")


def _public(ground: Ground) -> Seen:
    """The public gets the app: no maintenance, and certificates that browsers trust."""
    if not ground.status.wants_running:
        return Seen(words="it was stopped by a person")
    if notes := ground.status.notes:
        hint = "bulletproof maintenance off" if ground.host.proxy.maintenance() else "bulletproof logs proxy"
        return Seen(words="; ".join(notes), is_good=False, hint=hint)
    return Seen(words=f"open at {ground.status.address}")


def _errors(ground: Ground) -> Seen:
    """Of the last requests only few were answered with an error of the app's."""
    statuses = [status for line in tail(ground.host.layout.access_log, _LINES) if (status := _status_in(line))]
    bad = sum(500 <= status < 600 for status in statuses)  # noqa: PLR2004  as HTTP has it
    if statuses and bad / len(statuses) > _BAD_SHARE:
        words = f"{bad} of the last {len(statuses)} requests were answered with 5xx"
        return Seen(words=words, is_good=False, hint="bulletproof logs")
    return Seen(words=f"{bad} of the last {len(statuses)} requests were answered with 5xx")


def _status_in(line: str) -> int:
    try:
        return msgspec.json.decode(line, type=_Request).status
    except msgspec.MsgspecError:
        return 0  # the first line may be cut off


class _Request(msgspec.Struct):
    status: int = 0


def _settings(ground: Ground) -> Seen:
    """Settings are readable by nobody else, and none that the live release runs with is gone."""
    files = (ground.host.layout.environment, *ground.host.layout.frozen_settings.glob("*"))
    for file in files:
        if not is_private(file):
            words = f"others may read {file} ({mode_of(file)})"
            return Seen(words=words, is_good=False, hint=f"chmod 600 {file}")
    live = ground.status.live
    lost = sorted(set(ground.host.settings.frozen(live.number)) - set(ground.host.settings.today())) if live else []
    if lost:
        words = f"the live release runs with {', '.join(lost)}, which the next deployment would not have"
        return Seen(words=words, is_good=False, hint=f"bulletproof env set {lost[0]}=…", severity=Severity.WANTED)
    return Seen(words=f"{len(ground.host.settings.today())} settings, for their owner alone")


def _backups(ground: Ground) -> Seen:
    """There is a backup that is not old, and proven."""
    if not ground.host.database.exists() and not ground.config.app.persistent:
        return Seen(words="there is nothing to back up")
    everything = ground.host.backups.all()
    damaged = [one.name for one in everything if isinstance(one, Damaged)]
    if damaged:
        words = f"{', '.join(damaged)} cannot be read"
        return Seen(words=words, is_good=False, hint="bulletproof backup list")
    usual = {Reason.ASKED, Reason.SCHEDULE}
    backups = [one for one in everything if isinstance(one, Backup) and one.manifest.reason in usual]
    is_asked_for = ground.config.backup.schedule != NEVER
    if not backups:
        words = "there is no backup yet"
        return Seen(words=words, is_good=not is_asked_for, hint="bulletproof backup create", severity=Severity.WANTED)
    newest = backups[-1]
    hours = (datetime.now(UTC) - datetime.fromisoformat(newest.manifest.taken_at)).total_seconds() / 3600
    if not newest.is_proven:
        why = newest.proof.trouble if newest.proof else "nobody has tried yet"
        words = f"{newest.name} is not proven: {why}"
        return Seen(words=words, is_good=False, hint=f"bulletproof backup verify {newest.name}")
    if is_asked_for and hours > _OLD_BACKUP_HOURS:
        words = f"the newest, {newest.name}, is {hours:.0f} hours old"
        return Seen(words=words, is_good=False, hint="bulletproof logs backup")
    return Seen(words=f"{len(backups)}, the newest {newest.name}, {hours:.0f} hours old, proven")


def _durability(ground: Ground) -> Seen:
    """What a power cut may cost, by what the release did with its database when it was rehearsed."""
    live = ground.status.live
    try:
        content = ground.host.layout.report(live.number if live else 0).read_bytes()
    except FileNotFoundError:
        return Seen(words="not known before the next deployment is rehearsed")
    told = msgspec.json.decode(content, type=_Reported).durability
    if told is None:
        return Seen(words="not known: the rehearsal could not tell")
    if told.warnings:
        return Seen(words=f"{told.words}; {told.warnings[0]}", is_good=False, hint="bulletproof plan")
    return Seen(words="; ".join((told.words, *told.advice)))


class _Reported(msgspec.Struct):
    """The part of a rehearsal's report that is asked for."""

    durability: Durability | None = None


def _disk(ground: Ground) -> Seen:
    """The disk has room, in bytes and in files."""
    free, least = ground.host.resources().free_disk // _MIB, ground.config.require.free_disk_mib
    if free < least:
        return Seen(words=f"{free} MiB are free, {least} are required", is_good=False, hint="df -h")
    if 0 < (inodes := free_inodes(ground.host.layout.root)) < _FEW_INODES:
        return Seen(words=f"only {inodes} files more can be made", is_good=False, hint="df -i")
    return Seen(words=f"{free} MiB are free")


def _deployments(ground: Ground) -> Seen:
    """No deployment was left half-done."""
    status = ground.status
    if status.unfinished is not None and not status.is_held:
        words = f"deployment {status.unfinished.deployment.number} was left unfinished"
        return Seen(words=words, is_good=False, hint="bulletproof recover")
    if status.holder is not None:
        return Seen(words=f"one is at work: {status.holder.in_words()}")
    return Seen(words=f"the last was {status.last.outcome}" if status.last else "none yet")


CHECKS: Mapping[str, Check] = {
    "service": Check(looks_at="supervisor, app, proxy and relay", look=_service),
    "processes": Check(looks_at="master and workers", look=_processes),
    "response": Check(looks_at="health checks on the socket and through the proxy", look=_response),
    "public": Check(looks_at="maintenance and certificates", look=_public, severity=Severity.WANTED),
    "background": Check(looks_at="workers and timers", look=_background),
    "errors": Check(looks_at="the share of 5xx in the last requests", look=_errors, severity=Severity.WANTED),
    "release": Check(looks_at="every file of its packages", look=_release),
    "previous": Check(looks_at="a release to roll back to", look=_previous, severity=Severity.WANTED),
    "database-file": Check(looks_at="permissions, size, log", look=_database_file),
    "database": Check(looks_at="that it can be read, its tables", look=_database),
    "durability": Check(looks_at="what a power cut may cost", look=_durability, severity=Severity.WANTED),
    "settings": Check(looks_at="modes, and names that are gone", look=_settings),
    "backups": Check(looks_at="age and proof", look=_backups, severity=Severity.WANTED),
    "disk": Check(looks_at="bytes and inodes", look=_disk),
    "deployments": Check(looks_at="journal and lock", look=_deployments),
}
"""All of them by their names, in the order in which they are told."""


def run_checks(ground: Ground, names: tuple[str, ...] = ()) -> tuple[Finding, ...]:
    """Look at all, or at those of these names, side by side; what cannot be looked at in time is unknown."""
    chosen = {name: check for name, check in CHECKS.items() if not names or name in names}
    pool = ThreadPoolExecutor(max_workers=len(chosen))
    begun = {name: pool.submit(_look, name, check, ground) for name, check in chosen.items()}
    deadline = time.monotonic() + PATIENCE_SECONDS
    found = []
    for name, looking in begun.items():
        try:
            found.append(looking.result(timeout=max(0.0, deadline - time.monotonic())))
        except TooSlow:
            words = f"no answer within {PATIENCE_SECONDS:.0f} seconds"
            found.append(Finding(name=name, state=State.UNKNOWN, words=words, seconds=PATIENCE_SECONDS))
    pool.shutdown(wait=False, cancel_futures=True)
    return tuple(found)


def _look(name: str, check: Check, ground: Ground) -> Finding:
    begun = time.monotonic()
    hint = ""
    try:
        seen = check.look(ground)
        state = State.OK if seen.is_good else (seen.severity or check.severity).state
        words, hint = seen.words, "" if seen.is_good else seen.hint
    except BulletproofError as error:
        state, words, hint = check.severity.state, error.message, error.hint
    except (OSError, msgspec.MsgspecError) as error:
        state, words = State.UNKNOWN, f"it could not be looked at: {error}"
    return Finding(name=name, state=state, words=words, hint=hint, seconds=round(time.monotonic() - begun, 4))
