"""Deployments that change the data, end to end: users wait and notice nothing else, and there is a way back."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path

import psutil
import pytest

import workshop
from bulletproof.demo.traffic import Traffic
from bulletproof.effects.isolation import why_no_namespaces
from embedded.data import (
    Data,
    ask,
    assert_kept,
    change,
    grow,
    kept,
    last_number,
    remains,
    set_aside,
    snapshots,
    version,
)
from embedded.places import until
from embedded.test_undo import Picture
from live_app import LASTING, Done, LiveApp, branch, breaks_only_live

pytestmark = [
    pytest.mark.skipif(
        bool(why_no_namespaces()), reason=f"the kernel lets this user make no cell: {why_no_namespaces()}"
    ),
    pytest.mark.timeout(600),
]

MakeApp = Callable[[str], LiveApp]
_MIGRATES = {"openers", "hold", "snapshot", "migrate", "swap"}
_V3_TITLE = "Charts know how many numbers they have"
_CHARTS = "SELECT id, owner_id, title, numbers FROM chart ORDER BY id"
_USERS = 'SELECT id, username, password_hash FROM "user" ORDER BY id'


def bring(app: LiveApp, tag: str) -> LiveApp:
    """The app with that release live; it is deployed if need be."""
    if app.version() != tag:
        app.deploy(tag)
    return app


def patient(app: LiveApp) -> LiveApp:
    """Whose requests may wait for long, so that a machine that is busy with other tests is not too slow for it."""
    app.settings["hold"] = {"seconds": 120}
    app.configure()
    return app


def told(done: Done, step: str) -> str:
    """What a step said of itself."""
    (note,) = [event["note"] for event in done.events if event["event"] == "step-done" and event["step"] == step]
    return str(note)


def must_migrate(app: LiveApp, done: Done, before: int) -> None:
    """It went the migrating way and all is in its place: the new release alone, and the data from before it."""
    status = app.status()
    number = int(str(status["deployment"]))
    assert set(done.steps("step-done")) >= _MIGRATES
    assert done.steps("step-done").index("gate") < done.steps("step-done").index("cutover")
    assert status["serving"] == done.release
    assert app.layout.current.resolve() == app.layout.release(done.release)
    assert app.numbers()["processes"] == app.numbers()["sockets"] == {number}
    assert number in snapshots(app)
    assert len(ask(kept(app, number), _CHARTS)) >= before
    assert not set_aside(app, number)
    assert not remains(app)


# --- a line of good releases


@pytest.fixture(scope="module")
def line(make_lasting_app: MakeApp) -> LiveApp:
    """An app with v2 live."""
    app = patient(make_lasting_app("line"))
    app.deploy("v2")
    return app


@pytest.fixture(scope="module")
def line_traffic(line: LiveApp) -> Iterator[Traffic]:
    """Reads and writes on it without a pause; at the end no write may be lost or doubled."""
    with line.under_load(LASTING) as traffic:
        yield traffic


@pytest.mark.xdist_group("migrate-line")
def test_a_release_with_a_migration_goes_live(line: LiveApp, line_traffic: Traffic) -> None:
    """v2 to v3: what was there is there and filled, what is written afterwards too, and it is said beforehand."""
    bring(line, "v2")
    charts, since = ask(line.database, _CHARTS), line_traffic.mark()
    done = line.deploy("v3")

    must_migrate(line, done, len(charts))
    assert "flask db upgrade: 0002 Each chart knows how many numbers it has." in told(done, "rehearse")
    assert "adds column chart.points INTEGER NOT NULL DEFAULT '0'" in told(done, "rehearse")
    assert "rollback: code alone, rehearsed" in told(done, "rehearse")
    assert line.version() == "v3"
    assert version(line.database) == "0002"
    assert ask(line.database, _CHARTS)[: len(charts)] == charts
    assert not ask(line.database, "SELECT id FROM chart WHERE points != json_array_length(numbers)")
    assert "points" not in str(ask(kept(line, last_number(line)), "SELECT sql FROM sqlite_master"))
    assert_kept(line, line_traffic, since)
    assert set(line_traffic.report(since).versions) == {"v2", "v3"}


@pytest.mark.xdist_group("migrate-line")
def test_a_rollback_of_it_is_code_alone(line: LiveApp, line_traffic: Traffic) -> None:
    """v3 back to v2 under load: nobody waits in a hold, the data stay as they are, later writes included."""
    bring(line, "v3")
    before, since = Data.of(line.database), line_traffic.mark()
    done = line.change("rollback").must(0, "deployed")

    assert not _MIGRATES & set(done.steps("step-started"))
    assert line.version() == "v2"
    assert before.is_kept_in(line.database)
    assert_kept(line, line_traffic, since)
    line.deploy("v3")
    assert version(line.database) == "0002"


@pytest.mark.xdist_group("migrate-line")
def test_expand_and_contract(line: LiveApp, line_traffic: Traffic) -> None:
    """v3 to v4-expand to v4-contract: every user and chart is kept, and the older columns are what they were."""
    bring(line, "v3")
    users, since = ask(line.database, _USERS), line_traffic.mark()
    for tag, head in (("v4-expand", "0003"), ("v4-contract", "0004")):
        charts = ask(line.database, _CHARTS)
        must_migrate(line, line.deploy(tag), len(charts))
        assert (line.version(), version(line.database)) == (tag, head)
        assert ask(line.database, _USERS) == users
        assert ask(line.database, _CHARTS)[: len(charts)] == charts

    names = ask(line.database, 'SELECT username, display_name FROM "user"')
    assert {username for username, _ in names} == {name for _, name in names} == {name for _, name, _ in users}
    assert_kept(line, line_traffic, since)


@pytest.mark.xdist_group("migrate-line")
def test_a_rollback_takes_migrations_back_where_the_code_needs_it(line: LiveApp, line_traffic: Traffic) -> None:
    """v4-contract to v3, which knows no user without a username: migrated down once that is allowed, no row missing."""
    if line.version() != "v4-contract":
        bring(line, "v3")
    release = [one["release"] for one in line.history() if one["title"] == _V3_TITLE and one["outcome"] == "deployed"][
        -1
    ]
    bring(line, "v4-contract")
    change(line, "INSERT INTO \"user\" (display_name, password_hash) VALUES ('grace', 'x')")
    data, since = Data.of(line.database), line_traffic.mark()
    refused = line.change("rollback", str(release)).must(3, "undone")
    assert f"drops column user.display_name: {len(data.rows['user'])} non-null values" in str(refused.last["error"])
    assert data.is_kept_in(line.database)

    charts = ask(line.database, _CHARTS)
    done = line.change("rollback", str(release), "--allow-data-loss").must(0, "deployed")
    must_migrate(line, done, len(charts))
    assert "flask db downgrade 0002" in told(done, "rehearse")
    assert (line.version(), version(line.database)) == ("v3", "0002")
    assert ask(line.database, _CHARTS)[: len(charts)] == charts
    assert ask(line.database, "SELECT count(*) FROM \"user\" WHERE username = 'grace'") == [(1,)]
    assert_kept(line, line_traffic, since)


@pytest.mark.xdist_group("migrate-line")
def test_what_takes_data_away_needs_a_persons_word(line: LiveApp, line_traffic: Traffic) -> None:
    """Told with its counts and refused, nothing touched; `allow_data_loss` names the migration, and it goes live."""
    bring(line, "v4-contract")
    before, data, since = Picture.of(line), Data.of(line.database), line_traffic.mark()
    refused = line.change("deploy", "destructive").must(3, "undone")

    assert refused.reference == "data-loss"
    assert "drops column chart.created: " in str(refused.last["error"])
    assert int(str(refused.last["error"]).partition("created: ")[2].partition(" non-null values")[0].replace(",", ""))
    assert "--allow-data-loss" in str(refused.last["error"])
    assert "hold" not in refused.steps("step-started")
    assert Picture.of(line) == before
    assert data.is_kept_in(line.database)

    line.configure(migrations={"allow_data_loss": ["0004"]})
    assert line.change("deploy", "destructive").must(3, "undone").reference == "data-loss"
    line.configure(migrations={"allow_data_loss": ["0005"]})
    charts = ask(line.database, _CHARTS)
    done = line.deploy("destructive")
    line.configure()
    must_migrate(line, done, len(charts))
    assert "rollback: only with a restore (table chart lacks column created)" in told(done, "rehearse")
    assert ask(line.database, _CHARTS)[: len(charts)] == charts
    assert_kept(line, line_traffic, since)


@pytest.mark.xdist_group("migrate-line")
def test_no_way_back_is_said_and_nothing_is_touched(line: LiveApp, line_traffic: Traffic) -> None:
    """From a release that took away what the older code needs a rollback is refused in words, before any hold."""
    if line.version() != "destructive":
        bring(line, "v4-contract")
        line.deploy("destructive", "--allow-data-loss")
    before, data, since = Picture.of(line), Data.of(line.database), line_traffic.mark()
    done = line.run("rollback")

    assert done.status == 3, done
    assert "\nerror: schema-newer\n" in done.err
    assert "table chart lacks column created; and no down migration leads back" in done.err
    assert f"{before.serving} serves at {line.address}" in done.err
    assert "hold" not in done.err
    assert Picture.of(line) == before
    assert data.is_kept_in(line.database)
    assert not remains(line)
    assert_kept(line, line_traffic, since)


@pytest.mark.xdist_group("migrate-line")
def test_rows_that_vanish_are_counted(line: LiveApp, line_traffic: Traffic) -> None:
    """A migration that deletes is refused with the number of rows; `--allow-data-loss` lets them go, and no other."""
    live = line.version()
    for _ in range(3):
        created = "" if live == "destructive" else ", created"
        date = created and ", '2026-01-01 00:00:00.000000'"
        change(line, f"INSERT INTO chart (owner_id, title, numbers{created}) VALUES (1, 'spare', '[1]'{date})")
    workshop.git(line.folder, "checkout", "--quiet", "--force", live)
    revision, since = grow(line, "op.execute(\"DELETE FROM chart WHERE title = 'spare'\")"), line_traffic.mark()
    line.configure()
    refused = line.change("deploy", revision).must(3, "undone")

    assert "removes 3 of " in str(refused.last["error"])
    line.deploy(revision, "--allow-data-loss")
    assert not ask(line.database, "SELECT id FROM chart WHERE title = 'spare'")
    assert_kept(line, line_traffic, since)


# --- what fails


@pytest.fixture(scope="module")
def broken(make_lasting_app: MakeApp) -> LiveApp:
    """An app with v2 live and three workers."""
    app = patient(make_lasting_app("fails"))
    app.settings["app"] = {"workers": 3}
    app.configure()
    app.deploy("v2")
    return app


@pytest.fixture(scope="module")
def broken_traffic(broken: LiveApp) -> Iterator[Traffic]:
    """Reads and writes on it without a pause; at the end no write may be lost or doubled."""
    with broken.under_load(LASTING) as traffic:
        yield traffic


@pytest.fixture
def twins(broken: LiveApp) -> Iterator[Callable[[], None]]:
    """Makes two charts of one title, which no index over titles can bear; they are gone afterwards."""
    row = "(1, 'twin', '[1]', '2026-01-01 00:00:00.000000')"
    yield lambda: change(broken, f"INSERT INTO chart (owner_id, title, numbers, created) VALUES {row}, {row}")
    change(broken, "DELETE FROM chart WHERE title = 'twin'")


@contextlib.contextmanager
def coming_to_nothing(app: LiveApp, traffic: Traffic) -> Iterator[None]:
    """Whatever is deployed inside is undone without a trace: what served serves, with the data it had."""
    app.configure()
    before, data, kept, since = Picture.of(app), Data.of(app.database), snapshots(app), traffic.mark()
    yield
    assert Picture.of(app) == before
    assert data.is_kept_in(app.database)
    assert snapshots(app) == kept
    assert not remains(app)
    assert_kept(app, traffic, since)
    assert app.history()[-1].items() >= {"outcome": "undone", "live": False}.items()


_OPERATIONS = (
    'op.add_column("chart", sa.Column("nick", sa.String(80)))',
    'op.create_table("tag", sa.Column("id", sa.Integer, primary_key=True))',
    'op.execute("UPDATE chart SET nick = lower(title)")',
)
_FAILS = 'op.create_index("one_title", "chart", ["title"], unique=True)'


def failing(app: LiveApp, at: int) -> str:
    """A release on v2 whose migration's operation number `at` fails once two charts have one title."""
    workshop.git(app.folder, "checkout", "--quiet", "--force", "v2")
    return grow(app, *_OPERATIONS[:at], _FAILS, *_OPERATIONS[at:])


