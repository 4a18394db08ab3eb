"""Backups off this machine, and an app that comes back from there when its machine is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import workshop
from bulletproof.effects.isolation import why_no_namespaces
from embedded.conftest import LayApp
from embedded.test_backup import back_up, charts, listed
from free_ports import free_port
from live_app import LiveApp

pytestmark = [
    pytest.mark.skipif(
        bool(why_no_namespaces()), reason=f"the kernel lets this user make no cell: {why_no_namespaces()}"
    ),
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("offsite"),
]

MakeApp = Callable[[str], LiveApp]


def connect(app: LiveApp, url: str, *words: str) -> str:
    """Send backups there from now on; the new key, if there is one."""
    return app.run("backup", "connect", url, *words, status=0).out.strip()


def test_a_lost_machine_comes_back_from_a_bucket(make_app: MakeApp, house: Path, bucket: str) -> None:
    """Another machine, with the source, the bucket's keys and the key of the backups, serves what the first one had."""
    lost = make_app("lost")
    lost.deploy("v2")
    with lost.under_load():
        time.sleep(2)
    key = connect(lost, bucket)
    assert key.startswith("AGE-SECRET-KEY-1")
    told = lost.run("backup", "create", status=0)
    assert "restored for a trial" in told.out
    assert "b1 is at " in told.out
    assert "encrypted" in told.out
    assert "; off site" in lost.run("backup", "list", status=0).out
    assert lost.run("backup", "list", "--off-site", status=0).out.startswith("    b1  ")
    assert "✓ b1" in lost.run("backup", "verify", "--off-site", status=0).out
    (first,) = listed(lost)
    assert isinstance(first["off_site"], dict)
    assert first["off_site"]["verified_at"]
    had = charts(lost.database)
    assert had
    lost.run("stop", status=0)

    (house / "key").write_text(f"# kept elsewhere\n{key}\n")
    anew = LiveApp(root=house / "another-root", name=lost.name, folder=lost.folder, port=free_port())
    anew.configure()
    try:
        connect(anew, bucket, "--key-file", str(house / "key"))
        assert "b1 of " in anew.run("backup", "fetch", status=0).out
        done = anew.deploy("v2", "--backup", "b1")
        assert "backup b1 of " in done.note("data")
        assert charts(anew.database) == had
        assert anew.ask()[0] == 200
        refused = anew.run("deploy", "--backup", "b1")
        assert (refused.status, "backup restore b1" in refused.err) == (2, True)
        assert back_up_name(anew) == "b2"
        assert [one["name"] for one in json.loads(anew.run("backup", "list", "--off-site", "--json").out)] == [
            "b2",
            "b1",
        ]
    finally:
        anew.end()


def back_up_name(app: LiveApp) -> str:
    """Make a backup that goes off site as well; its name."""
    first, *_ = app.run("backup", "create", "--json", status=0).out.splitlines()
    return str(json.loads(first)["name"])


