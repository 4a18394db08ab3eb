"""Preflight: read-only checks before the first effect, each with the sentence that helps."""

from __future__ import annotations

from bulletproof.domain.config import AppConfig
from bulletproof.domain.history import comes_after, is_commit
from bulletproof.domain.settings import changed, missing
from bulletproof.effects.isolation import require_readable
from bulletproof.errors import Refused, StepFailed
from bulletproof.operations.attempt import Attempt

_MIB = 1 << 20
_COPIES = 4
"""Of the database: the snapshot, the one that is worked on, its journal when it is put in place, and room for the way
back."""


def check_host(attempt: Attempt) -> str:
    """Refuse, in words, what could not end well: space, memory, port, settings, database, a damaged release."""
    config = _config(attempt)
    branched = check_history(attempt)
    check_space(attempt, config)
    require_readable(config.rehearsal.allow)
    attempt.host.proxy.check()
    check_permissions(attempt)
    check_settings(attempt)
    check_database_file(attempt, config)
    database = attempt.host.database
    found = database.check() if database.exists() else "no database yet"
    return "\n".join(filter(None, (found, branched)))


def check_history(attempt: Attempt) -> str:
    """Refuse to go backwards, from what is live to a commit that it came after; a word on what is beside it.

    What cannot be told, because a history was not sent or is of another kind, is let pass.
    """
    order, previous = attempt.ordered, attempt.deployment.previous
    if order.source is None or previous is None or not is_commit(order.source.revision):
        return ""
    new, releases = order.source, attempt.host.releases
    try:
        live = releases.manifest(previous.release)
    except StepFailed:
        return ""  # a damaged release cannot say, and must not keep its successor from being deployed
    if comes_after(releases.history(previous.release), new.revision):
        words = f"{new.revision[:7]} came before {live.revision[:7]} “{live.title}”, which is live"
        if not order.may_be_older:
            raise Refused("older-than-live", words, hint="bulletproof rollback  (or: bulletproof deploy --allow-older)")
        return f"older: {words}"
    is_beside = is_commit(live.revision) and live.revision != new.revision and new.history
    if is_beside and not comes_after(new.history, live.revision):
        return f"{live.revision[:7]}, which is live, is not in its history: another branch, or one that was rewritten"
    return ""


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
