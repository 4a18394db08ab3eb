"""The steps of a deployment: what each does and how it is undone, in the words of the ports."""

from __future__ import annotations

import functools

from msgspec.structs import replace

from bulletproof.domain.health import falls_back_to_root
from bulletproof.domain.process import PROXY, RELAY, Phase, ProcessSpec, is_replica, web_name
from bulletproof.domain.retention import releases_to_remove
from bulletproof.domain.settings import NOT_YET_OURS, Settings, changed, not_looked_after
from bulletproof.domain.web import database_setting, web_process
from bulletproof.errors import StepFailed
from bulletproof.operations.attempt import Attempt
from bulletproof.operations.durability import use_wal_at_first
from bulletproof.operations.gate import Candidate, pass_gate
from bulletproof.operations.workers import refuse_missing_programs, stop_all
from bulletproof.ports import Host, Manifest, SchemaState

_POLL_SECONDS = 0.1
_OPEN_SECONDS = 15.0
"""Caddy listens after 0.1-0.3 s on an idle machine; a loaded one may need longer."""
_SETTLE_SECONDS = 0.2
"""After the rename a proxy may still connect where it looked a moment ago; 0 of 27,768 requests failed with it."""
_UNDO_DRAIN_SECONDS = 30.0
"""An undo knows nothing but the journal: not even the configuration of a release that may be gone already."""
_LOG_LINES = 15
_KEPT_SETTINGS = 10
"""Settings of the last deployments that were live, to tell which names a release needs."""
_KEPT_LOGS = 30
"""Logs of the last deployments, the rejected ones included, so that their hint leads somewhere."""


def fetch_source(attempt: Attempt) -> str:
    """Lay the source tree of the new release."""
    order = attempt.ordered
    if order.source is None or order.config is None:
        raise StepFailed("source-missing", "nothing was named to take the source from")
    attempt.host.releases.fetch(attempt.deployment.release, order.source, order.config)
    return f"{order.source.revision[:12]} {order.source.title}".strip()


def build_release(attempt: Attempt) -> str:
    """Build its virtual environment, its own and shared with no other release."""
    manifest = attempt.host.releases.build(attempt.deployment.release, _ordered_settings(attempt))
    refuse_missing_programs(attempt, manifest)
    notes = attempt.host.releases.notes(attempt.deployment.release)
    packages = f"{manifest.packages} packages{f' by {manifest.dependencies}' if manifest.dependencies else ''}"
    return "; ".join((f"{packages}, Python {manifest.python}, {manifest.entry}", *manifest.remarks, *notes))


def discard_release(attempt: Attempt) -> None:
    """The release is not, neither whole nor in part."""
    attempt.host.releases.discard(attempt.deployment.release)


def freeze_settings(attempt: Attempt) -> str:
    """Give the deployment its own copy of the settings."""
    frozen = _ordered_settings(attempt)
    attempt.host.settings.freeze(attempt.number, frozen)
    return f"{len(frozen)} settings" if len(frozen) != 1 else "1 setting"


def _ordered_settings(attempt: Attempt) -> Settings:
    """Today's settings with what the order changes of them; on a new host those of the project's .env."""
    order = attempt.ordered
    imported = order.first_settings if attempt.deployment.previous is None else {}
    return changed({**imported, **attempt.host.settings.today()}, order.set_values, order.unset_names)


def discard_settings(attempt: Attempt) -> None:
    """The deployment's copy is not."""
    attempt.host.settings.discard(attempt.number)


def adopt_settings(attempt: Attempt) -> str:
    """What this deployment runs with is what the next one takes."""
    attempt.host.settings.write(attempt.host.settings.frozen(attempt.number))
    return ""


def check_schema(attempt: Attempt) -> str:
    """Compare what the release needs with what the database has, touching neither. Raises StepFailed for no answer."""
    schema = attempt.host.migrator.state(attempt.manifest, attempt.settings)
    attempt.found.schema = schema
    return "\n".join((_in_words(schema), *not_looked_after(schema.others)))


def _in_words(schema: SchemaState) -> str:
    if schema.elsewhere:
        return f"{schema.elsewhere}: {NOT_YET_OURS}"
    if schema.unknown:
        return f"the database is newer: {', '.join(schema.unknown)} ({schema.tool})"
    if schema.is_unnoted:
        return f"tables, and no note of the migrations that made them ({schema.tool})"
    if schema.pending:
        return f"{len(schema.pending)} to come ({schema.tool})"
    return f"fits ({schema.tool})" if schema.tool != "none" else "no schema"


def require_no_database(attempt: Attempt) -> str:
    """Refuse to make a database where one lies: the undo of making it would remove what somebody put there."""
    if attempt.host.database.exists():
        raise StepFailed(
            "database-appeared",
            "a database appeared in the data folder since this deployment began",
            hint="bulletproof deploy",
        )
    return "none yet"


def create_database(attempt: Attempt) -> str:
    """Make the database of a first deployment, where there is nothing to lose."""
    made = attempt.host.migrator.create(attempt.manifest, attempt.settings)
    attempt.host.claim_data()
    return "\n".join(filter(None, (made, use_wal_at_first(attempt))))


