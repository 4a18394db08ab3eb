"""What `doctor` finds on a real host: each thing is broken for real, told in its own words, and green again after."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

import workshop
from bulletproof.domain.backup import MANIFEST, PROOF, SEAL, read_sealed, sealed
from embedded.examining import changed, examined, on_disk, only
from live_app import LiveApp, branch
from private_index import private_index

pytestmark = [pytest.mark.xdist_group("doctor-finds"), pytest.mark.timeout(600)]

OPENS = """

import os, pathlib, socket, sqlite3
_here = pathlib.Path(os.environ["HOME"])
_kept = []

@app.route("/open")
def _open():
    _kept.append(sqlite3.connect((_here / "open-this").read_text()))
    _kept[-1].execute("SELECT count(*) FROM sqlite_master").fetchone()
    _kept.append(socket.create_server(("0.0.0.0", 0)))
    return str(_kept[-1].getsockname()[1])
"""


@pytest.fixture(scope="module")
def app(make_lasting_app: Callable[[str], LiveApp]) -> LiveApp:
    """An app of one deployment and one backup, of which all is well."""
    made = make_lasting_app("finds")
    made.settings["database"] = {"journal": "wal"}
    made.settings["check"] = {"wal_mib": 1, "schedule": "never"}
    made.settings["backup"] = {"schedule": "7 4 29 2 *"}
    made.configure()
    branch(made, {"run.py": (made.folder / "run.py").read_text() + OPENS})
    made.deploy()
    made.run("backup", "create", status=0)
    return made


def _picture(app: LiveApp) -> dict[str, str]:
    """All of the host's files; of what the app itself writes while it is asked, only whose it is."""
    found = on_disk(app.root, app.layout.sockets)
    for path, told in found.items():
        if path.endswith((".log", "-shm")):
            found[path] = " ".join(told.split()[:3])
        elif path.endswith("-wal"):  # for root SQLite gives it to the owner that it has, whenever the app opens it
            found[path] = told.rpartition(" ")[0]
    return found


def test_looking_changes_nothing(app: LiveApp) -> None:
    """No file, no folder, no owner, no mode, no time: whatever is wrong, whether it runs or not."""
    app.layout.environment.chmod(0o644)
    before = _picture(app)
    found = examined(app)
    for words in (("check",), ("status",), ("history",), ("uptime",)):
        app.run(*words)
    different = changed(before, _picture(app))
    assert not different, different
    assert [*found] == ["permissions"]
    app.layout.environment.chmod(0o600)


