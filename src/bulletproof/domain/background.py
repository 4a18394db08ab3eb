"""What runs beside the web app: a release's workers and timers, as pure functions."""

from __future__ import annotations

import hashlib

from bulletproof.domain.command import graceful_signal, is_simple, shell_argv
from bulletproof.domain.config import AppConfig
from bulletproof.domain.cron import NEVER
from bulletproof.domain.layout import Layout
from bulletproof.domain.process import ProcessSpec, backup_name, check_name, timer_name, worker_name
from bulletproof.domain.web import app_environment

_SURROUNDINGS = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_LONGEST_BACKUP_SECONDS = 6 * 3600.0
"""A backup and its proof read and write each byte a few times: enough for 500 GB on a slow disk."""
_LONGEST_CHECK_SECONDS = 900.0
"""It waits for the end of a deployment, and then takes some seconds."""


def background_processes(
    layout: Layout, number: int, release: str, config: AppConfig, *, database: dict[str, str]
) -> tuple[ProcessSpec, ...]:
    """All workers and timers of `release` as deployment `number` runs them, with the web app's settings."""
    environment = app_environment(layout, number, release, database)
    workers = [
        ProcessSpec(
            name=worker_name(number, name, index),
            argv=shell_argv(worker.command),
            folder=layout.source(release),
            log=layout.worker_log(number, name),
            environment=environment,
            settings=layout.settings(number),
            stop_seconds=worker.stop_seconds,
            stop_signal=f"SIG{worker.stop_signal or graceful_signal(worker.command)}",
            is_group=not is_simple(worker.command),
        )
        for name, worker in config.workers.items()
        for index in range(1, worker.count + 1)
    ]
    timers = [
        ProcessSpec(
            name=timer_name(number, name),
            argv=shell_argv(timer.command),
            folder=layout.source(release),
            log=layout.timer_log(number, name),
            environment=environment,
            settings=layout.settings(number),
            stop_seconds=config.drain.stop_seconds,
            is_group=not is_simple(timer.command),
            schedule=timer.schedule,
            timeout_seconds=timer.timeout_seconds,
            drain_seconds=timer.stop_seconds,
        )
        for name, timer in config.timers.items()
    ]
    return (*workers, *timers)


def backup_process(engine: tuple[str, ...], layout: Layout, config: AppConfig) -> ProcessSpec | None:
    """What makes backups by the clock, `engine` being our own command line; None when none are wished for.

    Its name changes with what it does, so that one that runs need not be stopped to see whether it is the right one.
    """
    schedule = config.backup.schedule
    if schedule == NEVER:
        return None
    argv = (*engine, "backup", "create", "--scheduled", "--app", config.name)
    return ProcessSpec(
        name=backup_name(_mark(argv, schedule)),
        argv=argv,
        folder=layout.state,
        log=layout.backup_log,
        environment=_SURROUNDINGS,
        schedule=schedule,
        timeout_seconds=_LONGEST_BACKUP_SECONDS,
        stop_seconds=config.drain.stop_seconds,
    )


def check_process(engine: tuple[str, ...], layout: Layout, config: AppConfig) -> ProcessSpec | None:
    """What looks at everything by the clock, in the same way; None when nobody wishes it."""
    schedule = config.check.schedule
    if schedule == NEVER:
        return None
    argv = (*engine, "check", "--scheduled", "--app", config.name)
    return ProcessSpec(
        name=check_name(_mark(argv, schedule)),
        argv=argv,
        folder=layout.state,
        log=layout.health_log,
        environment=_SURROUNDINGS,
        schedule=schedule,
        timeout_seconds=_LONGEST_CHECK_SECONDS,
        stop_seconds=config.drain.stop_seconds,
    )


def _mark(argv: tuple[str, ...], schedule: str) -> str:
    return hashlib.sha256(repr((argv, schedule)).encode()).hexdigest()[:8]


def names_of(config: AppConfig, number: int) -> dict[str, tuple[str, ...]]:
    """The processes of each worker and timer, by the name that the configuration gives it."""
    workers = {
        name: tuple(worker_name(number, name, index) for index in range(1, worker.count + 1))
        for name, worker in config.workers.items()
    }
    return {**workers, **{name: (timer_name(number, name),) for name in config.timers}}
