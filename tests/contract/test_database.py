"""The port Database, over SQLite files and in memory, and what only files have to prove."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from bulletproof.adapters.sqlite import SqliteDatabase
from bulletproof.effects import sqlite_file, sqlite_journal, sqlite_reader
from bulletproof.effects.sqlite_file import read_schema
from bulletproof.effects.sqlite_journal import journal_mode
from bulletproof.errors import Refused, StepFailed
from bulletproof.ports import Database
from fakes.database import FakeDatabase

PAGE = 4096


class Lab(Protocol):
    """An implementation of the port, and the means to bring its database into a state."""

    @property
    def database(self) -> Database:
        """The port."""

    def make(self, tables: int) -> None:
        """Make a database with so many tables."""

    def damage(self) -> None:
        """Take something from it."""


class FileLab:
    """The real one."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.database = SqliteDatabase(file)

    def make(self, tables: int) -> None:
        """Make a file."""
        make(self.file, tables=tables)

    def damage(self) -> None:
        """Overwrite a page in the middle."""
        damage(self.file)


class MemoryLab:
    """The fake."""

    def __init__(self) -> None:
        self.database = FakeDatabase()

    def make(self, tables: int) -> None:
        """Make tables up."""
        self.database.tables = tuple(f"table_{number}" for number in range(tables))

    def damage(self) -> None:
        """Say that it is damaged."""
        self.database.trouble = "database-not-whole"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give the path of a database that is not there."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "app.db"


@pytest.fixture(params=["sqlite", "memory"])
def lab(request: pytest.FixtureRequest, file: Path) -> Lab:
    """Give each implementation of the port, without a database."""
    return FileLab(file) if request.param == "sqlite" else MemoryLab()


class TestContract:
    """What every database does."""

    def test_none(self, lab: Lab) -> None:
        """Where nothing was made there is none, and looking at it is refused."""
        assert not lab.database.exists()
        assert _refusal(lab.database) == "database-missing"

    def test_one(self, lab: Lab) -> None:
        """A whole one exists and is told with its tables."""
        lab.make(2)

        assert lab.database.exists()
        assert "2 tables" in lab.database.check()

    def test_damaged(self, lab: Lab) -> None:
        """One that lost something exists and is refused with the next command to type."""
        lab.make(2)
        lab.damage()

        with pytest.raises(Refused) as caught:
            lab.database.check()

        assert lab.database.exists()
        assert caught.value.reference == "database-not-whole"
        assert caught.value.hint

    def test_wal_only_where_there_is_one(self, lab: Lab) -> None:
        """It makes none, says so, and may be repeated."""
        assert not lab.database.use_wal()
        assert not lab.database.exists()
        lab.make(1)

        assert lab.database.use_wal()
        assert lab.database.use_wal()
        assert "1 table" in lab.database.check()

    def test_remove_is_idempotent(self, lab: Lab) -> None:
        """After removing there is none, also when there was none, and the next one is whole."""
        lab.make(2)
        for _ in range(2):
            lab.database.remove()
            assert not lab.database.exists()
        lab.make(1)

        assert "1 table" in lab.database.check()


