"""Hostile surroundings: signals, a lost terminal, hung programs, killed neighbours, many deployments at once."""

from __future__ import annotations

import contextlib
import os
import pty
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial

import msgspec
import psutil

from bulletproof.prove import scenarios
from bulletproof.prove.host import COMMAND_SECONDS, Ended, Host, pids, processes

DONE, REFUSED, USAGE, UNDONE, NEEDS_PERSON, LOCKED, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
_DEPLOYMENT_SECONDS = 4.0
"""About how long a deployment takes: a signal at random comes within this time."""
_POLL_SECONDS = 0.02


class Stage(msgspec.Struct, frozen=True):
    """A host under load, and what chance says."""

    host: Host
    chance: random.Random


Play = Callable[[Stage], list[Ended]]


class Case(msgspec.Struct, frozen=True):
    """Something that happens to a host; afterwards the oracle looks as after every fault."""

    name: str
    play: Play
    statuses: frozenset[int] = frozenset({DONE, REFUSED, UNDONE})
    """How its commands may end."""
    is_seen: bool = False
    """Whether users may see it, since it is no fault of the deployer's alone."""
    is_ill: bool = False
    """Whether the app does not boot on the live data."""
    times: int = 1


def _signal(number: signal.Signals, stage: Stage) -> list[Ended]:
    """A signal at a random moment of a migrating deployment."""
    command = stage.host.begin("deploy", "grows")
    time.sleep(stage.chance.uniform(0.0, _DEPLOYMENT_SECONDS))
    with contextlib.suppress(ProcessLookupError):
        command.send_signal(number)
    return [_ended(command)]


def _interrupted(stage: Stage) -> list[Ended]:
    """Ctrl-C at a random moment: the deployer and all that it has started get it, as at a terminal."""
    command = stage.host.begin("deploy", "grows")
    time.sleep(stage.chance.uniform(0.0, _DEPLOYMENT_SECONDS))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(command.pid, signal.SIGINT)
    return [_ended(command)]


def _ended(command: subprocess.Popen[str]) -> Ended:
    begun = time.monotonic()
    out, err = command.communicate(timeout=COMMAND_SECONDS)
    return Ended(status=command.returncode, out=out, err=err, seconds=time.monotonic() - begun)


def _stdout_closed(stage: Stage) -> list[Ended]:
    """Whoever reads what we say goes away after the first line."""
    command = stage.host.begin("deploy", "plain")
    assert command.stdout is not None  # noqa: S101  asked for in `begin`
    assert command.stderr is not None  # noqa: S101
    command.stdout.readline()
    command.stdout.close()
    command.stderr.close()
    return [Ended(status=command.wait(COMMAND_SECONDS), out="", err="", seconds=0.0)]


def _terminal_gone(stage: Stage) -> list[Ended]:
    """The terminal is closed at a random moment: SIGHUP, and nothing can be said any more."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(stage.host.project)
        argv = stage.host.argv("deploy", "plain")[:-1]
        os.execv(argv[0], argv)  # noqa: S606  there is no shell that it could need
    reader = threading.Thread(target=_read_all, args=(terminal,))
    reader.start()
    time.sleep(stage.chance.uniform(0.2, _DEPLOYMENT_SECONDS))
    os.kill(pid, signal.SIGHUP)
    with contextlib.suppress(OSError):
        os.close(terminal)
    _, status = os.waitpid(pid, 0)
    reader.join()
    return [Ended(status=os.waitstatus_to_exitcode(status), out="", err="", seconds=0.0)]


def _read_all(terminal: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(terminal, 4096):
            pass


def _at_once(words: tuple[tuple[str, ...], ...], stage: Stage) -> list[Ended]:
    """Many commands in the same instant."""
    commands = [stage.host.begin(*one) for one in words]
    return [_ended(command) for command in commands]


def _all_sorts_at_once(wait: str, stage: Stage) -> list[Ended]:
    """A deployment, a backup, a rollback and a restore in the same instant."""
    scenarios.back_up(stage.host)
    restore = scenarios.SCENARIOS["restore"].command(stage.host)
    words = (("deploy", "plain"), ("backup", "create"), ("rollback",), restore)
    return _at_once(tuple((*one, "--wait", wait) for one in words), stage)


def _hit_neighbour(word: str, step: str, number: signal.Signals, stage: Stage) -> list[Ended]:
    """A signal to a process of the host while a migrating deployment is at a step."""
    return [stage.host.run_and(lambda _: _hit(stage.host, word, number), "deploy", "grows", step=step)]


def _kill_neighbour(word: str, step: str, stage: Stage) -> list[Ended]:
    return _hit_neighbour(word, step, signal.SIGKILL, stage)


def _hit(host: Host, word: str, number: signal.Signals) -> None:
    for pid, command, _ in processes(host.layout.root):
        if word in command:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            return


def _kill_child(stage: Stage) -> list[Ended]:
    """Kill -9 of whatever the deployer has started and that runs at a random moment: uv, git, a migration, an app."""
    command = stage.host.begin("deploy", "grows")
    time.sleep(stage.chance.uniform(0.3, _DEPLOYMENT_SECONDS))
    until = time.monotonic() + 1.0
    while time.monotonic() < until and not _kill_one_below(command.pid, stage.chance):
        time.sleep(_POLL_SECONDS)
    return [_ended(command)]


def _kill_one_below(pid: int, chance: random.Random) -> bool:
    with contextlib.suppress(psutil.Error):
        children = psutil.Process(pid).children(recursive=True)
        if children:
            chance.choice(children).kill()
            return True
    return False


def _hang_migration(stage: Stage) -> list[Ended]:
    """The migration of the live data stops in its tracks, while requests wait."""
    return [stage.host.run_and(_freeze, "deploy", "grows", step="migrate")]


def _freeze(command: subprocess.Popen[str]) -> None:
    """SIGSTOP to the migration as soon as it is there."""
    until = time.monotonic() + 5.0
    while time.monotonic() < until:
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(command.pid).children(recursive=True):
                if "migrate" in " ".join(child.cmdline()):
                    child.suspend()
                    return


def _hang_boot(stage: Stage) -> list[Ended]:
    """The new app neither serves nor ends, beside the live data alone, while requests wait."""
    return [stage.host.run("deploy", "grows-hung")]


def _answers_500(stage: Stage) -> list[Ended]:
    """The new app boots, and answers 500 on the live data alone."""
    return [stage.host.run("deploy", "sick")]


def _killed_with_everything(stage: Stage) -> list[Ended]:
    """Kill -9 of everything in a hold, as when a container ends, and then a start."""
    ended = stage.host.run_and(lambda command: _kill_all(stage.host, command), "deploy", "grows", step="hold")
    started = stage.host.run("start", "--wait", "20")
    return [started] if started.status else [ended]


def _kill_all(host: Host, command: subprocess.Popen[str]) -> None:
    """As soon as requests wait, when the old app was not told to stop yet; the supervisor before all else."""
    until = time.monotonic() + 1.0
    while host.layout.app_socket.readlink().name != host.layout.hold_socket.name and time.monotonic() < until:
        pass
    command.kill()
    _hit(host, "embedded.supervisor", signal.SIGKILL)
    for pid in pids(host.layout.root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _no_long_file(stage: Stage) -> list[Ended]:
    """The deployer may write no file that is longer than a page, not even its journal's."""
    host = stage.host
    argv = ("sh", "-c", 'ulimit -f 8; exec "$@"', "sh", *host.argv("deploy", "plain"))
    done = subprocess.run(
        argv, cwd=host.project, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120
    )
    return [Ended(status=done.returncode, out=done.stdout, err=done.stderr, seconds=0.0)]


