"""What a bulletproof.toml says: text in, AppConfig out, or every error in plain words with its line and column."""

from __future__ import annotations

import json
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping
from difflib import get_close_matches

import msgspec
from msgspec import Struct, inspect

from bulletproof.domain import command, cron, own, public
from bulletproof.domain.config import (
    AppConfig,
    BackupSchedule,
    CheckSchedule,
    Network,
    ProcessCommand,
    Proxy,
    Schedule,
    Worker,
)
from bulletproof.domain.toml_places import Keys, Place, Places, find_places
from bulletproof.domain.toml_words import advice, told, wanted
from bulletproof.errors import UsageError

FILE_NAME = "bulletproof.toml"

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_TOO_MANY_DIGITS = re.compile(r"\d{4000,}")
_EXCERPT_COLUMNS = 100

_TWICE = ("Cannot overwrite", "Cannot declare", "Cannot mutate", "Duplicate inline table key")
_UNENDED = (
    *("Unterminated string", "Expected \"'", "Unclosed array"),
    *("Found invalid character '\\n'", "Illegal character '\\n'"),
)
"""The beginnings of messages about something that is never ended: the place to look is where it begins."""
_SYNTAX = (
    ("Invalid value", 'this is no value; text stands in quotes: key = "value"'),
    ("Expected '='", "behind a key there must be an equals sign and a value"),
    ("Invalid statement", "a line is `key = value`, a `[table]` or a `# comment`"),
    ("Invalid initial character", "a key is missing or needs quotes"),
    ("Expected ']", "the name of a table stands in brackets of which the last is missing"),
    ("Unclosed array", "a list is not closed: ] is missing"),
    ("Unclosed inline table", "a table in braces is not closed in its line: } is missing"),
    ("Expected newline", "the line should end here; a comment begins with #"),
    ("Unescaped '\\'", "a backslash inside double quotes stands twice, or the text in single quotes"),
    ("Unterminated string", "a text is not closed: the quote at its end is missing"),
    ("Expected \"'", "a text is not closed: the quote at its end is missing"),
    ("Found invalid character '\\n'", "a text is not closed: the quote at its end is missing"),
    ("Illegal character '\\n'", "a text is not closed: the quote at its end is missing"),
    ("Found invalid character", "a control character stands here"),
    ("Illegal character", "a control character stands here"),
    ("Invalid date", "there is no such date or time"),
)
"""How tomllib's messages begin, in any version of Python, and what they mean; others are shown as they are."""


_WHOLE = frozenset({"workers", "timers"})
"""What stands beneath these counts when they are not there at all."""
_ANY_NAME = "NAME"
_EXAMPLES = {"name": "myapp", "command": "python worker.py", "schedule": "*/5 * * * *", "path": "/login"}
_JUDGES = (
    (Schedule, cron.fault),
    (BackupSchedule, cron.fault_unless_never),
    (CheckSchedule, cron.fault_unless_never),
    (ProcessCommand, command.fault),
    (Network, public.network_fault),
)
"""What a pattern cannot tell of a text."""


class _Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with a document that is good TOML."""

    keys: Keys
    words: str
    is_about_key: bool = False
    """The key itself is wrong, not its value."""
    is_missing: bool = False


def parse(
    text: str, file_name: str = FILE_NAME, *, below: tuple[str, ...] = (), beneath: Mapping[str, object] | None = None
) -> AppConfig:
    """The configuration that the text tells, or that its table `below` tells, such as ("tool", "bulletproof").

    `beneath` holds for what the text does not say: good tables, of which `workers` is taken as a whole or not at all.
    Raises UsageError `config-invalid`: message `FILE:LINE:COLUMN: what is wrong`, context the line itself and then any
    other errors of the text.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    table = _loaded(text, file_name)
    for key in below:
        table = typing.cast("dict[str, object]", table.get(key, {}))
    places = find_places(text)
    found = (
        *_faults(table, AppConfig, below, len(below)),
        *_same_names(table, below),
        *_at_odds(table, below),
        *_odd_checks(table, below),
    )
    faults = sorted(found, key=lambda fault: _order(fault, places))
    if faults:
        others = tuple(f"{_where(file_name, _place(fault, places))}: {fault.words}" for fault in faults[1:])
        raise _invalid(text, file_name, _place(faults[0], places), faults[0].words, others)
    return msgspec.convert(_laid_over(table, beneath or {}), AppConfig)