def remove_database(attempt: Attempt) -> None:
    """The database is not: no request ever reached it, since none was let on before the commit."""
    attempt.host.database.remove()


def open_host(attempt: Attempt) -> str:
    """Supervisor, parking relay and proxy run, and requests wait."""
    host = attempt.host
    host.supervisor.ensure_running()
    host.proxy.hold()
    _start_ours(host, host.proxy.relay())
    _start_ours(host, host.proxy.process())
    deadline = host.clock() + _OPEN_SECONDS
    while not host.proxy.is_listening():
        state = host.supervisor.state(PROXY)
        if state.restarts or host.clock() >= deadline:
            raise StepFailed(
                "proxy-not-listening", f"the proxy does not listen on port {host.proxy.port()}: {state.words}"
            )
        host.sleep(_POLL_SECONDS)
    return host.proxy.public().address


def _start_ours(host: Host, process: ProcessSpec) -> None:
    """Run it; what an older Bulletproof started under its name, which nothing is served by here, gives way."""
    try:
        host.supervisor.start(process)
    except StepFailed as error:
        if error.reference != "process-differs":
            raise
        host.supervisor.stop(process.name)
        host.supervisor.start(process)


def adopt_proxy(attempt: Attempt) -> str:
    """The proxy works by the [proxy] of the configuration; the one that runs drops no request for it."""
    return attempt.host.proxy.adopt(attempt.number, runs=_runs_proxy(attempt.host))


def give_proxy_back(attempt: Attempt) -> None:
    """The proxy works by what was in force before."""
    attempt.host.proxy.let_in()
    attempt.host.proxy.give_back(attempt.number, runs=_runs_proxy(attempt.host))


def _runs_proxy(host: Host) -> bool:
    return host.supervisor.state(PROXY).phase in {Phase.RUNNING, Phase.WAITING}


def close_host(attempt: Attempt) -> str:
    """Nothing runs but the supervisor, which is ended when the journal is closed.

    Requests in flight are finished first, requests that only wait are turned away.
    """
    host = attempt.host
    if host.proxy.target() is None:
        host.supervisor.stop(RELAY)
    host.supervisor.stop(PROXY)
    stop_all(host, [name for name in host.supervisor.names() if name != RELAY and not is_replica(name)])
    stop_all(host, filter(is_replica, host.supervisor.names()))  # it sends what the others wrote at their end
    host.supervisor.stop(RELAY)
    host.proxy.close()
    return "stopped"


def leave_closed(attempt: Attempt) -> None:
    """The host is closed, as it was before."""
    close_host(attempt)


def start_instance(attempt: Attempt) -> str:
    """The new release runs, on a socket of its own that nobody knows yet."""
    manifest = attempt.manifest
    attempt.host.supervisor.start(instance_process(attempt, manifest, attempt.number))
    return f"{manifest.config.app.server} with {manifest.config.app.workers} workers"


def instance_process(attempt: Attempt, manifest: Manifest, number: int) -> ProcessSpec:
    """What runs a release as the instance of deployment `number`, with that deployment's settings."""
    frozen = attempt.host.settings.frozen(number)
    return web_process(
        attempt.host.layout,
        number,
        manifest.release,
        manifest.config,
        manifest.entry,
        gunicorn=manifest.gunicorn,
        database=database_setting(frozen, attempt.host.layout, manifest.config),
    )


def stop_instance(attempt: Attempt) -> None:
    """The new release does not run."""
    attempt.host.supervisor.stop(web_name(attempt.number))


def pass_health_gate(attempt: Attempt) -> str:
    """Ask the new instance, as the proxy would, until it was healthy so many times in a row.

    In a hold only as long as requests may wait.
    """
    host, health = attempt.host, attempt.manifest.config.health
    if attempt.found.hold_until is not None:
        left = max(0.0, attempt.found.hold_until - host.clock())
        health = replace(health, deadline_seconds=min(health.deadline_seconds, left))
    return pass_gate(candidate(host, attempt.manifest, attempt.number), health, host.clock, host.sleep)


def pass_first_gate(attempt: Attempt) -> str:
    """The same in a first deployment, in which the app may have made its database by booting."""
    passed = pass_health_gate(attempt)
    attempt.host.claim_data()
    return ", ".join(filter(None, (passed, use_wal_at_first(attempt))))


def candidate(host: Host, manifest: Manifest, number: int) -> Candidate:
    """The instance of deployment `number`, which runs that release, for the gate."""
    return Candidate(
        release=manifest.release,
        ask=functools.partial(host.ask_instance, number),
        state=lambda: host.supervisor.state(web_name(number)),
        log_tail=functools.partial(host.log_tail, number),
        host=host.proxy.public().name,
    )


def cut_over(attempt: Attempt) -> str:
    """New requests go to the new instance, from one instant on; its static files are there before its first page."""
    _give_out_files_of(attempt, attempt.deployment.release)
    attempt.host.proxy.route_to(attempt.number)
    attempt.host.lead_log(attempt.number)
    return ""


