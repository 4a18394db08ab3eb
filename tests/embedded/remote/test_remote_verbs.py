"""Over SSH every verb does and says what it does and says on the host."""

from __future__ import annotations

import json
import os
import pty
import secrets
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import psutil
import pytest

from embedded.places import until
from live_app import LIGHT
from remote_host import FarApp

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("remote")]


def test_a_deployment_and_a_rollback_drop_and_lose_nothing(app: FarApp) -> None:
    """Under load, over SSH: the same events, outcome and exit code as here; no failed request, no lost write."""
    before = app.here.status()["serving"]
    with app.here.under_load(LIGHT):
        deployed = app.deploy("v1")
        back = app.change("rollback").must(0, "deployed")

    assert deployed.steps("step-done")[:3] == ["preflight", "fetch", "build"]
    assert back.release == before
    assert app.version() == "v2"


def test_it_is_shown_step_by_step_to_people(app: FarApp) -> None:
    """Data on stdout, talk on stderr, on this side as on that."""
    done = app.run("restart", status=0)

    assert done.out == ""
    assert f"restarting {app.name}" in done.err
    assert "healthy 3 times in a row" in done.err
    assert "serving at http://127.0.0.1:" in done.err


def test_what_fails_there_is_told_here(app: FarApp) -> None:
    """Undone, with its exit code, and a hint that names the host."""
    done = app.run("deploy", "crash-at-boot")

    assert done.status == 3, done
    assert "everything was undone" in done.err
    assert "bulletproof --to far" in done.err
    assert app.version() == "v2"


def test_reading_verbs_say_what_they_say_there(app: FarApp) -> None:
    """status, releases, logs and env list have the same output as on the host."""
    for words in (("releases", "--json"), ("env", "list"), ("logs", "-n", "3")):
        assert app.run(*words, status=0).out == app.here.run(*words, status=0).out
    assert json.loads(app.run("status", "--json").out)["serving"] == app.here.status()["serving"]


def test_the_first_deployment_takes_the_settings_along(app: FarApp) -> None:
    """The project's .env comes with the bundle, as it is read here."""
    assert "SECRET_KEY" in app.run("env", "list").out.split()


def test_values_of_settings_stand_in_no_process_list(app: FarApp) -> None:
    """They go by standard input: no shell of the host is given them as words."""
    secret = f"hush {secrets.token_hex(8)} '\"$HOME"
    app.run("env", "set", f"TOKEN={secret}", "OTHER=-", stdin="from-stdin\n", status=0)
    there = app.run("run", "--", "python", "-c", "import os; print(os.environ['TOKEN'], os.environ['OTHER'])", status=0)

    assert there.out == f"{secret} from-stdin\n"
    assert app.host is not None
    assert "env set" in app.host.commands()
    assert "hush" not in app.host.commands()
    assert "from-stdin" not in app.host.commands().replace("--from-stdin", "")


def test_run_has_the_words_the_input_and_the_exit_code(app: FarApp) -> None:
    """No shell changes a word on the way; what is piped in here is read there."""
    words = ["a b", "$HOME", "*", "'", '"', "a\nb", "--json", ";", "`id`"]
    code = "import sys; print(sys.argv[1:], sys.stdin.read()); sys.exit(7)"
    done = app.run("run", "--", "python", "-c", code, *words, stdin="piped")

    assert done.status == 7
    assert done.out == f"{words} piped\n"


def test_run_has_a_terminal_where_we_are_in_one(app: FarApp) -> None:
    """A shell or a debugger there finds the person's terminal."""
    code = "import sys; print('terminal', sys.stdin.isatty(), sys.stdout.isatty())"
    main, side = pty.openpty()
    argv = app.argv("run", "--", "python", "-c", code)
    with subprocess.Popen(argv, cwd=app.folder, stdin=side, stdout=side, stderr=side, start_new_session=True) as client:
        os.close(side)
        said = b""
        try:
            while chunk := os.read(main, 1000):
                said += chunk
        except OSError:  # so a terminal tells that its other end is gone
            pass
        assert client.wait(60) == 0, said
    os.close(main)

    assert b"terminal True True" in said


def test_logs_are_followed_and_nothing_stays_behind(app: FarApp) -> None:
    """Each new line comes over; when nobody reads any more, the process there ends, without a line to write."""
    argv = app.argv("logs", "-f", "-n", "0", "--access")
    with subprocess.Popen(argv, cwd=app.folder, stdout=subprocess.PIPE, text=True) as client, ended(client):
        lines = client.stdout
        assert lines is not None

        def followers() -> list[psutil.Process]:
            return [one for one in app.processes() if "--access" in _words(one)]

        until(lambda: any("-P" not in _words(one) for one in followers()), "nobody follows there")
        until(lambda: bool(app.ask("/up?followed")) and _is_readable(lines), "no line came")
        assert any("/up?followed" in line for line in lines)
        client.send_signal(signal.SIGINT)
        client.wait(30)

    until(lambda: not followers(), "something still follows on the host")


@contextmanager
def ended(client: subprocess.Popen[str]) -> Iterator[None]:
    """It is ended when a test fails in the middle."""
    try:
        yield
    finally:
        client.kill()


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def _is_readable(stream: IO[str]) -> bool:
    return bool(select.select([stream], [], [], 0.3)[0])


def test_destroy_asks_here_and_needs_a_terminal_for_it(app: FarApp) -> None:
    """Nobody is asked where nobody is; nothing is removed."""
    done = app.run("destroy")

    assert done.status == 2
    assert "without a terminal, destroy wants --yes" in done.err
    assert app.version() == "v2"
