"""The way of a deployment, as data: which steps, in which order, and where the commit point lies."""

from __future__ import annotations

import itertools

from bulletproof.engine.pipeline import Fork, Pipeline, Step
from bulletproof.errors import NeedsPerson
from bulletproof.operations.adopt import adopt_data, leave_data
from bulletproof.operations.attempt import Attempt
from bulletproof.operations.backups import keep_what_was, tend_backups
from bulletproof.operations.migrate import (
    discard_snapshot,
    discard_work_copy,
    hold_requests,
    migrate_work_copy,
    put_snapshot_back,
    refuse_openers,
    resume_requests,
    swap_data,
    take_snapshot,
)
from bulletproof.operations.preflight import check_host
from bulletproof.operations.rehearse import discard_rehearsal, rehearse_on_copy
from bulletproof.operations.repair import (
    discard_rebuilt,
    exchange,
    exchange_back,
    mend,
    rebuild,
    tidy,
    unmend,
)
from bulletproof.operations.replica import pause_background, resume_background, tend_replica
from bulletproof.operations.restore import (
    check_restore,
    discard_restore,
    exchange_folders,
    exchange_folders_back,
    keep_what_was_replaced,
    put_backup,
    rehearse_restore,
)
from bulletproof.operations.steps import (
    adopt_proxy,
    adopt_settings,
    build_release,
    check_schema,
    close_host,
    create_database,
    cut_back,
    cut_over,
    discard_release,
    discard_settings,
    drain_previous,
    fetch_source,
    freeze_settings,
    give_proxy_back,
    leave_closed,
    open_host,
    pass_first_gate,
    pass_health_gate,
    prune,
    remove_database,
    require_no_database,
    set_data_aside,
    start_instance,
    stop_instance,
    verify_cutover,
    wipe_app,
)
from bulletproof.operations.workers import switch_workers

_PREFLIGHT = Step("preflight", check_host)
_FETCH = Step("fetch", fetch_source, undo=discard_release)
_BUILD = Step("build", build_release, undo=discard_release)
_SETTINGS = Step("settings", freeze_settings, undo=discard_settings)
_SCHEMA = Step("schema", check_schema)
_VACANT = Step("vacant", require_no_database)
_REHEARSE = Step("rehearse", rehearse_on_copy, undo=discard_rehearsal)
_DATA = Step("data", adopt_data, undo=leave_data)
_DATABASE = Step("database", create_database, undo=remove_database)
_PROXY = Step("proxy", adopt_proxy, undo=give_proxy_back)
_OPEN = Step("open", open_host, undo=leave_closed)
_START = Step("start", start_instance, undo=stop_instance)
_GATE = Step("gate", pass_health_gate)
_FIRST_GATE = Step("gate", pass_first_gate)
_CUTOVER = Step("cutover", cut_over, undo=cut_back)
_VERIFY = Step("verify", verify_cutover)
_ADOPT = Step("adopt", adopt_settings)
_WORKERS = Step("workers", switch_workers)
_REPLICA = Step("replica", tend_replica)
_DRAIN = Step("drain", drain_previous)
_PRUNE = Step("prune", prune)
_CLOSE = Step("close", close_host)

_OPENERS = Step("openers", refuse_openers)
_PAUSE = Step("pause", pause_background, undo=resume_background)
_HOLD = Step("hold", hold_requests, undo=resume_requests)
_SNAPSHOT = Step("snapshot", take_snapshot, undo=discard_snapshot)
_MIGRATE = Step("migrate", migrate_work_copy, undo=discard_work_copy)
_SWAP = Step("swap", swap_data, undo=put_snapshot_back)

_KEEP = Step("keep", keep_what_was)
_BACKUPS = Step("backups", tend_backups)

_FINISH = (_ADOPT, _WORKERS, _REPLICA, _DRAIN, _BACKUPS, _PRUNE)


def _with_migration(name: str, prepared: tuple[Step[Attempt], ...], held: Step[Attempt]) -> Pipeline[Attempt]:
    """The way of a deployment that changes the data, once it is prepared and rehearsed.

    The cutover lets requests on, so the commit comes first: a write that was acknowledged before it would be lost by
    the undo.
    """
    return Pipeline(
        name,
        before=(*prepared, _OPENERS, _PROXY, _PAUSE, held, _SNAPSHOT, _MIGRATE, _SWAP, _START, _GATE),
        after=(_CUTOVER, _ADOPT, _WORKERS, _REPLICA, _DRAIN, _KEEP, _BACKUPS, _PRUNE),
    )


def _restoring(name: str, held: Step[Attempt]) -> Pipeline[Attempt]:
    """The way of a restore: as a migration goes, with a backup in place of the migrated copy."""
    return Pipeline(
        name,
        before=(
            Step("preflight", check_restore),
            _SETTINGS,
            Step("rehearse", rehearse_restore, undo=discard_restore),
            _OPENERS,
            _PAUSE,
            held,
            _SNAPSHOT,
            Step("swap", put_backup, undo=put_snapshot_back),
            Step("folders", exchange_folders, undo=exchange_folders_back),
            _START,
            _GATE,
        ),
        after=(_CUTOVER, _ADOPT, _WORKERS, _REPLICA, _DRAIN, Step("keep", keep_what_was_replaced), _BACKUPS, _PRUNE),
    )


