"""The Supervisor port over systemd: a unit for each process, which lives no longer than this boot.

The units lie in /run, so that after a reboot nothing of the app runs before `bulletproof start` has recovered what was
interrupted. The host runs while the app's target is active.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from bulletproof.domain import units
from bulletproof.domain.account import Sandbox
from bulletproof.domain.difference import first_difference
from bulletproof.domain.process import Phase, ProcessSpec, ProcessState
from bulletproof.domain.repair import Text
from bulletproof.domain.settings import for_app
from bulletproof.domain.units import Patience
from bulletproof.effects import durable
from bulletproof.effects.process import Completed, last_lines, run
from bulletproof.errors import Refused, StepFailed
from bulletproof.ports import Drift

UNITS = Path("/run/systemd/system")
LASTING = Path("/etc/systemd/system")
"""What is there is there after a boot."""
_WANTED = LASTING / "multi-user.target.wants"
_SECONDS = 120.0
"""For one systemctl that does not wait for the end of a process."""
_STOPPING_SECONDS = 2 * 3600.0 + _SECONDS
"""For one that does: systemd ends it by force after its own patience, of which the configuration allows an hour."""
_POLL_SECONDS = 0.05
_PRIVATE = 0o600
_PHASES = {
    "active": Phase.RUNNING,
    "reloading": Phase.RUNNING,
    "activating": Phase.RUNNING,
    "deactivating": Phase.STOPPING,
    "failed": Phase.FAILED,
}
_SHOWN = ("ActiveState", "SubState", "MainPID", "NRestarts", "Result", "ExecMainCode", "ExecMainStatus")
_NONE, _EXITED = "0", "1"
"""ExecMainCode of what has not ended, and CLD_EXITED; all others are signals."""
_MAIN_PROCESS_EXITED = "98e322203f7a4ed290d09fe03c09fe15"
"""SD_MESSAGE_UNIT_PROCESS_EXIT of systemd's catalogue."""


class _End(msgspec.Struct, frozen=True):
    """What the journal says of the end of a main process."""

    EXIT_CODE: str
    EXIT_STATUS: str