@pytest.mark.xdist_group("migrate-fails")
@pytest.mark.parametrize("at", [0, 3])
def test_a_migration_that_fails_is_seen_in_the_rehearsal(
    broken: LiveApp, broken_traffic: Traffic, twins: Callable[[], None], at: int
) -> None:
    """Whichever operation fails, the release's own words are shown, and nobody waited for it."""
    revision = failing(broken, at)
    twins()
    with coming_to_nothing(broken, broken_traffic):
        done = broken.change("deploy", revision).must(3, "undone")

    assert done.reference == "migration-failed"
    assert "UNIQUE constraint failed: chart.title" in str(done.last["error"])
    assert not _MIGRATES & set(done.steps("step-started"))
    assert not set_aside(broken, last_number(broken))


@pytest.mark.xdist_group("migrate-fails")
@pytest.mark.parametrize("at", range(4))
def test_a_migration_that_fails_on_todays_data_alone_is_undone(
    broken: LiveApp, broken_traffic: Traffic, twins: Callable[[], None], at: int
) -> None:
    """What was written after the copy was made breaks it in the hold: the work copy is thrown away, and that is all."""
    revision = failing(broken, at)
    with coming_to_nothing(broken, broken_traffic), broken.begun("deploy", revision) as command:
        assert command.read_until("step-started", "rehearse")
        # The copy was made and migrated once the new release boots on it.
        socket = broken.layout.sockets / f"r{last_number(broken)}" / "web.sock"
        until(socket.exists)
        twins()
        done = command.end().must(3, "undone")

    assert done.reference == "migration-failed"
    assert "UNIQUE constraint failed: chart.title" in str(done.last["error"])
    assert done.steps("step-failed") == ["migrate"]
    assert done.steps("step-undone")[:4] == ["migrate", "snapshot", "hold", "pause"]
    assert not set_aside(broken, last_number(broken))


