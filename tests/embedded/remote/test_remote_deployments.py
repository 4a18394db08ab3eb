"""A deployment belongs to its host, whatever becomes of the connection of who asked for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bulletproof.cli.client import Client, as_word
from bulletproof.demo.traffic import Traffic
from bulletproof.domain.config import AppConfig
from bulletproof.domain.errand import CLIENT
from bulletproof.effects import lock
from bulletproof.effects.bundle import Bundle, pack
from bulletproof.effects.source import resolve
from bulletproof.engine.journal import Journal
from embedded.places import until
from live_app import LASTING, Done, LiveApp
from remote_host import ENGINE, FarApp

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("remote")]


_MOMENTS = tuple(
    zip(
        ("preflight", "settings", "schema", "rehearse", "start"),
        ("gate", "cutover", "verify", "drain", "prune"),
        strict=True,
    )
)
"""Steps of a restart: at the first the connection of who asked for it is cut, at the second that of who attached."""


def _last(app: LiveApp) -> int:
    with closing(app.journal()) as journal:
        return journal.entries()[-1].deployment.number


def _wait_for_end(app: LiveApp, number: int) -> str:
    """How deployment `number` ended, once it has."""

    def outcome() -> str | None:
        with closing(app.journal()) as journal:
            return next(
                (str(e.outcome) for e in journal.entries() if e.deployment.number == number and e.outcome), None
            )

    found = until(outcome, f"deployment {number} did not end")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def traffic(app: FarApp) -> Iterator[Traffic]:
    """Reads and writes without a pause; at the end no write may be lost or doubled."""
    with app.here.under_load(LASTING) as traffic:
        yield traffic


@pytest.mark.parametrize(("first", "second"), _MOMENTS)
def test_a_deployment_goes_on_when_its_connection_is_cut(
    app: FarApp, traffic: Traffic, first: str, second: str
) -> None:
    """At any step, and twice: who watched is told so, and the host ends what it began, without a failed request."""
    before, since = _last(app), traffic.mark()
    watched = _cut_at(app, first, "restart")
    attached = _cut_at(app, second, "attach")
    outcome = _wait_for_end(app, before + 1)

    assert traffic.report(since).failed == 0
    assert (watched.status, watched.reference, watched.last["outcome"]) == (7, "connection-lost", None)
    assert (attached.status, attached.reference) == (1, "connection-lost")
    assert "bulletproof attach --to far" in str(watched.last["error"])
    assert outcome == "deployed"
    assert app.here.wait_until_whole()["serving"] == app.here.history()[-1]["release"]


def _cut_at(app: FarApp, step: str, verb: str) -> Done:
    """What the client of a verb says whose connection is cut when that step begins."""
    assert app.host is not None
    with app.begun(verb) as client:
        assert client.read_until("step-started", step), client.lines
        assert app.host.cut() > 0
        return client.end()


def _half_a_bundle(app: FarApp, scratch: Path) -> tuple[Bundle, bytes]:
    bundle = pack(resolve(app.folder, "v1"), AppConfig(name=app.name), {}, scratch)
    return bundle, bundle.file.read_bytes()[: bundle.file.stat().st_size // 2]


def test_a_bundle_that_is_cut_off_begins_nothing(app: FarApp, tmp_path: Path) -> None:
    """Half of it arrived: refused in words; no deployment, no release, nothing left in a scratch folder."""
    assert app.host is not None
    before, releases = _last(app), app.releases()
    bundle, half = _half_a_bundle(app, tmp_path)
    client = as_word(Client(version="0.1.0", host="far"))
    line = f"env {CLIENT}={client} {ENGINE}/current/bin/bulletproof --root {app.root} deploy --app {app.name}"
    argv = [*app.host.prefix, "ssh", "far", f"{line} --bundle {bundle.digest}"]
    done = subprocess.run(argv, input=half, capture_output=True, check=False, timeout=60)

    assert done.returncode == 1
    assert b"bundle-truncated" in done.stderr
    assert b"hint: bulletproof --to far deploy" in done.stderr
    assert (_last(app), app.releases()) == (before, releases)
    assert not list(Path(os.environ.get("TMPDIR") or "/var/tmp").glob(f"bulletproof-bundle-{app.name}-*"))  # noqa: S108


def test_an_interrupt_stops_watching_and_attach_shows_it_from_its_beginning(app: FarApp) -> None:
    """Ctrl-C names the two commands; the deployment is seen again, whole, and ends with its exit code."""
    before = _last(app)
    with app.begun("restart") as client:
        assert client.read_until("step-started", "settings")
        client.send(signal.SIGINT)
        stopped = client.end()
    attached = app.change("attach")

    assert stopped.status == 130
    assert "stopped watching; what was begun at far goes on" in stopped.err
    assert "bulletproof attach --to far" in stopped.err
    assert "bulletproof abort --to far" in stopped.err
    attached.must(0, "deployed")
    assert attached.events[0].items() >= {"event": "begun", "number": before + 1}.items()
    assert attached.steps("step-done")[0] == "preflight"
    assert app.change("attach", str(before)).status in {0, 3}


def test_a_detached_deployment_is_aborted_on_purpose(app: FarApp, traffic: Traffic) -> None:
    """`--detach` comes back at its begin; `abort` undoes it and `attach` ends as it ended."""
    serving, since = app.here.status()["serving"], traffic.mark()
    begun = app.run("deploy", "v1", "--detach", "--json", status=0)
    number = begun.events[0]["number"]
    aborted = app.run("abort", "--json", status=0)
    attached = app.change("attach", str(number))

    assert traffic.report(since).failed == 0
    assert begun.events == [{"event": "detached", "number": number}]
    assert json.loads(aborted.out) == {"number": number, "outcome": "undone"}
    assert (attached.status, attached.reference) == (3, "interrupted")
    assert app.here.wait_until_whole()["serving"] == serving
    assert "nothing-to-abort" in app.run("abort").err


def test_two_at_once_are_one_after_the_other(app: FarApp) -> None:
    """The second is refused with who holds the lock, or waits when told to."""
    with app.begun("restart") as first:
        assert first.read_until("step-started", "settings")
        refused = app.change("restart")
        waited = app.change("restart", "--wait", "120")
        assert first.end().status == 0

    assert (refused.status, refused.reference) == (5, "lock-held")
    assert "`restart` of deployment" in str(refused.last["error"])
    waited.must(0, "deployed")


def test_a_deployer_that_is_killed_is_told_and_taken_care_of(app: FarApp) -> None:
    """Who watched is told, and who attaches later sees the undo."""
    serving, before = app.here.status()["serving"], _last(app)
    with app.begun("restart") as client:
        assert client.read_until("step-started", "rehearse")
        journal = Journal.read(app.layout.journal)
        assert journal is not None
        journal.close()
        os.kill(_holder(app), signal.SIGKILL)
        watched = client.end()
    assert app.here.wait_until_whole()["serving"] == serving
    attached = app.change("attach", str(before + 1))

    assert (watched.status, watched.reference) == (6, "deployer-killed")
    assert attached.status == 3
    assert "taken-up" in [event["event"] for event in attached.events]
    assert "undone" in attached.err


def _holder(app: LiveApp) -> int:
    holder = lock.peek(app.layout.lock)
    assert holder is not None
    return holder.pid


# --- the same without SSH


def test_a_local_deployment_is_aborted_and_attached_as_well(app: FarApp) -> None:
    """Whoever began it, and from wherever: here the person at the host did."""
    here = app.here
    with here.begun("restart") as command:
        assert command.read_until("step-started", "rehearse")
        aborted = app.run("abort", status=0)
        ended: Done = command.end()

    assert "aborting `restart` of deployment" in aborted.err
    assert (ended.status, ended.reference) == (3, "interrupted")
    assert here.change("attach").status == 3


def test_a_local_deployment_goes_on_by_itself_when_told_to(app: FarApp) -> None:
    """`--detach` needs no SSH."""
    begun = app.here.run("restart", "--detach", status=0)
    attached = app.here.change("attach")

    assert "goes on by itself" in begun.err
    attached.must(0, "deployed")
