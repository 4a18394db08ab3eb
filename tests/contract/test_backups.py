"""Backups as folders: what is in them, under a hammering writer, and that nothing altered passes for one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from backports import zstd
from msgspec.structs import replace

import workshop
from bulletproof.adapters.backups import FolderBackups
from bulletproof.domain.backup import MANIFEST, SEAL, Backup, Damaged, Proof, Reason
from bulletproof.domain.layout import Layout
from bulletproof.effects import durable
from bulletproof.effects.sqlite_copy import compare_rows
from bulletproof.errors import BulletproofError, Refused, StepFailed, UsageError
from bulletproof.ports import Taking

ROUNDS = int(os.environ.get("BULLETPROOF_BACKUPS", "40"))
"""Backups under a hammering writer; docs/guides/database.md tells of 1,000."""
SEED = int(os.environ.get("BULLETPROOF_SEED", "20261127"))
_MIB = 1 << 20


class House:
    """An app's data on a disk, and its backups."""

    def __init__(self, root: Path, *, mode: str = "WAL", compress: bool = False) -> None:
        self.layout = Layout(root=root, app="shop", runtime=root / "run")
        self.file = self.layout.data / "app.db"
        self.compress = compress
        self.file.parent.mkdir(parents=True)
        self.backups = FolderBackups(self.layout, self.file, lambda: "2026-11-27T12:00:00.000+00:00")
        with closing(sqlite3.connect(self.file)) as made:
            made.execute(f"PRAGMA journal_mode = {mode}")
            made.executescript(
                "CREATE TABLE note (id INTEGER PRIMARY KEY, words TEXT);"
                "CREATE TABLE alembic_version (version_num TEXT);"
                "INSERT INTO alembic_version VALUES ('0007'); INSERT INTO note VALUES (1, 'one'), (2, 'two');"
            )

    def uploads(self) -> Path:
        """A persistent folder with all that users may put into one."""
        folder = self.layout.data / "uploads"
        (folder / "ä b" / "empty").mkdir(parents=True)
        (folder / "ä b" / "picture.png").write_bytes(bytes(range(256)) * 999)
        (folder / "none").write_bytes(b"")
        (folder / "script").write_text("#!/bin/sh\n")
        (folder / "script").chmod(0o750)
        (folder / "to-file").symlink_to("script")
        (folder / "to-outside").symlink_to("/etc/passwd")
        os.utime(folder / "script", (1_000_000_000, 1_000_000_000))
        return folder

    def take(self, **changes: object) -> Backup:
        """A backup of today's data."""
        folders = {"uploads": self.layout.data / "uploads"} if (self.layout.data / "uploads").exists() else {}
        wish = Taking(
            reason=Reason.ASKED,
            release="3-abc",
            revision="abc",
            settings=3,
            taken_by="ada",
            folders=folders,
            compress=self.compress,
        )
        return self.backups.take(replace(wish, **changes))

    def restored(self, backup: Backup) -> Path:
        """Its database, laid."""
        target = self.layout.root / "laid.db"
        target.unlink(missing_ok=True)
        self.backups.lay_database(backup, target)
        return target

    def why_not(self, backup: Backup) -> str:
        """Read everything as `verify` does: why that is refused; empty when it is not."""
        laid = self.layout.root / "laid"
        shutil.rmtree(laid, ignore_errors=True)
        laid.mkdir()
        try:
            again = self.backups.get(backup.name)
            self.backups.check(again)
            self.backups.lay_database(again, laid / "app.db")
            self.backups.lay_folders(again, laid / "folders")
        except BulletproofError as error:
            assert not (laid / "app.db").exists() or again.manifest.archive
            return f"{error.reference}: {error.message}"
        return ""


