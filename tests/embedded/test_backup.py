"""Backups and restores of a real app under load: nothing dropped, nothing lost, and a way back from the way back."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

import workshop
from bulletproof.demo.ledger import duplicated_writes, lost_writes
from bulletproof.demo.traffic import Traffic
from bulletproof.effects.isolation import why_no_namespaces
from bulletproof.effects.lock import BACKUP_VERB, Holder, acquire
from bulletproof.operations.pipelines import RESTORE
from embedded.conftest import LayApp
from embedded.data import Data, ask, change, last_number, remains
from embedded.places import until
from embedded.test_migrate import patient
from embedded.test_undo import Picture
from live_app import LIGHT, Done, Event, LiveApp

pytestmark = [
    pytest.mark.skipif(
        bool(why_no_namespaces()), reason=f"the kernel lets this user make no cell: {why_no_namespaces()}"
    ),
    pytest.mark.timeout(600),
]

_ADD = (
    "INSERT INTO chart (owner_id, title, numbers, created) SELECT owner_id, 'more', numbers, created FROM chart LIMIT 1"
)


def listed(app: LiveApp) -> list[Event]:
    """What `backup list --json` tells, oldest first."""
    found = json.loads(app.run("backup", "list", "--json", status=0).out)
    assert isinstance(found, list)
    return found[::-1]


def back_up(app: LiveApp) -> str:
    """Make a backup, which has to be proven; its name."""
    told = json.loads(app.run("backup", "create", "--json", status=0).out)
    assert told["trouble"] == "", told
    return str(told["name"])


def restore(app: LiveApp, name: str, *words: str) -> Done:
    """Restore with success."""
    return app.change("backup", "restore", name, "--yes", *words).must(0, "deployed")


def replaced_by(app: LiveApp, number: int) -> tuple[str, Path]:
    """The backup of what a restore replaced, and its database."""
    (found,) = [one for one in listed(app) if one["deployment"] == number and one["reason"] == "restore"]
    return str(found["name"]), app.layout.backups / str(found["name"]) / "database.db"


def charts(file: Path) -> set[object]:
    """The charts of a database."""
    return {number for (number,) in ask(file, "SELECT id FROM chart")}


def no_trace(app: LiveApp) -> None:
    """Neither copies nor folders of a restore are left, and nothing waits for the database."""
    assert not remains(app)
    assert not list(app.layout.data.glob(".bulletproof-*"))
    assert not list(app.layout.snapshots.glob("*"))


# --- under load


@pytest.fixture(scope="module")
def app(make_lasting_app: Callable[[str], LiveApp]) -> LiveApp:
    """An app with v2 live, some rows, and a backup of them."""
    made = patient(make_lasting_app("backup"))
    made.deploy("v2")
    with made.under_load():
        time.sleep(2)
    back_up(made)
    return made


@pytest.mark.xdist_group("backup")
def test_a_backup_under_load_has_every_write_from_before_it(app: LiveApp) -> None:
    """Made beside living writers, who notice nothing; proven by a boot on what was restored."""
    with app.under_load() as traffic:
        until(lambda: len(traffic.acknowledged()) > 20, "nobody wrote")
        before = traffic.acknowledged()
        done = app.run("backup", "create", status=0)

        name = f"b{len(listed(app))}"
        assert done.out.startswith(f"✓ {name}, ")
        assert "/up healthy 3 times in a row" in done.out
        assert not lost_writes(before, app.layout.backups / name / "database.db")
    last = listed(app)[-1]
    assert last["release"] == app.status()["serving"]
    proof = last["proof"]
    assert isinstance(proof, dict)
    assert (proof["trouble"], proof["release"]) == ("", last["release"])
    assert f"✓ {name:>5}  " in app.run("backup", "list", status=0).out
    no_trace(app)


@pytest.mark.xdist_group("backup")
def test_a_restore_fails_nobody_and_can_be_taken_back(app: LiveApp) -> None:
    """Requests wait; what was written since the backup is in one that nothing prunes, and restoring that brings it."""
    with Traffic.start(app.address, app.folder.parent, LIGHT) as traffic:
        name = back_up(app)
        then = charts(app.layout.backups / name / "database.db")
        until(lambda: app.rows() > len(then) + 20, "nobody wrote")
        preview = app.run("backup", "restore", name, "--preview", status=0).out
        done = restore(app, name)
        again, kept = replaced_by(app, last_number(app))
        restored, replaced = charts(app.database), charts(kept)
        acknowledged = traffic.acknowledged()
        back = restore(app, again)
        report = traffic.report(traffic.began)
    assert report.failed == 0, report.failures
    assert "chart: " in preview
    assert "rows would be missing" in preview
    assert "rows would be missing" in done.note("rehearse")
    assert then <= replaced
    assert len(replaced) >= len(then) + 20
    assert then <= restored
    # Each write is in what was replaced, or in what was written afterwards; the second restore set those aside.
    _, after = replaced_by(app, last_number(app))
    assert not _lost_in_both(acknowledged, kept, after)
    assert replaced <= charts(app.database)
    assert not duplicated_writes(traffic.acknowledged(), app.database)
    assert f"backup restore {again} takes this back" in done.note("keep")
    assert back.steps("step-done").index("gate") < back.steps("step-done").index("cutover")
    no_trace(app)


def _lost_in_both(tokens: frozenset[str], one: Path, other: Path) -> frozenset[str]:
    return lost_writes(tokens, one) & lost_writes(tokens, other)


@pytest.mark.xdist_group("backup")
def test_a_preview_changes_nothing(app: LiveApp) -> None:
    """It tells what a restore would do, and whoever types something else than the name is left as he was."""
    name = back_up(app)
    change(app, "DELETE FROM chart WHERE id % 2")
    change(app, "UPDATE \"user\" SET password_hash = 'x'")
    before, entries = (Picture.of(app), Data.of(app.database)), len(app.history())
    told = json.loads(app.run("backup", "restore", name, "--preview", "--json", status=0).out)

    rows = {one["table"]: one for one in told["rows"]}
    assert rows["chart"]["returning"] > 0
    assert (rows["chart"]["missing"], rows["user"]["changed"]) == (
        0,
        ask(app.database, 'SELECT count(*) FROM "user"')[0][0],
    )
    refused = app.run("backup", "restore", name)
    assert (refused.status, "wants --yes" in refused.err) == (2, True)
    assert (Picture.of(app), Data.of(app.database)) == before
    assert len(app.history()) == entries
    no_trace(app)


@pytest.mark.xdist_group("backup")
def test_a_person_types_the_name(app: LiveApp) -> None:
    """In a terminal the loss is shown, table by table, and only the app's name goes on."""
    name = back_up(app)
    change(app, _ADD)
    words = " ".join(app.argv("backup", "restore", name))
    for typed, status in (("yes", 3), (app.name, 0)):
        screen = subprocess.run(
            ["script", "-qec", words, "/dev/null"], input=f"{typed}\n", cwd=app.folder, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert screen.returncode == status, screen.stdout
        assert "chart: 1 row would be missing" in screen.stdout
        assert f"Type {app.name} to go on" in screen.stdout
        assert ("not-confirmed" in screen.stdout) is (status == 3)
    no_trace(app)


@pytest.mark.xdist_group("backup")
@pytest.mark.parametrize("step", ["rehearse", "snapshot", "swap", "folders", "gate", "cutover", "keep", "prune"])
def test_a_killed_restore_is_entirely_old_or_entirely_new(app: LiveApp, step: str) -> None:
    """kill -9 at the beginning of a step, under load: the host is whole by itself, and nobody was failed.

    All other steps, and all moments in them, are killed in the model.
    """
    before, number = Picture.of(app), last_number(app)
    with Traffic.start(app.address, app.folder.parent, LIGHT) as traffic:
        until(lambda: len(traffic.acknowledged()) > 5, "nobody wrote")
        name = back_up(app)  # with the users of this traffic in it, who could not go on otherwise
        killed = app.kill_at("step-started", step, "backup", "restore", name, "--yes")
        status = app.wait_until_whole()
        assert app.ask()[0] == 200
        acknowledged, report = traffic.acknowledged(), traffic.report(traffic.began)
    assert killed.status == -signal.SIGKILL
    assert report.failed == 0, report.failures
    if status["last_outcome"] == "deployed":
        _, kept = replaced_by(app, number + 1)
        assert not _lost_in_both(acknowledged, kept, app.database)
    else:
        assert not lost_writes(acknowledged, app.database)
        assert Picture.of(app).serving == before.serving
        assert Picture.of(app).number == before.number
    assert (status["last_outcome"] == "deployed") is (step in {one.name for one in RESTORE.after}) or step == "gate"
    no_trace(app)


# --- what is refused


@pytest.mark.xdist_group("backup")
@pytest.mark.parametrize("kind", ["byte", "cut", "gone", "manifest"])
def test_a_backup_that_was_altered_is_refused_before_anything_is_touched(app: LiveApp, kind: str) -> None:
    """Exit 1, in words, nothing changed; `verify` and `list` say it as well."""
    name = back_up(app)
    place = app.layout.backups / name
    file = place / ("manifest.json" if kind == "manifest" else "database.db")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if kind == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if kind == "cut" else content)
    before = Picture.of(app), Data.of(app.database)
    done = app.run("backup", "restore", name, "--yes")
    verified = app.run("backup", "verify", name)

    assert done.status == 1
    assert "error: backup-altered" in done.err
    assert "undone" not in done.err
    assert verified.status == 1
    assert "✗" in verified.out
    assert "✗" in app.run("backup", "list", status=0).out
    assert (Picture.of(app), Data.of(app.database)) == before
    shutil.rmtree(place)
    no_trace(app)