def _fork(migrating: Pipeline[Attempt]) -> Fork[Attempt]:
    return Fork(_REHEARSE.name, lambda attempt: migrating if attempt.report.is_migrating else None)


_NEW = (_PREFLIGHT, _FETCH, _BUILD, _SETTINGS, _SCHEMA, _REHEARSE)
_KNOWN = (_PREFLIGHT, _SETTINGS, _SCHEMA, _REHEARSE)
_FRESH = (_PREFLIGHT, _FETCH, _BUILD, _SETTINGS, _VACANT, _DATA)
_ADOPTED = (*_FRESH, _SCHEMA, _REHEARSE)

MIGRATING = _with_migration("migrating", _NEW, _HOLD)
ACTIVATE_MIGRATING = _with_migration("activate-migrating", _KNOWN, _HOLD)
COLD_MIGRATING = _with_migration("cold-migrating", _NEW, _OPEN)
START_MIGRATING = _with_migration("start-migrating", _KNOWN, _OPEN)
ADOPTING_MIGRATING = _with_migration("adopting-migrating", _ADOPTED, _OPEN)

# The old release serves until one verified request went through the proxy to the new one: the commit comes late.
DEPLOY = Pipeline(
    "deploy",
    before=(*_NEW, _START, _GATE, _PROXY, _CUTOVER, _VERIFY),
    after=_FINISH,
    fork=_fork(MIGRATING),
)
# The same for a release that exists: rollback, restart, changed settings.
ACTIVATE = Pipeline(
    "activate",
    before=(*_KNOWN, _START, _GATE, _PROXY, _CUTOVER, _VERIFY),
    after=_FINISH,
    fork=_fork(ACTIVATE_MIGRATING),
)
# From here on nothing serves: requests wait at the parking relay until the commit is on disk, so that no write is
# acknowledged that an undo would have to take back.
#
# The first deployment of an app that has data already: a copy of them is rehearsed on and migrated like any live one.
ADOPTING = Pipeline(
    "adopting",
    before=(*_ADOPTED, _PROXY, _OPEN, _START, _GATE),
    after=(_CUTOVER, *_FINISH),
    fork=_fork(ADOPTING_MIGRATING),
)
FIRST = Pipeline(
    "first",
    before=(*_FRESH, _DATABASE, _PROXY, _OPEN, _START, _FIRST_GATE),
    after=(_CUTOVER, *_FINISH),
    fork=Fork(_DATA.name, lambda attempt: ADOPTING if attempt.found.adopted else None),
)
COLD = Pipeline(
    "cold",
    before=(*_NEW, _PROXY, _OPEN, _START, _GATE),
    after=(_CUTOVER, *_FINISH),
    fork=_fork(COLD_MIGRATING),
)
START = Pipeline(
    "start",
    before=(*_KNOWN, _PROXY, _OPEN, _START, _GATE),
    after=(_CUTOVER, *_FINISH),
    fork=_fork(START_MIGRATING),
)
RESTORE = _restoring("restore", _HOLD)
COLD_RESTORE = _restoring("cold-restore", _OPEN)
STOP = Pipeline("stop", before=(), after=(_CLOSE,))
# A repair leaves what serves as it is; what was mended is in force with the next deployment, such as a restart.
REPAIR = Pipeline(
    "repair",
    before=(
        Step("mend", mend, undo=unmend),
        Step("rebuild", rebuild, undo=discard_rebuilt),
        Step("exchange", exchange, undo=exchange_back),
    ),
    after=(Step("tidy", tidy),),
)
DESTROY = Pipeline("destroy", before=(), after=(_CLOSE, Step("set-aside", set_data_aside), Step("wipe", wipe_app)))

_PLAIN = (DEPLOY, ACTIVATE, FIRST, ADOPTING, COLD, START, RESTORE, COLD_RESTORE, STOP, REPAIR, DESTROY)
_WITH_MIGRATION = (MIGRATING, ACTIVATE_MIGRATING, COLD_MIGRATING, START_MIGRATING, ADOPTING_MIGRATING)
_ALL = {pipeline.name: pipeline for pipeline in (*_PLAIN, *_WITH_MIGRATION)}


def preparation(pipeline: Pipeline[Attempt]) -> tuple[Step[Attempt], ...]:
    """The steps of a deployment that touch nothing live: all that come before it makes, opens or starts something."""
    live = (_DATABASE, _OPENERS, _PROXY, _OPEN, _START)
    return tuple(itertools.takewhile(lambda step: step not in live, pipeline.before))


def pipeline_named(name: str) -> Pipeline[Attempt]:
    """The pipeline of a journal's entry. Raises NeedsPerson for one that this version does not know."""
    if name not in _ALL:
        raise NeedsPerson(
            "pipeline-unknown",
            f"the journal speaks of a pipeline {name!r} that this version of Bulletproof does not know",
            hint="pip install --upgrade bulletproof",
        )
    return _ALL[name]