def cut_back(attempt: Attempt) -> None:
    """New requests go to what was live before; those that reached the new instance meanwhile are finished."""
    previous = attempt.deployment.previous
    if previous is not None:
        attempt.host.proxy.route_to(previous.number)
        attempt.host.lead_log(previous.number)
        _give_out_files_of(attempt, previous.release)
        drain(attempt.host, attempt.number, seconds=_UNDO_DRAIN_SECONDS)


def _give_out_files_of(attempt: Attempt, release: str) -> None:
    """Of a release, and of the one that was live before it: by the journal, so that an undo leaves what it found."""
    earlier = [live.release for live in attempt.lived if live.release != release]
    attempt.host.releases.point_current_at(release, earlier[-1] if earlier else None)


def verify_through_proxy(attempt: Attempt) -> str:
    """One request through the proxy, answered by the new instance."""
    host, config = attempt.host, attempt.manifest.config.health
    host.proxy.await_certificate()
    path = (config.paths or ("/up",))[0]
    answer = host.ask_public(path, config.timeout_seconds)
    if falls_back_to_root(config.paths, answer):
        path = "/"
        answer = host.ask_public(path, config.timeout_seconds)
    if not answer.is_healthy or host.proxy.target() != attempt.number:
        raise StepFailed(
            "not-verified",
            answer.to(f"{path} through the proxy"),
            context=host.log_tail(attempt.number, _LOG_LINES),
        )
    return answer.to(path)


def verify_cutover(attempt: Attempt) -> str:
    """The same after a cutover; what still goes on at the old release is told before it is waited for."""
    verified, previous = verify_through_proxy(attempt), attempt.deployment.previous
    left = attempt.host.proxy.connections(previous.number) if previous is not None else 0
    if not left:
        return verified
    most = attempt.manifest.config.drain.seconds
    return f"{verified}\nnow waits for {_connections(left)} to the old release to end, at most {most:g} s"


def drain_previous(attempt: Attempt) -> str:
    """Requests in flight at the old instance are finished, then it is stopped."""
    previous = attempt.deployment.previous
    if previous is None or previous.number == attempt.number:
        return ""
    seconds = attempt.manifest.config.drain.seconds
    left = drain(attempt.host, previous.number, seconds=seconds)
    attempt.host.supervisor.stop(web_name(previous.number))
    cut = f"{_connections(left)} open after {seconds:g} s, such as websockets, and ended then" if left else ""
    return "\n".join(filter(None, (cut, _empty_wal(attempt))))


def _connections(number: int) -> str:
    return f"{number} connection{'s' if number > 1 else ''}"


def _empty_wal(attempt: Attempt) -> str:
    """What the old instance kept from being emptied is; the replica, where there is one, sees to that itself."""
    host, most = attempt.host, attempt.manifest.config.check.wal_mib << 20
    if any(map(is_replica, host.supervisor.names())):
        return ""
    emptied = host.database.empty_wal(most)
    return f"the database's -wal of {emptied >> 20} MiB was emptied" if emptied else ""


def prune(attempt: Attempt) -> str:
    """Only as many releases and snapshots as the configuration keeps, and settings of deployments that were live."""
    host = attempt.host
    lived = [live.release for live in attempt.lived if live.number != attempt.number] + [attempt.deployment.release]
    gone = releases_to_remove(host.releases.existing(), lived, attempt.manifest.config.keep.releases)
    for release in gone:
        host.releases.discard(release)
    kept = {attempt.number, *(live.number for live in attempt.lived[-_KEPT_SETTINGS:])}
    for number in host.settings.numbers():
        if number not in kept:
            host.settings.discard(number)
    host.rehearsal.discard(attempt.number)
    for number in host.swap.numbers()[: -attempt.manifest.config.keep.backups]:
        host.swap.discard(number)
    host.releases.prune_cache()
    host.prune_logs(min(*kept, attempt.number - _KEPT_LOGS))
    return f"removed {', '.join(gone)}" if gone else ""


def set_data_aside(attempt: Attempt) -> str:
    """What users made moves to where nobody deletes it."""
    return attempt.host.set_data_aside(attempt.deployment.started_at)


def wipe_app(attempt: Attempt) -> str:
    """Releases, settings and logs are not; the journal goes last, when it is closed."""
    attempt.host.supervisor.shutdown()
    attempt.host.wipe()
    return ""


def drain(host: Host, number: int, *, seconds: float) -> int:
    """Wait until the instance has no connection, for two looks in a row; tells how many outlasted `seconds`."""
    deadline = host.clock() + seconds
    quiet = 0
    while quiet < 2:  # noqa: PLR2004  one look may fall into the instant of a connect
        left = host.proxy.connections(number)
        quiet = quiet + 1 if left == 0 else 0
        if left and host.clock() >= deadline:
            return left
        host.sleep(_SETTLE_SECONDS / 2)
    return 0
