"""Preflight: read-only checks before the first effect, each with the sentence that helps."""

from __future__ import annotations

from bulletproof.domain.config import AppConfig
from bulletproof.domain.settings import changed, missing
from bulletproof.effects.isolation import require_readable
from bulletproof.errors import Refused, StepFailed
from bulletproof.operations.attempt import Attempt

_MIB = 1 << 20
_COPIES = 3
"""Of the database: the snapshot, the one that is worked on, and its journal when it is put in place."""


def check_host(attempt: Attempt) -> str:
    """Refuse, in words, what could not end well: space, memory, port, settings, database, a damaged release."""
    config = _config(attempt)
    check_space(attempt, config)
    require_readable(config.rehearsal.allow)
    attempt.host.proxy.check()
    check_permissions(attempt)
    check_settings(attempt)
    check_database_file(attempt, config)
    database = attempt.host.database
    return database.check() if database.exists() else "no database yet"


def check_space(attempt: Attempt, config: AppConfig) -> None:
    """Refuse when disk or memory is below what the configuration requires."""
    have = attempt.host.resources()
    copies = _COPIES * attempt.host.database.size()
    if have.free_disk < config.require.free_disk_mib * _MIB + copies:
        for_copies = f", {copies / _MIB:.0f} of them for copies of the database" if copies > _MIB else ""
        raise Refused(
            "disk-low",
            f"{have.free_disk // _MIB} MiB of disk are free, {config.require.free_disk_mib + copies // _MIB} MiB are"
            f" required{for_copies}",
            hint="free some, or lower [require] free_disk_mib in bulletproof.toml",
        )
    if have.free_memory < config.require.free_memory_mib * _MIB:
        raise Refused(
            "memory-low",
            f"{have.free_memory // _MIB} MiB of memory are free, {config.require.free_memory_mib} MiB are required",
            hint="free some, or lower [require] free_memory_mib in bulletproof.toml",
        )


def check_permissions(attempt: Attempt) -> None:
    """Refuse when the app could not write its data, or others could read or change what is none of their business."""
    if wrong := attempt.host.trespasses():
        raise Refused(
            "permissions-wrong",
            "; ".join(one.words for one in wrong),
            hint=" && ".join(command for one in wrong for command in one.commands),
        )


def check_settings(attempt: Attempt) -> None:
    """Refuse when a setting that the live deployment runs with is gone from today's."""
    if lost := missing_settings(attempt):
        raise Refused(
            "settings-missing",
            f"the live release runs with {', '.join(lost)}, which today's settings lack",
            hint=f"bulletproof env set {lost[0]}=…",
        )


def missing_settings(attempt: Attempt) -> tuple[str, ...]:
    """The names that the live deployment runs with, and that neither today's settings have nor a person unsets."""
    order, store, previous = attempt.ordered, attempt.host.settings, attempt.deployment.previous
    if previous is None:
        return ()
    today = changed(store.today(), order.set_values, ())
    return tuple(name for name in missing(today, store.frozen(previous.number)) if name not in order.unset_names)


def check_database_file(attempt: Attempt, config: AppConfig) -> None:
    """Refuse a configuration that names another database file than the live release uses: its data would be gone."""
    previous = attempt.deployment.previous
    if previous is None:
        return
    try:
        file = attempt.host.releases.manifest(previous.release).config.database.file
    except StepFailed:
        return  # a damaged release cannot say, and must not keep its successor from being deployed
    if file != config.database.file:
        raise Refused(
            "database-renamed",
            f"the live release's database is {file}, and [database] file says {config.database.file}",
            hint=f'set file = "{file}" under [database] in bulletproof.toml',
        )


def _config(attempt: Attempt) -> AppConfig:
    """The configuration to judge by: the project's for a new release, the release's own otherwise."""
    return attempt.ordered.config or attempt.manifest.config
