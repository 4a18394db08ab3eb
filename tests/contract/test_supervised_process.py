"""What every Supervisor does for the processes that it runs: their surroundings, their sockets, their end."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from bulletproof.adapters import systemd
from bulletproof.domain.process import Phase, is_start_line
from contract.supervisors import KINDS, Real, real
from embedded.places import is_alive, until

HOSTILE = {
    "PLAIN": "value",
    "EMPTY": "",
    "QUOTES": 'it\'s "so" `date` $HOME ${HOME} $(date) %n %% \\ \\n end\\',
    "LINES": "one\ntwo\n\n  three\t#four\r\n",
    "EDGES": "  spaces  ",
    "WORDS": "ßüöé 日本 🦀",
    "LIKE_A_COMMENT": "# ; not one",
}
ANSWER = """
import socket
listener = socket.socket(fileno=3)
while True:
    connection, _ = listener.accept()
    connection.sendall(b"served")
    connection.close()
"""


@pytest.fixture(params=KINDS)
def given(request: pytest.FixtureRequest) -> Iterator[Real]:
    """Each of them in turn, not running yet."""
    with real(request.param) as supervisor:
        yield supervisor


def test_settings_reach_it_as_they_are(given: Real) -> None:
    """Every text is a value: quotes, dollars, line ends. What the process is given besides wins over a setting."""
    settings = given.folder / "settings.json"
    settings.write_text(json.dumps({**HOSTILE, "PLACE": "elsewhere"}), encoding="utf-8")
    settings.chmod(0o600)
    program = "import json, os; json.dump(dict(os.environ), open('told', 'w')); open('done', 'w'); input()"
    process = replace(given.shell(""), argv=(sys.executable, "-c", f"{program}"), settings=settings, stop_seconds=1.0)
    given.supervisor.start(process)
    until((given.folder / "done").exists)
    told = json.loads((given.folder / "told").read_text(encoding="utf-8"))
    assert {name: told.get(name) for name in HOSTILE} == HOSTILE
    assert told["PLACE"] == str(given.folder)


def test_it_may_take_all_the_time_to_end_that_it_was_given(given: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    """However short the patience with systemctl is otherwise: nothing is left of it when `stop` returns."""
    slow = given.shell("trap 'sleep 5; touch ended; exit' TERM; touch begun; while :; do sleep 0.1; done")
    given.supervisor.start(replace(slow, stop_seconds=20.0))
    until((given.folder / "begun").exists)
    monkeypatch.setattr(systemd, "_SECONDS", 4.0)
    given.supervisor.stop("web-1")
    assert (given.folder / "ended").exists()
    assert given.supervisor.names() == ()


def test_words_of_its_command_are_words(given: Real) -> None:
    """Nothing of a command line is a specifier, a variable or a separator."""
    words = ["%n", "$HOME", "${PATH}", "a b", "it's", '"', "\\", "\\n", ";", "one\ntwo", "@x", "ß", ""]
    program = (
        "import json, sys; json.dump(sys.argv[1:], open('told', 'w')); open('done', 'w'); import time; time.sleep(99)"
    )
    given.supervisor.start(replace(given.shell(""), argv=(sys.executable, "-c", program, *words)))
    until((given.folder / "done").exists)
    assert json.loads((given.folder / "told").read_text(encoding="utf-8")) == words


def test_its_runtime_folder_is_there_while_it_is_asked_for(given: Real) -> None:
    """Empty at every start, kept over no stop, and another process's folder beside it is left alone."""
    one, other = given.runtime / "1", given.runtime / "2"
    text = 'test -z "$(ls)" && touch web.sock && echo well >> $PLACE/began; while :; do sleep 1000; done'
    for name, runtime in (("web-1", one), ("web-2", other)):
        given.supervisor.start(replace(given.shell(f"cd {runtime}; {text}", name), runtime=runtime))
    until(lambda: (given.folder / "began").exists() and (one / "web.sock").exists() and (other / "web.sock").exists())
    _crash(given, "web-1")
    until(lambda: (given.folder / "began").read_text().count("well") == 3)
    given.supervisor.stop("web-1")
    assert not one.exists()
    assert (other / "web.sock").exists()


