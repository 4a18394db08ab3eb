"""What cannot go live does not: the old release serves on, nothing is left, and it is said plainly what happened."""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import pytest

import workshop
from bulletproof.demo.traffic import Load, Traffic
from free_ports import free_port
from live_app import LASTING, LiveApp, branch, breaks_only_live, new_app

pytestmark = [pytest.mark.xdist_group("undo"), pytest.mark.timeout(600)]


@dataclass(frozen=True, slots=True)
class Broken:
    """A release with a mishap, and what has to be said of it."""

    tag: str
    reference: str
    log: str = ""
    """What of the release's own words has to be on the screen."""
    is_slow: bool = False
    """Whether nothing but the gate's deadline tells that it is broken."""

    def __str__(self) -> str:
        return self.tag


_BROKEN = (
    Broken("missing-dependency", "dependencies-failed", "datacharted-missing-dependency"),
    Broken("import-error", "crashed-at-boot", "cannot import name 'pie_slices'"),
    Broken("crash-at-boot", "crashed-at-boot", "REPORTS_FOLDER is not set"),
    Broken("answers-500", "health-gate-failed", "This release answers every request with an error.", is_slow=True),
    Broken("never-listens", "health-gate-failed", "Booting worker", is_slow=True),
    Broken("too-slow", "health-gate-failed", "Booting worker", is_slow=True),
    Broken("ignores-sigterm", "health-gate-failed", "This release answers every request with an error.", is_slow=True),
    Broken("fills-disk", "crashed-at-boot", "No space left on device"),
)


@pytest.fixture(scope="module")
def live(make_lasting_app: Callable[[str], LiveApp]) -> LiveApp:
    """An app with v2 live."""
    app = make_lasting_app("undo")
    app.deploy("v1")
    # Nobody waits longer at the gate for a broken release than a few times what a good one needs on this machine.
    _PATIENCE["deadline_seconds"] = max(4, round(4 * app.deploy("v2").seconds("gate")))
    return app


_PATIENCE = {"deadline_seconds": 20, "timeout_seconds": 2}


@pytest.fixture(scope="module")
def traffic(live: LiveApp) -> Iterator[Traffic]:
    """Reads and writes without a pause, through all tests of a module."""
    with live.under_load(LASTING) as traffic:
        yield traffic


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything of an app that a deployment may not change when it comes to nothing."""

    serving: object
    number: object
    releases: frozenset[str]
    numbers: dict[str, set[int]]
    settings: str
    current: Path

    @classmethod
    def of(cls, app: LiveApp) -> Picture:
        """As it is now."""
        status = app.status()
        return cls(
            serving=status["serving"],
            number=status["deployment"],
            releases=frozenset(app.releases()),
            numbers=app.numbers(),
            settings=app.layout.environment.read_text(),
            current=app.layout.current.resolve(),
        )


@pytest.mark.parametrize("broken", _BROKEN, ids=str)
def test_a_broken_release_is_undone_under_load(live: LiveApp, traffic: Traffic, broken: Broken) -> None:
    """Exit 3 and plain words; no request fails, the old release serves, and nothing of the new one is left."""
    before, version, since = Picture.of(live), live.version(), traffic.mark()
    live.configure(health=_PATIENCE if broken.is_slow else {})
    done = live.run("deploy", broken.tag)
    (live.layout.data / "datacharted-junk.bin").unlink(missing_ok=True)  # the app's own, which nobody else may remove
    report = traffic.report(since)

    assert done.status == 3, done
    assert f"\nerror: {broken.reference}\n" in done.err
    assert broken.log in done.err
    assert f"\n  everything was undone; {before.serving} serves at {live.address}\n" in done.err
    assert re.search(r"^hint: \S+", done.err, re.MULTILINE)
    assert report.failed == 0, report.failures
    assert set(report.versions) == {version}
    assert Picture.of(live) == before
    assert not live.leftovers()
    assert live.history()[-1].items() >= {"outcome": "undone", "live": False}.items()


def test_the_last_event_tells_the_same(live: LiveApp, traffic: Traffic) -> None:
    """With --json the outcome names the error, what serves and the last lines of the release's log."""
    serving = live.status()["serving"]
    live.configure()
    done = live.change("deploy", "crash-at-boot").must(3, "undone")

    assert done.last.items() >= {"serving": serving, "address": live.address}.items()
    error = done.last["error"]
    assert isinstance(error, dict)
    assert error["reference"] == "crashed-at-boot"
    assert any("REPORTS_FOLDER" in line for line in error["context"])
    assert error["hint"] == f"bulletproof logs {done.release}"
    assert "REPORTS_FOLDER" in live.run("logs", done.release, status=0).out
    assert done.steps("step-undone")[-3:] == ["settings", "build", "fetch"]
    assert traffic.pid


