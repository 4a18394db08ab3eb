"""Listens, inside a Python program, to how it uses its SQLite database, and changes nothing of it. Stand-alone.

It is copied beside a `sitecustomize.py` (notice.py or watch.py), which runs it before any code of the app. It runs in
the release's Python, which may be older than ours, and without this package.

The audit event `sqlite3.connect/handle` hands over each new connection, but before anything can be asked of it (Python
3.10 to 3.13: "Base Connection.__init__ not called"). So `sqlite3.connect` is another from its import on, and what is
opened in another way is noted as unheard.
"""
# ruff: noqa: ANN401, PTH118, PTH123  (what CPython hands over; and no import of pathlib)

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import sys
import threading
from typing import Any

_PRAGMA = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*PRAGMA\s+(?:[\"'`\[]?main[\"'`\]]?\s*\.\s*)?"
    r"(synchronous|journal_mode|mmap_size|busy_timeout|foreign_keys)\s*(?:=|\()\s*[\"'`]?([+-]?\w+)",
    re.IGNORECASE | re.DOTALL,
)
"""One that sets something of the main database, as SQLite reads it."""
_MOST = 500
"""Connections of a process that are listened to; an app that opens one per request opens them all alike."""


class Listener:
    """The audit hook that waits for SQLite, and what notes the connections to one file."""

    def __init__(self, database: str, notes: str) -> None:
        self.database = os.path.realpath(database)
        self._notes = notes
        self._numbers = itertools.count(1)
        self._opening = threading.local()
        self._is_in_place = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Stand before `connect` as soon as SQLite is imported; whatever goes wrong is not the program's to know."""
        try:
            if event == "import" and arguments[0] == "_sqlite3" and not self._is_in_place:
                self._is_in_place = True
                import _sqlite3  # noqa: PLC0415  only when the program imports it

                _sqlite3.connect = Connect(_sqlite3.connect, self)
            elif event == "sqlite3.connect" and not getattr(self._opening, "depth", 0):
                self._note_unheard(arguments[0])
        except Exception:  # noqa: BLE001, S110
            pass

    def opening(self, change: int) -> None:
        """Note that this thread goes into our `connect`, or comes out of it."""
        self._opening.depth = getattr(self._opening, "depth", 0) + change

    def hear(self, connection: Any) -> None:
        """Ask a new connection what it has, and listen to what the app sets on it; not if it is to another file."""
        number = next(self._numbers)
        if number > _MOST:
            return
        key = f"{os.getpid()}.{number}"
        try:
            opened = _opened(connection, self.database)
        except Exception:  # noqa: BLE001  it may be anything that a factory made
            opened = {}
        if opened is None:
            return
        self.note({"connection": key, **opened})
        if "synchronous" in opened:
            import _sqlite3  # noqa: PLC0415  it is there

            _sqlite3.Connection.set_trace_callback(connection, Heard(key, self))

    def _note_unheard(self, name: Any) -> None:
        from urllib.parse import unquote  # noqa: PLC0415  few programs open a database in this way

        text = os.fsdecode(name)
        place = unquote(text[5:].partition("?")[0]) if text.startswith("file:") else text
        if os.path.realpath(place) == self.database:
            self.note({"connection": f"{os.getpid()}.{next(self._numbers)}"})

    def note(self, found: dict[str, object]) -> None:
        """Add a line to the notes; short ones of several processes do not mix."""
        file = os.open(self._notes, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, json.dumps(found).encode() + b"\n")
        finally:
            os.close(file)


class Connect:
    """`sqlite3.connect`; no function, since that would become a method where a class has it as an attribute."""

    def __init__(self, connect: Any, listener: Listener) -> None:
        functools.update_wrapper(self, connect)
        self._connect = connect
        self._listener = listener

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Connect, and listen to what comes of it."""
        self._listener.opening(1)
        try:
            connection = self._connect(*arguments, **options)
        finally:
            self._listener.opening(-1)
        try:  # noqa: SIM105  contextlib is not loaded in every Python
            self._listener.hear(connection)
        except Exception:  # noqa: BLE001, S110
            pass
        return connection


class Heard:
    """The trace callback of one connection, to which it holds nothing: that would keep the connection alive."""

    def __init__(self, key: str, listener: Listener) -> None:
        self._key = key
        self._listener = listener

    def __call__(self, statement: str) -> None:
        """Note a PRAGMA that matters."""
        try:
            found = _PRAGMA.match(statement)
            if found:
                self._listener.note({"connection": self._key, "pragma": found.group(1), "value": found.group(2)})
        except Exception:  # noqa: BLE001, S110
            pass


def _opened(connection: Any, database: str) -> dict[str, object] | None:
    """What a new connection says of itself; None when it is to another file, and nothing where to ask would change it.

    A class of the app's may have set a trace already, and in a transaction a question would begin its snapshot.
    """
    import _sqlite3  # noqa: PLC0415  it is there

    base: Any = _sqlite3.Connection
    cursor = _sqlite3.Cursor(connection)
    try:
        patience = _first(cursor, "PRAGMA busy_timeout")
        cursor.execute("PRAGMA busy_timeout = 0")  # who holds the file locked may be this very thread
        try:
            places = cursor.execute("PRAGMA database_list").fetchall()
            if not places[0][2] or os.path.realpath(os.fsdecode(places[0][2])) != database:
                return None
            if type(connection).__init__ is not base.__init__ or base.in_transaction.__get__(connection):
                return {"sqlite": _sqlite3.sqlite_version}
            level = _first(cursor, "PRAGMA synchronous")
            mode = os.fsdecode(_first(cursor, "PRAGMA journal_mode"))
            return {"sqlite": _sqlite3.sqlite_version, "synchronous": level, "journal_mode": mode}
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {int(patience)}")
    finally:
        cursor.close()


def _first(cursor: Any, question: str) -> Any:
    return cursor.execute(question).fetchone()[0]


def begin(here: str) -> None:
    """Listen in this process and in those that it forks, as `plan.json` says."""
    with open(os.path.join(here, "plan.json"), encoding="utf-8") as file:
        plan = json.load(file)
    if plan["database"]:
        sys.addaudithook(Listener(plan["database"], plan["connections"]))