def _laid_over(table: Mapping[str, object], beneath: Mapping[str, object]) -> dict[str, object]:
    """What the table says, and for the keys that it does not have what is beneath; tables of processes stay whole."""
    merged = {**beneath, **table}
    for key in (beneath.keys() & table.keys()) - _WHOLE:
        mine, other = table[key], beneath[key]
        if isinstance(mine, dict) and isinstance(other, dict):
            merged[key] = {**other, **mine}
    return merged


def schema() -> dict[str, object]:
    """The JSON Schema of a bulletproof.toml, for editors."""
    return {"title": "bulletproof.toml", **msgspec.json.schema(AppConfig)}


def invalid_bytes(content: bytes, error: UnicodeDecodeError, file_name: str) -> UsageError:
    """The error for a file that is not UTF-8, at the first byte that is not."""
    before = content[: error.start].decode()
    place = Places(before.removeprefix("\ufeff").replace("\r\n", "\n") + "?")
    return _invalid("", file_name, place.at(len(place.text) - 1), "the file is not UTF-8 text from here on", ())


def _invalid(text: str, file_name: str, place: Place, words: str, others: tuple[str, ...]) -> UsageError:
    return UsageError(
        "config-invalid",
        f"{_where(file_name, place)}: {words}",
        hint=f"correct line {place.line} of {file_name}",
        context=(*_excerpt(text, place), *others),
    )


def _where(file_name: str, place: Place) -> str:
    return f"{file_name}:{place.line}:{place.column}"


def _excerpt(text: str, place: Place) -> tuple[str, ...]:
    """The line and below it a mark at the column; nothing when the line is empty or the column far to the right."""
    line = "".join(text.split("\n")[place.line - 1 : place.line])[:_EXCERPT_COLUMNS]
    if not line.strip() or place.column > _EXCERPT_COLUMNS:
        return ()
    line = "".join(sign if sign.isprintable() else " " for sign in line)
    gutter = f"  {place.line} | "
    return (gutter + line, f"{'':{len(gutter) - 2}}| {'':{place.column - 1}}^")


def _loaded(text: str, file_name: str) -> dict[str, object]:
    """The document as tomllib reads it."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise _invalid(text, file_name, Place(1, 1), "lists or tables are nested too deeply", ()) from None
    except tomllib.TOMLDecodeError as error:
        raise _broken(text, file_name, str(error)) from error
    except ValueError as error:  # only a number that int() refuses
        number = _TOO_MANY_DIGITS.search(text)
        place = Places(text).at(number.start() if number else 0)
        raise _invalid(text, file_name, place, "the number has too many digits", ()) from error


def _broken(text: str, file_name: str, message: str) -> UsageError:
    """The error for a text that is no TOML, told from tomllib's message."""
    places = find_places(text)
    found = _TOML_PLACE.search(message)
    end = places.at(len(text.rstrip()))
    place = Place(int(found[1]), int(found[2])) if found and found[1] else end
    if message.startswith(_UNENDED) and places.broken is not None:
        place = places.at(places.broken)
    if message.startswith("Unescaped"):  # told behind the two characters
        place = Place(place.line, max(1, place.column - 2))
    if message.startswith(_TWICE) and places.again:
        keys, offset = places.again[0]
        first = places.of_key(keys).line
        words = f"{_name(keys)} stands here a second time; the first is in line {first}, and one of them must go"
        return _invalid(text, file_name, places.at(offset), words, ())
    rest_of_line = text.split("\n")[place.line - 1][place.column - 1 :]
    return _invalid(text, file_name, place, _syntax_words(message, rest_of_line), ())


def _syntax_words(message: str, rest_of_line: str) -> str:
    """What tomllib's message about the place before `rest_of_line` means."""
    if message.startswith("Invalid value") and not rest_of_line.partition("#")[0].strip():
        return "a value is missing"
    known = [words for begin, words in _SYNTAX if message.startswith(begin)]
    return known[0] if known else _TOML_PLACE.sub("", message)