class SystemdSupervisor:
    """The processes of one app as units; `settings` and environment reach them by a file of root's alone.

    `confine` tells what a process is kept to, by its name; `prepare` makes what its processes need to be there.
    `facade` is the unit by which people and the boot know the app, if it is to have one; `lasting` are files of root's
    that are there for as long as the app is.
    """

    def __init__(
        self,
        app: str,
        patience: Patience | None = None,
        confine: Callable[[str], Sandbox | None] = lambda _: None,
        prepare: Callable[[], None] = lambda: None,
        facade: str = "",
        lasting: Mapping[Path, str] = MappingProxyType({}),
    ) -> None:
        self._lasting = lasting
        self._facade = facade
        self._app = app
        self._patience = patience or Patience()
        self._confine = confine
        self._prepare = prepare
        self._target = f"{app}-host.target"

    def ensure_running(self) -> None:
        """The app's target is active when this returns. Raises StepFailed."""
        self._prepare()
        self._lay_facade()
        for place, text in self._lasting.items():
            if not place.exists() or place.read_text(encoding="utf-8") != text:
                durable.write_file(place, text)
        if not self.is_running():
            self._write(self._target, units.target(self._app))
            self._must("daemon-reload")
            self._must("start", self._target)

    def shutdown(self) -> None:
        """Every process has ended, and no unit is left; idempotent. Raises StepFailed."""
        names = self.names()
        for name in names:
            self.ask_to_stop(name)
        for name in names:
            self.stop(name)
        if (UNITS / self._target).exists():
            self._must("stop", self._target)
            self._forget(self._target)
            if self._facade:
                self._ask("stop", "--no-block", self._known_as)  # it finds that all is stopped

    def is_running(self) -> bool:
        """Whether the app's target is active."""
        return self._ask("is-active", "--quiet", self._target).status == 0

    def start(self, process: ProcessSpec) -> None:
        """Run it, and run it again whenever it crashes; idempotent by name. Raises StepFailed in words."""
        self.ensure_running()
        unit = self._unit(process.name)
        wanted = self._files(process)
        if self._is_up(process, wanted):
            return
        _require_program(process)
        self._lay(process, wanted)
        begun = units.beside(unit, "timer") if process.schedule else unit
        started = self._ask("start", begun)
        if started.status != 0:
            words = self._last_end(unit, self._shown(unit))
            self.stop(process.name)
            raise _not_started(process, words, last_lines(started.errors))

    def stop(self, name: str) -> None:
        """Nothing of it is left when this returns; idempotent. Raises StepFailed when it cannot be ended."""
        unit = self._unit(name)
        if not (UNITS / unit).exists():
            return
        self._let_run_end(name)
        kinds = [unit, units.beside(unit, "timer"), units.beside(unit, "socket")]
        self._must("stop", *[kind for kind in kinds if (UNITS / kind).exists()], seconds=_STOPPING_SECONDS)
        self._forget(*kinds, units.beside(unit, "env"))

    def ask_to_stop(self, name: str) -> None:
        """Begin to stop it and return at once; one with a schedule begins no other run. Idempotent."""
        unit = self._unit(name)
        timer = units.beside(unit, "timer")
        if (UNITS / timer).exists():
            self._must("stop", timer)
        elif (UNITS / unit).exists():
            self._must("stop", "--no-block", unit)

    def state(self, name: str) -> ProcessState:
        """What systemd knows of the process; phase ABSENT when it has no unit."""
        unit = self._unit(name)
        if not (UNITS / unit).exists():
            return ProcessState(name=name, phase=Phase.ABSENT)
        shown = self._shown(unit)
        phase = self._phase(unit, shown)
        crashed = phase in {Phase.BACKING_OFF, Phase.FAILED}
        restarts = int(shown["NRestarts"]) + (1 if phase is Phase.BACKING_OFF else 0)
        words = self._last_end(unit, shown) if crashed or restarts else ""
        if phase is Phase.FAILED:
            words = f"gave up after {restarts} crashes; last: {words}"
        pid = int(shown["MainPID"]) or None
        return ProcessState(name=name, phase=phase, pid=pid, restarts=restarts, words=words)

    def names(self) -> tuple[str, ...]:
        """The processes that have a unit."""
        found = (units.process_name(self._app, path.name) for path in UNITS.glob(f"{self._app}*.service"))
        return tuple(sorted(name for name in found if name is not None))

    def drifts(self, processes: Iterable[ProcessSpec]) -> tuple[Drift, ...]:
        """The units of these that are there and not as they would be written, and those that somebody lays over them.

        A unit that is not there is none of these: it does not run. Raises StepFailed.
        """
        wanted = {name: text for process in processes for name, text in self._files(process).items()}
        places = {UNITS / name: text for name, text in wanted.items()}
        if self._facade:
            places[LASTING / self._known_as] = self._facade
        written = (drift for place, text in places.items() if (drift := _drift(place, text)))
        return (*written, *self._laid_over(wanted))

    def _laid_over(self, names: Iterable[str]) -> Iterator[Drift]:
        """What somebody lays over units, as `systemctl edit` does: it may be meant."""
        for name in (*names, self._known_as):
            folders = (place / f"{one}.d" for place in (LASTING, UNITS) for one in (name, _template_of(name)))
            for file in (file for folder in folders for file in sorted(folder.glob("*.conf"))):
                yield Drift(words=f"{file} is laid over {name}", path=file, command=f"systemctl revert {name}")

    def reread(self) -> None:
        """Let systemd read its units again. Raises StepFailed."""
        self._must("daemon-reload")

    def remove_facade(self) -> None:
        """Neither people nor the boot find the app any more; idempotent."""
        for place in self._lasting:
            durable.remove(place)
        if _is_ours(LASTING / self._known_as):
            for place in (_WANTED / self._known_as, LASTING / self._known_as):
                durable.remove(place)
            self._must("daemon-reload")

    def _lay_facade(self) -> None:
        """Raises Refused `unit-foreign` when something of the app's name is there already that is not ours."""
        place = LASTING / self._known_as
        if not self._facade or (place.exists() and place.read_text(encoding="utf-8") == self._facade):
            return
        if not _is_ours(place) and (found := self._found()):
            words = f"{found} is there already, and is not ours: it would run the app a second time"
            hint = f"systemctl disable --now {self._app}; mv {found} {found}.old; systemctl daemon-reload"
            raise Refused("unit-foreign", words, hint=hint)
        durable.write_file(place, self._facade)
        durable.make_folder(_WANTED)
        durable.replace_symlink(_WANTED / self._known_as, place)
        self._must("daemon-reload")

    def _found(self) -> str:
        """The file of a unit that has the app's name; empty when there is none."""
        return self._must("show", "--property=FragmentPath", "--value", self._known_as).output.strip()

    @property
    def _known_as(self) -> str:
        return f"{self._app}.service"

    def _unit(self, name: str) -> str:
        return units.unit_name(self._app, name)

    def _files(self, process: ProcessSpec) -> dict[str, str]:
        """The unit files of a process, and what is in them."""
        unit = self._unit(process.name)
        environment = UNITS / units.beside(unit, "env")
        sandbox = self._confine(process.name)
        files = {unit: units.service(self._app, process, environment, self._patience, sandbox)}
        if process.schedule:
            files[units.beside(unit, "timer")] = units.timer(self._app, process)
        if process.listen is not None:
            files[units.beside(unit, "socket")] = units.socket(self._app, process, sandbox)
        return files

    def _is_up(self, process: ProcessSpec, wanted: Mapping[str, str]) -> bool:
        """Whether it runs as it is wanted. Raises StepFailed when something else runs under its name."""
        while (phase := self.state(process.name).phase) is Phase.STOPPING:
            time.sleep(_POLL_SECONDS)
        if phase in {Phase.ABSENT, Phase.FAILED}:
            return False
        if any((UNITS / name).read_text(encoding="utf-8") != text for name, text in wanted.items()):
            raise StepFailed("process-differs", f"{process.name} runs already, as something else")
        return self._is_asked_for(process)

    def _is_asked_for(self, process: ProcessSpec) -> bool:
        """Whether it is to go on: one that was asked to stop, and has, is not."""
        begun = units.beside(self._unit(process.name), "timer") if process.schedule else self._unit(process.name)
        return (
            self._ask("is-active", "--quiet", begun).status == 0 or self.state(process.name).phase is Phase.BACKING_OFF
        )

    def _lay(self, process: ProcessSpec, files: Mapping[str, str]) -> None:
        unit = self._unit(process.name)
        if not process.log.parent.is_dir():
            durable.make_folder(process.log.parent)
        self._make_log(process)
        variables = {**for_app(_settings(process.settings)), **process.environment}
        self._write(units.beside(unit, "env"), units.environment_file(variables), mode=_PRIVATE)
        for name, text in files.items():
            self._write(name, text)
        self._must("daemon-reload")
        self._ask("reset-failed", unit)  # what was given up before begins anew, with no crash counted

    def _make_log(self, process: ProcessSpec) -> None:
        """The process may open its own log, as /dev/stdout; it may not make one, nor rename it."""
        sandbox = self._confine(process.name)
        if sandbox is not None and not process.log.exists():
            durable.write_file(process.log, b"", mode=0o660)
            os.chown(process.log, 0, sandbox.account.group)

    def _write(self, name: str, text: str, mode: int = 0o644) -> None:
        durable.make_folder(UNITS)
        durable.write_file(UNITS / name, text, mode=mode)

    def _forget(self, *names: str) -> None:
        self._ask("reset-failed", *[name for name in names if (UNITS / name).exists() and not name.endswith(".env")])
        for name in names:
            durable.remove(UNITS / name)
        self._must("daemon-reload")

    def _let_run_end(self, name: str) -> None:
        """A run of one with a schedule may go on for a while; no other begins."""
        unit = self._unit(name)
        timer = UNITS / units.beside(unit, "timer")
        if not timer.exists():
            return
        self._must("stop", timer.name)
        deadline = time.monotonic() + units.drain_seconds(timer.read_text(encoding="utf-8"))
        while self._shown(unit)["ActiveState"] not in {"inactive", "failed"} and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def _shown(self, unit: str) -> dict[str, str]:
        told = self._must("show", unit, f"--property={','.join(_SHOWN)}").output
        return dict(line.split("=", 1) for line in told.splitlines())

    def _phase(self, unit: str, shown: Mapping[str, str]) -> Phase:
        if shown["SubState"] == "auto-restart":
            return Phase.BACKING_OFF
        if (UNITS / units.beside(unit, "timer")).exists() and shown["ActiveState"] in {"inactive", "failed"}:
            return Phase.WAITING
        return _PHASES.get(shown["ActiveState"], Phase.ABSENT)

    def _last_end(self, unit: str, shown: Mapping[str, str]) -> str:
        """How its main process ended last; what runs again is asked about in the journal."""
        if shown["ExecMainCode"] != _NONE:
            return _in_words(shown["ExecMainCode"] == _EXITED, int(shown["ExecMainStatus"]))
        argv = ("journalctl", f"--unit={unit}", "--output=json", "--lines=1", f"MESSAGE_ID={_MAIN_PROCESS_EXITED}")
        told = run(argv, folder=Path("/"), timeout_seconds=_SECONDS).output.strip()
        if not told:
            return "ended, how is not known: the journal does not tell"
        end = msgspec.json.decode(told, type=_End)
        return _in_words(end.EXIT_CODE == "exited", int(end.EXIT_STATUS))

    def _ask(self, *words: str, seconds: float | None = None) -> Completed:
        argv = ("systemctl", "--no-pager", "--no-ask-password", *words)
        return run(argv, folder=Path("/"), timeout_seconds=seconds or _SECONDS)

    def _must(self, *words: str, seconds: float | None = None) -> Completed:
        done = self._ask(*words, seconds=seconds)
        if done.status != 0:
            words_of_it = " ".join(("systemctl", *words))
            raise StepFailed("systemd-refused", f"`{words_of_it}` failed", context=last_lines(done.errors))
        return done


