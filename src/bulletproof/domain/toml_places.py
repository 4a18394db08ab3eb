"""Where in a TOML text each key and value stands; tomllib reads the same text but forgets it."""

from __future__ import annotations

import re
import tomllib

import msgspec

Keys = tuple[str | int, ...]
"""The way to a value: the keys of its tables and the indexes of its arrays."""

_BETWEEN_STATEMENTS = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_KEY_PART = re.compile(r'"(?:[^"\\\n]|\\.)*"|' r"'[^'\n]*'|[A-Za-z0-9_-]+")
# Up to two quotes may stand before the three that end a long string.
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|' r"'''.*?'{3,5}|" r'"(?:[^"\\\n]|\\.)*"(?!")|' r"'[^'\n]*'(?!')",
    re.DOTALL,
)
_BARE_VALUE = re.compile(r"(?![\"'])[^,\]}#\n]+")


class Place(msgspec.Struct, frozen=True, order=True):
    """A position in a text, both counted from 1, the column in characters."""

    line: int
    column: int


class Places(msgspec.Struct):
    """What a text defines and where; of a broken text, as much as stands before the break."""

    text: str
    keys: dict[Keys, int] = msgspec.field(default_factory=dict)
    """Offset of the key's name."""
    values: dict[Keys, int] = msgspec.field(default_factory=dict)
    """Offset of the value; of a table with a header line, of its name there."""
    again: list[tuple[Keys, int]] = msgspec.field(default_factory=list)
    """Keys that stand a second time, with the offset of that second time."""
    broken: int | None = None
    """Offset of the name, text or list that is begun and never ended."""

    def of_key(self, keys: Keys) -> Place:
        """Where the key's name stands, or its nearest table's when it stands nowhere."""
        return self.at(self._nearest(self.keys, keys))

    def of_value(self, keys: Keys) -> Place:
        """Where the value stands, or what it would stand in."""
        return self.at(self._nearest(self.values, keys))

    def at(self, offset: int) -> Place:
        """The place of a character."""
        begin_of_line = self.text.rfind("\n", 0, offset) + 1
        return Place(self.text.count("\n", 0, offset) + 1, offset - begin_of_line + 1)

    @staticmethod
    def _nearest(offsets: dict[Keys, int], keys: Keys) -> int:
        while keys and keys not in offsets:
            keys = keys[:-1]
        return offsets.get(keys, 0)


def find_places(text: str) -> Places:
    """Read the text's statements up to its end or to the first thing that is no TOML; lines end in LF alone."""
    scanner = _Scanner(Places(text))
    try:
        scanner.statements()
    except _Broken:
        scanner.places.broken = scanner.offset
    except RecursionError:
        pass  # tomllib goes as deep, and says so
    return scanner.places


class _Broken(Exception):
    """Here the text stops being TOML; tomllib says why."""


class _Scanner:
    """One pass over a text; `offset` is where it has come to."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.offset = 0
        self.finished: set[Keys] = set()
        """Keys with a value of their own: nothing may be added to it."""
        self.tables: set[Keys] = set()
        """Tables with a header line or made by dotted keys: no header line may come (again)."""
        self.elements: dict[Keys, int] = {}
        """Index of the newest element of every `[[array of tables]]`."""

    def statements(self) -> None:
        """Table headers and lines of key = value, to the end of the text."""
        table: Keys = ()
        while self._skip(_BETWEEN_STATEMENTS) < len(self.places.text):
            if self._takes("["):
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Keys:
        closing = "]]" if self._takes("[") else "]"
        *parents, (name, offset) = self._names()
        table: Keys = ()
        for parent, begin in parents:
            table = self._noted((*table, parent), begin)
            table = (*table, self.elements[table]) if table in self.elements else table
        table = (*table, name)
        if table in self.finished | self.tables:
            self.places.again.append((table, offset))
        self._noted(table, offset)
        if closing == "]]":
            self.elements[table] = self.elements.get(table, -1) + 1
            table = self._noted((*table, self.elements[table]), offset)
        self.tables.add(table)
        self._expect(closing)
        return table

    def _pair(self, table: Keys) -> None:
        *parents, (name, offset) = self._names()
        for parent, begin in parents:
            table = (*table, parent)
            if table in self.finished:
                self.places.again.append((table, begin))
            self.tables.add(self._noted(table, begin))
        keys = (*table, name)
        if keys in self.places.keys:
            self.places.again.append((keys, offset))
        self.places.keys.setdefault(keys, offset)
        self.finished.add(keys)
        self._expect("=")
        self._value(keys)

    def _noted(self, table: Keys, offset: int) -> Keys:
        """The table itself, its first mention remembered."""
        self.places.keys.setdefault(table, offset)
        self.places.values.setdefault(table, offset)
        return table

    def _names(self) -> list[tuple[str, int]]:
        """A dotted key: its names as tomllib understands them, and where each begins."""
        names: list[tuple[str, int]] = []
        while not names or self._takes("."):
            begin = self._skip(_BLANK)
            part = self.places.text[begin : self._skip(_KEY_PART)]
            if not part:
                raise _Broken
            names.append((_unquoted(part), begin))
            self._skip(_BLANK)
        return names

    def _value(self, keys: Keys) -> None:
        self.places.values.setdefault(keys, self._skip(_BLANK))
        if self._takes("["):
            self._array(keys)
        elif self._takes("{"):
            self._inline_table(keys)
        else:
            begin = self.offset
            if self._skip(_STRING) == begin and self._skip(_BARE_VALUE) == begin:
                raise _Broken

    def _array(self, keys: Keys) -> None:
        begin, index = self.offset - 1, 0
        self._skip(_BETWEEN_STATEMENTS)
        while not self._takes("]"):
            if self._skip(_BETWEEN_STATEMENTS) == len(self.places.text):
                self.offset = begin
                raise _Broken
            self.places.keys.setdefault((*keys, index), self.offset)
            self._value((*keys, index))
            self._skip(_BETWEEN_STATEMENTS)
            self._takes(",")
            self._skip(_BETWEEN_STATEMENTS)
            index += 1

    def _inline_table(self, keys: Keys) -> None:
        while self._skip(_BETWEEN_STATEMENTS) < len(self.places.text) and not self._takes("}"):
            self._pair(keys)
            self._skip(_BETWEEN_STATEMENTS)
            self._takes(",")

    def _skip(self, pattern: re.Pattern[str]) -> int:
        """Go past the pattern, if it is here, and say where that leads."""
        if match := pattern.match(self.places.text, self.offset):
            self.offset = match.end()
        return self.offset

    def _takes(self, sign: str) -> bool:
        """Go past the sign, if it is here."""
        is_here = self.places.text.startswith(sign, self.offset)
        self.offset += len(sign) if is_here else 0
        return is_here

    def _expect(self, sign: str) -> None:
        if not self._takes(sign):
            raise _Broken


def _unquoted(part: str) -> str:
    """The key that a quoted or bare part stands for."""
    try:
        return next(iter(tomllib.loads(f"{part} = 0")))
    except tomllib.TOMLDecodeError as error:
        raise _Broken from error
