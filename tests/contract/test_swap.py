"""The port Swap, over SQLite files and in memory, and what only files prove: late writers, kills, full disks."""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import pytest

import workshop
from bulletproof.adapters.sqlite import SqliteDatabase
from bulletproof.adapters.swap import SqliteSwap
from bulletproof.domain.layout import Layout
from bulletproof.effects import sqlite_keeper, sqlite_seized
from bulletproof.effects.process import Talk
from bulletproof.errors import StepFailed
from bulletproof.ports import Swap
from fakes.database import Content, FakeDatabase
from fakes.swap import FakeSwap
from planted import Bug, planted

PATIENCE = 0.2
_MIB = 1 << 20


def calm() -> None:
    """Nothing speaks against going on."""


class Trouble(Exception):
    """What a check raises."""


class Lab(Protocol):
    """An implementation of the port, and the means to use its database as an app does."""

    @property
    def swap(self) -> Swap:
        """The port."""

    def write(self, note: int) -> None:
        """Commit a note."""

    def notes(self) -> set[int]:
        """The notes that are there."""

    def is_migrated(self) -> bool:
        """Whether it is what a migration made."""

    def migrated(self) -> Path:
        """Migrate a copy of what there is."""

    def aside(self) -> list[set[int]]:
        """The notes of each migrated database that was set aside."""

    def user(self) -> AbstractContextManager[str]:
        """Somebody else uses the database; gives what must be said of him."""


class FileLab:
    """The real one; every look is made by another process or over after it."""

    def __init__(self, folder: Path, *, mode: str = "WAL", is_linked: bool = False, mebibytes: int = 0) -> None:
        self.layout = Layout(root=folder / "root", app="shop", runtime=folder / "run")
        self.file = folder / "data" / "app.db"
        self.mode = mode
        self.file.parent.mkdir(parents=True)
        if is_linked:
            (folder / "disk").mkdir()
            self.file.symlink_to(folder / "disk" / "real %3f?.db")
        self._work = folder / "work.db"
        self._mebibytes = mebibytes
        make(self.file, mode, mebibytes)
        self.swap = new_swap(self.layout, self.file)

    def again(self) -> Swap:
        """The port as the next process sees it."""
        self.swap = new_swap(self.layout, self.file)
        return self.swap

    def write(self, note: int) -> None:
        """Over a connection of its own."""
        with closing(sqlite3.connect(self.file)) as connection, connection:
            connection.execute("INSERT INTO note VALUES (?)", (note,))

    def notes(self) -> set[int]:
        """Read them, from a file that has to be whole."""
        return notes(self.file)

    def is_migrated(self) -> bool:
        """Whether there is the table that the migration makes."""
        with closing(sqlite3.connect(self.file)) as connection:
            return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'fresh'").fetchall())

    def migrated(self) -> Path:
        """Migrate a copy of what there is, which is taken as an operator would."""
        subprocess.run(["cp", self.file, self._work], check=True)
        return migrate(self._work)

    def aside(self) -> list[set[int]]:
        """Read each file."""
        return [notes(file) for file in sorted(self.layout.database_aside.glob("[0-9]*.db"))]

    @contextmanager
    def user(self) -> Iterator[str]:
        """An idle process in WAL mode; without WAL one that reads, since an idle one holds no lock there."""
        begin = "BEGIN" if self.mode == "DELETE" else ""
        with opened(self.file, begin) as process:
            yield f"{'python -I -c import sqlite3, sys connection = sqlite3.connect('[:60]} (process {process.pid})"


class MemoryLab:
    """The fake."""

    def __init__(self) -> None:
        self.database = FakeDatabase(tables=("note",))
        self._copies: dict[int, Content] = {}
        self._users: tuple[str, ...] = ()
        self.swap = FakeSwap(self.database, lambda copy: self._copies[int(copy.name)], lambda: self._users)

    def write(self, note: int) -> None:
        """Set its bit."""
        self.database.rows |= 1 << note

    def notes(self) -> set[int]:
        """The bits that are set."""
        return bits(self.database.rows)

    def is_migrated(self) -> bool:
        """Whether the revision is noted."""
        return bool(self.database.revisions)

    def migrated(self) -> Path:
        """Note the revision in a copy."""
        self._copies[7] = self.database.content._replace(revisions=("0002",))
        return Path("/copy/7")

    def aside(self) -> list[set[int]]:
        """What it keeps."""
        return [bits(content.rows) for content in self.swap.aside]

    @contextmanager
    def user(self) -> Iterator[str]:
        """Somebody."""
        self._users = ("a shell (process 7)",)
        yield self._users[0]
        self._users = ()


def new_swap(layout: Layout, file: Path) -> Swap:
    """The port as it is imported now, with a planted bug in it or without."""
    made: Swap = importlib.import_module("bulletproof.adapters.swap").SqliteSwap(layout, file)
    return made


def make(file: Path, mode: str, mebibytes: int = 0) -> None:
    """A database without notes, and with so much besides."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("CREATE TABLE note (number INTEGER)")
        connection.execute("CREATE TABLE bulk (content BLOB)")
        connection.executemany("INSERT INTO bulk VALUES (?)", ((os.urandom(_MIB),) for _ in range(mebibytes)))


def migrate(file: Path) -> Path:
    """Change the schema and every page of the bulk."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE fresh (number INTEGER)")
        connection.execute("UPDATE bulk SET content = randomblob(length(content))")
    return file


def notes(file: Path) -> set[int]:
    """The notes in a file, which has to be whole."""
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {number for (number,) in connection.execute("SELECT number FROM note")}


def bits(rows: int) -> set[int]:
    """The numbers of the bits that are set."""
    return {number for number in range(rows.bit_length()) if rows >> number & 1}


@dataclass(frozen=True)
class Stranger:
    """A process that is no child of ours; we are spared, with all that we started."""

    pid: int
    given: IO[str]
    said: IO[str]

    def ask(self, line: str) -> str:
        """What it answers to a line."""
        self.given.write(f"{line}\n")
        self.given.flush()
        return self.said.readline().strip()

    def kill(self) -> None:
        """It and what it started are gone when this returns: their end of the pipe is closed."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.said.read()


_ORPHANED = """import os, sys
if not os.fork():
    os.setsid()
    print(os.getpid(), flush=True)
    os.execvp(sys.argv[1], sys.argv[2:])
"""


@contextmanager
def stranger(program: str | Path, *argv: str | Path) -> Iterator[Stranger]:
    """While in the block such a process runs; it has said `done`."""
    starting = [sys.executable, "-I", "-S", "-c", _ORPHANED, program, *argv]
    with subprocess.Popen(starting, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdin is not None
        assert starter.stdout is not None
        found = Stranger(int(starter.stdout.readline()), starter.stdin, starter.stdout)
        try:
            starter.wait(60)
            assert found.said.readline() == "done\n"
            yield found
        finally:
            found.kill()


def opened(file: Path, *statements: str) -> AbstractContextManager[Stranger]:
    """Another process that has the database open, has done `statements` and read it, and does what it is asked."""
    script = f"""import sqlite3, sys
connection = sqlite3.connect({str(file)!r}, isolation_level=None, timeout=0)
for statement in {(*statements, "SELECT * FROM note")!r}:
    connection.execute(statement).fetchall()
print("done", flush=True)
for statement in sys.stdin:
    try:
        print(connection.execute(statement).fetchall(), flush=True)
    except sqlite3.Error as error:
        print(error, flush=True)
"""
    return stranger(sys.executable, "python", "-I", "-c", script)


def is_locked(file: Path) -> bool:
    """Whether another process can neither read nor write."""
    script = f"""import sqlite3
connection = sqlite3.connect({str(file)!r}, timeout=0, isolation_level=None)
for statement in ("SELECT * FROM note", "BEGIN IMMEDIATE"):
    try:
        connection.execute(statement).fetchall()
    except sqlite3.OperationalError as error:
        print(error)
