"""The replica of a live app: a point in time to the second, and out of the way of whatever changes the data."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bulletproof.demo.traffic import Traffic
from bulletproof.effects.isolation import why_no_namespaces
from embedded.data import ask
from embedded.places import until
from embedded.test_migrate import patient
from free_ports import free_port
from live_app import Event, LiveApp
from s3_server import KEYS

pytestmark = [
    pytest.mark.skipif(
        bool(why_no_namespaces()), reason=f"the kernel lets this user make no cell: {why_no_namespaces()}"
    ),
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("offsite"),
]

MakeApp = Callable[[str], LiveApp]
_ALLOWED_SECONDS = 2.0
"""The promise: so long before a time, what was acknowledged is in the point of that time; so long after it, nothing."""


def connect(app: LiveApp, url: str) -> str:
    """Replicate it there from the next deployment on; what was said of that."""
    return app.run("backup", "connect", url, "--continuous", status=0).err


def replicas(app: LiveApp) -> list[int]:
    """The processes that replicate its database."""
    return [one.pid for one in app.processes() if "replicate" in one.cmdline()]


def titles(file: Path) -> set[object]:
    """The charts of a database, of which each has a name of its own."""
    return {title for (title,) in ask(file, "SELECT title FROM chart")}


def now() -> str:
    """The time as a person would write it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def fetch(app: LiveApp, at: str) -> tuple[Event, Path]:
    """Get a point in time, which must be proven; what was said of it, and its database."""
    told, proof = map(json.loads, app.run("backup", "fetch", "--at", at, "--json", status=0).out.splitlines())
    assert (proof["trouble"], proof["name"]) == ("", told["name"]), proof
    return told, app.layout.backups / told["name"] / "database.db"


def pass_a_point(traffic: Traffic) -> tuple[str, frozenset[str], frozenset[str]]:
    """Let time pass; a time, what was acknowledged well before it, and what was not even sent until well after it."""
    time.sleep(1)
    before = traffic.acknowledged()
    time.sleep(_ALLOWED_SECONDS)
    at = now()
    time.sleep(_ALLOWED_SECONDS)
    sent = traffic.acknowledged() | traffic.unacknowledged()
    time.sleep(2)
    after = traffic.acknowledged() - sent
    assert before
    assert after
    return at, before, after


def test_a_point_in_time_comes_back_from_a_bucket(make_app: MakeApp, house: Path, bucket: str) -> None:
    """It holds what was acknowledged well before it, nothing of well after it, and is restored as any backup is."""
    app = make_app("point")
    app.deploy("v2")
    begin = now()
    assert "this replica is not encrypted" in connect(app, bucket)
    assert not replicas(app)
    assert "and every change of the database, not encrypted" in app.run("backup", "connect", status=0).out
    with app.under_load() as traffic:
        app.change("restart").must(0, "deployed")
        (pid,) = replicas(app)
        assert "replica     running" in app.run("status", status=0).out
        at, before, after = pass_a_point(traffic)
    _tells_no_secret(app)
    told, file = fetch(app, at)
    found = titles(file)
    assert before <= found
    assert not after & found
    assert app.layout.backups / "b1" == file.parent
    assert told["release"] == app.status()["live"]
    assert str(told["point"])[:19] <= at[:19]
    assert "a point in time, from the replica" in app.run("backup", "list", status=0).out
    # Restoring it is a restore like any other, which the replica survives.
    preview = app.run("backup", "restore", "b1", "--preview", status=0).out
    assert "would be missing" in preview
    assert "_litestream" not in preview
    app.change("backup", "restore", "b1", "--yes").must(0, "deployed")
    assert titles(app.database) == found
    assert replicas(app) not in ([], [pid])
    time.sleep(_ALLOWED_SECONDS)
    assert titles(fetch(app, now())[1]) == found
    assert titles(fetch(app, at)[1]) == found

    early = app.run("backup", "fetch", "--at", begin)
    assert (early.status, "error: point-too-early" in early.err) == (1, True), early
    app.run("backup", "connect", "--off", status=0)
    app.change("restart").must(0, "deployed")
    assert not replicas(app)
    assert not app.layout.replica.exists()
    _comes_back_on_another_machine(app, house, bucket, found)


def _comes_back_on_another_machine(lost: LiveApp, house: Path, bucket: str, had: set[object]) -> None:
    """Where nothing was ever deployed, the newest point is what a first deployment begins with."""
    anew = LiveApp(root=house / "replica-root", name=lost.name, folder=lost.folder, port=free_port())
    lost.run("stop", status=0)
    anew.configure()
    anew.run("backup", "connect", bucket, status=0)
    told = anew.run("backup", "fetch", "--at", now(), status=0)
    assert "b1 is the database of" in told.out
    assert "bulletproof deploy --backup b1" in told.err
    try:
        anew.deploy("v2", "--backup", "b1")
        assert titles(anew.database) == had
    finally:
        anew.end()


def _tells_no_secret(app: LiveApp) -> None:
    """Keys stand in one file, which nobody else reads: in no command line, no environment and no log."""
    secrets = [KEYS["AWS_SECRET_ACCESS_KEY"], KEYS["AWS_ACCESS_KEY_ID"]]
    told = [" ".join((*one.cmdline(), *one.environ().values())) for one in app.processes()]
    logs = [path.read_text(errors="replace") for path in app.layout.logs.rglob("*") if path.is_file()]
    assert told
    assert logs
    assert not [text for text in (*told, *logs) for secret in secrets if secret in text]
    assert secrets[0] in app.layout.replica.read_text()
    assert stat.S_IMODE(app.layout.replica.stat().st_mode) == 0o600


def test_a_migration_and_a_killed_one_leave_it_running(make_app: MakeApp, tmp_path: Path) -> None:
    """It is away while the data are changed, and back afterwards: no request fails, and later points are right."""
    app = patient(make_app("moved"))
    connect(app, f"file://{tmp_path}")
    app.deploy("v2")
    (first,) = replicas(app)
    with app.under_load() as traffic:
        time.sleep(_ALLOWED_SECONDS)
        at_v2 = now()
        done = app.deploy("v3")
        assert "swap" in done.steps("step-done")
        (second,) = replicas(app)
        assert second != first
        at, before, after = pass_a_point(traffic)

        app.kill_at("step-done", "hold", "deploy", "v4-expand")
        assert app.wait_until_whole()["last_outcome"] == "undone"
        until(lambda: len(replicas(app)) == 1, "the replica does not run again")
        at_last, before_last, _ = pass_a_point(traffic)
    told, file = fetch(app, at)
    assert "points" in {name for _, name, *_ in ask(file, "PRAGMA table_info(chart)")}
    assert before <= titles(file)
    assert not after & titles(file)
    assert before_last <= titles(fetch(app, at_last)[1])
    older, file = fetch(app, at_v2)
    assert older["release"] != told["release"]
    assert "points" not in {name for _, name, *_ in ask(file, "PRAGMA table_info(chart)")}
    app.run("stop", status=0)
    assert not replicas(app)
    assert titles(fetch(app, now())[1]) == titles(app.database)