def test_what_it_listens_on_outlives_it(given: Real) -> None:
    """A client that connects while the process is dead waits, and is served by the next one."""
    path = given.folder / "hold.sock"
    process = replace(given.shell(""), argv=(sys.executable, "-c", ANSWER), listen=path)
    given.supervisor.start(process)
    assert _ask(path) == b"served"
    before = given.supervisor.state("web-1").pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    until(lambda: not is_alive(before))
    assert _ask(path) == b"served"
    given.supervisor.stop("web-1")
    assert not path.exists()


def test_its_output_is_appended(given: Real) -> None:
    """Output and errors, in one log, after what an earlier run left."""
    process = replace(given.shell("echo out; echo err >&2; sleep 1000"), log=given.folder / "logs" / "log")
    process.log.parent.mkdir()
    process.log.write_text("before\n")
    given.supervisor.start(process)
    until(lambda: process.log.read_text().splitlines()[2:] == ["out", "err"])
    before, started = process.log.read_text().splitlines()[:2]
    assert (before, is_start_line(started)) == ("before", True)


def test_workers_are_their_masters_to_end(given: Real) -> None:
    """The stop signal goes to the main process alone, SIGKILL to all of them."""
    text = """
trap 'echo told >> signals; exit' TERM
(trap 'echo worker-told >> signals' TERM; while :; do sleep 0.1; done) & echo $! > worker
while :; do sleep 0.1; done
"""
    given.supervisor.start(given.shell(text))
    until(lambda: (given.folder / "worker").exists() and (given.folder / "worker").read_text().strip())
    worker = int((given.folder / "worker").read_text())
    given.supervisor.stop("web-1")
    assert (given.folder / "signals").read_text().splitlines() == ["told"]
    assert not is_alive(worker)


def test_another_signal_may_be_wanted(given: Real) -> None:
    """gunicorn's quick end is a SIGQUIT."""
    traps = "trap 'echo quit > signal; exit' QUIT; trap 'echo term > signal; exit' TERM"
    text = f"{traps}; touch up; while :; do sleep 0.1; done"
    given.supervisor.start(replace(given.shell(text), stop_signal="SIGQUIT"))
    until((given.folder / "up").exists)
    given.supervisor.stop("web-1")
    assert (given.folder / "signal").read_text() == "quit\n"


def test_one_that_does_not_end_is_killed(given: Real) -> None:
    """After its own patience and not before."""
    process = replace(given.shell("trap '' TERM; touch up; while :; do sleep 0.1; done"), stop_seconds=1.0)
    given.supervisor.start(process)
    until((given.folder / "up").exists)
    begun = time.monotonic()
    given.supervisor.stop("web-1")
    assert 0.9 <= time.monotonic() - begun < 10


@pytest.mark.parametrize("given", [kind for kind in KINDS if kind != "embedded"], indirect=True)
def test_one_with_a_schedule_runs_when_it_is_due(given: Real) -> None:
    """At the minute, once; a run may go on after its timer was stopped."""
    due = datetime.now().astimezone() + timedelta(seconds=62 - datetime.now().astimezone().second)
    process = replace(
        given.shell("echo run >> runs; sleep 2; echo end >> runs", "timer-1-mail"),
        schedule=f"{due.minute} {due.hour} * * *",
        drain_seconds=20.0,
    )
    given.supervisor.start(process)
    deadline = time.monotonic() + 75
    while not (given.folder / "runs").exists():
        assert time.monotonic() < deadline, "it never ran"
        time.sleep(0.1)
    assert given.supervisor.state("timer-1-mail").phase is Phase.RUNNING
    given.supervisor.stop("timer-1-mail")
    assert (given.folder / "runs").read_text().splitlines() == ["run", "end"]
    assert given.supervisor.names() == ()


def _crash(given: Real, name: str) -> None:
    pid = given.supervisor.state(name).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def _ask(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        return client.recv(100)
