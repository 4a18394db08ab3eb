"""Develop: the app's processes side by side in a terminal, as they are configured, until a person has seen enough."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from bulletproof.domain.command import graceful_signal, shell_argv
from bulletproof.domain.config import AppConfig, Server
from bulletproof.domain.cron import next_after
from bulletproof.domain.migrating_by_hand import FLASK_MIGRATE, migrate_command
from bulletproof.domain.web import without_control_socket
from bulletproof.effects.local_time import local_now
from bulletproof.effects.process import Streamed, stream
from bulletproof.effects.source_changes import SourceChanges
from bulletproof.effects.venv import has_module, site_packages, versions
from bulletproof.errors import StepFailed, UsageError

WEB = "web"
MIGRATE = "migrate"
"""The name under which a migration tells its lines."""
_LOOK_SECONDS = 0.1
_LONGEST_STOP_SECONDS = 10.0
"""A person waits for it."""
_SOURCE_SECONDS = 0.5
_SOURCE_SHARE = 20
"""To look at the source takes at most so much of the time: one part in this many."""

_Lines = queue.SimpleQueue[tuple[str, str]]
"""The name of a task, and a line."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One process."""

    name: str
    argv: tuple[str, ...]
    stop_signal: str = "SIGTERM"
    stop_seconds: float = _LONGEST_STOP_SECONDS
    schedule: str = ""
    """When a timer is due; empty for what runs all the while."""
    timeout_seconds: float = 0.0
    """A timer that runs for longer is ended."""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """Where tasks run, and who is told of what they print."""

    folder: Path
    environment: Mapping[str, str]
    tell: Callable[[str, str], None]
    """Gets the name of a task and a line."""


def tasks_of(config: AppConfig, entry: str, environment: Path, port: int) -> tuple[Task, ...]:
    """The web server, which loads changed code by itself, one of each worker, and the timers."""
    web = Task(name=WEB, argv=(str(environment / "bin" / "python"), *_server(config, entry, environment, port)))
    workers = (
        Task(
            name=name,
            argv=shell_argv(worker.command),
            stop_signal=f"SIG{worker.stop_signal or graceful_signal(worker.command)}",
            stop_seconds=min(worker.stop_seconds, _LONGEST_STOP_SECONDS),
        )
        for name, worker in config.workers.items()
    )
    timers = (
        Task(
            name=name,
            argv=shell_argv(timer.command),
            schedule=timer.schedule,
            timeout_seconds=timer.timeout_seconds,
        )
        for name, timer in config.timers.items()
    )
    return (web, *workers, *timers)


def migration_of(config: AppConfig, entry: str, folder: Path, environment: Path) -> str:
    """The command that brings the database up to date. Raises UsageError `migrator-unknown` when none is known."""
    files = {name for name in ("manage.py", "migrations/env.py", "alembic.ini") if (folder / name).is_file()}
    modules = {FLASK_MIGRATE} if has_module(site_packages(environment), FLASK_MIGRATE) else set()
    command = migrate_command(config.migrations.command, entry, files, modules)
    if not command:
        words = "neither Alembic, Flask-Migrate nor Django was found, and [migrations] has no command"
        raise UsageError("migrator-unknown", f"{words}; an app that makes its tables itself needs no --migrate")
    return command


def migrate(command: str, stage: Stage) -> None:
    """Bring the database up to date. Raises StepFailed `migration-failed`; its lines say why."""
    stage.tell(MIGRATE, command)
    child = stream(shell_argv(command), folder=stage.folder, environment=stage.environment)
    try:
        for line in child.lines():
            stage.tell(MIGRATE, line)
        status = child.wait(_LONGEST_STOP_SECONDS)
    finally:
        child.end(patience_seconds=_LONGEST_STOP_SECONDS)
    if status != 0:
        words = f"the migration ended with exit status {status}"
        raise StepFailed("migration-failed", words, hint="what it said is above")


def run_side_by_side(tasks: Sequence[Task], stage: Stage, *, at_once: frozenset[str] = frozenset()) -> int:
    """Run them until the web server ends; its exit status.

    Workers begin anew when a Python file of the folder is changed. Timers run when they are due, those whose names are
    in `at_once` at the beginning as well. However this ends, by an exception as well, nothing of them is left.
    """
    lines: _Lines = queue.SimpleQueue()
    actors = {task.name: _of(task, stage, lines, is_due=task.name in at_once) for task in tasks}
    try:
        for actor in actors.values():
            actor.begin()
        return _watch(actors, stage, lines)
    finally:
        for actor in reversed(actors.values()):
            actor.end()
        _empty(lines, stage.tell)


def _watch(actors: Mapping[str, _Actor], stage: Stage, lines: _Lines) -> int:
    source = _Source(stage.folder)
    while True:
        _empty(lines, stage.tell, patience_seconds=_LOOK_SECONDS)
        if changed := source.changed():
            for actor in actors.values():
                actor.source_changed(changed)
        for actor in actors.values():
            actor.look()
        if (status := actors[WEB].ended) is not None:
            return status


