"""Timers of the embedded supervisor with real processes; their schedules have seconds, so that no test waits long."""

from __future__ import annotations

import time
from pathlib import Path

from msgspec.structs import replace

from bulletproof.adapters.embedded.client import EmbeddedSupervisor
from bulletproof.domain.command import shell_argv
from bulletproof.domain.process import Phase, ProcessSpec
from embedded.places import Place, kill_supervisor, until

EVERY_SECOND = "* * * * * *"
NAME = "timer-1-tidy"


def timer(process: ProcessSpec, schedule: str = EVERY_SECOND) -> ProcessSpec:
    """The process with a schedule."""
    return replace(process, schedule=schedule)


def noted(file: Path) -> list[str]:
    """The words that processes wrote to a file, without our own lines; none when it is not there."""
    lines = file.read_text().splitlines() if file.exists() else []
    return " ".join(line for line in lines if "[bulletproof]" not in line).split()


def test_one_run_at_a_time_and_nothing_is_caught_up(place: Place, supervisor: EmbeddedSupervisor) -> None:
    """A run that takes longer than its schedule's pace lets what is due meanwhile pass."""
    supervisor.start(timer(place.shell("echo begin >> log; sleep 1.5; echo end >> log", name=NAME)))
    assert supervisor.state(NAME).phase is Phase.WAITING
    begun = time.monotonic()
    until(lambda: len(noted(place.file("log"))) >= 6)
    took = time.monotonic() - begun

    log = noted(place.file("log"))
    assert log[:6] == ["begin", "end"] * 3
    assert took > 4.5
    until(lambda: "well" in supervisor.state(NAME).words)
    assert supervisor.state(NAME).restarts == 0


def test_a_run_that_fails_is_told_and_the_next_one_comes(place: Place, supervisor: EmbeddedSupervisor) -> None:
    """It is not repeated before it is due, never given up, and well again once a run was."""
    supervisor.start(timer(place.shell("echo run >> log; test -e good || exit 3", name=NAME)))
    until(lambda: supervisor.state(NAME).restarts >= 2)
    state = supervisor.state(NAME)
    assert "exited with status 3" in state.words
    assert state.phase in {Phase.WAITING, Phase.RUNNING}
    assert len(noted(place.file("log"))) <= state.restarts + 1
    place.file("good").touch()
    until(lambda: supervisor.state(NAME).restarts == 0)


def test_a_program_that_is_missing_is_a_run_that_fails(place: Place, supervisor: EmbeddedSupervisor) -> None:
    """The timer stays."""
    supervisor.start(timer(place.process((str(place.file("none")),), NAME)))
    until(lambda: "could not be started" in supervisor.state(NAME).words)
    assert supervisor.state(NAME).phase is Phase.WAITING


def test_a_run_that_takes_too_long_is_ended(place: Place, supervisor: EmbeddedSupervisor) -> None:
    """SIGTERM at its time-out, SIGKILL when it ignores that, and it is said."""
    spec = place.shell("trap '' TERM; echo run >> log; while :; do sleep 0.1; done", name=NAME)
    supervisor.start(replace(timer(spec), timeout_seconds=0.5, stop_seconds=0.5))
    until(lambda: "killed by SIGKILL after 0 s, which is its longest" in supervisor.state(NAME).words)
    until(lambda: len(noted(place.file("log"))) >= 2)


def test_a_run_may_end_when_its_timer_is_stopped(place: Place, supervisor: EmbeddedSupervisor) -> None:
    """Stopping waits for the run, which gets no signal before its time; and no other run begins."""
    script = "trap 'echo signalled >> log' TERM; echo begin >> log; sleep 1.5; echo end >> log"
    supervisor.start(replace(timer(place.shell(script, name=NAME)), drain_seconds=20.0))
    until(lambda: noted(place.file("log")))
    supervisor.ask_to_stop(NAME)
    assert supervisor.state(NAME).phase is Phase.STOPPING
    supervisor.stop(NAME)

    assert supervisor.state(NAME).phase is Phase.ABSENT
    assert noted(place.file("log")) == ["begin", "end"]