def _order(fault: _Fault, places: Places) -> tuple[bool, Place]:
    return (fault.is_missing, _place(fault, places))


def _place(fault: _Fault, places: Places) -> Place:
    return places.of_key(fault.keys) if fault.is_about_key else places.of_value(fault.keys)


def _faults(table: object, shape: type[Struct], keys: Keys, top: int) -> Iterator[_Fault]:
    """Everything that keeps the table from being the shape; `keys` lead to it, `top` of them to the whole."""
    if not isinstance(table, dict):
        yield _Fault(keys=keys, words=f"{_name(keys)} must be a table, not {told(table)}")
        return
    fields = {field.encode_name: field for field in msgspec.structs.fields(shape)}
    for key, value in table.items():
        here = (*keys, key)
        if key not in fields:
            yield _Fault(keys=here, words=_unknown(key, keys, top), is_about_key=True)
        elif _is_table(fields[key].type):
            yield from _faults(value, fields[key].type, here, top)
        elif typing.get_origin(fields[key].type) is dict:
            yield from _named_faults(value, fields[key].type, here, top)
        else:
            yield from _misfits(value, fields[key].type, here)
    for key, field in fields.items():
        if field.required and key not in table:
            words = f"`{key}` is missing; write {key} = {json.dumps(_EXAMPLES[key])} into {_table_name(keys)}"
            yield _Fault(keys=keys, words=words, is_about_key=True, is_missing=True)


def _same_names(table: Mapping[str, object], below: Keys) -> Iterator[_Fault]:
    """Timers that are named as a worker is: what logs and status show would be either's."""
    workers, timers = table.get("workers"), table.get("timers")
    for name in timers if isinstance(timers, dict) and isinstance(workers, dict) else ():
        if isinstance(workers, dict) and name in workers:
            keys = (*below, "timers", name)
            yield _Fault(keys=keys, words=f"{_name(keys)} is the name of a worker as well", is_about_key=True)


def _at_odds(table: Mapping[str, object], below: Keys) -> Iterator[_Fault]:
    """Keys of [proxy] that do not fit to each other, once each of them is right by itself."""
    proxy = table.get("proxy")
    try:
        words_by_key = public.faults(msgspec.convert(proxy, Proxy)) if isinstance(proxy, dict) else {}
    except msgspec.ValidationError:
        return
    for key, words in words_by_key.items():
        keys = (*below, "proxy", key)
        yield _Fault(keys=keys, words=f"{_name(keys)} {words}", is_about_key=True)


def _odd_checks(table: Mapping[str, object], below: Keys) -> Iterator[_Fault]:
    """What is wrong with a person's own checks that no single key tells."""
    for keys, words in own.oddities(table.get("check")):
        yield _Fault(keys=(*below, "check", *keys), words=words.format(_name(keys)), is_about_key=True)


def _named_faults(value: object, kind: object, keys: Keys, top: int) -> Iterator[_Fault]:
    """The same for a table whose keys a person chooses; `kind` is the type of the dictionary that it becomes."""
    key_kind, inner_kind = typing.get_args(kind)
    if not isinstance(value, dict):
        is_count = isinstance(value, int) and inner_kind is Worker
        meant = "; web processes are counted by `workers` of [app]" if is_count else ""
        yield _Fault(keys=keys, words=f"{_name(keys)} must be a table, not {told(value)}{meant}")
        return
    for name, inner in value.items():
        here = (*keys, name)
        for fault in _misfits(name, key_kind, here):
            yield _Fault(keys=here, words=fault.words.partition(", not ")[0], is_about_key=True)
        if isinstance(inner, str) and inner_kind is Worker:
            words = f"{_name(here)} must be a table; write {name} = {{ command = {json.dumps(inner)} }}"
            yield _Fault(keys=here, words=words)
        elif _is_table(inner_kind):
            yield from _faults(inner, inner_kind, here, top)
        elif (shape := _item_of(inner_kind)) is not None:
            yield from _listed_faults(inner, shape, here, top)
        else:
            yield from _misfits(inner, inner_kind, here)