@pytest.mark.xdist_group("backup")
def test_views_and_triggers_that_nobody_knows_are_refused(app: LiveApp) -> None:
    """A database that comes with a trigger of its own does not come in, unless that is meant."""
    change(app, "CREATE TRIGGER evil AFTER INSERT ON chart BEGIN DELETE FROM chart; END")
    name = back_up(app)
    change(app, "DROP TRIGGER evil")
    before = Data.of(app.database)
    done = app.run("backup", "restore", name, "--yes")

    assert done.status == 3
    assert "error: schema-differs" in done.err
    assert "trigger evil" in done.err
    assert Data.of(app.database) == before
    restore(app, name, "--allow-schema-changes")
    change(app, "DROP TRIGGER evil")
    no_trace(app)


@pytest.mark.xdist_group("backup")
def test_a_backup_of_an_older_schema_comes_back_with_its_release(make_app: Callable[[str], LiveApp]) -> None:
    """One is made before each migration; with the release that it was made by it serves again, and back again."""
    app = patient(make_app("older"))
    app.deploy("v2")
    with app.under_load():
        time.sleep(1)
    old = app.status()["serving"]
    rows = app.rows()
    done = app.deploy("v3")
    name = listed(app)[-1]["name"]

    assert done.note("keep") == f"what was before: backup {name}"
    refused = app.run("backup", "restore", str(name), "--yes")
    assert refused.status == 3
    assert "error: schema-older" in refused.err
    assert f"--with-release (makes {old} live with it)" in refused.err
    assert app.version() == "v3"
    restore(app, str(name), "--with-release")
    assert (app.version(), app.status()["serving"], app.rows()) == ("v2", old, rows)
    again, _ = replaced_by(app, last_number(app))
    restore(app, again, "--with-release")
    assert app.version() == "v3"
    no_trace(app)