def test_a_run_that_outlasts_that_is_signalled(place: Place, supervisor: EmbeddedSupervisor) -> None:
    """SIGTERM after `drain_seconds`; the run ends in order."""
    text = "import signal, time\nnote = (here / 'log').open('a', buffering=1)\n"
    text += "def end(*_):\n    print('term', file=note)\n    raise SystemExit\n"
    text += "signal.signal(signal.SIGTERM, end)\nprint('begin', file=note)\ntime.sleep(60)\n"
    supervisor.start(replace(timer(place.python(text, NAME)), drain_seconds=0.3, stop_seconds=20.0))
    until(lambda: noted(place.file("log")))
    supervisor.stop(NAME)
    assert noted(place.file("log")) == ["begin", "term"]


def test_a_killed_supervisor_leaves_the_run_to_its_successor(place: Place, supervisor: EmbeddedSupervisor) -> None:
    """The run goes on and is the only one; the next one comes after it."""
    supervisor.start(timer(place.shell("echo begin >> log; sleep 2.5; echo end >> log", name=NAME)))
    until(lambda: noted(place.file("log")) == ["begin"])
    pid = until(lambda: supervisor.state(NAME).pid)
    kill_supervisor(supervisor)
    supervisor.ensure_running()
    state = supervisor.state(NAME)
    assert (state.phase, state.pid) == (Phase.RUNNING, pid)
    until(lambda: len(noted(place.file("log"))) >= 4)

    assert noted(place.file("log"))[:4] == ["begin", "end"] * 2


def test_a_timer_that_waits_is_taken_over(place: Place, supervisor: EmbeddedSupervisor) -> None:
    """It waits on, and how its last run ended is still known."""
    until(lambda: 5 < time.time() % 60 < 50)  # far from where a minute ends
    supervisor.start(timer(place.shell("exit 3", name=NAME), f"{(int(time.time()) + 2) % 60} * * * * *"))
    until(lambda: "exited with status 3" in supervisor.state(NAME).words)
    before = replace(supervisor.state(NAME), restarts=0)
    kill_supervisor(supervisor)
    supervisor.ensure_running()
    assert supervisor.state(NAME) == before
    supervisor.stop(NAME)
    assert supervisor.names() == ()


def test_a_shell_lets_its_commands_end_in_order(place: Place, supervisor: EmbeddedSupervisor) -> None:
    """SIGTERM reaches a program behind `cd … &&` as well, and the shell waits for its end."""
    place.file("inner").mkdir()
    text = "import signal, time\ndef end(*_):\n    time.sleep(0.5)\n    print('ended in order', flush=True)\n"
    text += "    raise SystemExit\nsignal.signal(signal.SIGTERM, end)\nprint('begun', flush=True)\ntime.sleep(60)\n"
    place.file("inner/work.py").write_text(text)
    spec = place.process(shell_argv("cd inner && python3 work.py"), "worker-1-work-1")
    supervisor.start(replace(spec, is_group=True, stop_seconds=20.0))
    log = place.file("worker-1-work-1.log")
    until(lambda: noted(log) == ["begun"])
    supervisor.stop("worker-1-work-1")
    assert noted(log) == ["begun", "ended", "in", "order"]


def test_another_signal_may_be_wanted(place: Place, supervisor: EmbeddedSupervisor) -> None:
    """A worker that finishes its job at SIGINT gets that."""
    script = "trap 'echo interrupted >> log; exit' INT; echo begun >> log; while :; do sleep 0.05; done"
    supervisor.start(replace(place.shell(script, name="worker-1-a-1"), stop_signal="SIGINT"))
    until(lambda: noted(place.file("log")))
    supervisor.stop("worker-1-a-1")
    assert noted(place.file("log")) == ["begun", "interrupted"]
