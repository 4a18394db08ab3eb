"""`plan` tells what a deployment would do, and writes nothing: no file of app, project and host is other afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from bulletproof.domain.report import Report
from bulletproof.effects.isolation import why_no_namespaces
from live_app import Done, LiveApp

pytestmark = [
    pytest.mark.skipif(
        bool(why_no_namespaces()), reason=f"the kernel lets this user make no cell: {why_no_namespaces()}"
    ),
    pytest.mark.xdist_group("plan"),
]

MakeApp = Callable[[str], LiveApp]
Facts = dict[str, object]


@pytest.fixture(scope="module")
def app(make_lasting_app: MakeApp) -> LiveApp:
    """An app that serves v2, with two charts of one title in its database, and nobody who asks it anything."""
    app = make_lasting_app("plan")
    app.deploy("v2")
    with closing(sqlite3.connect(app.database)) as connection, connection:
        connection.execute("INSERT INTO user (username, password_hash) VALUES ('ada', 'x')")
        connection.executemany(
            "INSERT INTO chart (owner_id, title, numbers, created)"
            " VALUES (1, ?, '[1, 2]', '2026-01-02 03:04:05.000006')",
            [("Tea",), ("Tea",)],
        )
    return app


@pytest.fixture
def unwritten(app: LiveApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of the host and the project may be other at the end, and nothing be left of what was made."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = everything(app)
    assert len(before) > 1000
    yield
    after = everything(app)
    assert {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)} == set()
    assert not list(tmp_path.iterdir())


def everything(app: LiveApp) -> dict[str, tuple[int, int, str]]:
    """Mode, time of the last change and content of every file and folder, but of logs that running processes write."""
    places = (app.root, app.folder)
    paths = (
        Path(folder, name) for place in places for folder, names, files in os.walk(place) for name in [*names, *files]
    )
    return {str(path): _fingerprint(path) for path in paths if app.layout.logs not in path.parents}


def _fingerprint(path: Path) -> tuple[int, int, str]:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        content = str(path.readlink())
    else:
        content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(found.st_mode) else ""
    return found.st_mode, found.st_mtime_ns, content


def planned(done: Done, status: int) -> tuple[Facts, Report]:
    """What `plan --json` told."""
    assert done.status == status, f"{done.out}\n{done.err}"
    facts = json.loads(done.out)
    return facts, msgspec.convert(facts["report"], Report)


@pytest.mark.usefixtures("unwritten")
def test_a_migration_is_told_with_all_that_it_does(app: LiveApp) -> None:
    """v2 to v3: what would be run, the schema before and after, rows, times, and that the code alone leads back."""
    facts, report = planned(app.run("plan", "v3", "--json"), 0)

    assert facts.items() >= {"would": "deploy", "error": None, "losses": [], "app": app.name}.items()
    assert facts["serving"] == report.previous
    assert report.release.split("-")[0] == str(int(report.previous.split("-")[0]) + 1)
    assert (report.is_migrating, report.migrates_at_boot) == (True, False)
    assert [pending.split()[0] for pending in report.pending] == ["0002"]
    assert report.command == "flask db upgrade"
    assert [change.words for change in report.changes] == ["adds column chart.points INTEGER NOT NULL DEFAULT '0'"]
    assert {count.name: (count.before, count.after) for count in report.rows} == {
        "alembic_version": (1, 1),
        "chart": (2, 2),
        "user": (1, 1),
    }
    assert (report.nulls, report.packages, report.missing_settings) == ((), (), ())
    assert (report.rollback, report.rollback_words) == ("code", "code alone, rehearsed")
    assert report.health == "/up healthy 3 times in a row"
    assert report.times.migrate > 0
    assert report.times.boot > 0
    assert facts["hold_seconds"] == pytest.approx(report.times.hold, abs=0.001)


@pytest.mark.usefixtures("unwritten")
def test_what_would_be_lost_is_counted_and_refused(app: LiveApp) -> None:
    """v2 to destructive: the values that are gone are counted, and the flag that a deployment needs is named."""
    facts, report = planned(app.run("plan", "destructive", "--json"), 1)
    error = facts["error"]

    assert isinstance(error, dict)
    assert (facts["would"], facts["step"], error["reference"]) == ("refuse", "rehearse", "data-loss")
    assert "--allow-data-loss" in error["hint"]
    assert facts["losses"] == ["drops column chart.created: 2 non-null values"]
    assert len(report.pending) == 4
    assert report.rollback == "restore"
    assert planned(app.run("plan", "destructive", "--allow-data-loss", "--json"), 0)[0]["would"] == "deploy"


@pytest.mark.usefixtures("unwritten")
def test_a_migration_that_fails_is_a_finding(app: LiveApp) -> None:
    """What was found until it failed is told, then why it failed, with the tool's own words."""
    facts, report = planned(app.run("plan", "migration-fails", "--json"), 1)
    error = facts["error"]

    assert isinstance(error, dict)
    assert (facts["step"], error["reference"]) == ("rehearse", "migration-failed")
    assert error["context"]
    assert report.copy_bytes > 0
    assert report.pending
    assert (report.changes, report.health) == ((), "")