class TestWal:
    """How a file gets into WAL mode."""

    def test_it_stays_with_the_file(self, file: Path) -> None:
        """The header says so to whoever opens it next; nothing is left beside it."""
        make(file, tables=1, mode="DELETE")
        assert journal_mode(file) == "DELETE"

        SqliteDatabase(file).use_wal()

        assert journal_mode(file) == "WAL"
        assert list(file.parent.iterdir()) == [file]

    def test_an_idle_connection_does_not_hinder(self, file: Path) -> None:
        """An app that has it open, and does nothing just then, is no reason to leave it as it is."""
        make(file, tables=1, mode="DELETE")
        with writer(file, "SELECT * FROM sqlite_master"):
            SqliteDatabase(file).use_wal()

            assert journal_mode(file) == "WAL"

    def test_a_busy_one_does(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever reads all the while keeps it as it is, which is said and not passed over."""
        monkeypatch.setattr(sqlite_journal, "_USE", sqlite_journal._USE.replace("timeout=5", "timeout=0.1"))
        make(file, tables=1, mode="DELETE")
        with writer(file, "BEGIN", "SELECT * FROM sqlite_master"), pytest.raises(StepFailed) as caught:
            SqliteDatabase(file).use_wal()
        assert (caught.value.reference, caught.value.context) == ("database-not-wal", ("database is locked",))
        assert journal_mode(file) == "DELETE"

    def test_it_is_told_of_what_is_no_database(self, file: Path) -> None:
        """Nothing, and a file without a byte, have no mode."""
        assert journal_mode(file) == ""
        file.touch()
        assert journal_mode(file) == ""


class TestExists:
    """When a file counts as a database."""

    def test_empty_file(self, file: Path) -> None:
        """A file without a byte, as a program leaves it that opened one and did nothing, is none."""
        file.touch()

        assert not SqliteDatabase(file).exists()

    @pytest.mark.parametrize("prepare", [Path.mkdir, lambda path: path.write_text("text")], ids=["folder", "text"])
    def test_anything_else(self, file: Path, prepare: Callable[[Path], object]) -> None:
        """What is no database may be somebody's data, so nothing is to be made in its place."""
        prepare(file)

        assert SqliteDatabase(file).exists()

    def test_dangling_symlink(self, file: Path, tmp_path: Path) -> None:
        """A symlink to a disk that is not mounted is not the same as no database."""
        file.symlink_to(tmp_path / "not-mounted" / "app.db")

        assert SqliteDatabase(file).exists()
        assert _refusal(SqliteDatabase(file)) == "database-not-reachable"

    @pytest.mark.parametrize("is_empty", [False, True], ids=["gone", "emptied"])
    @pytest.mark.parametrize("suffix", ["-wal", "-journal"])
    def test_remains(self, file: Path, suffix: str, is_empty: bool) -> None:  # noqa: FBT001  pytest gives it
        """Rows in a -wal or -journal whose database is gone are data; SQLite would delete them with the next one."""
        file.with_name(f"app.db{suffix}").write_bytes(b"rows")
        if is_empty:
            file.touch()

        assert SqliteDatabase(file).exists()
        assert _refusal(SqliteDatabase(file)) == "database-not-whole"


class TestCheck:
    """What is said of a file, and that it is left as it was."""

    @pytest.mark.parametrize("mode", ["WAL", "DELETE"])
    def test_words(self, file: Path, mode: str) -> None:
        """Tables, size and journal mode are told."""
        make(file, tables=12, mode=mode, filling=60_000)

        assert SqliteDatabase(file).check() == f"sqlite, 12 tables, {file.stat().st_size / 1024:.1f} KiB, {mode}"

    @pytest.mark.parametrize("mode", ["WAL", "DELETE"])
    def test_size(self, file: Path, mode: str) -> None:
        """What is not yet in the file counts; where nothing is there are no bytes."""
        assert SqliteDatabase(file).size() == 0
        make(file, mode=mode)
        assert SqliteDatabase(file).size() == file.stat().st_size > 0
        beside = file.with_name(f"{file.name}-{'wal' if mode == 'WAL' else 'journal'}")
        beside.write_bytes(bytes(5000))

        assert SqliteDatabase(file).size() == file.stat().st_size + 5000

    def test_no_tables(self, file: Path) -> None:
        """A database without a table is a whole one."""
        make(file, tables=0)

        assert SqliteDatabase(file).check() == "sqlite, no tables, 4.0 KiB, WAL"

    @pytest.mark.parametrize("mode", ["WAL", "DELETE"])
    def test_nothing_is_touched(self, file: Path, mode: str) -> None:
        """Looking at a database that nobody has open makes no file, not even for a moment's sake, and changes none."""
        make(file, mode=mode)

        _unchanged_by(file, SqliteDatabase(file).check)

    def test_what_a_killed_writer_left_is_read(self, file: Path) -> None:
        """Rows that are only in the -wal of a killed app are seen, and -wal and -shm stay as they were."""
        make(file, tables=3, is_killed=True)
        assert file.with_name("app.db-wal").stat().st_size > file.stat().st_size

        assert "3 tables" in _unchanged_by(file, SqliteDatabase(file).check)

    def test_only_a_wal(self, file: Path) -> None:
        """Without a -shm SQLite makes one, but file and -wal stay as they were."""
        make(file, tables=3, is_killed=True)
        marks = file.with_name("app.db-shm")
        marks.unlink()

        def check() -> str:
            words = SqliteDatabase(file).check()
            marks.unlink()
            return words

        assert "3 tables" in _unchanged_by(file, check)

    def test_a_shm_that_goes_away(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """When the -shm that was seen is gone as the file is opened, the file is read in the way without one."""
        make(file, tables=3, is_killed=True)
        ways = sqlite_reader._ways(file)
        file.with_name("app.db-shm").unlink()
        monkeypatch.setattr(sqlite_reader, "_ways", lambda _: ways)

        assert len(sqlite_reader.answer(file, 5.0, sqlite_reader.contents(file, is_whole=False))["tables"]) == 3

    def test_beside_a_living_writer(self, file: Path) -> None:
        """While an app has the database open, what it committed last is seen, and nothing is checkpointed."""
        make(file, tables=1)
        with writer(file, "CREATE TABLE fresh (id INTEGER)"):
            marks = _prints(file)["app.db-shm"]
            words = SqliteDatabase(file).check()

            assert "2 tables" in words
            assert file.with_name("app.db-wal").stat().st_size > 0
            assert _prints(file)["app.db-shm"] == marks

    def test_beside_a_waiting_transaction(self, file: Path) -> None:
        """An uncommitted transaction neither delays the check in WAL mode nor is seen by it."""
        make(file, tables=1)
        with writer(file, "BEGIN IMMEDIATE", "CREATE TABLE fresh (id INTEGER)"):
            assert "1 table," in SqliteDatabase(file, patience_seconds=0.1).check()

    @pytest.mark.parametrize("mode", ["WAL", "DELETE"])
    def test_locked(self, file: Path, mode: str) -> None:
        """A file that a program keeps for itself is refused when patience ends, and only then."""
        make(file, mode=mode)
        with writer(file, "PRAGMA locking_mode=EXCLUSIVE", "BEGIN EXCLUSIVE", "CREATE TABLE fresh (id INTEGER)"):
            before = _prints(file)
            assert _refusal(SqliteDatabase(file, patience_seconds=0.3)) == "database-locked"
            assert _prints(file) == before

    def test_a_lock_that_is_let_go(self, file: Path) -> None:
        """A program that lets go in time is waited for."""
        make(file, mode="DELETE")
        with writer(file, "BEGIN EXCLUSIVE", holds_seconds=0.5):
            assert "sqlite" in SqliteDatabase(file, patience_seconds=30).check()

    def test_in_part_is_told(self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without WAL a file is read only as long as a writer can wait; what was not read is not said to be whole."""
        make(file, mode="DELETE", filling=20_000_000)
        hasty = tmp_path / "reader.py"
        hasty.write_text(sqlite_file.READER.read_text().replace("_HOLD_SECONDS = 2.0", "_HOLD_SECONDS = 0.0"))
        monkeypatch.setattr(sqlite_file, "READER", hasty)

        assert "read in part" in SqliteDatabase(file).check()

    def test_an_interrupted_transaction(self, file: Path) -> None:
        """A hot journal, which only a writer may roll back, is refused and left for that writer."""
        make(file, tables=1, mode="DELETE")
        _kill_in_the_middle(file)

        assert _unchanged_by(file, lambda: _refusal(SqliteDatabase(file))) == "database-interrupted"
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("SELECT * FROM table_0").fetchall()
        assert "1 table" in SqliteDatabase(file).check()

    def test_an_interrupted_change_of_mode(self, file: Path) -> None:
        """A hot journal is not overlooked because the file's header says WAL already."""
        make(file, tables=1, mode="DELETE")
        _kill_in_the_middle(file)
        with file.open("r+b") as opened:
            opened.seek(18)
            opened.write(b"\2\2")

        assert _refusal(SqliteDatabase(file)) == "database-interrupted"

    def test_damage_is_quoted(self, file: Path) -> None:
        """What quick_check found is shown below the refusal, and the file stays as it was."""
        make(file)
        damage(file)

        with pytest.raises(Refused) as caught:
            SqliteDatabase(file).check()

        assert caught.value.context
        assert _unchanged_by(file, lambda: _refusal(SqliteDatabase(file))) == "database-not-whole"

    def test_cut_short(self, file: Path) -> None:
        """A copy that was interrupted is no whole database."""
        make(file)
        os.truncate(file, file.stat().st_size // PAGE // 2 * PAGE)

        assert _unchanged_by(file, lambda: _refusal(SqliteDatabase(file))) == "database-not-whole"

    @pytest.mark.parametrize("content", [b"name,password\n" * 500, os.urandom(9000), b"x"], ids=["csv", "noise", "x"])
    def test_not_sqlite(self, file: Path, content: bytes) -> None:
        """What is something else is told as that."""
        file.write_bytes(content)

        assert _unchanged_by(file, lambda: _refusal(SqliteDatabase(file))) == "database-not-sqlite"

    def test_folder_and_pipe(self, file: Path) -> None:
        """A folder in its place is refused, and so is a named pipe, without waiting for anybody."""
        file.mkdir()
        assert _refusal(SqliteDatabase(file)) == "database-not-reachable"
        file.rmdir()
        os.mkfifo(file)
        assert _refusal(SqliteDatabase(file)) == "database-not-reachable"

    def test_symlink(self, file: Path, tmp_path: Path) -> None:
        """A database behind a symlink is read where it is, and that is told."""
        real = tmp_path / "disk" / "real data %3f?.db"
        real.parent.mkdir()
        make(real, tables=2, is_killed=True)
        file.symlink_to(real)

        assert SqliteDatabase(file).check().endswith(f"2 tables, 4.0 KiB, WAL, at {real}")
        assert not file.with_name("app.db-wal").exists()

    def test_a_reader_that_dies_is_no_good_news(
        self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When the reading process is killed, nothing is known, and that is a refusal."""
        make(file)
        dying = tmp_path / "reader.py"
        dying.write_text("import os; os.kill(os.getpid(), 9)")
        monkeypatch.setattr(sqlite_file, "READER", dying)

        assert _refusal(SqliteDatabase(file)) == "database-not-reachable"

    def test_locks_of_this_process_survive(self, file: Path) -> None:
        """Looking at the file drops no lock that this process holds on it (a POSIX lock goes with any close)."""
        make(file, mode="DELETE")
        with closing(sqlite3.connect(file, isolation_level=None)) as ours:
            ours.execute("BEGIN IMMEDIATE")
            SqliteDatabase(file).exists()
            SqliteDatabase(file).check()

            with closing(sqlite3.connect(file, isolation_level=None, timeout=0)) as same_process:
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    same_process.execute("BEGIN IMMEDIATE")
                assert _other_process_is_locked_out(file)


class TestPermissions:
    """What this user may do; root gives up its right to do everything first."""

    @pytest.mark.parametrize(
        ("name", "mode"),
        [
            (".", 0o555),
            (".", 0o600),
            ("app.db", 0o444),
            ("app.db", 0o000),
            ("app.db-wal", 0o444),
            ("app.db-shm", 0o000),
        ],
    )
    def test_not_permitted(self, file: Path, name: str, mode: int) -> None:
        """File, -wal, -shm and the folder must be usable, or the app could not write: refused in those words."""
        make(file, is_killed=True)
        (file.parent / name).chmod(mode)
        try:
            said = _check_without_privileges(file)
        finally:
            file.parent.chmod(0o755)

        assert said.startswith("database-not-reachable: ")
        assert any(words in said for words in ("no permission", "does not permit", "Permission denied"))
        assert "could not be read" not in said

    def test_permitted(self, file: Path) -> None:
        """With all rights the same user is told what there is."""
        make(file, tables=3, is_killed=True)

        assert "3 tables" in _check_without_privileges(file)


class TestRemove:
    """What belongs to a database and goes with it."""

    def test_all_of_it(self, file: Path) -> None:
        """File, -wal, -shm and -journal go, and nothing else."""
        make(file, is_killed=True)
        file.with_name("app.db-journal").write_bytes(b"journal")
        file.with_name("app.db.copy").write_bytes(b"a person's")
        SqliteDatabase(file).remove()

        assert [path.name for path in file.parent.iterdir()] == ["app.db.copy"]

    def test_the_file_goes_last(self, file: Path) -> None:
        """A removal that is killed in the middle leaves a file that still counts, so that it is removed again."""
        make(file, is_killed=True)
        file.with_name("app.db-journal").mkdir()
        with pytest.raises(IsADirectoryError):
            SqliteDatabase(file).remove()

        assert file.exists()
        assert not file.with_name("app.db-wal").exists()

    def test_behind_a_symlink(self, file: Path, tmp_path: Path) -> None:
        """The symlink stays and leads to an empty file, so that the next database is made in the same place."""
        real = tmp_path / "real.db"
        make(real, is_killed=True)
        real.chmod(0o640)
        file.symlink_to(real)
        SqliteDatabase(file).remove()

        assert not SqliteDatabase(file).exists()
        assert (file.is_symlink(), real.stat().st_size, stat.S_IMODE(real.stat().st_mode)) == (True, 0, 0o640)
        assert not real.with_name("real.db-wal").exists()

    def test_without_a_folder(self, tmp_path: Path) -> None:
        """Where there was never a folder there is nothing to remove."""
        SqliteDatabase(tmp_path / "never" / "app.db").remove()

        assert not (tmp_path / "never").exists()


def test_schema(file: Path) -> None:
    """Tables with their columns in order, views, and revisions noted by Alembic are told without reading rows."""
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(
            'CREATE TABLE "user ""x""" (id INTEGER PRIMARY KEY AUTOINCREMENT, nickname TEXT);'
            'CREATE VIEW names AS SELECT 1 AS one; CREATE INDEX by_nickname ON "user ""x""" (nickname);'
            "CREATE TABLE alembic_version (version_num VARCHAR(32)); INSERT INTO alembic_version VALUES ('a1');"
            "CREATE VIRTUAL TABLE pages USING fts5 (text);"
        )
    reading = read_schema(file)

    assert reading.tables['user "x"'] == ("id", "nickname")
    assert reading.tables["pages"] == ()
    assert reading.views == ("names",)
    assert reading.versions == {"alembic_version": ("a1",)}
    assert "sqlite_sequence" not in reading.tables
    assert not any("VIRTUAL" in statement or "INDEX" in statement for statement in reading.statements)


def make(file: Path, *, tables: int = 2, mode: str = "WAL", filling: int = 20_000, is_killed: bool = False) -> None:
    """Make a database in another process, which ends well or as if it were killed."""
    script = """
import os, sqlite3, sys
file, tables, mode, filling, is_killed = sys.argv[1:]
connection = sqlite3.connect(file)
connection.execute(f"PRAGMA journal_mode={mode}")
for number in range(int(tables)):
    connection.execute(f"CREATE TABLE table_{number} (text TEXT)")
    connection.execute(f"INSERT INTO table_{number} VALUES (?)", ("x" * (int(filling) // int(tables)),))
connection.commit()
if is_killed == "True":
    os._exit(0)
connection.close()
"""
    arguments = (str(file), str(tables), mode, str(filling), str(is_killed))
    subprocess.run([sys.executable, "-I", "-c", script, *arguments], check=True, timeout=60)


@contextmanager
def writer(file: Path, *statements: str, holds_seconds: float = 3600) -> Iterator[None]:
    """While in the block, another process has the database open and has done `statements`."""
    script = f"""
import select, sqlite3, sys
connection = sqlite3.connect({str(file)!r}, isolation_level=None)
for statement in {statements!r}:
    connection.execute(statement).fetchall()
print("done", flush=True)
select.select([sys.stdin], [], [], {holds_seconds})
"""
    argv = [sys.executable, "-I", "-c", script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n"
            yield
        finally:
            process.kill()


def damage(file: Path) -> None:
    """Overwrite the last page that is not the first."""
    with file.open("r+b") as opened:
        opened.seek(-PAGE, os.SEEK_END)
        opened.write(b"\xaa" * PAGE)


def _kill_in_the_middle(file: Path) -> None:
    """End a process in the middle of a transaction that has begun to write into the file."""
    script = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size=1")
connection.execute("BEGIN")
connection.executemany("INSERT INTO table_0 VALUES (?)", [("y" * 5000,) for _ in range(200)])
connection.execute("UPDATE table_0 SET text = 'z' || text")
os._exit(0)
"""
    subprocess.run([sys.executable, "-I", "-c", script, str(file)], check=True, timeout=60)
    assert file.with_name("app.db-journal").stat().st_size > 0


def _refusal(database: Database) -> str:
    try:
        database.check()
    except Refused as error:
        return error.reference if error.hint or error.reference == "database-missing" else "without a hint"
    return ""


def _prints(file: Path) -> dict[str, tuple[str, int]]:
    """Content and time of change of everything in the folder."""
    return {
        path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in file.resolve().parent.iterdir()
    }


def _unchanged_by(file: Path, act: Callable[[], str]) -> str:
    """What `act` says; it left every file in the folder as it was, and the folder too."""
    before, folder = _prints(file), file.parent.stat().st_mtime_ns
    words = act()
    assert _prints(file) == before
    if file.with_name("app.db-shm").exists() or not file.with_name("app.db-wal").exists():
        assert file.parent.stat().st_mtime_ns == folder
    return words


def _other_process_is_locked_out(file: Path) -> bool:
    script = f"""
import sqlite3
try:
    sqlite3.connect({str(file)!r}, timeout=0, isolation_level=None).execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError:
    raise SystemExit(5)
"""
    return subprocess.run([sys.executable, "-I", "-c", script], check=False, timeout=60).returncode == 5


def _check_without_privileges(file: Path) -> str:
    """What `check` says in a process for which file modes count even if it is root's (capabilities(7))."""
    script = """
import ctypes, os, struct, sys
from pathlib import Path
from bulletproof.adapters.sqlite import SqliteDatabase
from bulletproof.errors import BulletproofError
libc = ctypes.CDLL(None)
if os.getuid() == 0:
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        assert libc.prctl(24, capability, 0, 0, 0) == 0  # PR_CAPBSET_DROP
    assert libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)) == 0
try:
    print(SqliteDatabase(Path(sys.argv[1])).check())
except BulletproofError as error:
    print(error)
"""
    argv = [sys.executable, "-c", script, str(file)]
    return subprocess.run(argv, check=True, timeout=60, capture_output=True, text=True).stdout