def test_nothing_readable_lies_there_and_nothing_altered_comes_back(make_app: MakeApp, tmp_path: Path) -> None:
    """Encrypted before it leaves; a byte that changed there, or another key, is refused, and nothing is left of it."""
    app = make_app("sealed")
    app.deploy("v2")
    place = tmp_path / "disk"
    place.mkdir()
    connect(app, f"file://{place}")
    back_up_name(app)
    files = [path for path in place.rglob("*") if path.is_file()]
    assert len(files) == 3
    assert all(path.name.endswith(".age") for path in files)
    assert not [path for path in files if b"SQLite" in path.read_bytes() or b"alembic" in path.read_bytes()]

    app.run("backup", "prune", status=0)
    (database,) = [path for path in files if "database" in path.name]
    content = bytearray(database.read_bytes())
    content[len(content) // 2] ^= 1
    database.write_bytes(content)
    assert app.run("backup", "verify", "--off-site").status == 1
    for path in (app.layout.backups / "b1").iterdir():
        path.unlink()
    (app.layout.backups / "b1").rmdir()
    done = app.run("backup", "fetch")
    assert done.status == 1
    assert "error: not-decrypted" in done.err
    assert not list(app.layout.backups.iterdir())

    connect(app, f"file://{place}", "--unencrypted")
    assert "not encrypted" in app.run("backup", "connect", status=0).out
    database.write_bytes(bytes(content))
    done = app.run("backup", "fetch")
    assert (done.status, "the key to it is not on this machine" in done.err) == (2, True)


def test_a_place_that_is_gone_costs_no_backup(make_app: MakeApp, tmp_path: Path) -> None:
    """The backup is made and proven; that it is not off site is an error, and the next time makes up for it."""
    app = make_app("away")
    app.deploy("v1")
    place = tmp_path / "disk"
    place.mkdir()
    connect(app, f"file://{place}")
    missing = app.run("backup", "connect", f"file://{tmp_path}/none")
    assert (missing.status, "could not be put" in missing.err or "is not there" in missing.err) == (1, True)
    assert "removed" not in missing.err
    place.rename(tmp_path / "unplugged")
    (tmp_path / "disk").write_text("no folder")
    done = app.run("backup", "create")
    assert done.status == 1
    assert "✓ b1" in done.out
    assert "error: offsite-failed" in done.err
    assert "the backup is on this machine" in done.err
    assert listed(app)[0]["off_site"] is None
    (tmp_path / "disk").unlink()
    (tmp_path / "unplugged").rename(place)
    assert "b1 is at " in app.run("backup", "send", status=0).out
    assert app.run("backup", "send", status=0).out == ""
    app.run("backup", "connect", "--off", status=0)
    assert back_up(app) == "b2"
    assert listed(app)[-1]["off_site"] is None


_FILES = {
    "app.py": "from flask import Flask\napp = Flask(__name__)\n\n\n@app.get('/')\ndef home():\n    return 'here'\n",
    "requirements.txt": "flask\ngunicorn\n",
}


def test_the_files_of_users_come_back_as_well(lay_app: LayApp, house: Path, tmp_path: Path) -> None:
    """A new machine begins with the persistent folders of the backup."""
    lost = lay_app("files", _FILES)
    lost.settings["app"] = {"persistent": ["uploads"], "entry": "app:app"}
    lost.configure()
    workshop.commit(lost.folder, {}, "Configure it")
    lost.deploy()
    (lost.layout.data / "uploads" / "ä.txt").write_text("mine")
    (lost.layout.data / "uploads" / "ä.txt").chmod(0o755)
    (lost.layout.data / "uploads" / "link").symlink_to("ä.txt")
    (lost.layout.data / "uploads" / "empty").mkdir()
    place = tmp_path / "disk"
    place.mkdir()
    key = connect(lost, f"file://{place}")
    back_up_name(lost)
    lost.run("stop", status=0)
    (house / "key-2").write_text(key)
    anew = LiveApp(root=house / "third-root", name=lost.name, folder=lost.folder, port=None)
    try:
        connect(anew, f"file://{place}", "--key-file", str(house / "key-2"))
        anew.run("backup", "fetch", "b1", status=0)
        done = anew.deploy("--backup", "b1")
        assert "1 file of uploads" in done.note("data")
        uploads = anew.layout.data / "uploads"
        assert ((uploads / "ä.txt").read_text(), (uploads / "ä.txt").stat().st_mode & 0o777) == ("mine", 0o755)
        assert (uploads / "link").readlink() == Path("ä.txt")
        assert (uploads / "empty").is_dir()
        assert not list(anew.layout.data.glob(".bulletproof-*"))
        (uploads / "ä.txt").write_text("changed")
        anew.change("backup", "restore", "b1", "--yes").must(0, "deployed")
        assert (uploads / "ä.txt").read_text() == "mine"
        kept = [path.parent.name for path in anew.layout.backups.glob("*/manifest.json")]
        assert len(kept) == 2, "what the restore replaced is a backup, and not the one of the other machine"
    finally:
        anew.end()