def _listed_faults(value: object, shape: type[Struct], keys: Keys, top: int) -> Iterator[_Fault]:
    """The same for a list of tables."""
    if not isinstance(value, list) or not value:
        yield _Fault(keys=keys, words=f"{_name(keys)} must be a list of tables; write [{_table_name(keys)}] for each")
        return
    for index, item in enumerate(value):
        yield from _faults(item, shape, (*keys, index), top)


def _item_of(kind: object) -> type[Struct] | None:
    """The tables of a list of tables; None for any other type."""
    item = typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else None
    return item if isinstance(item, type) and issubclass(item, Struct) else None


def _is_table(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _misfits(value: object, kind: object, keys: Keys) -> Iterator[_Fault]:
    """The value, or the items of the list, that its key cannot have."""
    if isinstance(value, list) and typing.get_origin(kind) is tuple:
        item_kind = typing.get_args(kind)[0]
        for index, item in enumerate(value):
            yield from _misfits(item, item_kind, (*keys, index))
        return
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        info = inspect.type_info(kind)
        words = f"{_name(keys)} must be {wanted(info)}, not {told(value)}{advice(value, info)}"
        yield _Fault(keys=keys, words=words)
        return
    for judged, judge in _JUDGES:
        if judged in {kind, *typing.get_args(kind)} and (words := judge(str(value))):
            yield _Fault(keys=keys, words=f"{_name(keys)} must be {wanted(inspect.type_info(kind))}: {words}")


def _unknown(key: str, keys: Keys, top: int) -> str:
    """Why the key cannot stand in the table that `keys` lead to, and what was meant."""
    tables = _tables()
    here = _without_names(keys[top:])
    others = [table for table, known in tables.items() if key in known and table != here]
    if others:
        *most, last = (_table_name((*keys[:top], *table)) for table in others)
        owners = f"{', '.join(most)} and {last}" if most else last
        return f"`{key}` is a key of {owners}, not of {_table_name(keys)}"
    close = get_close_matches(key.lower().replace("-", "_"), tables[here], n=1)
    meant = f"; did you mean `{close[0]}`?" if close else "."
    return f"{_shown(key)} is no key of {_table_name(keys)}{meant} Known there: {', '.join(tables[here])}"


def _tables(shape: type[Struct] = AppConfig, above: tuple[str, ...] = ()) -> dict[tuple[str, ...], tuple[str, ...]]:
    """The keys of a table and of every table in it."""
    tables: dict[tuple[str, ...], tuple[str, ...]] = {above: shape.__struct_fields__}
    for field in msgspec.structs.fields(shape):
        inner, names = _inner(field.type)
        if inner is not None:
            tables |= _tables(inner, (*above, field.name, *names))
    return tables


def _inner(kind: object) -> tuple[type[Struct] | None, tuple[str, ...]]:
    """The table that a key's value is, or those in it whose names a person chooses, and how those are called here."""
    if typing.get_origin(kind) is dict:
        inner = typing.get_args(kind)[1]
        return (inner if _is_table(inner) else _item_of(inner)), (_ANY_NAME,)
    return (typing.cast("type[Struct]", kind) if _is_table(kind) else None), ()


def _without_names(keys: Keys) -> tuple[str, ...]:
    """The way to a table as `_tables` has it."""
    found: list[str] = []
    shape: type[Struct] | None = AppConfig
    names: tuple[str, ...] = ()
    for key in (key for key in keys if isinstance(key, str)):
        if names:
            found, names = [*found, _ANY_NAME], ()
        elif shape is not None:
            found.append(key)
            shape, names = _inner(typing.get_type_hints(shape, include_extras=True)[key])
    return tuple(found)


def _table_name(keys: Keys) -> str:
    way = ".".join(key for key in keys if isinstance(key, str))
    return f"[[{way}]]" if keys and isinstance(keys[-1], int) else f"[{way}]" if keys else "the top of the file"


def _name(keys: Keys) -> str:
    """A key in words; the item of a list by its number, counted from 1."""
    names = [key for key in keys if isinstance(key, str)]
    item = f"item {int(keys[-1]) + 1} of " if isinstance(keys[-1], int) else ""
    return f"{item}{_shown(names[-1])}"


def _shown(key: str) -> str:
    return f"`{key if _BARE_KEY.fullmatch(key) else json.dumps(key)}`"