def test_what_only_a_person_can_decide(app: LiveApp) -> None:
    """Migrations in an odd state, a database that is damaged or gone, and one that lies beside it."""
    with contextlib.closing(sqlite3.connect(app.database, isolation_level=None)) as database:
        (noted,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
        database.execute("UPDATE alembic_version SET version_num = 'deadbeef'")
        unknown = only(app, "migrations")
        database.execute("DELETE FROM alembic_version")
        unnoted = only(app, "migrations")
        database.execute("INSERT INTO alembic_version VALUES (?)", (noted,))
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert "is at deadbeef, which 1-" in str(unknown["words"])
    assert "no note of the migrations" in str(unnoted["words"])
    assert (unnoted["fix"], unnoted["command"]) == ("", "bulletproof plan")

    files = [file for file in app.layout.data.iterdir() if file.name.startswith("app.db")]
    aside = app.layout.data / "aside"
    aside.mkdir()
    for file in files:
        file.rename(aside / file.name)
    gone = only(app, "database")
    for file in files:
        (aside / file.name).rename(file)
    aside.rmdir()
    assert str(gone["words"]).startswith("the database is gone: ")
    assert str(gone["command"]).startswith("bulletproof backup restore b")

    with app.database.open("r+b") as raw:
        raw.seek(4096)
        page = raw.read(2048)
        raw.seek(4096)
        raw.write(b"\xff" * 2048)
        raw.flush()
        damaged = only(app, "database")
        raw.seek(4096)
        raw.write(page)
    assert damaged["state"] == "critical"
    assert str(damaged["command"]).startswith("bulletproof backup restore b")

    stray = app.layout.data / "app_dev.sqlite3"
    with contextlib.closing(sqlite3.connect(stray)) as database:
        database.execute("CREATE TABLE user (id INTEGER)")
        told = only(app, "stray-databases")
    stray.unlink()
    assert "holds 0 rows in 1 table" in str(told["words"])
    assert "has it open" in str(told["why"])
    assert examined(app) == {}


def test_migrations_with_two_ends(app: LiveApp) -> None:
    """A revision that somebody laid beside the last one; the command that is told merges both."""
    versions = app.layout.current.resolve() / "source" / "migrations" / "versions"
    mode = versions.stat().st_mode
    versions.chmod(0o755)
    other = versions / "9_other.py"
    other.write_text('revision = "9999"\ndown_revision = None\ndef upgrade():\n    pass\n')
    told = only(app, "migrations")
    other.unlink()
    versions.chmod(mode)
    assert told["state"] == "critical"
    assert "have several ends: " in str(told["words"])
    assert "9999" in str(told["words"])
    assert told["command"] == "flask db merge heads"
    assert examined(app, "--only", "migrations") == {}


def test_a_python_that_is_broken_or_another(app: LiveApp) -> None:
    """One that does not start, and one of another minor version, as after an upgrade of the machine."""
    binaries = app.layout.current.resolve() / "venv" / "bin"
    python, mode = binaries / "python", binaries.stat().st_mode
    leads, told = python.readlink(), []
    binaries.chmod(0o755)
    python.unlink()
    for script in ("echo 'error while loading shared libraries: libpython3.so' >&2; exit 127", "echo 3.99.1"):
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        told.append(only(app, "interpreter"))
        python.unlink()
    python.symlink_to(leads)
    binaries.chmod(mode)
    assert str(told[0]["words"]).endswith(" does not start: error while loading shared libraries: libpython3.so")
    assert str(told[1]["words"]).endswith(", and finds Python 3.99.1")
    assert {one["state"] for one in told} == {"critical"}
    assert all(str(one["fix"]).endswith("exchange it, then restart without a dropped request") for one in told)
    assert examined(app, "--only", "interpreter", "--only", "packages") == {}


def test_what_the_app_opens_is_seen(app: LiveApp) -> None:
    """A database outside the data, and a port beside the proxy."""
    elsewhere = app.root / f"{app.name}-elsewhere.db"
    with contextlib.closing(sqlite3.connect(elsewhere, isolation_level=None)) as database:
        database.execute("CREATE TABLE user (id INTEGER)")
    (app.layout.data / "open-this").write_text(str(elsewhere))
    port = app.ask("/open")[2]
    assert str(only(app, "misplaced-database")["words"]).startswith(f"the app has {elsewhere} open")
    assert only(app, "exposed-ports")["words"] == f"the app itself listens on port {port} of every network"


class _Osv(http.server.BaseHTTPRequestHandler):
    """Answers as OSV does: what it knows of each package, in the order in which it was asked."""

    def do_POST(self) -> None:
        """A hole in Flask."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        results = [
            {"vulns": [{"id": "PYSEC-1", "modified": "x"}]} if one["package"]["name"] == "flask" else {}
            for one in asked["queries"]
        ]
        content = json.dumps({"results": results}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def osv() -> Iterator[str]:
    """An address where it is asked."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Osv) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/querybatch"
        server.shutdown()


def test_known_vulnerabilities_are_asked_for_only_when_a_person_says_so(app: LiveApp) -> None:
    """Names and versions go there; where it cannot be asked, that is said, and is no all-clear."""
    with osv() as address:
        found = examined(app, "--only", "vulnerabilities", "--online", "--osv", address)
    silent = app.run("doctor", "--only", "vulnerabilities", "--online", "--osv", address)
    assert "has a known vulnerability: PYSEC-1" in str(found["vulnerabilities"]["words"])
    assert silent.status == 1
    assert "known vulnerabilities are not known" in silent.out
    assert "not compared with known" in app.run("doctor", "--only", "logs", "--only", "vulnerabilities", status=0).out


def test_newer_packages_are_asked_for_at_the_apps_own_index(app: LiveApp, tmp_path: Path) -> None:
    """With the password that its settings have; where nobody answers, that is said, and is no all-clear."""
    wheel, settings = workshop.make_wheel(tmp_path, "flask", "99.1"), app.layout.environment.read_text()
    words = ("--only", "outdated", "--online")
    with private_index(wheel, "canary-sesame") as index:
        given = {**json.loads(settings), "PIP_INDEX_URL": index.address_with_password}
        app.layout.environment.write_text(json.dumps(given))
        found, asked = examined(app, *words)["outdated"], list(index.asked)
        said = app.run("doctor", *words)
    silent = app.run("doctor", *words)
    app.layout.environment.write_text(settings)
    assert ("/simple/flask/", True) in asked
    assert str(found["words"]).startswith("1 of the ")
    assert str(found["words"]).endswith("has a newer version")
    assert str(found["more"]).endswith(": 99.1 is there']")
    assert (found["state"], found["fix"], index.seen_in) == ("warning", "", [])
    assert "sesame" not in said.out + said.err + silent.out + silent.err
    assert "newer versions of packages are not known" in silent.out
    assert silent.status == 1


def test_a_wal_that_grows(app: LiveApp) -> None:
    """Who reads for ever is named; once it is gone, a restart empties what it left."""
    with contextlib.closing(sqlite3.connect(app.database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM user").fetchone()
        with contextlib.closing(sqlite3.connect(app.database, isolation_level=None)) as writer:
            writer.execute("CREATE TABLE junk AS SELECT zeroblob(3000000) AS it")
            writer.execute("DROP TABLE junk")
        named = only(app, "wal")
        checked = json.loads(app.run("check", "--only", "database-file", "--format", "json").out)["checks"][0]
    left = only(app, "wal")
    mended = app.run("doctor", "--fix", "--yes", "--only", "wal")
    assert str(checked["words"]).startswith("its -wal has 5 MiB: something reads for too long")
    assert f"(process {os.getpid()}) has the database open" in str(named["why"])
    assert str(named["command"]).startswith(f"end it (kill {os.getpid()})")
    assert left["fix"] == "restart without a dropped request, and empty it"
    assert mended.status == 0, mended
    assert "-wal of 5 MiB was emptied" in mended.err
    assert examined(app) == {}


def test_a_journal_mode_that_is_not_the_wished_one(app: LiveApp) -> None:
    """Somebody took the database out of WAL mode; the command that is told puts it back."""
    app.run("stop", status=0)
    with contextlib.closing(sqlite3.connect(app.database)) as database:
        database.execute("PRAGMA journal_mode = delete")
        told = only(app, "durability")
        before = _picture(app)
        assert [*examined(app)] == ["durability"]
        assert changed(before, _picture(app)) == {}
        database.execute(str(told["command"]).split("'")[1])
    assert str(told["words"]).endswith("app.db is in DELETE mode, and [database] journal asks for wal")
    assert examined(app) == {}
    app.run("start", status=0)


def test_backups_that_are_old_or_damaged(app: LiveApp) -> None:
    """One that is three days old, and one of which a byte is another: both are told, and another one is made."""
    (place,) = app.layout.backups.glob("b*")
    manifest, digest = read_sealed((place / MANIFEST).read_bytes(), (place / SEAL).read_bytes(), "b1")
    made = json.loads((place / PROOF).read_bytes())
    old = msgspec.structs.replace(manifest, taken_at=(datetime.now(UTC) - timedelta(days=3)).isoformat())
    content, seal = sealed(old)
    (place / MANIFEST).write_bytes(content)
    (place / SEAL).write_bytes(seal)
    (place / PROOF).write_text(json.dumps({**made, "sha256": hashlib.sha256(content).hexdigest()}))
    assert made["sha256"] == digest
    stale = only(app, "backups")
    app.run("doctor", "--fix", "--yes", "--only", "backups", status=0)

    newest = app.layout.backups / "b2"
    with next(newest.glob("database.db*")).open("r+b") as raw:
        raw.seek(2000)
        raw.write(bytes([raw.read(1)[0] ^ 1]))
    told = app.run("doctor", "--only", "backups").out
    left = app.run("doctor", "--fix", "--yes", "--only", "backups")
    assert stale["words"] == "the newest, b1, is 72 hours old"
    assert "of the backups, b2 is damaged or was altered: database.db has another digest" in told
    assert "no backup is left that is whole, proven and fresh" in told
    assert (left.status, left.out.count("of the backups, b2")) == (1, 2), left
    shutil.rmtree(str(only(app, "backups")["command"]).removeprefix("rm -r "))
    assert examined(app) == {}