class _Source:
    """The source, looked at now and then."""

    def __init__(self, folder: Path) -> None:
        self._changes = SourceChanges(folder)
        self._next = time.monotonic() + _SOURCE_SECONDS

    def changed(self) -> str:
        """What was changed, in words; empty when nothing was."""
        began = time.monotonic()
        if began < self._next:
            return ""
        first, *more = self._changes.since() or ("",)
        took = time.monotonic() - began
        self._next = began + max(_SOURCE_SECONDS, took * _SOURCE_SHARE)
        return f"{first} and {len(more)} more" if more else first


@dataclass(kw_only=True)
class _Actor:
    """A task that runs all the while: the web server."""

    task: Task
    stage: Stage
    lines: _Lines
    child: Streamed | None = None
    ended: int | None = None
    """Its exit status, once it has ended by itself."""

    def begin(self) -> None:
        """Start it, and pass on what it prints."""
        self.ended = None
        self.child = child = stream(self.task.argv, folder=self.stage.folder, environment=self.stage.environment)
        threading.Thread(target=_pass_on, args=(self.task.name, child, self.lines), daemon=True).start()

    def look(self) -> None:
        """See whether it has ended, and say so once."""
        if self.child is None or self.ended is not None:
            return
        self.ended = self.child.status()
        if self.ended is not None:
            self.tell(f"ended with exit status {self.ended}")

    def source_changed(self, what: str) -> None:
        """The server sees that itself."""

    def tell(self, words: str) -> None:
        """Say something of it, behind what it printed."""
        self.lines.put((self.task.name, words))

    def end(self) -> None:
        """End it with all that it started; idempotent."""
        if self.child is not None:
            self.child.end(patience_seconds=self.task.stop_seconds, stop_signal=self.task.stop_signal)


@dataclass(kw_only=True)
class _Worker(_Actor):
    """A task that must be started anew to load changed code."""

    asked_at: float | None = None
    """When it was asked to end, for a new one to take its place."""

    def source_changed(self, what: str) -> None:
        """Ask it to finish what it does; one that has ended begins at once."""
        if self.asked_at is None and self.child is not None:
            self.tell(f"{what} was changed, so it begins anew")
            self.child.ask_to_end(self.task.stop_signal)
            self.asked_at = time.monotonic()

    def look(self) -> None:
        """Start the next one when the one before has ended, or was waited for long enough."""
        if self.asked_at is None or self.child is None:
            super().look()
            return
        if self.child.status() is None and time.monotonic() < self.asked_at + self.task.stop_seconds:
            return
        self.child.end(patience_seconds=0)
        self.asked_at = None
        self.begin()


@dataclass(kw_only=True)
class _Timer(_Actor):
    """A task that runs at given times, one run at a time."""

    due: datetime
    began_at: float = 0.0

    def begin(self) -> None:
        """It waits for its time."""

    def look(self) -> None:
        """Begin a run that is due; end one that takes too long."""
        super().look()
        is_running = self.child is not None and self.ended is None
        if is_running and time.monotonic() > self.began_at + self.task.timeout_seconds:
            self.tell(f"ended after {self.task.timeout_seconds:.0f} s, its longest time")
            self.end()
        if local_now() < self.due:
            return
        self.due = next_after(self.task.schedule, local_now())
        if is_running:
            self.tell("is due again and still runs, so this time is left out")
            return
        self.began_at = time.monotonic()
        super().begin()


def _of(task: Task, stage: Stage, lines: _Lines, *, is_due: bool) -> _Actor:
    if task.schedule:
        now = local_now()
        return _Timer(task=task, stage=stage, lines=lines, due=now if is_due else next_after(task.schedule, now))
    kind = _Actor if task.name == WEB else _Worker
    return kind(task=task, stage=stage, lines=lines)


def _pass_on(name: str, child: Streamed, lines: _Lines) -> None:
    for line in child.lines():
        lines.put((name, line))


def _empty(lines: _Lines, tell: Callable[[str, str], None], *, patience_seconds: float = 0.0) -> None:
    """Tell all lines that are there; wait so long for the first."""
    try:
        tell(*lines.get(timeout=patience_seconds or None, block=patience_seconds > 0))
        while True:
            tell(*lines.get_nowait())
    except queue.Empty:
        return


def _server(config: AppConfig, entry: str, environment: Path, port: int) -> tuple[str, ...]:
    where = ("127.0.0.1", str(port))
    if config.app.server is Server.UVICORN:
        factory = ("--factory",) if entry.endswith("()") else ()
        return ("-m", "uvicorn", "--reload", "--host", where[0], "--port", where[1], *factory, entry.removesuffix("()"))
    threads = ("--worker-class=gthread", f"--threads={config.app.threads}") if config.app.threads > 1 else ()
    return (
        *("-m", "gunicorn", "--reload", "--workers=1", *threads, f"--bind={':'.join(where)}"),
        *without_control_socket(versions(environment).get("gunicorn", "")),
        *("--access-logfile=-", f"--timeout={config.app.timeout_seconds:.0f}", entry),
    )