# --- a database that nobody can use any more


@pytest.mark.parametrize("kind", ["damaged", "gone", "table dropped"])
def test_a_restore_helps_where_the_database_is_lost(make_app: Callable[[str], LiveApp], kind: str) -> None:
    """Damaged pages, a removed file, a dropped table: the backup serves again, and what was there is kept."""
    app = patient(make_app("lost"))
    app.deploy("v2")
    with app.under_load():
        time.sleep(2)
    name = back_up(app)
    rows = app.rows()
    if kind == "table dropped":
        change(app, "DROP TABLE chart")
    else:
        app.run("stop", status=0)
        if kind == "gone":
            app.database.rename(app.folder.parent / "gone.db")
        else:
            content = bytearray(app.database.read_bytes())
            content[4096:] = bytes(len(content) - 4096)
            app.database.write_bytes(content)
    done = restore(app, name)

    assert app.rows() == rows
    assert app.ask()[0] == 200
    if kind == "damaged":
        assert "today's database cannot be compared" in done.note("rehearse")
        assert "damaged" in str(listed(app)[-1]["damage"])
    no_trace(app)


# --- the folders of users

_UPLOADS = {
    "app.py": """
import os
import pathlib

from flask import Flask, request

app = Flask(__name__)
FOLDER = pathlib.Path(__file__).parent / "uploads"


@app.get("/")
def home():
    return {path.name: path.read_text() for path in sorted(FOLDER.iterdir())}


@app.post("/<name>")
def upload(name):
    (FOLDER / name).write_text(request.get_data(as_text=True))
    return "", 201
""",
    "requirements.txt": "flask\ngunicorn\n",
}