@pytest.mark.xdist_group("migrate-fails")
@pytest.mark.parametrize(
    ("act", "reference"),
    [
        ('raise RuntimeError("Broken only where it is live.")', "crashed-at-boot"),
        ("import flask; flask.Flask.wsgi_app = lambda *_: 1 / 0", "health-gate-failed"),
    ],
)
def test_a_release_that_breaks_after_the_swap_is_undone(
    broken: LiveApp, broken_traffic: Traffic, act: str, reference: str
) -> None:
    """The data from before are put back with all that was acknowledged, and what was migrated is set aside."""
    workshop.git(broken.folder, "checkout", "--quiet", "--force", "v3")
    revision = breaks_only_live(broken, act)
    with coming_to_nothing(broken, broken_traffic):
        broken.configure(health={"deadline_seconds": 8, "timeout_seconds": 2})
        tokens = broken_traffic.acknowledged()
        done = broken.change("deploy", revision).must(3, "undone")

    assert done.reference == reference
    assert done.steps("step-failed") == ["gate"]
    assert done.steps("step-undone")[:6] == ["start", "swap", "migrate", "snapshot", "hold", "pause"]
    (aside,) = set_aside(broken, last_number(broken))
    assert version(aside) == "0002"
    assert tokens <= {str(title) for (title,) in ask(aside, "SELECT title FROM chart")}
    assert broken.version() == "v2"