@pytest.fixture(params=[False, True], ids=["plain", "packed"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> House:
    """Data, whose backups are packed or not."""
    return House(tmp_path, compress=request.param)


def rows(file: Path, query: str = "SELECT id FROM note ORDER BY id") -> list[tuple[object, ...]]:
    """Read a database that nobody writes to."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as connection:
        return connection.execute(query).fetchall()


def tree(folder: Path) -> dict[str, object]:
    """What is in a folder: contents, links, modes, and a file's time to the second."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        else:
            content = path.read_bytes() if path.is_file() else "folder"
            found[name] = (
                content,
                stat.S_IMODE(path.stat().st_mode),
                int(path.stat().st_mtime) if path.is_file() else 0,
            )
    return found


# --- what is in one


def test_it_holds_the_data_and_says_so(house: House) -> None:
    """Database, folders and manifest are what was there; nobody else may read any of it, and nothing is left beside."""
    uploads = house.uploads()
    backup = house.take()
    manifest = backup.manifest

    assert (manifest.name, manifest.release, manifest.tables) == ("b1", "3-abc", {"note": 2, "alembic_version": 1})
    assert (manifest.migrations, manifest.folders, manifest.files) == (("0007",), ("uploads",), 3)
    assert manifest.sqlite == sqlite3.sqlite_version
    assert stat.S_IMODE(backup.place.stat().st_mode) == stat.S_IMODE(backup.place.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in backup.place.iterdir()} == {0o600}
    assert {path.suffix == ".zst" for path in backup.place.glob("*[!n6]")} <= {house.compress}
    assert rows(house.restored(backup)) == [(1,), (2,)]
    assert house.backups.lay_folders(backup, house.layout.root / "files") == 3
    assert tree(house.layout.root / "files" / "uploads") == tree(uploads)
    assert [path.name for path in house.layout.backups.iterdir()] == ["b1"]
    assert house.backups.get("b1") == backup == house.backups.all()[0]


def test_links_to_the_database_lead_to_it(house: House) -> None:
    """What the app opens inside a folder of users is the live database afterwards, wherever the backup was made."""
    folder = house.uploads()
    (folder / "old.db").symlink_to("/another/machine/app.db")
    (folder / "file.db").write_text("a file")
    backup = house.take()
    target = house.layout.root / "files"
    links = ("uploads/old.db", "uploads/new.db", "uploads/file.db", "elsewhere/x.db", "uploads/none/x.db")
    house.backups.lay_folders(backup, target, links)
    assert (target / "uploads" / "old.db").readlink() == (target / "uploads" / "new.db").readlink() == house.file
    assert (target / "uploads" / "file.db").read_text() == "a file"
    assert not (target / "elsewhere").exists()


def test_names_are_never_used_twice(house: House) -> None:
    """They count on from the newest, whatever was removed before it, and beyond ten."""
    names = [house.take().name for _ in range(11)]
    house.backups.discard("b3")
    house.backups.discard("b3")
    names.append(house.take().name)

    assert names == [f"b{number}" for number in range(1, 13)]
    assert [one.name for one in house.backups.all()] == [name for name in names if name != "b3"]
    with pytest.raises(UsageError) as caught:
        house.backups.get("b3")
    assert caught.value.reference == "backup-unknown"


@pytest.mark.parametrize("name", ["", "b", "b1/../b1", "../b1", "b-1", "b1 ", "b¹", ".bp-new-1", "B1"])
def test_what_is_no_name_is_no_backup(house: House, name: str) -> None:
    """No name leads anywhere else, and none of these removes anything."""
    house.take()
    with pytest.raises(UsageError):
        house.backups.get(name)
    house.backups.discard(name)
    assert len(house.backups.all()) == 1


def test_without_a_database(house: House) -> None:
    """An app without one has its folders in a backup; and the other way round, an app without folders."""
    house.file.unlink()
    house.uploads()
    backup = house.take()
    assert backup.manifest.database is None
    with pytest.raises(Refused) as caught:
        house.backups.lay_database(backup, house.layout.root / "laid.db")
    assert caught.value.reference == "backup-empty"
    assert house.backups.lay_folders(backup, house.layout.root / "files") == 3


def test_a_file_that_nobody_writes_to(house: House) -> None:
    """A snapshot becomes a backup as it is; the live database is not looked at."""
    snapshot = house.layout.root / "7.db"
    shutil.copyfile(house.restored(house.take()), snapshot)
    with closing(sqlite3.connect(house.file)) as live, live:
        live.execute("INSERT INTO note VALUES (3, 'three')")
    backup = house.take(database=snapshot, deployment=7, reason=Reason.MIGRATION)
    snapshot.unlink()

    assert backup.manifest.tables["note"] == 2
    assert rows(house.restored(backup)) == [(1,), (2,)]


def test_a_damaged_database_is_refused_or_told(house: House) -> None:
    """No backup is made of it, unless it is to be kept whatever it is; then it says that it is damaged."""
    file = house.layout.root / "7.db"
    with closing(sqlite3.connect(file)) as made, made:
        made.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, words TEXT)")
        made.executemany("INSERT INTO note (words) VALUES (?)", [("word" * 100,)] * 500)
    content = bytearray(file.read_bytes())
    content[8192:12288] = bytes(4096)
    file.write_bytes(content)

    with pytest.raises(Refused) as caught:
        house.take(database=file)
    assert caught.value.reference == "database-not-whole"
    assert house.backups.all() == ()
    backup = house.take(database=file, may_be_damaged=True)
    assert "damaged" in backup.manifest.damage
    assert "damaged" in house.why_not(backup)


@pytest.mark.parametrize("sql", [
    "PRAGMA page_size = 512; CREATE TABLE t (a); INSERT INTO t VALUES (1);",
    "PRAGMA page_size = 65536; CREATE TABLE t (a); INSERT INTO t VALUES (1);",
    "PRAGMA encoding = 'UTF-16'; CREATE TABLE t (a); INSERT INTO t VALUES ('ä');",
    "CREATE TABLE t (a PRIMARY KEY) WITHOUT ROWID; INSERT INTO t VALUES (1);",
    "CREATE TABLE t (a, b AS (a + 1)); INSERT INTO t (a) VALUES (1);",
    "CREATE VIRTUAL TABLE t USING fts5(a); INSERT INTO t VALUES ('words');",
    'CREATE TABLE "odd ""name" (a); CREATE VIEW v AS SELECT 1; CREATE TABLE t (a); INSERT INTO t VALUES (NULL);',
])  # fmt: skip
def test_every_kind_of_database(tmp_path: Path, sql: str) -> None:
    """Page sizes, encodings, tables without a rowid, generated columns, full text: taken, proven, and compared."""
    house = House(tmp_path)
    house.file.unlink()
    with closing(sqlite3.connect(house.file)) as made:
        made.executescript(sql)
    backup = house.take()
    assert not house.why_not(backup)
    assert not json.loads(compare_rows(tmp_path / "laid" / "app.db", backup.place / "database.db"))


@pytest.mark.parametrize("table", ["t (a TEXT COLLATE app)", "t (a TEXT COLLATE app PRIMARY KEY) WITHOUT ROWID"])
def test_a_collation_of_the_apps_own(tmp_path: Path, table: str) -> None:
    """Nobody but the app knows its order; its rows are kept and counted all the same."""
    house = House(tmp_path)
    with closing(sqlite3.connect(house.file)) as made, made:
        made.create_collation("app", lambda one, other: (one < other) - (one > other))
        made.execute(f"CREATE TABLE {table}")
        made.execute("CREATE INDEX i ON t (a)")
        made.executemany("INSERT INTO t VALUES (?)", [(str(number),) for number in range(2000)])
    backup = house.take()
    assert backup.manifest.tables["t"] == 2000
    assert not house.why_not(backup)
    assert not json.loads(compare_rows(tmp_path / "laid" / "app.db", backup.place / "database.db"))


def test_sockets_are_left_out(house: House) -> None:
    """What is no file, folder or symlink cannot be kept, and does no harm."""
    folder = house.uploads()
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(folder / "socket"))
        backup = house.take()
    assert backup.manifest.files == 3
    assert {words.partition(" ")[0] for words in backup.manifest.left_out} == {"uploads/pipe", "uploads/socket"}
    assert not house.why_not(backup)


