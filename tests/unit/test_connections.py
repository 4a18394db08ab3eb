"""How a program uses its database is heard from inside, and the program is what it would be without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bulletproof.effects import connections, notice

Notes = list[dict[str, object]]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder that every Python runs first, as a cell has it; the database is `app.db` beside."""
    place = tmp_path / "site"
    place.mkdir()
    (place / "sitecustomize.py").write_bytes(Path(notice.__file__).read_bytes())
    (place / "_bulletproof_connections.py").write_bytes(Path(connections.__file__).read_bytes())
    told = {
        "notes": str(tmp_path / "notes"),
        "source": str(tmp_path / "source"),
        "connections": str(tmp_path / "heard"),
        "database": str(tmp_path / "app.db"),
    }
    (place / "plan.json").write_text(json.dumps(told))
    for name in ("notes", "heard"):
        (tmp_path / name).touch()
    return place


def said(site: Path, code: str, *, is_heard: bool = True) -> str:
    """What a program prints that runs in the database's folder."""
    environment = {**os.environ, "PYTHONPATH": str(site)} if is_heard else None
    argv = (sys.executable, "-c", textwrap.dedent(code))
    done = subprocess.run(argv, cwd=site.parent, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def heard(site: Path, code: str) -> Notes:
    """What is noted of a program."""
    said(site, code)
    return [json.loads(line) for line in (site.parent / "heard").read_text().splitlines()]


def pragmas(notes: Notes) -> list[tuple[object, object]]:
    """The PRAGMA that were noted."""
    return [(note["pragma"], note["value"]) for note in notes if "pragma" in note]


def test_a_connection_says_what_it_has(site: Path) -> None:
    """The library's version, and what holds before the app sets anything."""
    (note,) = heard(site, "import sqlite3; sqlite3.connect('app.db').execute('SELECT 1')")

    version = said(site, "import sqlite3; print(sqlite3.sqlite_version)", is_heard=False).strip()
    assert {**note, "connection": ""} == {
        "connection": "",
        "sqlite": version,
        "synchronous": 2,
        "journal_mode": "delete",
    }


def test_what_the_app_sets_is_noted(site: Path) -> None:
    """However it is written, and whichever connection; what only asks, or is about another database, is not."""
    notes = heard(
        site,
        """
        import sqlite3
        one, two = sqlite3.connect("app.db"), sqlite3.connect("file:app.db?mode=rwc", uri=True)
        one.execute("PRAGMA synchronous=NORMAL")
        one.execute("  /* why */ pragma main.synchronous(OFF)")
        one.executescript("-- first\\nPRAGMA journal_mode = 'wal'; PRAGMA foreign_keys=ON; PRAGMA mmap_size=4096;")
        two.execute("PRAGMA busy_timeout = 3000")
        two.execute("PRAGMA synchronous")
        two.execute("PRAGMA user_version = 7")
        two.execute("ATTACH ':memory:' AS other")
        two.execute("PRAGMA other.synchronous = OFF")
        two.execute("SELECT 'PRAGMA synchronous = OFF'")
        """,
    )

    assert pragmas(notes) == [
        ("synchronous", "NORMAL"),
        ("synchronous", "OFF"),
        ("journal_mode", "wal"),
        ("foreign_keys", "ON"),
        ("mmap_size", "4096"),
        ("busy_timeout", "3000"),
    ]
    assert len({note["connection"] for note in notes if note.get("pragma") != "busy_timeout"}) == 2


@pytest.mark.parametrize(
    "code",
    [
        "sqlite3.connect(':memory:').execute('PRAGMA synchronous = OFF')",
        "sqlite3.connect('other.db').execute('PRAGMA synchronous = OFF')",
        "sqlite3.Connection('other.db').execute('PRAGMA synchronous = OFF')",
    ],
)
def test_other_databases_are_not_listened_to(site: Path, code: str) -> None:
    """A cache or a database in memory says nothing of the app's own."""
    assert heard(site, f"import sqlite3; {code}") == []


@pytest.mark.parametrize(
    "code",
    [
        "sqlite3.Connection('app.db')",
        "sqlite3.Connection('file:app.db?mode=rwc', uri=True)",
        "sqlite3.connect('app.db', factory=Own)",
        "sqlite3.connect('app.db', factory=lambda *words, **options: Around())",
        "Own('app.db')",
    ],
)
def test_what_cannot_be_heard_is_noted_as_such(site: Path, code: str) -> None:
    """A connection made in another way, or by a class that may trace it already, has no level that we could know."""
    notes = heard(
        site,
        f"""
        import sqlite3
        class Own(sqlite3.Connection):
            def __init__(self, *words, **options):
                super().__init__(*words, **options)
        class Around:
            pass
        {code}
        """,
    )
    assert notes
    assert "synchronous" not in notes[0]


PROGRAM = """
import sqlite3
class Row(sqlite3.Connection):
    def cursor(self, *words):
        print("cursor of the app")
        return super().cursor(*words)
class Holder:
    connector = sqlite3.connect
traced = []
one = Holder().connector("app.db", timeout=3.5, isolation_level="IMMEDIATE", factory=Row)
one.row_factory = sqlite3.Row
print(one.execute("PRAGMA busy_timeout").fetchone()[0], one.in_transaction, one.total_changes, one.isolation_level)
one.execute("PRAGMA encoding = 'UTF-16le'")
one.execute("PRAGMA page_size = 8192")
one.execute("PRAGMA auto_vacuum = FULL")
one.set_trace_callback(traced.append)
one.execute("CREATE TABLE t (a)")
one.execute("INSERT INTO t VALUES (?)", ("x",))
one.commit()
print(traced)
for name in ("encoding", "page_size", "auto_vacuum", "journal_mode", "synchronous", "busy_timeout"):
    print(name, tuple(one.execute(f"PRAGMA {name}").fetchone()))
holder = sqlite3.connect("app.db", isolation_level=None)
holder.execute("BEGIN EXCLUSIVE")
try:
    sqlite3.connect("app.db", timeout=0).execute("SELECT * FROM t")
except sqlite3.OperationalError as error:
    print(error)
holder.execute("COMMIT")
try:
    sqlite3.connect("nowhere/app.db")
except sqlite3.OperationalError as error:
    print(error)
print(sqlite3.connect.__name__, sqlite3.connect.__doc__)
"""


def test_the_program_is_what_it_would_be(site: Path) -> None:
    """Every answer that it gets is the same, its own trace too, and no cursor of its own class is used by us."""
    alone = said(site, PROGRAM, is_heard=False)
    (site.parent / "app.db").unlink()

    assert said(site, PROGRAM) == alone
    assert "database is locked" in alone
    assert (site.parent / "heard").read_text()


def test_a_lock_is_not_waited_for(site: Path) -> None:
    """Whoever connects while the file is locked, perhaps by itself, goes on at once; its level is unknown."""
    notes = heard(
        site,
        """
        import sqlite3, time
        holder = sqlite3.connect("app.db", isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        begun = time.monotonic()
        sqlite3.connect("app.db", timeout=30)
        assert time.monotonic() - begun < 5
        """,
    )
    assert [note.get("synchronous") for note in notes] == [2, None]


def test_a_connection_lives_no_longer(site: Path) -> None:
    """Nothing of ours holds it: its file is closed as soon as the app lets go of it."""
    code = """
        import gc, os, sqlite3
        connection = sqlite3.connect("app.db")
        connection.execute("PRAGMA synchronous = 1")
        del connection
        gc.collect()  # Python's own cache of statements holds it since 3.11
        print([name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")
               and os.readlink(f"/proc/self/fd/{name}").endswith("app.db")])
        """
    program = "import warnings; warnings.simplefilter('ignore')\n" + textwrap.dedent(code)
    assert said(site, program) == "[]\n"
    assert pragmas(heard(site, "")) == [("synchronous", "1")]


def test_no_notes_hinder_nobody(site: Path) -> None:
    """When the notes cannot be written, or our file is gone, the program runs as ever."""
    (site.parent / "heard").unlink()
    assert said(site, "import sqlite3; print(sqlite3.connect('app.db').execute('SELECT 1').fetchone())") == "(1,)\n"
    (site / "_bulletproof_connections.py").unlink()
    assert said(site, "import sqlite3; print(sqlite3.connect('app.db').execute('SELECT 1').fetchone())") == "(1,)\n"