def test_a_release_that_breaks_only_beside_the_live_one_is_undone(live: LiveApp, traffic: Traffic) -> None:
    """What its rehearsal could not see is seen at the gate: its instance is stopped, and the old one serves on."""
    before, since = Picture.of(live), traffic.mark()
    workshop.git(live.folder, "checkout", "--quiet", "--force", "v2")
    live.configure()
    done = live.change("deploy", breaks_only_live(live)).must(3, "undone")

    assert done.reference == "crashed-at-boot"
    assert "Broken only where it is live." in live.run("logs", done.release, status=0).out
    assert "start" in done.steps("step-undone")
    assert traffic.report(since).failed == 0
    assert Picture.of(live) == before
    assert not live.leftovers()


def test_a_release_that_ignores_sigterm_is_replaced_all_the_same(live: LiveApp, traffic: Traffic) -> None:
    """A good release whose workers only SIGKILL ends goes live, and is replaced, without a failed request."""
    since = traffic.mark()
    live.configure()
    live.deploy("stubborn")
    release = live.deploy("v2").release
    report = traffic.report(since)

    assert report.failed == 0, report.failures
    assert {"stubborn", "v2"} <= set(report.versions)
    assert live.status()["serving"] == release
    assert live.numbers()["processes"] == {live.status()["deployment"]}


def test_the_corrected_release_deploys_without_a_person(live: LiveApp, traffic: Traffic) -> None:
    """After a deployment that was undone, the next commit with the correction goes live by `deploy` alone."""
    live.configure()
    workshop.git(live.folder, "checkout", "--quiet", "--force", "import-error")
    live.configure()
    live.change("deploy").must(3, "undone")
    workshop.git(live.folder, "checkout", "--quiet", "v2", "--", "app/pages.py")
    workshop.commit(live.folder, {}, "Import what there is")
    since = traffic.mark()
    live.deploy()

    assert live.version() == "import-error"  # what the corrected release calls itself
    assert traffic.report(since).failed == 0


@pytest.mark.parametrize(
    ("number", "step"),
    [(signal.SIGINT, "build"), (signal.SIGTERM, "build"), (signal.SIGHUP, "schema"), (signal.SIGINT, "gate"),
     (signal.SIGTERM, "gate")],
)  # fmt: skip
def test_an_interrupted_deployment_is_undone(
    live: LiveApp, traffic: Traffic, number: signal.Signals, step: str
) -> None:
    """Ctrl-C in a terminal, SIGTERM and a lost terminal undo what was begun: exit 3, the old release serves."""
    before, since = Picture.of(live), traffic.mark()
    live.configure()
    with live.begun("deploy", "v1") as command:
        assert command.read_until("step-started", step)
        if number is signal.SIGINT:
            os.killpg(command.process.pid, number)  # as a terminal does it: to all that run in it
        else:
            command.send(number)
        done = command.end()

    assert done.must(3, "undone").reference == "interrupted", done
    assert number.name in str(done.last["error"])
    assert traffic.report(since).failed == 0
    assert Picture.of(live) == before
    assert not live.leftovers()