@pytest.mark.usefixtures("unwritten")
def test_the_text_fits_and_says_the_same(app: LiveApp) -> None:
    """A headline that says how it would end, then sections, none wider than a terminal; the error is talk."""
    good, bad = app.run("plan", "v3", status=0), app.run("plan", "destructive", status=1)

    assert good.out.splitlines()[0].startswith("would deploy ")
    assert "a migration, requests would wait about" in " ".join(good.out.split())
    assert "adds column chart.points" in good.out
    assert (good.err, max(map(len, good.out.splitlines())) <= 100) == ("", True)
    assert bad.out.splitlines()[0] == "would be refused at its step rehearse: data-loss"
    assert "drops column chart.created: 2 non-null values" in bad.out
    assert bad.err.startswith("error: data-loss\n")
    assert "--allow-data-loss" in bad.err


@pytest.mark.usefixtures("unwritten")
def test_a_plan_beside_a_deployment_is_refused(app: LiveApp) -> None:
    """While somebody alive holds the lock nobody knows what will be live: exit 5, and who holds it."""
    with held_lock(app):
        done = app.run("plan", "v3", "--json", status=5)

    assert done.reference == "lock-held"
    assert "`deploy`" in done.out


@contextlib.contextmanager
def held_lock(app: LiveApp) -> Iterator[None]:
    """The deployment lock held and noted by this process, without a write that lasts."""
    with app.layout.lock.open("r+b") as lock:
        before = app.layout.lock.stat()
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(
            json.dumps(
                {
                    "verb": "deploy",
                    "pid": os.getpid(),
                    "user": "ada",
                    "started_at": "2026-01-02T03:04:05+00:00",
                    "deployment": 2,
                    "step": "hold",
                }
            ).encode()
            + b"\n"
        )
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)
            lock.flush()
            os.utime(app.layout.lock, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.usefixtures("unwritten")
def test_code_alone_is_told_to_wait_for_nobody(app: LiveApp) -> None:
    """The release that serves, planned again: no migration, no package that is other, and no hold."""
    facts, report = planned(app.run("plan", "v2", "--json"), 0)

    assert (facts["hold_seconds"], report.is_migrating, report.pending, report.changes) == (0.0, False, (), ())
    assert report.packages == ()
    assert report.rollback_words == "code alone"


def test_packages_and_a_worktree(app: LiveApp) -> None:
    """Of files as they lie there, a package that is new is told with its version."""
    requirements = app.folder / "requirements.txt"
    before = requirements.read_text()
    requirements.write_text(before + "iniconfig\n")
    try:
        _, report = planned(app.run("plan", "--worktree", "--json"), 0)
    finally:
        requirements.write_text(before)

    assert [(one.name, one.before) for one in report.packages] == [("iniconfig", "")]
    assert report.packages[0].after[0].isdigit()
    assert report.release.endswith("-worktre")


def test_the_database_of_a_stopped_app_stays_as_it_is(app: LiveApp, request: pytest.FixtureRequest) -> None:
    """Nobody has it open: SQLite would lay a -wal and a -shm beside it; and nobody waits, since nothing serves."""
    app.run("stop", status=0)
    request.getfixturevalue("unwritten")

    facts, report = planned(app.run("plan", "v3", "--json"), 0)

    assert (facts["serving"], facts["hold_seconds"], report.is_migrating) == (None, 0.0, True)
    assert report.times.hold > 0


def test_a_first_deployment(make_app: MakeApp) -> None:
    """Nothing is there yet, not even a folder, and nothing is afterwards."""
    app = make_app("first")
    facts, report = planned(app.run("plan", "v2", "--json"), 0)

    assert (report.release.split("-")[0], report.previous, facts["serving"]) == ("1", "", None)
    assert not app.layout.state.exists()
    assert not app.layout.home.exists()
    assert not app.layout.data.exists()
