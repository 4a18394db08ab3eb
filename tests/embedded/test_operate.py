"""What a person is told who types the wrong thing, asks too early, or comes second."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest

from bulletproof.effects import lock
from live_app import LiveApp, new_app

pytestmark = [pytest.mark.xdist_group("operate"), pytest.mark.timeout(600)]

_CANARY = "c4n4ry-in-no-argv"


@pytest.fixture(scope="module")
def app(make_lasting_app: Callable[[str], LiveApp]) -> LiveApp:
    """An app with v1 live."""
    app = make_lasting_app("operate")
    app.deploy("v1")
    return app


@pytest.mark.xdist_group("ports")
def test_a_chosen_port_is_told_and_kept(house: Path, project: Path) -> None:
    """Without a wish a free port is chosen, another one when it is taken before anybody was told; then it stays."""
    app = new_app(house / "root", project, "chosen-port")
    try:
        with app.begun("deploy", "v1") as first:
            assert first.read_until("step-started", "build")
            taken = int(app.layout.port.read_text())
            with socket.create_server(("127.0.0.1", taken)):
                told = first.end().must(0, "deployed").last["address"]
        assert told == app.address != f"http://127.0.0.1:{taken}"
        app.run("stop", status=0)
        assert f"serving at {told}\n" in app.run("start", status=0).err
        assert app.version() == "v1"
    finally:
        app.end()


def test_an_unknown_verb_gets_a_suggestion(app: LiveApp) -> None:
    """A typo is a usage error that names the verb that was meant."""
    done = app.run("deplyo")

    assert done.status == 2
    assert "No such command 'deplyo'. Did you mean 'deploy'?" in done.err


@pytest.mark.parametrize("verb", ["status", "releases", "logs", "rollback", "restart", "start"])
def test_what_was_never_deployed_has_nothing_to_tell(make_app: Callable[[str], LiveApp], verb: str) -> None:
    """Each verb says so, exits with 2 and names the command that begins; nothing is started for it."""
    never = make_app("never")
    done = never.run(verb)

    assert done.status == 2, done
    assert "error: nothing-deployed" in done.err
    assert "hint: bulletproof deploy" in done.err
    assert not never.processes()


def test_no_earlier_release_to_roll_back_to(app: LiveApp) -> None:
    """With one release only, a rollback is refused in words, and that release serves on."""
    done = app.run("rollback")

    assert done.status == 2
    assert "error: no-earlier-release" in done.err
    assert app.version() == "v1"


def test_who_comes_second_is_told_of_the_first(app: LiveApp) -> None:
    """Exit 5 with the verb, the deployment, the person, the process and the step of who holds the lock."""
    number = len(app.history()) + 1
    with app.begun("deploy", "v1") as first:
        assert first.read_until("step-started", "gate")
        second = app.change("deploy", "v2").must(5, "refused")
        held = app.status()["lock"]
        first.end().must(0, "deployed")

    error = second.last["error"]
    assert isinstance(error, dict)
    assert error["reference"] == "lock-held"
    for told in (error["message"], held):
        assert re.search(
            rf"`deploy` of deployment {number} by {lock.user_name()} \(pid {first.process.pid}\), at step \w+",
            str(told),
        )
    assert "--wait" in error["hint"]
    assert app.version() == "v1"
    assert app.status()["lock"] is None


def test_a_note_of_somebody_who_died_when_all_was_done_is_nothing(app: LiveApp) -> None:
    """Killed between the last record and the release: nobody holds the lock, and the next command takes it."""
    dead = lock.Holder(verb="deploy", pid=1 << 22, user="ann", started_at="", deployment=1, step="gate")
    app.layout.lock.write_bytes(msgspec.json.encode(dead) + b"\n")

    assert lock.peek(app.layout.lock) == dead
    assert app.status()["lock"] is None
    assert "lock" not in app.run("status", status=0).out
    app.run("restart", status=0)
    assert lock.peek(app.layout.lock) is None


def test_who_waits_deploys_after_the_first(app: LiveApp) -> None:
    """With --wait the second deployment begins when the first has ended, and both are live one after the other."""
    with app.begun("deploy", "v1") as first:
        assert first.read_until("step-started", "build")
        with app.begun("deploy", "v2", "--wait", "120") as second:
            earlier = first.end().must(0, "deployed")
            later = second.end().must(0, "deployed")

    assert later.events[0]["previous"] == earlier.release
    assert app.version() == "v2"


def test_waiting_has_an_end(app: LiveApp) -> None:
    """Whoever waits in vain exits with 5, and not before the time is over."""
    with app.begun("deploy", "v1") as first:
        assert first.read_until("step-started", "fetch")
        begun = time.monotonic()
        app.change("restart", "--wait", "0.5").must(5, "refused")
        assert time.monotonic() - begun >= 0.5
        first.end().must(0)


def test_a_setting_stands_in_no_command_line_while_it_is_changed(app: LiveApp) -> None:
    """Read from standard input, a value is never seen by those who list the processes, on its whole way to the app."""
    seen: list[str] = []
    with app.begun("env", "set", "TOKEN=-", stdin=f"{_CANARY}\n") as change:
        while change.process.poll() is None:
            seen += [" ".join(one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"])]
            time.sleep(0.05)
        done = change.end().must(0, "deployed")

    assert any("--root" in line and "gunicorn" not in line for line in seen)
    assert not [line for line in seen if _CANARY in line]
    assert _CANARY not in done.out + done.err
    web = psutil.Process(app.pid_of(f"web-{app.status()['deployment']}"))
    assert web.environ()["TOKEN"] == _CANARY
    assert not [path for path in app.root.rglob("*.log*") if _CANARY.encode() in path.read_bytes()]
    known = [path for path in app.layout.state.rglob("*") if path.is_file() and _CANARY.encode() in path.read_bytes()]
    assert {path.parent for path in known} == {app.layout.frozen_settings}