def upload(app: LiveApp, **files: str) -> None:
    """Put files where users do."""
    for name, content in files.items():
        (app.layout.data / "uploads" / name).write_text(content)


def uploaded(app: LiveApp) -> dict[str, str]:
    """What the app shows of them."""
    found = json.loads(app.ask("/")[2])
    assert isinstance(found, dict)
    return found


def test_the_folders_of_users_come_back(lay_app: LayApp) -> None:
    """Files as they were at the backup; today's are kept and come back, or stay when that is asked for."""
    app = lay_app("files", _UPLOADS)
    app.settings["app"] = {"persistent": ["uploads"], "entry": "app:app"}
    app.configure()
    workshop.commit(app.folder, {}, "Configure it")
    app.deploy()
    upload(app, one="1", two="2")
    name = back_up(app)
    upload(app, two="changed", three="3")

    done = restore(app, name)
    assert "uploads: today's files are exchanged for the 2 of the backup" in done.note("rehearse")
    assert "the database stays as it is: backup b1 has none" in done.note("rehearse")
    assert uploaded(app) == {"one": "1", "two": "2"}
    again, _ = replaced_by(app, last_number(app))
    restore(app, again)
    assert uploaded(app) == {"one": "1", "two": "changed", "three": "3"}
    os.mkfifo(app.layout.data / "uploads" / "pipe")
    done = restore(app, name)
    number = last_number(app)
    assert "but for what could not be read (1: uploads/pipe" in done.note("keep")
    assert (app.layout.replaced(number) / "old" / "uploads" / "three").read_text() == "3"
    shutil.rmtree(app.layout.replaced(number))
    restore(app, replaced_by(app, number)[0])
    done = restore(app, name, "--only-database")
    assert "uploads stays as it is: as was asked for" in done.note("rehearse")
    assert uploaded(app) == {"one": "1", "two": "changed", "three": "3"}
    no_trace(app)
    names = {one["name"] for one in listed(app)}
    app.run("destroy", "--yes", status=0)
    (aside,) = app.layout.set_aside.glob(f"{app.name}-*")
    assert {path.name for path in (aside / "backups").iterdir()} == names


def test_an_app_that_keeps_nothing(lay_app: LayApp) -> None:
    """Nothing to back up is said so; by the clock it is no trouble."""
    app = lay_app("nothing", _UPLOADS)
    app.settings["app"] = {"entry": "app:app"}
    app.configure()
    workshop.commit(app.folder, {"uploads/one": "1"}, "Configure it")
    app.deploy()
    done = app.run("backup", "create")
    assert (done.status, "error: nothing-to-back-up" in done.err) == (1, True)
    app.run("backup", "create", "--scheduled", status=0)
    assert listed(app) == []


# --- by the clock, beside deployments, and how many


def by_the_clock(app: LiveApp) -> list[Event]:
    """What the supervisor runs by the clock to make backups."""
    table = json.loads((app.layout.sockets / "children.json").read_text())
    processes = [entry["process"] for entry in table["entries"]]
    return [process for process in processes if process["name"].startswith("backup-")]


