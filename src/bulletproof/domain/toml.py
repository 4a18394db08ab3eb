"""What a bulletproof.toml says: text in, AppConfig out, or every error in plain words with its line and column."""

from __future__ import annotations

import json
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import msgspec
from msgspec import Struct, inspect

from bulletproof.domain import command, cron, public
from bulletproof.domain.config import (
    AppConfig,
    BackupSchedule,
    HostAddress,
    HostName,
    Network,
    ProcessCommand,
    ProcessName,
    Proxy,
    Schedule,
    Timer,
    Worker,
)
from bulletproof.domain.toml_places import Keys, Place, Places, find_places
from bulletproof.errors import UsageError

FILE_NAME = "bulletproof.toml"

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_TOO_MANY_DIGITS = re.compile(r"\d{4000,}")
_EXCERPT_COLUMNS = 100
_SHOWN_TEXT = 40
_LARGE = 1 << 63
"""Python refuses to write down a whole number of thousands of digits, which TOML can give in hexadecimal."""

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


_NAMED: Mapping[str, type[Struct]] = {"workers": Worker, "timers": Timer}
"""Tables of tables whose keys a person chooses."""
_ANY_NAME = "NAME"
_HOSTS = "hosts"
"""A table of texts whose keys a person chooses."""
_EXAMPLES = {"name": "myapp", "command": "python worker.py", "schedule": "*/5 * * * *"}
_JUDGES = (
    (Schedule, cron.fault),
    (BackupSchedule, cron.fault_unless_never),
    (ProcessCommand, command.fault),
    (Network, public.network_fault),
)
"""What a pattern cannot tell of a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fault:
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
    found = (*_faults(table, AppConfig, below, len(below)), *_same_names(table, below), *_at_odds(table, below))
    faults = sorted(found, key=lambda fault: _order(fault, places))
    if faults:
        others = tuple(f"{_where(file_name, _place(fault, places))}: {fault.words}" for fault in faults[1:])
        raise _invalid(text, file_name, _place(faults[0], places), faults[0].words, others)
    return msgspec.convert(_laid_over(table, beneath or {}), AppConfig)


def _laid_over(table: Mapping[str, object], beneath: Mapping[str, object]) -> dict[str, object]:
    """What the table says, and for the keys that it does not have what is beneath; tables of processes stay whole."""
    merged = {**beneath, **table}
    for key in (beneath.keys() & table.keys()) - _NAMED.keys():
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
    told = [words for begin, words in _SYNTAX if message.startswith(begin)]
    return told[0] if told else _TOML_PLACE.sub("", message)


def _order(fault: _Fault, places: Places) -> tuple[bool, Place]:
    return (fault.is_missing, _place(fault, places))


def _place(fault: _Fault, places: Places) -> Place:
    return places.of_key(fault.keys) if fault.is_about_key else places.of_value(fault.keys)


def _faults(table: object, shape: type[Struct], keys: Keys, top: int) -> Iterator[_Fault]:
    """Everything that keeps the table from being the shape; `keys` lead to it, `top` of them to the whole."""
    if not isinstance(table, dict):
        yield _Fault(keys=keys, words=f"{_name(keys)} must be a table, not {_told(table)}")
        return
    fields = {field.encode_name: field for field in msgspec.structs.fields(shape)}
    for key, value in table.items():
        here = (*keys, key)
        if key not in fields:
            yield _Fault(keys=here, words=_unknown(key, keys, top), is_about_key=True)
        elif _is_table(fields[key].type):
            yield from _faults(value, fields[key].type, here, top)
        elif len(here) == top + 1 and key in _NAMED:
            yield from _named_faults(value, _NAMED[key], here, top)
        elif len(here) == top + 1 and key == _HOSTS:
            yield from _host_faults(value, here)
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


def _named_faults(value: object, shape: type[Struct], keys: Keys, top: int) -> Iterator[_Fault]:
    """The same for a table of tables whose keys a person chooses."""
    if not isinstance(value, dict):
        meant = "; web processes are counted by `workers` of [app]" if isinstance(value, int) else ""
        yield _Fault(keys=keys, words=f"{_name(keys)} must be a table, not {_told(value)}{meant}")
        return
    for name, inner in value.items():
        here = (*keys, name)
        for fault in _misfits(name, ProcessName, here):
            yield _Fault(keys=here, words=fault.words.partition(", not ")[0], is_about_key=True)
        if isinstance(inner, str) and shape is Worker:
            words = f"{_name(here)} must be a table; write {name} = {{ command = {json.dumps(inner)} }}"
            yield _Fault(keys=here, words=words)
        else:
            yield from _faults(inner, shape, here, top)


def _host_faults(value: object, keys: Keys) -> Iterator[_Fault]:
    """What is wrong with the names and addresses of hosts."""
    if not isinstance(value, dict):
        yield _Fault(keys=keys, words=f"{_name(keys)} must be a table, not {_told(value)}")
        return
    for name, address in value.items():
        here = (*keys, name)
        for fault in _misfits(name, HostName, here):
            yield _Fault(keys=here, words=fault.words.partition(", not ")[0], is_about_key=True)
        yield from _misfits(address, HostAddress, here)


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
        wanted = inspect.type_info(kind)
        words = f"{_name(keys)} must be {_wanted(wanted)}, not {_told(value)}{_advice(value, wanted)}"
        yield _Fault(keys=keys, words=words)
        return
    for judged, judge in _JUDGES:
        if kind == judged and (words := judge(str(value))):
            yield _Fault(keys=keys, words=f"{_name(keys)} must be {_wanted(inspect.type_info(kind))}: {words}")


def _unknown(key: str, keys: Keys, top: int) -> str:
    """Why the key cannot stand in the table that `keys` lead to, and what was meant."""
    tables = _tables()
    here = tuple(str(part) for part in keys[top:])
    if here[:1] and here[0] in _NAMED:
        here = (here[0], _ANY_NAME)
    others = [table for table, known in tables.items() if key in known and table != here]
    if others:
        owners = " and ".join(_table_name((*keys[:top], *table)) for table in others)
        return f"`{key}` is a key of {owners}, not of {_table_name(keys)}"
    close = get_close_matches(key.lower().replace("-", "_"), tables[here], n=1)
    meant = f"; did you mean `{close[0]}`?" if close else "."
    return f"{_shown(key)} is no key of {_table_name(keys)}{meant} Known there: {', '.join(tables[here])}"


def _tables() -> Mapping[tuple[str, ...], tuple[str, ...]]:
    """The keys of the top and of every table."""
    tables: dict[tuple[str, ...], tuple[str, ...]] = {(): AppConfig.__struct_fields__}
    for field in msgspec.structs.fields(AppConfig):
        if _is_table(field.type):
            tables[field.name,] = field.type.__struct_fields__
    return {**tables, **{(key, _ANY_NAME): shape.__struct_fields__ for key, shape in _NAMED.items()}}


def _table_name(keys: Keys) -> str:
    return f"[{'.'.join(str(key) for key in keys)}]" if keys else "the top of the file"


def _name(keys: Keys) -> str:
    """A key in words; the item of a list by its number, counted from 1."""
    names = [key for key in keys if isinstance(key, str)]
    item = f"item {int(keys[-1]) + 1} of " if isinstance(keys[-1], int) else ""
    return f"{item}{_shown(names[-1])}"


def _shown(key: str) -> str:
    return f"`{key if _BARE_KEY.fullmatch(key) else json.dumps(key)}`"


def _wanted(kind: inspect.Type) -> str:
    """What a key can be, so that the sentence reads "must be ..."."""
    words = "text"
    match kind:
        case inspect.Metadata(extra_json_schema={"description": description}):
            words = str(description)
        case inspect.UnionType(types=(first, *_)):
            words = _wanted(first)
        case inspect.EnumType(cls=cls):
            words = " or ".join(f'"{member.value}"' for member in cls)
        case inspect.IntType(ge=least, le=most):
            words = f"a whole number from {least} to {most}"
        case inspect.FloatType(gt=None, ge=least, le=most):
            words = f"a number from {least} to {most}"
        case inspect.FloatType(gt=above, le=most):
            words = f"a number above {above} and up to {most}"
        case inspect.VarTupleType(item_type=item):
            words = f"a list, each item {_wanted(item)}"
    return words


def _told(value: object) -> str:
    """A value in words, short and without control characters."""
    if isinstance(value, str):
        return f"the text {json.dumps(value if len(value) <= _SHOWN_TEXT else f'{value[:_SHOWN_TEXT]}...')}"
    if isinstance(value, (int, float)):
        return "a number that large" if isinstance(value, int) and abs(value) >= _LARGE else str(value).lower()
    return "a list" if isinstance(value, list) else "a table" if isinstance(value, dict) else "a date or time"


def _advice(value: object, wanted: inspect.Type) -> str:
    """What to type when only quotes or brackets are wrong."""
    if not isinstance(value, str) or len(value) > _SHOWN_TEXT:
        return ""
    if isinstance(wanted, inspect.VarTupleType):
        return f"; write [{json.dumps(value)}]"
    is_number = isinstance(wanted, (inspect.IntType, inspect.FloatType)) and re.fullmatch(r"[0-9.]+", value)
    return "; a number stands without quotes" if is_number else ""