_SLOW_BOOT = """\
import sys
import time

if "gunicorn" in sys.modules:
    time.sleep(6)

"""


@pytest.mark.xdist_group("migrate-fails")
def test_what_takes_longer_than_requests_may_wait_is_refused(broken: LiveApp, broken_traffic: Traffic) -> None:
    """A migration that lasts, and one that leaves no time for the way back: said at the rehearsal, nobody waits."""
    workshop.git(broken.folder, "checkout", "--quiet", "--force", "v3")
    source = (broken.folder / "run.py").read_text()
    slow_boot = branch(broken, {"run.py": _SLOW_BOOT + source})
    for tag, reference in (("migration-too-slow", "migration-too-slow"), (slow_boot, "hold-too-long")):
        with coming_to_nothing(broken, broken_traffic):
            broken.configure(hold={"seconds": 8})
            done = broken.change("deploy", tag).must(3, "undone")
        assert done.reference == reference
        assert "seconds" in str(done.last["error"])
        assert "[hold]" in str(done.last["error"])
        assert done.steps("step-failed") == ["rehearse"]
        assert "hold" not in done.steps("step-started")


@contextlib.contextmanager
def long_requests(app: LiveApp, seconds: float) -> Iterator[list[int]]:
    """Two users in turn, so that there is always a request in flight for at least half of `seconds`; their answers."""
    statuses: list[int] = []
    over = threading.Event()

    def use(pause: float) -> None:
        over.wait(pause)
        while not over.is_set():
            statuses.append(app.ask(f"/api/slow?seconds={seconds}")[0])

    users = [threading.Thread(target=use, args=(pause,)) for pause in (0, seconds / 2)]
    for user in users:
        user.start()
    try:
        yield statuses
    finally:
        over.set()
        for user in users:
            user.join()