@pytest.mark.root
def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    """A file and a folder that are closed to us are named in the manifest; all else is there."""
    house = House(tmp_path)
    folder = house.uploads()
    (folder / "none").chmod(0)
    (folder / "ä b").chmod(0)
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from bulletproof.effects.packing import pack_folders\n"
        "done = pack_folders({'uploads': Path(sys.argv[1])}, Path(sys.argv[2]), 'files.tar', compress=False)\n"
        "print(done.files, *done.left_out, sep='\\n')\n"
    )
    without = "-dac_override,-dac_read_search"
    done = subprocess.run(
        [
            "setpriv",
            "--bounding-set",
            without,
            "--inh-caps",
            without,
            sys.executable,
            "-P",
            "-c",
            script,
            folder,
            tmp_path,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    files, *told = done.stdout.splitlines()
    assert (files, len(told)) == ("1", 2), done
    assert told[0].startswith("uploads/none cannot be read") or told[1].startswith("uploads/none cannot be read")
    assert any(words.startswith("uploads/ä b cannot be entered") for words in told)


def test_files_that_change_meanwhile(house: House) -> None:
    """A log that grows, files that come and go: the archive is whole, with each file as it was when it was begun."""
    folder = house.uploads()
    script = (
        "import itertools, os, sys\n"
        "os.chdir(sys.argv[1])\n"
        "for n in itertools.count():\n"
        "    open('log', 'ab').write(b'x' * 5000)\n"
        "    open(f'new-{n}', 'wb').write(b'y' * 70000)\n"
        "    if n > 5: os.unlink(f'new-{n - 5}')\n"
        "    if n % 7 == 0: os.truncate('log', 10)\n"
    )
    with running(script, str(folder)):
        backups = [house.take() for _ in range(8)]
    assert [house.why_not(backup) for backup in backups] == [""] * 8


@contextmanager
def running(script: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A program that runs until the end of the block."""
    process = subprocess.Popen([sys.executable, "-c", script, *words], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


# --- under a hammering writer

_HAMMER = """
import os, sqlite3, sys, time
file, ledger, mode = sys.argv[1:]
connection = sqlite3.connect(file, isolation_level=None, timeout=60)
connection.execute("PRAGMA synchronous = OFF")  # the faster, the harder for the backup
written = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
number = 10
while True:
    number += 1
    connection.execute("INSERT INTO note VALUES (?, ?)", (number, "w" * (number % 90)))
    if number % 3 == 0:
        connection.execute("UPDATE note SET words = words || '!' WHERE id = ?", (number - 2,))
    os.write(written, b"%8d\\n" % number)
    time.sleep(0.0002 if number < 50_000 else 0.005)  # or its rows soon outgrow the disk
"""


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_under_a_hammering_writer(tmp_path: Path, mode: str) -> None:
    """Each of many backups is whole and has every write that was acknowledged before it began, and no gap behind."""
    house, ledger = House(tmp_path, mode=mode), tmp_path / "ledger"
    ledger.touch()
    rounds = ROUNDS if mode == "WAL" else max(10, ROUNDS // 5)
    with running(_HAMMER, str(house.file), str(ledger), mode):
        for _ in range(rounds):
            acknowledged = _last(ledger)
            backup = house.take()
            assert not house.why_not(backup)
            numbers = [number for (number,) in rows(tmp_path / "laid" / "app.db") if int(str(number)) > 2]
            assert numbers == list(range(11, 11 + len(numbers)))
            assert 10 + len(numbers) >= acknowledged
            house.backups.discard(f"b{int(backup.name[1:]) - 1}")
    assert _last(ledger) > 10 + rounds


def _last(ledger: Path) -> int:
    """The last write that was acknowledged."""
    with ledger.open("rb") as file:
        file.seek(max(0, ledger.stat().st_size // 9 * 9 - 9))
        return int(file.read(9) or b"10")


# --- nothing altered passes for one


def test_no_byte_can_be_bad(house: House) -> None:
    """A byte flipped anywhere in any of its files is noticed: tried at many places, and at all of the seal."""
    house.uploads()
    backup = house.take()
    chance = random.Random(SEED)
    assert not house.why_not(backup)
    for file in sorted(backup.place.iterdir()):
        content = file.read_bytes()
        # The file's name behind the digest says nothing.
        size = 64 if file.name == SEAL else len(content)
        places = range(size) if file.name == SEAL else sorted(chance.sample(range(size), min(size, 60)))
        for place in places:
            bad = bytearray(content)
            bad[place] ^= 1 << chance.randrange(8)
            file.write_bytes(bad)
            assert house.why_not(backup).startswith(("backup-altered", "backup-newer")), (file, place)
        file.write_bytes(content)
    assert not house.why_not(backup)


@pytest.mark.parametrize("kind", ["cut", "emptied", "longer", "gone", "another's", "a folder's"])
def test_no_file_of_it_can_be_another(house: House, kind: str) -> None:
    """Truncated, emptied, grown, missing, or from another backup: refused, and told which."""
    house.uploads()
    backup = house.take()
    with closing(sqlite3.connect(house.file)) as live, live:
        live.execute("INSERT INTO note VALUES (3, 'three')")
    (house.layout.data / "uploads" / "more").write_text("more")
    other = house.take()
    for file in sorted(backup.place.iterdir()):
        content = file.read_bytes()
        if kind == "gone":
            file.unlink()
        elif kind == "a folder's":
            file.unlink()
            file.mkdir()
        else:
            changed = {"cut": content[:-1], "emptied": b"", "longer": content + b"\0"}
            file.write_bytes(changed.get(kind, (other.place / file.name).read_bytes()))
        is_harmless = file.name == SEAL and kind in {"cut", "longer"}  # the end of the seal says nothing
        if kind == "a folder's":
            with pytest.raises((BulletproofError, OSError)):
                house.backups.check(house.backups.get(backup.name))
            file.rmdir()
        else:
            assert bool(house.why_not(backup)) is not is_harmless, file
        file.write_bytes(content)
    assert not house.why_not(backup)
    assert not house.why_not(other)


def test_another_apps_backup_is_refused(tmp_path: Path) -> None:
    """A foreign one, and one under another name, are no backups of this app."""
    one, other = House(tmp_path / "one"), House(tmp_path / "other")
    backup = one.take()
    other.backups._layout = replace(other.layout, app="blog")
    other.layout = other.backups._layout
    shutil.copytree(backup.place, other.layout.backups / "b1")
    assert "backup-foreign" in other.why_not(backup)
    backup.place.rename(backup.place.with_name("b9"))
    assert "it says that it is b1" in one.why_not(replace(backup, place=backup.place.with_name("b9"))) or (
        isinstance(one.backups.all()[0], Damaged)
    )


def resealed(backup: Backup, change: Callable[[dict[str, object]], object]) -> None:
    """A manifest that somebody wrote who knows how it is sealed."""
    manifest = json.loads((backup.place / MANIFEST).read_bytes())
    change(manifest)
    content = json.dumps(manifest).encode()
    (backup.place / MANIFEST).write_bytes(content)
    (backup.place / SEAL).write_text(hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: one.update(format=2), "newer Bulletproof"),
        (lambda one: one.update(app="blog"), "a backup of blog"),
        (lambda one: one.update(name="b7"), "it says that it is b7"),
        (lambda one: one["database"].update(name="../../../app.db"), "names a part"),
        (lambda one: one["database"].update(name="/etc/passwd"), "names a part"),
        (lambda one: one["database"].update(unpacked=1), "holds more than the 1 bytes"),
        (lambda one: one["database"].update(unpacked=1 << 60), "bytes, not 1152921504606846976"),
        (lambda one: one["tables"].update(note=3), "note has 2 rows, not 3 rows"),
        (lambda one: one["tables"].update(more=3), "more has no such table"),
        (lambda one: one.update(files=7), "it has 3 files, not 7"),
        (lambda one: one.update(folders=["other"]), "lies in none of its folders"),
        (lambda one: one.update(unknown=1), "cannot be understood"),
        (lambda one: one.update(taken_at="yesterday"), "taken at 'yesterday'"),
        (lambda one: one.update(taken_at="2026-11-27T12:00:00"), "taken at '2026-11-27T12:00:00'"),
        (lambda one: one.update(folders=["/etc/evil"]), "names a folder '/etc/evil'"),
        (lambda one: one.update(folders=["../../evil"]), "names a folder"),
        (lambda one: one.update(release="../../../etc"), "of a release"),
        (lambda one: one.pop("release"), "cannot be understood"),
    ],
)
def test_a_manifest_that_lies_is_refused(
    house: House, change: Callable[[dict[str, object]], object], words: str
) -> None:
    """Sealed or not, it is only believed as far as what lies beside it bears it out."""
    house.uploads()
    backup = house.take()
    resealed(backup, change)
    assert words in house.why_not(backup)


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.mark.parametrize(
    "members",
    [
        [_member("../evil")],
        [_member("/tmp/evil")],  # noqa: S108
        [_member("uploads/../../evil")],
        [_member("elsewhere/evil")],
        [_member("uploads"), _member("uploads/evil")],
        [_member("uploads/a"), _member("uploads/a")],
        [_member("uploads/out", tarfile.SYMTYPE, "/tmp"), _member("uploads/out/evil")],  # noqa: S108
        [_member("uploads/link", tarfile.LNKTYPE, "/etc/passwd")],
        [_member("uploads/device", tarfile.CHRTYPE)],
        [_member("uploads/pipe", tarfile.FIFOTYPE)],
        [_member("uploads/evil\0.txt")],
    ],
    ids=lambda members: members[-1].name,
)
def test_a_hostile_archive_leaves_nothing(tmp_path: Path, members: list[tarfile.TarInfo]) -> None:
    """Names that lead out, links to write through, devices: refused, and not one file is laid."""
    house = House(tmp_path)
    house.uploads()
    backup = house.take()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for member in members:
            tar.addfile(member)
    content = archive.getvalue()
    (backup.place / "files.tar").write_bytes(content)
    part = {"size": len(content), "unpacked": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    resealed(backup, lambda one: dict.update(one["archive"], part))  # type: ignore[call-overload]
    before = set(tmp_path.rglob("*"))

    with pytest.raises(Refused) as caught:
        house.backups.lay_folders(house.backups.get("b1"), tmp_path / "files")
    assert caught.value.reference == "backup-altered"
    assert set(tmp_path.rglob("*")) == before


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """Zeros that unpack to more than the manifest says stop there."""
    house = House(tmp_path, compress=True)
    backup = house.take()
    bomb = zstd.compress(bytes(64 * _MIB))
    (backup.place / "database.db.zst").write_bytes(bomb)
    part = {"size": len(bomb), "sha256": hashlib.sha256(bomb).hexdigest(), "unpacked": 2 * _MIB}
    resealed(backup, lambda one: dict.update(one["database"], part))  # type: ignore[call-overload]
    assert "holds more than" in house.why_not(backup)
    assert not (tmp_path / "laid" / "app.db").exists()


# --- proofs


def test_a_proof_is_of_this_very_backup(house: House) -> None:
    """What was proven of another content proves nothing, nor does a proof that cannot be read."""
    backup = house.take()
    proof = Proof(at="now", seconds=1.0, release="3-abc", words="good", sha256=backup.digest)
    house.backups.note_proof(backup, proof)
    assert house.backups.get("b1").proof == proof
    assert house.backups.get("b1").is_proven
    house.backups.note_proof(
        backup, Proof(at="now", seconds=1.0, release="", words="", trouble="bad", sha256=backup.digest)
    )
    assert not house.backups.get("b1").is_proven
    house.backups.note_proof(backup, Proof(at="now", seconds=1.0, release="", words="", sha256="of another"))
    assert house.backups.get("b1").proof is None
    (backup.place / "verified.json").write_text("{")
    assert house.backups.get("b1").proof is None


# --- the folders of users


def lay_other(house: House) -> None:
    """A backup's folders, laid to be exchanged for today's by deployment 9."""
    for name in ("uploads", "static/media"):
        (house.layout.replaced(9) / "new" / name).mkdir(parents=True)
        (house.layout.replaced(9) / "new" / name / "of").write_text("the backup")
        (house.layout.data / name).mkdir(parents=True)
        (house.layout.data / name / "of").write_text("today")


_NAMES = ("uploads", "static/media")


def owners(house: House) -> list[str]:
    """Whose the folders are that users see."""
    return [(house.layout.data / name / "of").read_text() for name in _NAMES]


def test_an_exchange_and_its_way_back_bear_being_killed_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each rename: done again it is done, undone it is as before, and both bear a second time."""
    for killed_at in range(12):
        for is_undone in (False, True):
            house = House(tmp_path / f"{killed_at}{is_undone}")
            lay_other(house)
            with dying(monkeypatch, killed_at) as is_dead:
                house.backups.exchange(9, _NAMES)
            if not is_dead():
                assert owners(house) == ["the backup"] * 2
            if is_undone:
                with dying(monkeypatch, killed_at % 3):
                    house.backups.exchange_back(9)
                house.backups.exchange_back(9)
                house.backups.exchange_back(9)
                assert owners(house) == ["today"] * 2
            else:
                house.backups.exchange(9, _NAMES)
                house.backups.exchange(9, _NAMES)
                assert owners(house) == ["the backup"] * 2
                assert {name: (path / "of").read_text() for name, path in house.backups.replaced(9).items()} == {
                    "uploads": "today",
                    "static/media": "today",
                }
            house.backups.discard_replaced(9)
            house.backups.discard_replaced(9)
            assert sorted(path.name for path in house.layout.data.iterdir()) == ["app.db", "static", "uploads"]


@contextmanager
def dying(monkeypatch: pytest.MonkeyPatch, at: int) -> Iterator[Callable[[], bool]]:
    """The rename with this number does not come to be, and whoever asked for it is dead."""
    renamed, dead = 0, False
    rename = durable.rename

    def or_die(source: Path, destination: Path) -> None:
        nonlocal renamed, dead
        if renamed == at:
            dead = True
            raise KeyboardInterrupt
        renamed += 1
        rename(source, destination)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "rename", or_die)
        try:
            yield lambda: dead
        except KeyboardInterrupt:
            assert dead


def test_a_folder_that_a_rename_cannot_exchange_is_refused(house: House) -> None:
    """A symlink to another disk is told beforehand, with the way out."""
    (house.layout.data / "uploads").symlink_to("/mnt")
    with pytest.raises(StepFailed) as caught:
        house.backups.refuse_unmovable(("uploads",))
    assert caught.value.reference == "folder-not-restorable"
    assert "--only-database" in caught.value.hint


# --- a full disk


@pytest.mark.root
@pytest.mark.parametrize("leave_kib", [0, 8, 64, 2000, 6000])
def test_a_full_disk_leaves_what_there_was(leave_kib: int) -> None:
    """A backup that does not fit is not there, nothing of it is left, and with space it goes on."""
    with workshop.small_disk(mebibytes=60) as disk:
        house = House(disk)
        house.uploads()
        (house.layout.data / "uploads" / "large").write_bytes(os.urandom(8 * _MIB))
        first = house.take()
        found = os.statvfs(disk)
        ballast = disk / "ballast"
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, found.f_bavail * found.f_frsize - leave_kib * 1024))
        with pytest.raises((OSError, BulletproofError)) as caught:
            house.take()
        assert "space" in str(caught.value) or "full" in str(caught.value)
        assert [path.name for path in house.layout.backups.iterdir()] == ["b1"]
        ballast.unlink()
        assert not house.why_not(first)
        assert not house.why_not(house.take())


