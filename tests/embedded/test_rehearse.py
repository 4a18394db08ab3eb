"""Every deployment is rehearsed on a copy of the live data, and nothing that a release does there reaches it."""

from __future__ import annotations

import hashlib
import re
import socket
import sqlite3
import textwrap
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from bulletproof.demo.playground import example
from bulletproof.effects.isolation import why_no_namespaces
from embedded.data import ask, kept
from live_app import LiveApp, branch

pytestmark = [
    pytest.mark.skipif(
        bool(why_no_namespaces()), reason=f"the kernel lets this user make no cell: {why_no_namespaces()}"
    ),
    pytest.mark.xdist_group("rehearse"),
]

MakeApp = Callable[[str], LiveApp]


@pytest.fixture(scope="module")
def app(make_lasting_app: MakeApp) -> LiveApp:
    """An app that serves v2, with a user in its database and nobody who writes."""
    app = make_lasting_app("rehearse")
    app.deploy("v2")
    with sqlite3.connect(app.database) as connection:
        connection.execute("INSERT INTO user (username, password_hash) VALUES ('ada', 'x')")
    connection.close()
    return app


def release_that(app: LiveApp, code: str) -> str:
    """A commit on top of v2 whose create_app first runs this code; `live` is the live database's hard-coded path."""
    source = (example() / "run.py").read_text()
    lines = [f"live = {str(app.database)!r}", textwrap.dedent(code)]
    return branch(app, {"run.py": "\n".join(lines) + "\n" + source}, title="A release that does something at boot")


def content(database: Path) -> str:
    """The live file byte for byte, and what lies beside it."""
    parts = (Path(f"{database}{suffix}") for suffix in ("", "-wal"))
    return hashlib.sha256(b"".join(part.read_bytes() for part in parts if part.exists())).hexdigest()


def assert_untouched(app: LiveApp, before: str) -> None:
    """The live database is as it was, the old release serves, and nothing of the rehearsal is left."""
    assert content(app.database) == before
    assert app.version() == "v2"
    assert not list((app.layout.state / "rehearsal").glob("*"))
    assert not list(app.layout.sockets.glob("r[0-9]*"))
    # What outlives its deployer becomes a child of the first process; other tests rehearse at the same time.
    orphans = [one for one in psutil.process_iter(["cmdline", "ppid"]) if one.info["ppid"] == 1]
    assert not [one for one in orphans if "cell.py" in " ".join(one.info["cmdline"] or [])]


def test_a_release_that_can_boot_only_once_is_refused(app: LiveApp) -> None:
    """A change at boot that cannot be made twice is seen on the copy and refused; the live file is not touched."""
    before = content(app.database)
    revision = release_that(
        app,
        """
        import sqlite3
        connection = sqlite3.connect(live)
        connection.execute("ALTER TABLE user ADD COLUMN nickname TEXT")
        connection.commit()
        """,
    )

    done = app.change("deploy", revision).must(3, "undone")

    assert done.reference == "boots-only-once"
    assert "duplicate column name: nickname" in done.out
    assert_untouched(app, before)


def test_a_release_that_deletes_at_boot_is_refused(app: LiveApp) -> None:
    """Rows that vanish on the copy stop the release, although it hard-codes its path and ignores its setting."""
    before = content(app.database)
    revision = release_that(
        app,
        """
        import sqlite3
        connection = sqlite3.connect(live)
        connection.execute("DELETE FROM user")
        connection.commit()
        """,
    )

    done = app.change("deploy", revision).must(3, "undone")

    assert done.reference == "data-loss"
    assert "removes 1 of 1 rows of user" in done.out
    assert_untouched(app, before)


def test_what_is_allowed_once_may_be_done_at_each_boot(app: LiveApp) -> None:
    """A release that clears something whenever it boots is allowed once; then it restarts and comes back by itself."""
    revision = release_that(
        app,
        """
        import sqlite3
        connection = sqlite3.connect(live)
        connection.execute("DELETE FROM user WHERE username LIKE 'guest-%'")
        connection.commit()
        """,
    )
    guest = "INSERT INTO user (username, password_hash) VALUES ('guest-1', 'x')"
    for command in (("deploy", revision, "--allow-data-loss"), ("restart",)):
        with closing(sqlite3.connect(app.database)) as connection, connection:
            connection.execute(guest)
        app.change(*command).must(0, "deployed")
        with closing(sqlite3.connect(app.database)) as connection:
            assert connection.execute("SELECT username FROM user").fetchall() == [("ada",)]

    app.deploy("v2")


def test_a_release_that_fails_only_on_the_copy_never_runs_beside_the_live_one(app: LiveApp) -> None:
    """What fails in the rehearsal ends there: no instance is started on the live data."""
    before = content(app.database)
    revision = release_that(app, "import os; os.environ.get('BULLETPROOF_RELEASE') and 1 / 0")

    done = app.change("deploy", revision).must(3, "undone")

    assert done.reference == "crashed-at-boot"
    assert "rehearsed on a copy of the data" in done.out
    assert "start" not in done.steps("step-started")
    assert_untouched(app, before)


def test_a_webhook_at_boot_reaches_nobody(app: LiveApp) -> None:
    """A release that calls out when it boots is refused with its own error, and the call was never made."""
    before = content(app.database)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        revision = release_that(
            app, f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]})).send(b'mail')"
        )

        done = app.change("deploy", revision).must(3, "undone")

        with pytest.raises(TimeoutError):
            server.accept()
    assert "ConnectionRefusedError" in done.out
    assert_untouched(app, before)


def test_a_killed_rehearsal_leaves_no_copy_of_the_data(app: LiveApp) -> None:
    """kill -9 in the rehearsal: the copy and what ran on it are gone when the host is whole, without a command."""
    before = content(app.database)

    app.kill_at("step-started", "rehearse", "deploy", "v2")
    app.wait_until_whole()

    assert_untouched(app, before)


def test_a_good_release_says_what_it_was_rehearsed_on(app: LiveApp) -> None:
    """The step's line tells the copy's size and the gate's words; there is no hold when the data stays as it is."""
    done = app.deploy(release_that(app, "pass"))

    assert re.search(r"on a copy of \d+\.\d MiB: /up healthy 3 times in a row", done.out)
    assert "hold" not in done.steps("step-started")


def test_a_release_that_changes_the_data_at_boot_is_a_migration(app: LiveApp) -> None:
    """Rows that a boot adds are told, requests wait meanwhile, and the database from before is kept."""
    revision = release_that(
        app,
        """
        import sqlite3
        connection = sqlite3.connect(live)
        connection.execute("INSERT INTO user (username, password_hash) SELECT 'root', 'x'"
                           " WHERE NOT EXISTS (SELECT 1 FROM user WHERE username = 'root')")
        connection.commit()
        """,
    )

    done = app.deploy(revision)

    assert {"hold", "snapshot", "migrate", "swap"} <= set(done.steps("step-done"))
    assert "its boot changes the data\\nadds 1 rows to user" in done.out
    with closing(sqlite3.connect(app.database)) as connection:
        assert connection.execute("SELECT count(*) FROM user WHERE username = 'root'").fetchone() == (1,)
    before = kept(app, int(str(app.status()["deployment"])))
    assert ask(before, "SELECT count(*) FROM user WHERE username = 'root'") == [(0,)]