"""
    said = subprocess.run([sys.executable, "-I", "-c", script], check=True, timeout=60, capture_output=True, text=True)
    return said.stdout == "database is locked\n" * 2


LABS: dict[str, Callable[[Path], Lab]] = {
    "wal": FileLab,
    "delete": lambda folder: FileLab(folder, mode="DELETE"),
    "symlink": lambda folder: FileLab(folder, is_linked=True),
    "20 MiB": lambda folder: FileLab(folder, mebibytes=20),
    "20 MiB delete": lambda folder: FileLab(folder, mode="DELETE", mebibytes=20),
    "memory": lambda _: MemoryLab(),
}


@pytest.fixture(params=list(LABS))
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """Give each implementation of the port, with a note in its database."""
    lab = LABS[request.param](tmp_path)
    lab.write(1)
    yield lab
    lab.swap.release()


@pytest.fixture(params=["WAL", "DELETE"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FileLab]:
    """Give a file in each journal mode, with a note in it."""
    lab = FileLab(tmp_path, mode=request.param, mebibytes=1)
    lab.write(1)
    yield lab
    lab.swap.release()


def swapped(lab: Lab) -> None:
    """The whole way there."""
    lab.swap.seize(PATIENCE)
    assert lab.swap.snapshot(3, 60) > 0
    lab.swap.put(lab.migrated(), calm)
    lab.swap.release()


class TestContract:
    """What every swap does."""

    def test_there(self, lab: Lab) -> None:
        """What was put is what others find, with all that was committed before."""
        swapped(lab)
        lab.write(2)

        assert lab.is_migrated()
        assert lab.notes() == {1, 2}
        assert lab.swap.numbers() == (3,)

    def test_and_back(self, lab: Lab) -> None:
        """The content from before is there again, and what was there meanwhile is set aside; once."""
        swapped(lab)
        lab.write(2)

        assert lab.swap.put_back(3)
        assert not lab.is_migrated()
        assert lab.notes() == {1}
        assert lab.aside() == [{1, 2}]
        assert not lab.swap.put_back(3)
        assert lab.aside() == [{1, 2}]
        assert lab.notes() == {1}

    def test_what_was_set_aside_stays(self, lab: Lab) -> None:
        """A second undo with something else in the database overwrites nothing of what the first one set aside."""
        swapped(lab)
        first = lab.swap.put_back(3)
        lab.write(2)
        second = lab.swap.put_back(3)
        lab.write(4)
        lab.swap.put_back(3)

        assert first
        assert second
        assert sorted(map(sorted, lab.aside())) == [[1], [1, 2], [1, 4]]
        assert lab.notes() == {1}

    def test_back_when_nothing_was_put(self, lab: Lab) -> None:
        """Nothing is set aside when the database holds what it held."""
        lab.swap.seize(PATIENCE)
        lab.swap.snapshot(3, 60)

        assert not lab.swap.put_back(3)
        assert not lab.aside()
        lab.write(2)  # and nobody is locked out
        assert lab.notes() == {1, 2}

    def test_no_is_no(self, lab: Lab) -> None:
        """A check that raises ends it, and the old content stays."""
        lab.swap.seize(PATIENCE)
        copy = lab.migrated()

        with pytest.raises(Trouble):
            lab.swap.put(copy, refusing(1))
        lab.swap.release()
        assert not lab.is_migrated()
        assert lab.notes() == {1}

    def test_put_needs_the_lock(self, lab: Lab) -> None:
        """Without having the database alone nothing is replaced."""
        copy = lab.migrated()
        with pytest.raises(StepFailed) as caught:
            lab.swap.put(copy, calm)

        assert caught.value.reference == "database-not-held"
        assert not lab.is_migrated()

    def test_seize_is_refused_beside_a_user(self, lab: Lab) -> None:
        """While somebody else uses it nobody has it alone, and it is said who; afterwards it can be had."""
        with lab.user() as words:
            with pytest.raises(StepFailed) as caught:
                lab.swap.seize(PATIENCE)
            assert caught.value.reference == "database-in-use"
            assert caught.value.context == (words,)
        lab.swap.seize(PATIENCE)
        for _ in range(2):
            lab.swap.release()
        lab.write(2)

        assert lab.notes() == {1, 2}

    def test_back_without_a_snapshot(self, lab: Lab) -> None:
        """It is said that there is none, and the database is left alone."""
        with pytest.raises(StepFailed) as caught:
            lab.swap.put_back(3)

        assert caught.value.reference == "snapshot-missing"
        assert lab.notes() == {1}

    def test_snapshots_go(self, lab: Lab) -> None:
        """Discarding is idempotent and touches no other snapshot."""
        lab.swap.seize(PATIENCE)
        for number in (10, 9):
            lab.swap.snapshot(number, 60)
        lab.swap.release()
        assert lab.swap.numbers() == (9, 10)
        for _ in range(2):
            lab.swap.discard(10)

        assert lab.swap.numbers() == (9,)


def refusing(at: int) -> Callable[[], None]:
    """A check that raises when it is called for the time `at`."""
    calls = iter(range(at - 1))

    def check() -> None:
        if next(calls, None) is None:
            raise Trouble

    return check


class TestAlone:
    """What the lock keeps out, and for how long."""

    def test_all_the_way(self, files: FileLab) -> None:
        """From seizing to releasing no other process can read or write, whatever we do meanwhile."""
        seen: list[bool] = []

        def look() -> None:
            seen.append(is_locked(files.file))

        files.swap.seize(PATIENCE)
        look()
        files.swap.snapshot(3, 60)
        look()
        for copy in (files.migrated(), other_mode(files.migrated(), files.mode)):
            files.swap.put(copy, look)
            look()
        assert all(seen)
        assert len(seen) >= 6
        files.swap.release()
        assert not is_locked(files.file)

    def test_while_it_is_put_back(self, files: FileLab, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody can write between what is set aside and what is put back."""
        swapped(files)
        seen: list[bool] = []
        module = importlib.import_module("bulletproof.adapters.swap")
        for name in ("is_same_database", "refresh_copy"):
            monkeypatch.setattr(module, name, followed_by(getattr(module, name), lambda: is_locked(files.file), seen))
        files.swap.put_back(3)

        assert seen == [True, True]

    def test_a_busy_user_is_waited_for(self, files: FileLab) -> None:
        """Somebody who ends within our patience is no obstacle."""
        with opened(files.file, "BEGIN IMMEDIATE") as process:
            end = threading.Timer(0.5, process.kill)
            end.start()
            files.swap.seize(20)
            end.join()
        files.swap.release()

        assert files.notes() == {1}

    def test_an_idle_user_without_wal(self, tmp_path: Path) -> None:
        """An idle connection holds no lock without WAL: it is locked out, and then finds the new content."""
        lab = FileLab(tmp_path, mode="DELETE")
        lab.write(1)
        with opened(lab.file) as process:
            lab.swap.seize(PATIENCE)
            assert process.ask("INSERT INTO note VALUES (2)") == "database is locked"
            lab.swap.put(lab.migrated(), calm)
            lab.swap.release()
            assert process.ask("INSERT INTO fresh VALUES (2)") == "[]"

    def test_out_of_reach(self, tmp_path: Path) -> None:
        """A database whose disk is not there is not in use, and is told as what it is."""
        lab = FileLab(tmp_path)
        lab.file.unlink()
        lab.file.symlink_to(tmp_path / "not-mounted" / "app.db")
        with pytest.raises(StepFailed) as caught:
            lab.swap.seize(PATIENCE)

        assert caught.value.reference == "database-not-reachable"
        assert "unable to open" in caught.value.message


