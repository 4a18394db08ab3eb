"""Workers and timers in a deployment: the old release's stop, then the new one's start, one generation at a time."""

from __future__ import annotations

from collections.abc import Iterable

from bulletproof.domain.background import background_processes, names_of
from bulletproof.domain.command import program_of, script_of
from bulletproof.domain.config import AppConfig
from bulletproof.domain.deployment import Live
from bulletproof.domain.process import Phase, ProcessSpec, ProcessState, generation_of, is_replica, web_name
from bulletproof.domain.replica import REPLICA
from bulletproof.domain.web import database_setting
from bulletproof.errors import StepFailed
from bulletproof.operations.attempt import Attempt
from bulletproof.ports import Host, Manifest

_SETTLE_SECONDS = 2.0
"""A program that misses something at its start ends within about a second: Python's start and the app's import."""
_POLL_SECONDS = 0.1
_WELL = {Phase.RUNNING, Phase.WAITING}


def refuse_missing_programs(attempt: Attempt, manifest: Manifest) -> None:
    """Raise StepFailed `worker-program-missing` for a worker or a timer whose program the release does not have."""
    config, releases = manifest.config, attempt.host.releases
    commands = {name: one.command for table in (config.workers, config.timers) for name, one in table.items()}
    for name, command in commands.items():
        for program in filter(None, (program_of(command), script_of(command))):
            if not releases.has_program(manifest.release, program):
                raise StepFailed(
                    "worker-program-missing",
                    f"`{name}` is to run `{command}`, and release {manifest.release} has no {program}",
                    hint="add its package to requirements.txt, or correct the command",
                )


def pause_workers(attempt: Attempt) -> str:
    """The old release's workers and timers stop, while its site still serves: nobody waits for a long job's end."""
    stopped = _stop(attempt.host, _others(attempt.host))
    if not stopped:
        return ""
    return f"{len(stopped)} stopped; what a timer would have run meanwhile is skipped"


def resume_workers(attempt: Attempt) -> None:
    """Exactly the old release's workers and timers run, if its site serves."""
    host, previous = attempt.host, attempt.deployment.previous
    if previous is None or not is_served_by(host, previous.number):
        return
    _start(host, live_background(host, host.releases.manifest(previous.release), previous.number))


def switch_workers(attempt: Attempt) -> str:
    """The old release's workers and timers are stopped, then the new one's run; only what may overlap starts before.

    One that does not come up leaves the site as it is; `troubles` tells of it.
    """
    host, number, manifest = attempt.host, attempt.number, attempt.manifest
    mine = live_background(host, manifest, number) if _is_up(host, number) else ()
    overlapping = _overlapping(manifest.config, number)
    _start(host, [process for process in mine if process.name in overlapping])
    stopped = _stop(host, _others(host, number))
    _start(host, mine)
    _settle(host, mine)
    if not mine and not stopped:
        return ""
    return f"{len(mine)} started" + (f", after {len(stopped)} of the old release had ended" if stopped else "")


def troubles(host: Host, live: Live) -> tuple[str, ...]:
    """What is wrong with the workers and timers of what is live, each in a sentence."""
    return tuple(
        f"{name} {_words(state)}"
        for name, states in look(host, live).items()
        for state in states
        if is_in_trouble(state)
    )


def look(host: Host, live: Live) -> dict[str, tuple[ProcessState, ...]]:
    """The processes of each worker and timer of what is live, none when its release is damaged; and the replica."""
    try:
        names = names_of(host.releases.manifest(live.release).config, live.number)
    except StepFailed:
        names = {}
    if replica := tuple(filter(is_replica, host.supervisor.names())):
        names = {**names, REPLICA: replica}
    return {name: tuple(map(host.supervisor.state, processes)) for name, processes in names.items()}


def is_in_trouble(state: ProcessState) -> bool:
    """Whether it does not run, or crashed since it was started."""
    return state.phase not in _WELL or state.restarts > 0


def stop_all(host: Host, names: Iterable[str]) -> None:
    """Stop them in the time of the slowest one. Raises StepFailed for one that cannot be ended."""
    names = tuple(names)
    for name in names:
        host.supervisor.ask_to_stop(name)
    for name in names:
        host.supervisor.stop(name)


def _words(state: ProcessState) -> str:
    match state.phase:
        case Phase.ABSENT:
            return "does not run"
        case Phase.WAITING:
            return state.words
        case Phase.RUNNING:
            return f"crashed, and runs again: {state.words}"
        case _:
            return f"is {state.phase}: {state.words}"


def live_background(host: Host, manifest: Manifest, number: int) -> tuple[ProcessSpec, ...]:
    """The workers and timers of a release, as deployment `number` runs them."""
    return background_processes(
        host.layout,
        number,
        manifest.release,
        manifest.config,
        database=database_setting(host.settings.frozen(number), host.layout, manifest.config),
    )


def _others(host: Host, number: int | None = None) -> list[str]:
    """All workers and timers but those of deployment `number`."""
    return [name for name in host.supervisor.names() if generation_of(name) not in {None, number}]


def _overlapping(config: AppConfig, number: int) -> set[str]:
    names = names_of(config, number)
    return {process for name, worker in config.workers.items() if worker.overlap for process in names[name]}


def is_served_by(host: Host, number: int) -> bool:
    """Whether requests go to that deployment's instance, and it is there."""
    return host.proxy.target() == number and _is_up(host, number)


def _is_up(host: Host, number: int) -> bool:
    """Whether the site's own process is there; after a reboot it is not, and nothing else may run before it."""
    return host.supervisor.state(web_name(number)).phase is not Phase.ABSENT


def _stop(host: Host, names: list[str]) -> list[str]:
    stop_all(host, names)
    return names


def _start(host: Host, processes: Iterable[ProcessSpec]) -> None:
    for process in processes:
        try:
            host.supervisor.start(process)
        except StepFailed as error:
            if error.reference != "process-not-started":
                raise


def _settle(host: Host, processes: tuple[ProcessSpec, ...]) -> None:
    """Give those that end at once the time to do it, so that it can be told."""
    deadline = host.clock() + _SETTLE_SECONDS
    while processes and host.clock() < deadline:
        if any(is_in_trouble(host.supervisor.state(process.name)) for process in processes):
            return
        host.sleep(_POLL_SECONDS)