def test_a_second_interrupt_does_not_disturb_the_undo(live: LiveApp, traffic: Traffic) -> None:
    """Whoever presses Ctrl-C again and again gets the same whole host."""
    before = Picture.of(live)
    live.configure()
    with live.begun("deploy", breaks_only_live(live, "time.sleep(60)")) as command:
        assert command.read_until("step-started", "gate")
        command.send(signal.SIGINT)
        assert command.read_until("step-failed", "gate")
        for _ in range(5):
            os.killpg(command.process.pid, signal.SIGINT)
        done = command.end()

    done.must(3, "undone")
    assert Picture.of(live) == before
    assert traffic.pid


# --- refused before anything


def test_too_little_disk_is_refused(live: LiveApp) -> None:
    """Exit 1: nothing was touched, and it is said what is required and where that is written."""
    before = Picture.of(live)
    live.configure(require={"free_disk_mib": 1 << 29})
    done = live.run("deploy", "v1")

    assert done.status == 1, done
    assert "error: disk-low" in done.err
    assert "free_disk_mib" in done.err
    assert f"nothing was changed; {before.serving} serves" in done.err
    assert live.history()[-1]["outcome"] == "refused"
    assert Picture.of(live) == before


def test_a_setting_that_the_live_release_runs_with_may_not_be_missing(live: LiveApp) -> None:
    """Exit 1 with the setting's name and the command that sets it, before anything is built."""
    before, kept = Picture.of(live), live.layout.environment.read_text()
    live.configure()
    live.layout.environment.write_text("{}")
    try:
        done = live.run("deploy", "v1")
    finally:
        live.layout.environment.write_text(kept)

    assert done.status == 1, done
    assert "error: settings-missing" in done.err
    assert "hint: bulletproof env set SECRET_KEY=" in done.err
    assert Picture.of(live) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name = "{name}"\n\n[app]\n  wrokers = 3\n', r"bulletproof\.toml:4:3: .*wrokers"),
        ('name = "{name}"\n[app]\nworkers = "3"\n', r"bulletproof\.toml:3:11: .*workers"),
    ],
)
def test_a_wrong_configuration_is_refused_with_its_place(live: LiveApp, text: str, words: str) -> None:
    """Exit 2 with file, line and column of an unknown key or a wrong type; no deployment is begun."""
    count = len(live.history())
    (live.folder / "bulletproof.toml").write_text(text.format(name=live.name))
    done = live.run("deploy", "v1")
    live.configure()

    assert done.status == 2, done
    assert re.search(words, done.err), done.err
    assert len(live.history()) == count


def test_a_revision_that_does_not_exist_is_refused(live: LiveApp) -> None:
    """Exit 2: git knows no such commit, and no deployment is begun."""
    count = len(live.history())
    done = live.run("deploy", "no-such-tag")

    assert done.status == 2, done
    assert "no-such-tag" in done.err
    assert len(live.history()) == count


# --- nothing serves yet


@pytest.fixture(scope="module")
def new(make_lasting_app: Callable[[str], LiveApp]) -> LiveApp:
    """An app of which nothing is live before the first of these tests."""
    return make_lasting_app("new")


def _live_release(app: LiveApp) -> object:
    """What is live; v1 goes live first when nothing is."""
    return app.status()["live"] if app.layout.journal.exists() else app.deploy("v1").release


@pytest.mark.xdist_group("undo-first")
def test_a_first_deployment_that_fails_leaves_nothing(new: LiveApp) -> None:
    """Nothing listens, nothing runs, there is no database; then the good release deploys, and only it was ever live."""
    new.configure(health={"deadline_seconds": 6})
    for tag in ("missing-dependency", "crash-at-boot", "answers-500"):
        done = new.run("deploy", tag)

        assert done.status == 3, done
        assert "everything was undone; nothing serves" in done.err
        assert re.search(r"^hint: \S+", done.err, re.MULTILINE), done.err
        assert not new.processes()
        assert not new.layout.port.exists() or not new.is_listening()
        assert not new.database.exists()
        assert not new.releases()
        assert not new.layout.environment.exists()
        assert not new.leftovers()
        assert new.numbers() == {"processes": set(), "sockets": set(), "settings": set()}

    assert new.run("start").status == 2
    new.configure()
    release = new.deploy("v1").release
    assert new.version() == "v1"
    assert [one["release"] for one in new.history() if one["live"]] == [release]