# --- what a restore would take


def compared(tmp_path: Path, today: str, backup: str) -> list[Mapping[str, object]]:
    """Two databases made by these statements, compared."""
    for name, statements in (("today.db", today), ("backup.db", backup)):
        with closing(sqlite3.connect(tmp_path / name)) as made:
            made.executescript(statements)
    found = json.loads(compare_rows(tmp_path / "today.db", tmp_path / "backup.db"))
    assert isinstance(found, list)
    return found


_T = "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b); INSERT INTO t VALUES (1, 'x', NULL), (2, 'y', 0);"


@pytest.mark.parametrize(
    ("today", "backup", "found"),
    [
        (_T, _T, None),
        (f"{_T} INSERT INTO t VALUES (3, 1, 1);", _T, (1, 0, 0)),
        (_T, f"{_T} INSERT INTO t VALUES (3, 1, 1);", (0, 0, 1)),
        (f"{_T} UPDATE t SET b = 5 WHERE id = 1;", _T, (0, 1, 0)),
        (f"{_T} UPDATE t SET b = NULL WHERE id = 2;", _T, (0, 1, 0)),
        (f"{_T} UPDATE t SET id = 9 WHERE id = 2;", _T, (1, 0, 1)),
        (f"{_T} DELETE FROM t;", _T, (0, 0, 2)),
        (f"{_T} ALTER TABLE t ADD c DEFAULT 1;", _T, None),
        (f"{_T} DROP TABLE t;", _T, (0, 0, 2)),
        (_T, "CREATE TABLE u (id);", (2, 0, 0)),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT COLLATE NOCASE); INSERT INTO t VALUES (1, 'ADA');",
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT COLLATE NOCASE); INSERT INTO t VALUES (1, 'ada');",
            (0, 1, 0),
        ),
        (
            "CREATE TABLE t (a); INSERT INTO t VALUES (1), (1), (1), (1);",
            "CREATE TABLE t (a); INSERT INTO t VALUES (1);",
            (3, 0, 0),
        ),
        ("CREATE TABLE t (a); INSERT INTO t VALUES (1);", "CREATE TABLE t (a); INSERT INTO t VALUES (1.0);", (1, 0, 1)),
        (
            "CREATE TABLE t (a TEXT PRIMARY KEY, b); INSERT INTO t VALUES (NULL, 1), (NULL, 2);",
            "CREATE TABLE t (a TEXT PRIMARY KEY, b); INSERT INTO t VALUES (NULL, 1), (NULL, 2);",
            None,
        ),
        ("CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2), (1, 3);", "CREATE TABLE t (a, b);", (2, 0, 0)),
        (
            "CREATE TABLE t (a TEXT, b, PRIMARY KEY (a, b)) WITHOUT ROWID; INSERT INTO t VALUES ('q', 1), ('q', 2);",
            "CREATE TABLE t (a TEXT, b, PRIMARY KEY (a, b)) WITHOUT ROWID; INSERT INTO t VALUES ('q', 2), ('q', 3);",
            (1, 0, 1),
        ),
        ('CREATE TABLE "t" ("select" INTEGER PRIMARY KEY, "a ""b");', 'CREATE TABLE t ("select" PRIMARY KEY);', None),
    ],
)
def test_rows_are_told_by_their_keys(
    tmp_path: Path, today: str, backup: str, found: tuple[int, int, int] | None
) -> None:
    """What would be missing, be as it was, and come back."""
    told = {
        one["table"]: (one["missing"], one["changed"], one["returning"]) for one in compared(tmp_path, today, backup)
    }
    assert told.get("t") == found