def test_by_the_clock(make_app: Callable[[str], LiveApp]) -> None:
    """What the supervisor runs when it is due makes a backup and proves it; a changed schedule counts from now on."""
    app = make_app("clock")
    app.settings["backup"] = {"schedule": "7 4 * * *"}
    app.configure()
    app.deploy("v1")
    (process,) = by_the_clock(app)
    assert process["schedule"] == "7 4 * * *"
    argv, surroundings = cast("list[str]", process["argv"]), cast("dict[str, str]", process["environment"])
    subprocess.run(argv, env=surroundings, cwd=str(process["folder"]), check=True, timeout=60)
    (made,) = listed(app)
    assert (made["reason"], made["release"]) == ("schedule", app.status()["serving"])
    assert made["proof"] is not None
    assert re.search(r"\n  backup      b1, \d+ s ago, proven\n", app.run("status", status=0).out)
    (app.layout.backups / "b1" / "verified.json").unlink()
    assert "b1, " in app.run("status", status=0).out
    assert "not proven yet" in app.run("status", status=0).out
    subprocess.run(argv, env=surroundings, cwd=str(process["folder"]), check=True, timeout=60)
    assert [one["proof"] is not None for one in listed(app)] == [True, True]
    app.run("restart", status=0)
    assert by_the_clock(app) == [process]
    app.run("stop", status=0)
    assert not app.processes()
    app.settings["backup"] = {"schedule": "never"}
    app.configure()
    app.deploy("v2")
    assert by_the_clock(app) == []


def test_a_deployment_waits_for_a_backup(make_app: Callable[[str], LiveApp]) -> None:
    """Whoever deploys while one is made is not refused, but served as soon as it has ended."""
    app = make_app("waits")
    app.deploy("v1")
    held = acquire(app.layout.lock, Holder.of_this_process(BACKUP_VERB, step="begin"))
    with app.begun("restart") as command:
        time.sleep(3)
        assert command.process.poll() is None
        held.release()
        command.end().must(0, "deployed")


def test_as_many_are_kept_as_the_configuration_says(make_app: Callable[[str], LiveApp]) -> None:
    """The last ones, and what a restore replaced; of what is removed it is said."""
    app = make_app("keeps")
    app.settings["keep"] = {"backups": 2, "daily": 0, "weekly": 0, "monthly": 0}
    app.configure()
    app.deploy("v1")
    names = [back_up(app) for _ in range(2)]
    restore(app, names[0])
    names += [back_up(app) for _ in range(3)]

    assert [one["name"] for one in listed(app)] == ["b3", "b5", "b6"]
    assert names[-1] == "b6"
    assert "nothing to remove" in app.run("backup", "prune", status=0).err


def test_what_a_killed_backup_left_is_removed_by_itself(make_app: Callable[[str], LiveApp]) -> None:
    """kill -9 while it is made: no backup is there that is not whole, and within seconds nothing half-made."""
    app = make_app("killed")
    app.deploy("v1")
    with contextlib.closing(sqlite3.connect(app.database)) as connection, connection:
        connection.execute("CREATE TABLE ballast AS SELECT zeroblob(150000000) AS content")
    command = subprocess.Popen(app.argv("backup", "create"), cwd=app.folder, stdout=subprocess.DEVNULL)
    until(lambda: bool(list(app.layout.backups.glob(".bp-new-*"))), "no backup was begun")
    command.kill()
    command.wait()
    app.wait_until_whole()
    until(lambda: not list(app.layout.backups.glob("*")), "something half-made is left")
    assert back_up(app) == "b1"


@pytest.fixture(autouse=True)
def nothing_in_the_way(request: pytest.FixtureRequest) -> Iterator[None]:
    """No scratch of a trial outlives its command."""
    before = set(Path("/var/tmp").glob("bulletproof-backup-*"))  # noqa: S108
    yield
    if "app" in request.fixturenames:
        name = request.getfixturevalue("app").name
        assert not [path for path in set(Path("/var/tmp").glob("bulletproof-backup-*")) - before if name in path.name]  # noqa: S108