@pytest.mark.xdist_group("undo-first")
def test_what_was_rejected_never_serves_after_a_stop(new: LiveApp) -> None:
    """A stop and a start after a deployment that was undone bring back what served before it."""
    release = _live_release(new)
    new.change("deploy", "crash-at-boot").must(3, "undone")
    new.run("stop", status=0)
    assert not new.is_listening()
    assert not new.processes()
    new.run("start", status=0)

    assert new.status()["serving"] == release
    assert new.version() == "v1"


_FAILS_BEHIND_A_PROXY = """\

healthy = app.wsgi_app
app.wsgi_app = lambda environ, respond: healthy(environ, respond) if "HTTP_VIA" not in environ else 1 / 0
"""


@pytest.mark.xdist_group("undo-first")
def test_a_release_that_fails_behind_the_proxy_is_undone(new: LiveApp) -> None:
    """Healthy at the gate but not through the proxy: exit 3, and requests go to the old release again."""
    before = _live_release(new)
    picture = Picture.of(new)
    source = (new.folder / "run.py").read_text()
    done = new.change("deploy", branch(new, {"run.py": source + _FAILS_BEHIND_A_PROXY})).must(3, "undone")

    assert done.reference == "not-verified"
    assert "ZeroDivisionError" in str(done.last["error"])
    assert done.last["serving"] == before
    assert done.steps("step-undone")[:3] == ["cutover", "proxy", "start"]
    assert Picture.of(new) == picture
    assert new.version() == "v1"


# --- the disk fills up


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of its own that is full soon."""
    with workshop.small_disk(mebibytes=400) as folder:
        yield folder


def _fill(folder: Path, *, leave_bytes: int) -> Path:
    """Take all of the disk but a rest."""
    ballast = folder / "ballast"
    found = os.statvfs(folder)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, found.f_bavail * found.f_frsize - leave_bytes))
    return ballast


@pytest.mark.root
@pytest.mark.xdist_group("undo-disk")
def test_a_full_disk_undoes_a_deployment(small_disk: Path, project: Path) -> None:
    """Full while it builds or while the new release boots: exit 3, words, the old one serves; with space it goes on."""
    app = new_app(small_disk / "root", project, "disk-full", port=free_port())
    try:
        app.deploy("v1")
        before = Picture.of(app)
        reads = Load(clients=2, rate=20, slow_clients=0, write_share=0.0)
        with Traffic.start(app.address, Path(tempfile.gettempdir()), reads) as traffic:
            ballast = _fill(small_disk, leave_bytes=6 << 20)
            built = app.run("deploy", "v2")
            assert built.status == 3, built
            assert "the disk is full" in built.err
            assert f"{before.serving} serves at {app.address}" in built.err
            assert Picture.of(app) == before
            assert not app.leftovers()

            ballast.unlink()
            booted = app.change("deploy", "fills-disk").must(3, "undone")
            assert booted.reference in {"crashed-at-boot", "disk-full"}, booted
            assert Picture.of(app) == before
            (app.layout.data / "datacharted-junk.bin").unlink(missing_ok=True)  # what a rehearsal left is gone already

            app.deploy("v2")
            report = traffic.report(traffic.began)
        traffic.path.unlink()
        traffic.path.with_suffix(".err").unlink()
        assert report.failed == 0, report.failures
        assert app.ask()[0] == HTTPStatus.OK
        assert app.version() == "v2"
        assert json.loads(app.layout.environment.read_text())
    finally:
        app.end()