def _output_full(stage: Stage) -> list[Ended]:
    """What it says cannot be written, as in a log on a full disk."""
    with open("/dev/full", "w") as full:  # noqa: PTH123  a device
        done = subprocess.run(
            stage.host.argv("deploy", "plain"),
            cwd=stage.host.project,
            stdout=full,
            stderr=full,
            check=False,
            timeout=120,
        )
    return [Ended(status=done.returncode, out="", err="", seconds=0.0)]


_SIGNALLED = frozenset({DONE, REFUSED, UNDONE, INTERRUPTED, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP})
_RIVALS = frozenset({DONE, LOCKED, REFUSED})
_FOUR = _RIVALS | {USAGE}
"""The backup or the release that one of them names may be pruned by those that it waited for."""
_DEPLOY, _BACK = ("deploy", "plain"), ("rollback", "--wait", "0.2")
CASES = (
    Case("SIGTERM at random", partial(_signal, signal.SIGTERM), _SIGNALLED, times=6),
    Case("SIGINT at random", partial(_signal, signal.SIGINT), _SIGNALLED, times=6),
    Case("SIGHUP at random", partial(_signal, signal.SIGHUP), _SIGNALLED, times=6),
    Case("Ctrl-C at random", _interrupted, _SIGNALLED, times=3),
    Case("output closed", _stdout_closed, _SIGNALLED | {141}, times=2),
    Case("terminal gone at random", _terminal_gone, _SIGNALLED | {141}, times=4),
    Case("ten deployments at once", partial(_at_once, (_DEPLOY,) * 10), _RIVALS),
    Case("deployment against rollback", partial(_at_once, (_DEPLOY, _BACK)), _RIVALS, times=2),
    Case("deployment, backup, rollback and restore at once", partial(_all_sorts_at_once, "0.2"), _FOUR, times=2),
    Case("the same four, one waiting for the other", partial(_all_sorts_at_once, "60"), _FOUR),
    Case("a child killed at random", _kill_child, frozenset({DONE, REFUSED, USAGE, UNDONE}), times=8),
    Case("relay killed in a hold", partial(_kill_neighbour, "adapters.relay", "migrate"), times=2),
    Case("proxy killed in a hold", partial(_kill_neighbour, "caddy run", "migrate"), is_seen=True, times=2),
    Case("supervisor killed in a hold", partial(_kill_neighbour, "embedded.supervisor", "migrate"), times=2),
    Case("supervisor killed at the start", partial(_kill_neighbour, "embedded.supervisor", "start")),
    Case("proxy told to reload in a hold", partial(_hit_neighbour, "caddy run", "migrate", signal.SIGUSR1)),
    Case("relay told to reload in a hold", partial(_hit_neighbour, "adapters.relay", "migrate", signal.SIGHUP)),
    Case(
        "supervisor told to reload in a hold",
        partial(_hit_neighbour, "embedded.supervisor", "migrate", signal.SIGHUP),
    ),
    Case("live app killed in a rehearsal", partial(_kill_neighbour, "-m gunicorn", "rehearse"), is_seen=True),
    Case("migration hung in a hold", _hang_migration),
    Case("boot hung in a hold", _hang_boot, is_ill=True),
    Case("everything killed in a hold", _killed_with_everything, frozenset({-signal.SIGKILL}), is_seen=True, times=2),
    Case("app answers 500", _answers_500, frozenset({UNDONE}), is_ill=True),
    Case("no file may grow", _no_long_file, frozenset({REFUSED, UNDONE, NEEDS_PERSON})),
    Case("output to a full disk", _output_full, frozenset({REFUSED, UNDONE})),
)