@pytest.mark.xdist_group("migrate-fails")
def test_requests_that_outlast_the_drain_keep_the_old_release(broken: LiveApp, broken_traffic: Traffic) -> None:
    """They are answered by the old release, which was never signalled, and so is everybody who waited."""
    master = psutil.Process(broken.pid_of(f"web-{broken.status()['deployment']}"))
    family = {master, *master.children()}
    with coming_to_nothing(broken, broken_traffic):
        broken.configure(drain={"seconds": 1})
        with long_requests(broken, 4) as statuses:
            done = broken.change("deploy", "v3").must(3, "undone")

    assert done.reference == "drain-too-slow"
    assert done.steps("step-failed") == ["hold"]
    assert set(statuses) == {HTTPStatus.OK}
    assert {master, *master.children()} == family


@pytest.mark.xdist_group("migrate-fails")
def test_somebody_else_who_has_the_database_open_is_named(broken: LiveApp, broken_traffic: Traffic) -> None:
    """A shell or a notebook on the live database: refused before anybody waits, with its words and its process."""
    script = "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA user_version'); print()"
    argv = [sys.executable, "-c", f"{script}; sys.stdout.flush(); time.sleep(300)", str(broken.database)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        try:
            with coming_to_nothing(broken, broken_traffic):
                done = broken.change("deploy", "v3").must(3, "undone")
        finally:
            other.kill()

    assert done.reference == "database-in-use"
    assert f"(process {other.pid})" in str(done.last["error"])
    assert "import sqlite3" in str(done.last["error"])
    assert done.steps("step-failed") == ["openers"]


@pytest.mark.xdist_group("migrate-fails")
def test_the_corrected_release_needs_nobody(
    broken: LiveApp, broken_traffic: Traffic, twins: Callable[[], None]
) -> None:
    """After a migration that failed, the next commit without the mistake goes live by `deploy` alone."""
    revision = failing(broken, 2)
    twins()
    with coming_to_nothing(broken, broken_traffic):
        broken.change("deploy", revision).must(3, "undone")
    migration = broken.folder / "migrations" / "versions" / "0002.py"
    workshop.commit(broken.folder, {str(migration): migration.read_text().replace(", unique=True", "")})
    since, charts = broken_traffic.mark(), ask(broken.database, _CHARTS)
    done = broken.deploy()

    must_migrate(broken, done, len(charts))
    assert broken.version() == "grown-0002"
    assert not ask(broken.database, "SELECT id FROM chart WHERE nick != lower(title)")
    assert_kept(broken, broken_traffic, since)


# --- other ways to change data, and other places for them


@pytest.mark.xdist_group("migrate-kinds")
def test_an_app_that_migrates_itself_at_boot(make_app: MakeApp) -> None:
    """It is booted once on the work copy, so that its three workers find nothing left to do."""
    app = make_app("boots")
    app.settings["app"] = {"workers": 3}
    app.configure()
    app.deploy("v2")
    with app.under_load():
        charts = ask(app.database, _CHARTS)
        done = app.deploy("boot-migrates")
        must_migrate(app, done, len(charts))

    assert "adds index ix_chart_created" in told(done, "rehearse")
    assert app.version() == "boot-migrates"
    assert version(app.database) == "0002_at_boot"
    assert app.status()["web"] == {"phase": "running", "restarts": 0, "words": ""}


_SCRIPT = """\
import os
import sqlite3

from app import create_app, db

with create_app().app_context():
    db.create_all()
"""
_SCRIPT_WITH_COLUMN = """\

connection = sqlite3.connect(os.environ["DATABASE_URL"].removeprefix("sqlite:///"))
if "colour" not in str(connection.execute("SELECT sql FROM sqlite_master").fetchall()):
    connection.execute("ALTER TABLE chart ADD COLUMN colour TEXT NOT NULL DEFAULT 'teal'")
"""
_NOTES = """

class Note(db.Model):
    \"\"\"Said of a chart.\"\"\"

    id: Mapped[int] = mapped_column(primary_key=True)
    words: Mapped[str] = mapped_column(String(80))
"""


@pytest.fixture
def without_alembic(make_app: MakeApp) -> LiveApp:
    """DataCharted as if its author had never heard of Alembic, not deployed yet."""
    app = make_app("kinds")
    shutil.rmtree(app.folder / "migrations")
    return app


@pytest.mark.xdist_group("migrate-kinds")
def test_a_command_of_ones_own(without_alembic: LiveApp) -> None:
    """`[migrations] command` is run on the work copy when it changes anything, and nobody waits when it does not."""
    app = without_alembic
    app.settings["migrations"] = {"command": "python schema.py"}
    app.configure()
    workshop.commit(app.folder, {"schema.py": _SCRIPT})
    app.deploy()
    with app.under_load():
        workshop.commit(app.folder, {"schema.py": _SCRIPT + _SCRIPT_WITH_COLUMN})
        charts = ask(app.database, _CHARTS)
        done = app.deploy()
        must_migrate(app, done, len(charts))
        assert "adds column chart.colour TEXT NOT NULL DEFAULT 'teal'" in told(done, "rehearse")
        assert {colour for (colour,) in ask(app.database, "SELECT colour FROM chart")} == {"teal"}
        assert not _MIGRATES & set(app.deploy().steps("step-started"))
        workshop.commit(app.folder, {"schema.py": _SCRIPT + "raise SystemExit('No.')"})
        assert app.change("deploy").must(3, "undone").reference == "migration-failed"


@pytest.mark.xdist_group("migrate-kinds")
def test_models_alone(without_alembic: LiveApp) -> None:
    """An app whose tables come from `db.create_all()`: a new model's table is made on the work copy."""
    app = without_alembic
    workshop.commit(app.folder, {})
    app.deploy()
    with app.under_load():
        models = (app.folder / "app" / "models.py").read_text()
        workshop.commit(app.folder, {"app/models.py": models + _NOTES})
        charts = ask(app.database, _CHARTS)
        done = app.deploy()
        must_migrate(app, done, len(charts))

    assert "adds table note (id, words)" in told(done, "rehearse")
    assert ask(app.database, "SELECT id, words FROM note") == []


@pytest.mark.xdist_group("migrate-kinds")
def test_a_database_behind_a_symlink(make_app: MakeApp, tmp_path: Path) -> None:
    """The file that it leads to is migrated, and put back when that fails; the symlink stays one."""
    app = make_app("symlink")
    app.deploy("v2")
    app.run("stop", status=0)
    elsewhere = tmp_path / "big disk" / "data.db"
    elsewhere.parent.mkdir()
    for suffix in ("", "-wal", "-shm"):
        if (part := Path(f"{app.database}{suffix}")).exists():
            shutil.move(part, f"{elsewhere}{suffix}")
    app.database.symlink_to(elsewhere)
    inode = elsewhere.stat().st_ino
    app.run("start", status=0)
    with app.under_load() as traffic:
        workshop.git(app.folder, "checkout", "--quiet", "--force", "v3")
        revision = breaks_only_live(app)
        with coming_to_nothing(app, traffic):
            app.change("deploy", revision).must(3, "undone")
        charts = ask(app.database, _CHARTS)
        must_migrate(app, app.deploy("v3"), len(charts))

    assert app.database.readlink() == elsewhere
    assert elsewhere.stat().st_ino == inode
    assert version(elsewhere) == "0002"


_NO_DATABASE = """\
from flask import Flask

app = Flask(__name__)
app.get("/up")(lambda: {"status": "ok"})
"""


@pytest.mark.xdist_group("migrate-kinds")
@pytest.mark.parametrize("is_empty", [False, True])
def test_the_first_migration_of_an_app_without_a_database(make_app: MakeApp, *, is_empty: bool) -> None:
    """Where nothing is, or a file of no bytes, there is nothing to lose: the database is made."""
    app = make_app("first")
    app.settings["app"] = {"entry": "run:app"}
    app.configure()
    grown = (app.folder / "run.py").read_text()
    shutil.move(app.folder / "migrations", app.folder.parent)
    workshop.commit(app.folder, {"run.py": _NO_DATABASE})
    app.deploy()
    app.layout.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    if is_empty:
        app.database.touch()
    shutil.move(app.folder.parent / "migrations", app.folder)
    workshop.commit(app.folder, {"run.py": grown})
    app.change("deploy", breaks_only_live(app)).must(3, "undone")
    assert app.ask()[0] == HTTPStatus.OK
    assert not remains(app)

    workshop.commit(app.folder, {"run.py": grown})
    app.deploy()
    with app.under_load():
        assert version(app.database) == "0001"
    charts = ask(app.database, _CHARTS)
    app.change("rollback").must(0, "deployed")
    assert app.ask()[0] == HTTPStatus.OK
    assert ask(app.database, _CHARTS) == charts