def other_mode(file: Path, mode: str) -> Path:
    """Give a database the other journal mode."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA journal_mode = {'DELETE' if mode == 'WAL' else 'WAL'}")
    return file


def followed_by(act: Callable[..., object], look: Callable[[], bool], seen: list[bool]) -> Callable[..., object]:
    """Act, and then note what a look finds."""

    def acting(*values: object, **named: object) -> object:
        result = act(*values, **named)
        seen.append(look())
        return result

    return acting


class TestKept:
    """What is the same file as before."""

    @pytest.mark.parametrize("is_linked", [False, True])
    def test_inode_owner_and_mode(self, tmp_path: Path, is_linked: bool) -> None:  # noqa: FBT001  pytest gives it
        """The app's user may still use it: what is put never is another file, and nothing is left beside it."""
        lab = FileLab(tmp_path, is_linked=is_linked)
        lab.file.chmod(0o640)
        if os.getuid() == 0:
            os.chown(lab.file, 4321, 4322)
        before, beside = identity(lab.file), names_in(lab.file.resolve().parent)
        swapped(lab)
        assert identity(lab.file) == before
        lab.swap.put_back(3)

        assert identity(lab.file) == before
        assert names_in(lab.file.resolve().parent) == beside
        assert lab.file.is_symlink() == is_linked

    @pytest.mark.parametrize("live", ["WAL", "DELETE"])
    @pytest.mark.parametrize("put", ["WAL", "DELETE"])
    def test_journal_mode(self, tmp_path: Path, live: str, put: str) -> None:
        """It is that of what was put; after the way back that of before, so that the old release runs as it did."""
        lab = FileLab(tmp_path, mode=live)
        lab.swap.seize(PATIENCE)
        lab.swap.snapshot(3, 60)
        copy = lab.migrated()
        lab.swap.put(copy if live == put else other_mode(copy, live), calm)
        lab.swap.release()
        assert journal_mode(lab.file) == put
        lab.swap.put_back(3)

        assert journal_mode(lab.file) == live
        assert names_in(lab.file.parent) == ["app.db"]

    def test_private(self, files: FileLab) -> None:
        """Nobody else may enter the folders where copies of the data lie."""
        swapped(files)
        place = Path(files.swap.put_back(3))

        for folder in (files.layout.snapshots, place.parent):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def names_in(folder: Path) -> list[str]:
    """What lies there."""
    return sorted(path.name for path in folder.iterdir())


def identity(file: Path) -> tuple[int, int, int, int]:
    """What makes a file this file to those who use it."""
    found = file.stat()
    return found.st_ino, found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


def journal_mode(file: Path) -> str:
    """As another connection finds it."""
    with closing(sqlite3.connect(file)) as connection:
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        return str(mode).upper()


class TestWhole:
    """All or nothing."""

    @pytest.mark.parametrize("at", [1, 2, 3])
    @pytest.mark.parametrize("mode", ["WAL", "DELETE"])
    def test_a_check_in_the_middle(self, tmp_path: Path, mode: str, at: int) -> None:
        """Whenever the check says no, nothing of the new content is there, and the next attempt succeeds."""
        lab = FileLab(tmp_path, mode=mode, mebibytes=20)
        lab.write(1)
        lab.swap.seize(PATIENCE)
        copy = lab.migrated()
        with pytest.raises(Trouble):
            lab.swap.put(copy, refusing(at))
        lab.swap.release()
        assert (lab.is_migrated(), lab.notes()) == (False, {1})

        swapped(lab)
        assert (lab.is_migrated(), lab.notes()) == (True, {1})

    @pytest.mark.parametrize("live", ["WAL", "DELETE"])
    @pytest.mark.parametrize("put", ["WAL", "DELETE"])
    def test_another_page_size(self, tmp_path: Path, live: str, put: str) -> None:
        """Content with other pages is put, and what was there is put back, whatever the two journal modes are."""
        lab = FileLab(tmp_path, mode=live)
        lab.write(1)
        lab.swap.seize(PATIENCE)
        lab.swap.snapshot(3, 60)
        copy = lab.migrated()
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            for statement in ("journal_mode = DELETE", "page_size = 8192"):
                connection.execute(f"PRAGMA {statement}")
            connection.execute("VACUUM")
            connection.execute(f"PRAGMA journal_mode = {put}")
        lab.swap.put(copy, calm)
        lab.swap.release()
        assert (lab.is_migrated(), lab.notes()) == (True, {1})
        assert _pages(lab.file) == (8192, put.lower())
        lab.write(2)

        assert lab.swap.put_back(3)
        assert (lab.is_migrated(), lab.notes()) == (False, {1})
        assert _pages(lab.file) == (4096, live.lower())


def _pages(file: Path) -> tuple[int, str]:
    """The size of a database's pages, and its journal mode."""
    with closing(sqlite3.connect(file)) as connection:
        (size,), (mode,) = (connection.execute(f"PRAGMA {word}").fetchone() for word in ("page_size", "journal_mode"))
    return int(size), str(mode)


class TestFirstDatabase:
    """An app that gets its first tables: the way back leads to no database."""

    @pytest.mark.parametrize("copy_mode", ["WAL", "DELETE"])
    @pytest.mark.parametrize("is_empty", [False, True], ids=["none", "empty file"])
    def test_there_and_back(self, tmp_path: Path, copy_mode: str, is_empty: bool) -> None:  # noqa: FBT001  pytest's
        """After the undo there is none again, whatever was put, and what was put is set aside."""
        lab = without_database(tmp_path)
        if is_empty:
            lab.file.touch()
        copy = tmp_path / "first.db"
        make(copy, copy_mode)
        lab.swap.seize(PATIENCE)
        assert lab.swap.snapshot(3, 60) == 0
        lab.swap.put(copy, calm)
        lab.swap.release()
        lab.write(1)
        assert journal_mode(lab.file) == copy_mode
        assert lab.swap.put_back(3)

        assert not SqliteDatabase(lab.file).exists()
        assert not lab.swap.put_back(3)
        assert lab.aside() == [{1}]
        assert names_in(lab.file.parent) == ["app.db"]

    def test_nothing_put(self, tmp_path: Path) -> None:
        """Having had it alone makes no database."""
        lab = without_database(tmp_path)
        lab.swap.seize(PATIENCE)
        lab.swap.snapshot(3, 60)
        assert is_locked(lab.file)
        lab.swap.release()
        assert not SqliteDatabase(lab.file).exists()
        assert not lab.swap.put_back(3)
        assert not SqliteDatabase(lab.file).exists()

    @pytest.mark.parametrize("copy_mode", ["WAL", "DELETE"])
    @pytest.mark.parametrize("moment", ["before checkpoint", "after put"])
    def test_killed(self, tmp_path: Path, copy_mode: str, moment: str) -> None:
        """What a killed deployer leaves beside the file does not count as a database either."""
        lab = without_database(tmp_path)
        make(tmp_path / "work.db", copy_mode)
        kill_at(lab, moment, "swap.seize(5); swap.snapshot(3, 60); swap.put(work, calm)")
        lab.again().put_back(3)

        assert not SqliteDatabase(lab.file).exists()


def without_database(folder: Path) -> FileLab:
    """A lab whose database is not there."""
    lab = FileLab(folder)
    lab.file.unlink()
    return lab


# --- killed

_COMMITTED = '    _checkpoint(connection)\n    connection.execute(f"PRAGMA journal_mode'
_KILL_BOTH = "os.kill(os.getppid(), 9); os.kill(os.getpid(), 9)"


def planted_keeper(folder: Path, *changes: tuple[str, str]) -> str:
    """The keeper's script with a bug in it."""
    source = Path(sqlite_keeper.__file__).read_text(encoding="utf-8")
    for old, new in changes:
        assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in the keeper"
        source = source.replace(old, new)
    script = folder / "keeper.py"
    script.write_text(source, encoding="utf-8")
    return str(script)