def _drift(place: Path, wanted: str) -> Drift | None:
    try:
        found = place.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    if found == wanted:
        return None
    words = f"{place} is not what would be written: {first_difference(wanted, found)}"
    return Drift(words=words, path=place, changes=(Text(path=str(place), text=wanted),))


def _template_of(name: str) -> str:
    """`shop-web@.service` of `shop-web@3.service`."""
    stem, at, rest = name.partition("@")
    return f"{stem}@.{rest.rpartition('.')[2]}" if at else name


def _is_ours(unit: Path) -> bool:
    return unit.is_file() and unit.read_text(encoding="utf-8").startswith(units.OURS)


def _settings(file: Path | None) -> dict[str, str]:
    if file is None:
        return {}
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, str])
    except OSError as error:
        raise StepFailed("settings-not-read", f"its settings could not be read: {error.strerror}: {file}") from error


def _in_words(is_exit: bool, status: int) -> str:  # noqa: FBT001
    if not is_exit:
        return f"killed by {signal.Signals(status).name}"
    return f"exited with status {status}" if status else "ended by itself"


def _require_program(process: ProcessSpec) -> None:
    """Say what systemd would say only in the journal."""
    program = Path(process.argv[0])
    if not program.exists():
        raise _not_started(process, f"could not be started: {os.strerror(errno.ENOENT)}: {program}")
    if not os.access(program, os.X_OK):
        raise _not_started(process, f"could not be started: {os.strerror(errno.EACCES)}: {program}")


def _not_started(process: ProcessSpec, words: str, context: tuple[str, ...] = ()) -> StepFailed:
    return StepFailed("process-not-started", f"{process.name}: {words}", context=context)
