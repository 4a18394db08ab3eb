"""Whether the app runs, and on what: its processes, its packages, its Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bulletproof.domain.check import State
from bulletproof.domain.deployment import Live
from bulletproof.domain.doctor import Ill, Remedy
from bulletproof.domain.process import Phase, ProcessState, since_start
from bulletproof.domain.reason import reason_in
from bulletproof.effects.logs import tail
from bulletproof.effects.process import last_lines, run
from bulletproof.effects.records import altered_packages, count_packages
from bulletproof.errors import StepFailed
from bulletproof.operations.checks.ground import Ground
from bulletproof.operations.workers import is_in_trouble
from bulletproof.ports import Manifest

_LINES = 60
_PYTHON_SECONDS = 20.0
_RESTART = "start the live release again"


def half_done(ground: Ground) -> Iterator[Ill]:
    """A deployment that nobody finishes or undoes."""
    status = ground.status
    if status.unfinished is None or status.is_held:
        return
    what = "finish it, since it was committed" if status.unfinished.is_committed else "undo it"
    deployment = status.unfinished.deployment
    yield Ill(
        words=f"deployment {deployment.number} ({deployment.kind} {deployment.release}) was left half-done",
        why=_reason(ground.host.layout.logs / "recover.log") or "its deployer was killed",
        remedy=Remedy(words=what, recovers=True),
    )


def service(ground: Ground) -> Iterator[Ill]:
    """What should run and does not, and why."""
    status = ground.status
    if not status.wants_running:
        return
    if not status.is_supervised:
        words = "the supervisor does not run, so nothing starts the app again when it crashes"
        why = "the machine was restarted, or somebody killed it"
        yield Ill(words=words, why=why, remedy=Remedy(words=_RESTART, restarts=True))
        return
    layout = ground.host.layout
    places = {
        "app": (status.web, layout.web_log(ground.number)),
        "proxy": (status.proxy, layout.logs / "proxy.log"),
        "relay": (status.relay, layout.logs / "relay.log"),
    }
    for name, (state, log) in places.items():
        if state.phase is not Phase.RUNNING:
            words = f"the {name} does not run: it is {state.phase}{_after(state)}"
            yield Ill(words=words, why=_reason(log), remedy=Remedy(words=_RESTART, restarts=True))
    for name, states in status.background.items():
        if bad := [state for state in states if is_in_trouble(state)]:
            yield Ill(
                words=f"{name} {bad[0].phase}{_after(bad[0])}",
                why=_reason(_log_of(ground, name)),
                state=State.WARNING,
                remedy=Remedy(words="start the workers again", restarts=True),
                command=f"bulletproof logs {name}",
            )


def _after(state: ProcessState) -> str:
    return f" ({state.words})" if state.words else ""


def _reason(log: Path) -> str:
    """Why a program ended: by what it said since its last start, for what it said before may have been mended."""
    return reason_in(since_start(tail(log, _LINES)))


def _log_of(ground: Ground, name: str) -> Path:
    layout, number = ground.host.layout, ground.number
    log = layout.worker_log(number, name)
    return log if log.exists() else layout.timer_log(number, name)


def packages(ground: Ground) -> Iterator[Ill]:
    """Releases of which a file is not what was installed."""
    for name, is_live in _releases(ground):
        if gone := ground.host.releases.recorded(name).packages - count_packages(ground.host.layout.venv(name)):
            words = f"of the packages of {name}, {gone} are gone"
            yield Ill(words=words, state=_state(is_live), remedy=_rebuilt(ground, name, is_live))
        elif bad := altered_packages(ground.host.layout.venv(name)):
            first = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")  # noqa: PLR2004
            files = "1 file" if len(bad) == 1 else f"{len(bad)} files"
            words = f"of the packages of {name}, {files} missing or altered: {first}"
            yield Ill(words=words, state=_state(is_live), remedy=_rebuilt(ground, name, is_live))


def interpreter(ground: Ground) -> Iterator[Ill]:
    """Releases whose Python is gone, does not start, or became another one."""
    for name, is_live in _releases(ground):
        manifest = ground.host.releases.recorded(name)
        words, state = _python_trouble(ground, manifest)
        if words:
            remedy = _rebuilt(ground, name, is_live)
            yield Ill(words=words, state=state if is_live else State.WARNING, remedy=remedy)


def _python_trouble(ground: Ground, manifest: Manifest) -> tuple[str, State]:
    python = ground.host.layout.venv(manifest.release) / "bin" / "python"
    if not python.exists():
        leads = f" ({python.readlink()})" if python.is_symlink() else ""
        words = f"the Python {manifest.python} that {manifest.release} was built with is gone{leads}"
        return words, State.CRITICAL
    ask = (python, "-I", "-c", "import platform; print(platform.python_version())")
    try:
        done = run(ask, folder=ground.host.layout.root, environment={}, timeout_seconds=_PYTHON_SECONDS)
    except StepFailed as error:
        return f"the Python of {manifest.release} does not start: {error.message}", State.CRITICAL
    if done.status != 0:
        why = reason_in(last_lines(done.errors)) or f"it ends with status {done.status}"
        return f"the Python of {manifest.release} does not start: {why}", State.CRITICAL
    found = done.output.strip()
    if found.split(".")[:2] != manifest.python.split(".")[:2]:
        words = f"{manifest.release} was built with Python {manifest.python}, and finds Python {found}"
        return words, State.CRITICAL
    return "", State.OK


def _releases(ground: Ground) -> Iterator[tuple[str, bool]]:
    """The live one, and the one that a rollback would make live."""
    live: Live | None = ground.status.live
    if live is not None:
        yield live.release, True
    if ground.status.earlier and ground.status.earlier in ground.host.releases.existing():
        yield ground.status.earlier, False


def _state(is_live: bool) -> State:  # noqa: FBT001
    return State.CRITICAL if is_live else State.WARNING


def _rebuilt(ground: Ground, name: str, is_live: bool) -> Remedy:  # noqa: FBT001
    restarts = is_live and ground.status.wants_running
    then = ", then restart without a dropped request" if restarts else ""
    return Remedy(words=f"build {name} anew beside itself and exchange it{then}", rebuilds=(name,), restarts=restarts)