def kill_at(lab: FileLab, moment: str, script: str) -> None:
    """Do something in another process, which is killed at a moment: after so many calls of a function.

    Such as `after put`, or `before check 2`, where `check` is that of a put; other names are functions of the modules.
    `before checkpoint` is between the commit of a put and what follows, where the keeper has the floor.
    """
    when, name, count = (*moment.split(), "0" if moment == "before checkpoint" else "1")[:3]
    keeper = planted_keeper(
        lab.layout.root.parent,
        ("_PAGES = 2048", "_PAGES = 64"),
        *([(_COMMITTED, f"    {_KILL_BOTH}\n{_COMMITTED}")] if name == "checkpoint" else []),
    )
    program = f"""
import os, signal
from pathlib import Path
from bulletproof.adapters import swap as adapter
from bulletproof.domain.layout import Layout
from bulletproof.effects import sqlite_keeper, sqlite_seized
from bulletproof.effects.process import Talk
from bulletproof.effects import sqlite_seized

sqlite_seized._KEEPER = {keeper!r}
left = {count}
def killed(act):
    def acting(*values, **named):
        global left
        left -= 1
        result = act(*values, **named) if left or {when!r} == "after" else None
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return acting

def calm():
    pass

put = sqlite_seized.Seized.put
sqlite_seized.Seized.put = lambda seized, source, check: put(seized, source, calm)
for place in (sqlite_seized.Seized, sqlite_seized, adapter.SqliteSwap, adapter):
    if hasattr(place, {name!r}):
        setattr(place, {name!r}, killed(getattr(place, {name!r})))
        break
else:
    calm = killed(calm)
layout = Layout(root=Path({str(lab.layout.root)!r}), app="shop", runtime=Path({str(lab.layout.runtime)!r}))
swap = adapter.SqliteSwap(layout, Path({str(lab.file)!r}))
work = Path({str(lab.layout.root.parent / "work.db")!r})
{script}
"""
    ended = subprocess.run([sys.executable, "-c", program], check=False, timeout=120, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


class TestKilled:
    """SIGKILL at any moment leaves the old or the new content, and the way back is open."""

    @pytest.mark.parametrize("mode", ["WAL", "DELETE"])
    @pytest.mark.parametrize(
        ("moment", "becomes"),
        [("before check 1", False), ("before check 2", False), ("before check 3", False),
         ("before checkpoint", True), ("after put", True)],
    )  # fmt: skip
    def test_put(self, tmp_path: Path, mode: str, moment: str, becomes: bool) -> None:  # noqa: FBT001  pytest gives it
        """Until the transaction is committed the old content is there, then the new; both can be put back."""
        lab = prepared(tmp_path, mode)
        kill_at(lab, moment, "swap.seize(5); swap.snapshot(3, 60); swap.put(work, calm)")

        assert (lab.is_migrated(), lab.notes()) == (becomes, {1})
        assert bool(lab.again().put_back(3)) == becomes
        assert (lab.is_migrated(), lab.notes()) == (False, {1})

    @pytest.mark.parametrize("mode", ["WAL", "DELETE"])
    @pytest.mark.parametrize(
        ("moment", "asides"),
        [("after seize", 0), ("after refresh_copy", 0), ("after _set_aside", 1), ("before check 2", 1),
         ("before check 3", 1), ("before checkpoint", 1), ("after put", 1)],
    )  # fmt: skip
    def test_put_back(self, tmp_path: Path, mode: str, moment: str, asides: int) -> None:
        """What was put or what was there before; nothing of what was written meanwhile is lost, and it ends well."""
        lab = prepared(tmp_path, mode)
        swapped(lab)
        lab.write(2)
        kill_at(lab, moment, "swap.put_back(3)")

        is_back = moment in {"before checkpoint", "after put"}
        assert (lab.is_migrated(), lab.notes()) == ((False, {1}) if is_back else (True, {1, 2}))
        assert lab.aside() == [{1, 2}] * asides
        lab.again().put_back(3)
        assert (lab.is_migrated(), lab.notes()) == (False, {1})
        assert lab.aside() == [{1, 2}] * (asides + (0 if is_back else 1))
        assert not lab.swap.put_back(3)


def prepared(folder: Path, mode: str) -> FileLab:
    """A database large enough to be put in several turns, with a note, and a migrated copy of it."""
    lab = FileLab(folder, mode=mode, mebibytes=1)
    lab.write(1)
    lab.migrated()
    return lab


# --- a -wal from before


def leave_wal(file: Path) -> None:
    """Write note 2 in a process that is killed before it is anywhere but in the -wal."""
    with opened(file, "INSERT INTO note VALUES (2)"):
        pass
    assert file.with_name(f"{file.name}-wal").stat().st_size > 0


def restored_over_a_stale_wal(folder: Path, put_back: Callable[[FileLab], object]) -> set[int]:
    """The notes after a way of putting the snapshot with note 1 back; note 2 is in the -wal of a killed writer."""
    lab = FileLab(folder)
    lab.write(1)
    lab.swap.seize(PATIENCE)
    lab.swap.snapshot(3, 60)
    lab.swap.release()
    leave_wal(lab.file)
    put_back(lab)
    with closing(sqlite3.connect(lab.file)) as connection:
        return {number for (number,) in connection.execute("SELECT number FROM note")}


def by_copying(lab: FileLab) -> None:
    """As `cp` does it."""
    shutil.copyfile(lab.layout.snapshot(3), lab.file)


def by_renaming(lab: FileLab) -> None:
    """As a careful script does it."""
    copy = lab.file.with_name("new")
    shutil.copyfile(lab.layout.snapshot(3), copy)
    copy.replace(lab.file)


class TestStaleWal:
    """What a killed writer left in the -wal."""

    @pytest.mark.parametrize("naive", [by_copying, by_renaming])
    def test_it_undoes_a_naive_restore(self, tmp_path: Path, naive: Callable[[FileLab], object]) -> None:
        """The hazard is real: SQLite plays the old -wal over the restored file, and the write is back."""
        assert restored_over_a_stale_wal(tmp_path, naive) == {1, 2}

    def test_it_does_not_undo_ours(self, tmp_path: Path) -> None:
        """What was put back is what is there; what was in the -wal is set aside with the rest."""
        labs: list[FileLab] = []

        def put_back(lab: FileLab) -> None:
            labs.append(lab)
            lab.swap.put_back(3)

        assert restored_over_a_stale_wal(tmp_path, put_back) == {1}
        assert labs[0].aside() == [{1, 2}]

    def test_it_is_in_the_snapshot(self, tmp_path: Path) -> None:
        """A snapshot holds all that was committed, also what was nowhere but in the -wal."""
        lab = FileLab(tmp_path)
        lab.write(1)
        leave_wal(lab.file)
        lab.swap.seize(PATIENCE)
        lab.swap.snapshot(3, 60)
        assert notes(lab.layout.snapshot(3)) == {1, 2}
        lab.swap.release()
        assert lab.notes() == {1, 2}


# --- late writers


_WRITER = """
import itertools, os, sqlite3, sys
file, log, first, patience, stop = sys.argv[1:]
kept = sqlite3.connect(file, isolation_level=None, timeout=float(patience))
print("ready", flush=True)
sys.stdin.readline()
with open(log, "w", encoding="ascii", buffering=1) as log:
    for number in itertools.count(int(first)):
        if os.path.exists(stop):
            break
        connection = kept if number % 2 else sqlite3.connect(file, isolation_level=None, timeout=float(patience))
        try:
            connection.execute("INSERT INTO note VALUES (?)", (number,))
            log.write(f"{number}\\n")
        except sqlite3.Error:
            pass
        if connection is not kept:
            connection.close()
"""
_PATIENT, _IMPATIENT = "30", "0"


class LateWriters:
    """Three processes that have the file open already, and write as soon as they are let.

    Two wait in their busy time-out for the lock, one tries again and again; half of the writes use new connections.
    """

    def __init__(self, stack: contextlib.ExitStack, folder: Path, file: Path) -> None:
        self._stop = folder / "stop"
        self._logs = [folder / f"writer-{index}.log" for index in range(3)]
        self._writers = [
            stack.enter_context(_begun(file, log, (index + 1) * 10**8, patience, self._stop))
            for index, (log, patience) in enumerate(zip(self._logs, (_PATIENT, _PATIENT, _IMPATIENT), strict=True))
        ]

    def begin(self) -> None:
        """They try from now on."""
        for writer in self._writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        time.sleep(0.1)

    def end(self) -> set[int]:
        """Let them write for a while, then end them; gives what they were told is written."""
        time.sleep(0.25)
        self._stop.touch()
        for writer in self._writers:
            writer.wait(60)
        return {int(line) for log in self._logs for line in log.read_text("ascii").splitlines()}


@contextmanager
def _begun(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-I", "-c", _WRITER, *map(str, arguments)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def late_writers_lose_nothing(folder: Path, mode: str = "WAL", mebibytes: int = 0) -> None:
    """Seize, let them come, snapshot, put, release: every write that was acknowledged is there."""
    lab = FileLab(folder, mode=mode, mebibytes=mebibytes)
    lab.write(1)
    with contextlib.ExitStack() as stack:
        writers = LateWriters(stack, folder, lab.file)
        lab.swap.seize(PATIENCE)
        writers.begin()
        lab.swap.snapshot(3, 60)
        lab.swap.put(lab.migrated(), calm)
        lab.swap.release()
        acknowledged = writers.end()
    assert lab.is_migrated()
    assert acknowledged, "nobody wrote anything"
    assert acknowledged <= lab.notes()


class TestLateWriters:
    """Those whom no hold stops."""

    @pytest.mark.parametrize(("mode", "mebibytes"), [("WAL", 0), ("WAL", 20), ("DELETE", 0), ("DELETE", 20)])
    def test_nothing_acknowledged_is_lost(self, tmp_path: Path, mode: str, mebibytes: int) -> None:
        """They wait, and write into what was put."""
        late_writers_lose_nothing(tmp_path, mode, mebibytes)

    def test_nothing_is_lost_by_the_way_back(self, tmp_path: Path) -> None:
        """What they write while the old content is put back is there, or in what was set aside."""
        lab = FileLab(tmp_path)
        lab.write(1)
        swapped(lab)
        with contextlib.ExitStack() as stack:
            writers = LateWriters(stack, tmp_path, lab.file)
            lab.swap.seize(PATIENCE)
            writers.begin()
            lab.swap.release()
            time.sleep(0.05)
            # Two of them are inside for good now, as it may happen; nothing is put back beside them.
            with pytest.raises(StepFailed, match="could not be had alone"):
                put_back_at_once(lab)
            acknowledged = writers.end()
        lab.swap.put_back(3)

        assert acknowledged
        assert acknowledged <= lab.notes().union(*lab.aside())


def put_back_at_once(lab: FileLab) -> None:
    """Put back with little patience."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("bulletproof.adapters.swap._PUT_BACK_SECONDS", PATIENCE)
        lab.swap.put_back(3)


# --- only the pages that differ


@pytest.fixture
def by_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every database is a large one."""
    monkeypatch.setattr(sqlite_seized, "LARGE_BYTES", 0)


def altered(file: Path) -> Path:
    """Change the schema, and few pages."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE fresh (number INTEGER)")
    return file


def laid(lab: FileLab, script: str = "swap.seize(5); swap.snapshot(3, 60); swap.put(work, calm)") -> str:
    """A program that does so by pages, by default the whole way there."""
    return f"""
from pathlib import Path
from bulletproof.adapters import swap as adapter
from bulletproof.domain.layout import Layout
from bulletproof.effects import sqlite_seized

sqlite_seized.LARGE_BYTES = 0
def calm():
    pass

layout = Layout(root=Path({str(lab.layout.root)!r}), app="shop", runtime=Path({str(lab.layout.runtime)!r}))
swap = adapter.SqliteSwap(layout, Path({str(lab.file)!r}))
work = Path({str(lab.layout.root.parent / "work.db")!r})
print("done", flush=True)
{script}
"""


@pytest.mark.usefixtures("by_pages")
class TestByPages:
    """A large database is given what differs, as a log that the next connection takes up."""

    def test_there_and_back(self, tmp_path: Path) -> None:
        """Both ways the file itself is not written by us, nobody holds it afterwards, and nothing is left beside it."""
        lab = FileLab(tmp_path, mebibytes=2)
        lab.write(1)
        lab.file.chmod(0o640)
        if os.getuid() == 0:
            os.chown(lab.file, 4321, 4322)
        copy = altered(Path(shutil.copy(lab.file, tmp_path / "work.db")))
        lab.swap.seize(PATIENCE)
        lab.swap.snapshot(3, 60)
        before, kept = lab.file.read_bytes(), identity(lab.file)
        lab.swap.put(copy, calm)
        wal = lab.file.with_name("app.db-wal")
        assert lab.file.read_bytes() == before
        assert 0 < wal.stat().st_size < 20 * 4200
        assert identity(wal)[1:] == kept[1:]
        lab.swap.release()
        lab.write(2)
        assert (lab.is_migrated(), lab.notes()) == (True, {1, 2})
        assert lab.swap.put_back(3)

        assert (lab.is_migrated(), lab.notes()) == (False, {1})
        assert lab.aside() == [{1, 2}]
        assert not lab.swap.put_back(3)
        assert lab.file.read_bytes() == lab.layout.snapshot(3).read_bytes()
        assert identity(lab.file) == kept
        assert names_in(lab.file.parent) == ["app.db"]
        assert names_in(lab.layout.snapshots) == ["3.db"]

    @pytest.mark.parametrize(
        "change", ["VACUUM", "DELETE FROM bulk; VACUUM", "INSERT INTO bulk VALUES (zeroblob(99999))"]
    )
    def test_another_size(self, tmp_path: Path, change: str) -> None:
        """It may have grown or become shorter."""
        lab = FileLab(tmp_path, mebibytes=1)
        lab.write(1)
        copy = altered(Path(shutil.copy(lab.file, tmp_path / "work.db")))
        with closing(sqlite3.connect(copy)) as connection:
            connection.executescript(change)
        lab.swap.seize(PATIENCE)
        lab.swap.snapshot(3, 60)
        lab.swap.put(copy, calm)
        assert (lab.is_migrated(), lab.notes()) == (True, {1})
        assert lab.file.stat().st_size == copy.stat().st_size
        lab.swap.put_back(3)
        assert (lab.is_migrated(), lab.notes()) == (False, {1})
        assert lab.file.read_bytes() == lab.layout.snapshot(3).read_bytes()

    def test_too_much_differs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Then all of it is put in the way of small ones, and it is still held."""
        monkeypatch.setattr(sqlite_seized, "_MOST_PAGES", 2)
        lab = FileLab(tmp_path, mebibytes=1)
        lab.write(1)
        lab.swap.seize(PATIENCE)
        lab.swap.put(lab.migrated(), calm)
        assert is_locked(lab.file)
        lab.swap.release()
        assert (lab.is_migrated(), lab.notes()) == (True, {1})

    @pytest.mark.parametrize("live", ["WAL", "DELETE"])
    @pytest.mark.parametrize("put", ["WAL", "DELETE"])
    def test_another_journal_mode(self, tmp_path: Path, live: str, put: str) -> None:
        """Only a database that has a log can be given one; any other is put as a small one is."""
        TestKept().test_journal_mode(tmp_path, live, put)

    @pytest.mark.parametrize("live", ["WAL", "DELETE"])
    def test_another_page_size(self, tmp_path: Path, live: str) -> None:
        """A log of other pages would be none of this database: it is put in the way of small ones."""
        TestWhole().test_another_page_size(tmp_path, live, "WAL")

    @pytest.mark.parametrize("at", [1, 2])
    def test_a_check_says_no(self, tmp_path: Path, at: int) -> None:
        """Before it began or when the log is written: the old content stays, and others may have it."""
        lab = FileLab(tmp_path, mebibytes=1)
        lab.write(1)
        copy = altered(Path(shutil.copy(lab.file, tmp_path / "work.db")))
        lab.swap.seize(PATIENCE)
        with pytest.raises(Trouble):
            lab.swap.put(copy, refusing(at))
        lab.swap.release()

        assert (lab.is_migrated(), lab.notes()) == (False, {1})
        assert names_in(tmp_path) == ["data", "root", "work.db"]  # root: what was put by for the way back

    def test_the_check_is_asked_while_pages_are_compared(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A comparison that takes too long is ended at once."""
        slow = tmp_path / "slow.py"
        slow.write_text("import time; time.sleep(60)")
        monkeypatch.setattr("bulletproof.effects.sqlite_wal.__file__", str(slow))
        lab = FileLab(tmp_path)
        lab.write(1)
        copy = altered(Path(shutil.copy(lab.file, tmp_path / "work.db")))
        lab.swap.seize(PATIENCE)
        begun = time.monotonic()
        with pytest.raises(Trouble):
            lab.swap.put(copy, refusing(4))
        lab.swap.release()

        assert time.monotonic() - begun < 10
        assert not lab.is_migrated()

    def test_no_check_is_asked_when_it_is_taken(self, tmp_path: Path) -> None:
        """The last time is before the log is laid; after that it cannot be refused."""
        lab = FileLab(tmp_path)
        lab.write(1)
        copy = altered(Path(shutil.copy(lab.file, tmp_path / "work.db")))
        seen: list[bool] = []
        lab.swap.seize(PATIENCE)
        lab.swap.put(copy, lambda: seen.append(is_locked(lab.file)))

        assert all(seen)
        assert len(seen) >= 2
        assert lab.is_migrated()

    def test_late_writers(self, tmp_path: Path) -> None:
        """They wait for the lock, and write into what was put."""
        for trial in range(5):
            late_writers_lose_nothing_by_pages(tmp_path / str(trial))

    def test_the_keeper_must_not_close(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A keeper that closes its connection takes the log with it: that the lock falls by its end is needed."""
        closing_it = ("os._exit(0)  # after a", "connection.close()  # after a")
        (tmp_path / "lab").mkdir()
        monkeypatch.setattr(sqlite_seized, "_KEEPER", planted_keeper(tmp_path, closing_it))
        lab = FileLab(tmp_path / "lab")
        lab.write(1)
        copy = altered(Path(shutil.copy(lab.file, tmp_path / "work.db")))
        lab.swap.seize(PATIENCE)
        monkeypatch.setattr("bulletproof.effects.process.Talk.kill", waited_for)
        lab.swap.put(copy, calm)

        assert not lab.is_migrated()

    @pytest.mark.parametrize("seed", range(3))
    def test_killed_at_any_moment(self, tmp_path: Path, seed: int) -> None:
        """The deployer is killed: the old content is there or the new, both whole, and the way back is open."""
        chance = random.Random(seed)
        lab = FileLab(tmp_path, mebibytes=2)
        lab.write(1)
        altered(Path(shutil.copy(lab.file, tmp_path / "work.db")))
        for _ in range(4):
            with stranger(sys.executable, sys.executable, "-c", laid(lab)) as process:
                time.sleep(chance.uniform(0.0, 0.5))
                process.kill()
            assert lab.notes() == {1}
            lab.again()
            if lab.layout.snapshot(3).exists() and lab.is_migrated():
                assert lab.swap.put_back(3)
            assert (lab.is_migrated(), lab.notes()) == (False, {1})

    @pytest.mark.parametrize(
        ("place", "becomes"),
        [
            ("    wal = os.open(", False),
            ("            content = content[os.write(", False),
            ("        os.fsync(wal)\n        os.fsync(", True),
            ("        os.fsync(os.open(", True),
        ],
    )
    def test_killed_while_it_is_laid(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        place: str,
        becomes: bool,  # noqa: FBT001  pytest's
    ) -> None:
        """The keeper is killed: until the last frame is there it is the old content; it is said that it failed."""
        indent = " " * (len(place) - len(place.lstrip()))
        dying = f"{indent}if content[4096:]: os.write(target, content[:-1])\n" if "content" in place else ""
        (tmp_path / "lab").mkdir()
        keeper = planted_keeper(tmp_path, (place, f"{dying}{indent}os.kill(os.getpid(), 9)\n{place}"))
        monkeypatch.setattr(sqlite_seized, "_KEEPER", keeper)
        lab = FileLab(tmp_path / "lab", mebibytes=1)
        lab.write(1)
        copy = altered(Path(shutil.copy(lab.file, tmp_path / "work.db")))
        lab.swap.seize(PATIENCE)
        lab.swap.snapshot(3, 60)
        assert "was ended" in failure(lambda: lab.swap.put(copy, calm), "database-not-replaced")
        monkeypatch.undo()

        assert lab.file.with_name("app.db-wal").stat().st_size > 0 or not (dying or becomes)
        assert (lab.is_migrated(), lab.notes()) == (becomes, {1})
        assert bool(lab.swap.put_back(3)) == becomes
        assert (lab.is_migrated(), lab.notes()) == (False, {1})

    def test_what_cannot_be_laid_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A disk that takes only a part of the log: the log is empty again, the old content stays, it is still held."""
        failing = (
            "        os.fsync(wal)\n        os.fsync(",
            "        raise OSError(28, 'No space left on device')\n        os.fsync(",
        )
        (tmp_path / "lab").mkdir()
        monkeypatch.setattr(sqlite_seized, "_KEEPER", planted_keeper(tmp_path, failing))
        lab = FileLab(tmp_path / "lab")
        lab.write(1)
        copy = altered(Path(shutil.copy(lab.file, tmp_path / "work.db")))
        lab.swap.seize(PATIENCE)
        assert "No space left" in failure(lambda: lab.swap.put(copy, calm), "database-not-replaced")
        assert lab.file.with_name("app.db-wal").stat().st_size == 0
        assert is_locked(lab.file)
        lab.swap.release()

        assert (lab.is_migrated(), lab.notes()) == (False, {1})

    def test_a_log_in_use_is_not_written_over(self, tmp_path: Path) -> None:
        """If it is not empty it is somebody's, and nothing of it is touched."""
        lab = FileLab(tmp_path)
        lab.write(1)
        copy = altered(Path(shutil.copy(lab.file, tmp_path / "work.db")))
        lab.swap.seize(PATIENCE)
        wal = lab.file.with_name("app.db-wal")
        wal.write_bytes(b"somebody's")
        assert "not empty" in failure(lambda: lab.swap.put(copy, calm), "database-not-replaced")

        assert wal.read_bytes() == b"somebody's"
        lab.swap.release()


def waited_for(talk: Talk, kill: Callable[[Talk], tuple[str, ...]] = Talk.kill) -> tuple[str, ...]:
    """It is let end by itself first."""
    talk._child.wait(60)
    return kill(talk)


def test_a_large_one_is_put_by_pages(tmp_path: Path) -> None:
    """From the bound on: there and back, both files are equal, and the lock is gone with what was put."""
    lab = FileLab(tmp_path, mebibytes=sqlite_seized.LARGE_BYTES // _MIB)
    lab.write(1)
    copy = altered(Path(shutil.copy(lab.file, tmp_path / "work.db")))
    lab.swap.seize(PATIENCE)
    lab.swap.snapshot(3, 60)
    lab.swap.put(copy, calm)
    assert not is_locked(lab.file)
    lab.swap.release()
    assert (lab.is_migrated(), lab.notes()) == (True, {1})
    assert lab.file.read_bytes() == copy.read_bytes()
    assert lab.swap.put_back(3)
    assert (lab.is_migrated(), lab.notes()) == (False, {1})
    assert lab.file.read_bytes() == lab.layout.snapshot(3).read_bytes()


class TestKeeper:
    """The process that has the lock for us."""

    def test_it_ends_with_us(self, files: FileLab) -> None:
        """Killed, we leave nobody behind who has the database."""
        script = laid(files, "swap.seize(5); print('held', flush=True); import time; time.sleep(60)")
        with stranger(sys.executable, sys.executable, "-c", script) as process:
            assert process.said.readline() == "held\n"
            assert is_locked(files.file)
            os.kill(process.pid, signal.SIGKILL)
            files.swap.seize(10)

    def test_it_spares_signals_for_us(self, files: FileLab) -> None:
        """A signal to a whole service is for the deployer to judge, who may be putting something back."""
        files.swap.seize(PATIENCE)
        keeper = keeper_of(files)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(keeper, number)
        assert is_locked(files.file)
        files.swap.put(files.migrated(), calm)
        assert is_locked(files.file)
        files.swap.release()

    def test_its_death_is_noticed(self, files: FileLab) -> None:
        """Without the lock no copy counts as a snapshot, and nothing is put."""
        copy = files.migrated()
        for act in (lambda: files.swap.snapshot(3, 60), lambda: files.swap.put(copy, calm)):
            files.swap.seize(PATIENCE)
            os.kill(keeper_of(files), signal.SIGKILL)
            time.sleep(0.1)
            assert "was ended" in failure(act, "database-not-held")
            files.swap.release()

        assert (files.is_migrated(), files.notes()) == (False, {1})

    @pytest.mark.parametrize("mode", ["WAL", "DELETE"])
    def test_its_death_in_a_put(self, tmp_path: Path, mode: str) -> None:
        """The old content stays, and it is said what happened."""
        lab = FileLab(tmp_path, mode=mode, mebibytes=20)
        lab.write(1)
        copy = lab.migrated()
        lab.swap.seize(PATIENCE)
        lab.swap.snapshot(3, 60)
        keeper, calls = keeper_of(lab), iter(range(2))

        def check() -> None:
            if next(calls, None) is None:
                os.kill(keeper, signal.SIGKILL)

        assert "was ended" in failure(lambda: lab.swap.put(copy, check), "database-not-replaced")
        assert (lab.is_migrated(), lab.notes()) == (False, {1})
        assert not lab.swap.put_back(3)

    def test_it_cannot_begin(self, files: FileLab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """What it said on its way out is told."""
        broken = tmp_path / "broken.py"
        broken.write_text("raise SystemExit('no module named sqlite3')")
        monkeypatch.setattr(sqlite_seized, "_KEEPER", str(broken))
        with pytest.raises(StepFailed) as caught:
            sqlite_seized.Seized.seize(files.file, patience_seconds=PATIENCE)

        assert caught.value.reference == "database-not-reachable"
        assert caught.value.context == ("no module named sqlite3",)


def keeper_of(lab: FileLab) -> int:
    """The process that has its database."""
    assert isinstance(lab.swap, SqliteSwap)
    assert lab.swap._seized is not None
    return lab.swap._seized._keeper._child.pid


# --- teeth


def data_put_back_is_kept(folder: Path) -> None:
    """The way back sets aside what was there."""
    lab = FileLab(folder)
    lab.write(1)
    swapped(lab)
    lab.write(2)
    lab.swap.put_back(3)
    assert lab.aside() == [{1, 2}]
    assert lab.notes() == {1}


def stale_wal_undoes_nothing(folder: Path) -> None:
    """The way back is not undone by a -wal from before."""
    assert restored_over_a_stale_wal(folder, lambda lab: lab.swap.put_back(3)) == {1}


def no_is_no(folder: Path) -> None:
    """A check that says no keeps the old content, and one that says it too late is not asked."""
    for at in (1, 2):
        lab = FileLab(folder / str(at))
        lab.write(1)
        lab.swap.seize(PATIENCE)
        is_refused = False
        try:
            lab.swap.put(lab.migrated(), refusing(at))
        except Trouble:
            is_refused = True
        lab.swap.release()
        assert is_refused == (at == 1)
        assert lab.is_migrated() != is_refused


def late_writers_lose_nothing_by_pages(folder: Path) -> None:
    """The same when only what differs is put."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(importlib.import_module(_SEIZED), "LARGE_BYTES", 0)
        late_writers_lose_nothing(folder)


_SEIZED, _ADAPTER = "bulletproof.effects.sqlite_seized", "bulletproof.adapters.swap"
_KEEPER = "bulletproof.effects.sqlite_keeper"
_PUT_ALL = "        if not self._put_pages(source, check):\n            self._put_all(source, check)\n"
PLANTED: tuple[tuple[Bug, Callable[[Path], None]], ...] = (
    (
        Bug(
            "the lock is dropped before the put",
            _ADAPTER,
            "        seized.put(copy, check)\n",
            "        self.release()\n        self.seize(5)\n        self._held().put(copy, check)\n",
        ),
        late_writers_lose_nothing,
    ),
    (
        Bug(
            "put by a rename",
            _SEIZED,
            _PUT_ALL,
            "        os.replace(shutil.copyfile(source, f'{source}2'), self._file)\n",
        ),
        late_writers_lose_nothing,
    ),
    (
        Bug(
            "put back raw, the -wal kept",
            _ADAPTER,
            "        self.release()\n        room.free(*self._layout.rooms)\n",
            "        return str(refresh_copy(snapshot, self._file.resolve()))\n",
        ),
        stale_wal_undoes_nothing,
    ),
    (
        Bug("migrated data is not set aside", _ADAPTER, "place = self._set_aside(number, used)", "place = snapshot"),
        data_put_back_is_kept,
    ),
    (
        Bug(
            "what was set aside before is overwritten",
            _ADAPTER,
            "if not (folder / name).exists())",
            "if name)",
        ),
        lambda folder: TestContract().test_what_was_set_aside_stays(_with_note(folder)),
    ),
    (Bug("a small one is not asked for", _SEIZED, "        check()\n        if not", "        if not"), no_is_no),
    (
        Bug(
            "the lock is dropped before the log is laid",
            _SEIZED,
            '            self._tell(f"take {json.dumps(str(log))}", check)\n',
            "            self.release()\n            shutil.copyfile(log, f'{self._file}-wal')\n",
        ),
        late_writers_lose_nothing_by_pages,
    ),
    (Bug("asked when it is too late", _KEEPER, "if remaining:", "if True:"), no_is_no),
)
_TRIALS = 10
"""A race is not lost every time; a lock that is dropped for an instant is used in most trials."""


def _with_note(folder: Path) -> FileLab:
    lab = FileLab(folder)
    lab.write(1)
    return lab


@pytest.mark.parametrize(("bug", "promise"), PLANTED, ids=[str(bug) for bug, _ in PLANTED])
def test_a_planted_bug_is_caught(bug: Bug, promise: Callable[[Path], None], tmp_path: Path) -> None:
    """The tests have teeth: each promise holds, and is broken by the bug."""
    promise(tmp_path / "without")
    with planted_anywhere(bug, tmp_path):
        assert any(is_broken(promise, tmp_path / str(trial)) for trial in range(_TRIALS))


@contextmanager
def planted_anywhere(bug: Bug, folder: Path) -> Iterator[None]:
    """A bug in one of our modules, or in the script of the process that has the lock."""
    if bug.module != _KEEPER:
        with planted(bug, (_ADAPTER, _SEIZED)):
            yield
        return
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sqlite_seized, "_KEEPER", planted_keeper(folder, (bug.old, bug.new)))
        yield


def is_broken(promise: Callable[[Path], None], folder: Path) -> bool:
    """Whether it does not hold."""
    try:
        promise(folder)
    except (AssertionError, StepFailed, sqlite3.Error):
        return True
    return False


# --- full disks


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of its own that is full soon."""
    with workshop.small_disk(mebibytes=120) as folder:
        yield folder


@contextmanager
def full(disk: Path, *, leave_bytes: int) -> Iterator[None]:
    """While in the block, so much space is left."""
    found = os.statvfs(disk)
    with (disk / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - leave_bytes)
    try:
        yield
    finally:
        (disk / "ballast").unlink()


@pytest.mark.root
class TestFullDisk:
    """Words, nothing lost, and with some space it goes on."""

    @pytest.mark.parametrize(("mebibytes", "leave_bytes"), [(0, 8192), (20, 10 * _MIB)])
    def test_snapshot(self, small_disk: Path, mebibytes: int, leave_bytes: int) -> None:
        """A snapshot that is not whole is no snapshot: not even its last page may be missing unsaid."""
        lab = FileLab(small_disk, mebibytes=mebibytes)
        lab.write(1)
        lab.layout.snapshots.mkdir(parents=True)
        lab.swap.seize(PATIENCE)
        with full(small_disk, leave_bytes=leave_bytes):
            assert "No space left on device" in failure(lambda: lab.swap.snapshot(3, 60), "database-not-copied")
        lab.swap.snapshot(3, 60)
        lab.swap.release()

        assert notes(lab.layout.snapshot(3)) == lab.notes() == {1}

    @pytest.mark.parametrize("mode", ["WAL", "DELETE"])
    def test_put(self, small_disk: Path, mode: str) -> None:
        """The old content stays, and the way back has nothing to do."""
        lab = FileLab(small_disk, mode=mode, mebibytes=20)
        lab.write(1)
        lab.swap.seize(PATIENCE)
        lab.swap.snapshot(3, 60)
        copy = lab.migrated()
        with full(small_disk, leave_bytes=10 * _MIB):
            assert "disk is full" in failure(lambda: lab.swap.put(copy, calm), "database-not-replaced")
            lab.swap.release()
            assert (lab.is_migrated(), lab.notes()) == (False, {1})
            assert not lab.swap.put_back(3)
        assert lab.notes() == {1}

    @pytest.mark.parametrize("mode", ["WAL", "DELETE"])
    def test_put_of_more_than_there_was(self, small_disk: Path, mode: str) -> None:
        """With space for the -wal but not for the file, it is not even begun: nobody could read what was committed."""
        lab = FileLab(small_disk, mode=mode)
        lab.write(1)
        lab.swap.seize(PATIENCE)
        lab.swap.snapshot(3, 60)
        copy = lab.migrated()
        with closing(sqlite3.connect(copy)) as connection, connection:
            connection.execute("INSERT INTO bulk VALUES (randomblob(20 << 20))")
        with full(small_disk, leave_bytes=(30 if mode == "WAL" else 10) * _MIB):
            assert "disk is full" in failure(lambda: lab.swap.put(copy, calm), "database-not-replaced")
            lab.swap.release()
            assert lab.notes() == {1}
            assert not lab.is_migrated()
            assert not lab.swap.put_back(3)

    @pytest.mark.usefixtures("by_pages")
    def test_put_by_pages(self, small_disk: Path) -> None:
        """It takes no more than the log may take, growth, and room to go back; with less it is not even begun."""
        lab = FileLab(small_disk, mebibytes=20)
        lab.write(1)
        copy = altered(Path(shutil.copy(lab.file, small_disk / "work.db")))
        back = int(21.3 * _MIB)
        with full(small_disk, leave_bytes=back + 16 * _MIB):
            lab.swap.seize(PATIENCE)
            assert "disk is full" in failure(lambda: lab.swap.put(copy, calm), "database-not-replaced")
            lab.swap.release()
            assert (lab.is_migrated(), lab.notes()) == (False, {1})
        with full(small_disk, leave_bytes=back + 18 * _MIB):
            lab.swap.seize(PATIENCE)
            lab.swap.put(copy, calm)
            lab.swap.release()
            assert (lab.is_migrated(), lab.notes()) == (True, {1})

    @pytest.mark.parametrize("leave", [0, 10, 25])
    @pytest.mark.parametrize("mode", ["WAL", "DELETE"])
    def test_put_back(self, small_disk: Path, mode: str, leave: int) -> None:
        """Without space to set aside what is there, or to put back what was, it stays; half a copy is not left."""
        lab = FileLab(small_disk, mode=mode, mebibytes=20)
        lab.write(1)
        swapped(lab)
        shutil.rmtree(lab.layout.rooms[0])  # somebody else has taken what was put by
        (lab.layout.root.parent / "work.db").unlink()
        lab.write(2)
        lab.layout.database_aside.mkdir(parents=True)
        reference = "database-not-replaced" if leave > 20 else "database-not-copied"
        with full(small_disk, leave_bytes=leave * _MIB + 65536):
            free = os.statvfs(small_disk).f_bavail
            words = failure(lambda: lab.swap.put_back(3), reference)
            assert "disk is full" in words or "No space left on device" in words
            assert (lab.is_migrated(), lab.notes()) == (True, {1, 2})
            assert lab.aside() == ([{1, 2}] if leave > 20 else [])
            if leave < 20:
                assert os.statvfs(small_disk).f_bavail == free
        lab.swap.put_back(3)

        assert (lab.is_migrated(), lab.notes()) == (False, {1})
        assert lab.aside()[-1] == {1, 2}

    @pytest.mark.parametrize("is_killed", [False, True])
    @pytest.mark.parametrize("mode", ["WAL", "DELETE"])
    def test_put_back_without_a_byte(self, small_disk: Path, mode: str, is_killed: bool) -> None:  # noqa: FBT001
        """What was put by is enough, and the copy that was put gives its place; also if the first try was killed."""
        lab = FileLab(small_disk, mode=mode, mebibytes=20)
        lab.write(1)
        swapped(lab)
        lab.write(2)
        lab.layout.database_aside.mkdir(parents=True)
        used = lab.layout.root.parent / "work.db"
        with full(small_disk, leave_bytes=0):
            if is_killed:  # when it had taken the copy over
                used.rename(lab.layout.database_aside / ".bp-aside-3.db")
                shutil.rmtree(lab.layout.rooms[0])
            assert lab.swap.put_back(3, used)
        assert (lab.is_migrated(), lab.notes(), lab.aside()) == (False, {1}, [{1, 2}])
        assert not used.exists()
        assert not lab.layout.rooms[0].exists()


def failure(act: Callable[[], object], reference: str) -> str:
    """What is said of a step that fails."""
    with pytest.raises(StepFailed) as caught:
        act()
    assert caught.value.reference == reference
    return "\n".join((caught.value.message, *caught.value.context))


# --- who has it open


class TestOpeners:
    """Who is named, and who is not."""

    def test_nobody(self, files: FileLab) -> None:
        """Neither we nor those who only know its name."""
        files.swap.seize(PATIENCE)

        assert files.swap.openers(frozenset()) == ()

    def test_by_another_name(self, files: FileLab, tmp_path: Path) -> None:
        """A hard link and a symlink lead to the same file."""
        hard, soft = tmp_path / "hard.db", tmp_path / "soft.db"
        hard.hardlink_to(files.file)
        soft.symlink_to(files.file)
        for name in (hard, soft):
            with opened(name) as process:
                assert pids(files.swap.openers(frozenset())) == {process.pid}

    def test_a_file_beside_is_no_reason(self, files: FileLab) -> None:
        """Whoever has another file of the folder open is not named; whoever has only the -wal open is."""
        other = files.file.with_name("app.db.copy")
        other.touch()
        wal = files.file.with_name("app.db-wal")
        wal.touch()
        with shell(other), shell(wal) as process:
            assert pids(files.swap.openers(frozenset())) == {process.pid}

    def test_a_shell(self, files: FileLab) -> None:
        """A shell that keeps the file as a descriptor is named with its command in one line."""
        with shell(files.file) as process:
            (words,) = files.swap.openers(frozenset())

            assert (
                words == f'sh -c exec 7<>"$0"; echo done; read -r line {files.file}'[:60] + f" (process {process.pid})"
            )

    def test_spared(self, files: FileLab) -> None:
        """The processes that are named, and what they started, are not told; others of the same kind are."""
        script = "exec 7<>\"$0\"; sh -c 'echo done; read -r line'; true"
        with shell(files.file, script) as parent, shell(files.file) as other:
            found = pids(files.swap.openers(frozenset()))
            assert len(found) == 3
            assert found > {parent.pid, other.pid}

            assert pids(files.swap.openers(frozenset({parent.pid}))) == {other.pid}
            assert pids(files.swap.openers(frozenset({parent.pid, other.pid}))) == set()


def shell(file: Path, script: str = 'exec 7<>"$0"; echo done; read -r line') -> AbstractContextManager[Stranger]:
    """A shell that has the file open as its descriptor 7."""
    return stranger("/bin/sh", "sh", "-c", script, file)


def pids(openers: tuple[str, ...]) -> set[int]:
    """The numbers of the processes that are named."""
    return {int(words.rpartition("(process ")[2].rstrip(")")) for words in openers}
