"""A Procfile: what its lines say, and what they mean as a configuration that bulletproof.toml may overrule."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping

import msgspec

from bulletproof.domain import command as commands
from bulletproof.domain.config import App, Entry, Migrations, ProcessCommand, ProcessName, Server
from bulletproof.errors import UsageError

FILE_NAME = "Procfile"

_LINE = re.compile(r"([A-Za-z0-9_-]+)\s*:\s*(.*)")
_WEB, _RELEASE = "web", "release"
_UVICORN_WORKERS = ("uvicorn.workers.", "uvicorn_worker.")
_TAKEN = {
    "gunicorn": {"-w": "workers", "--workers": "workers", "--threads": "threads", "-t": "timeout_seconds"}
    | {"--timeout": "timeout_seconds"},
    "uvicorn": {"--workers": "workers"},
}
_CLASS = {"-k", "--worker-class"}
_OURS = {"-b", "--bind", "--host", "--port", "--uds", "--proxy-headers", "--forwarded-allow-ips", "--factory"} | {
    *("--log-file", "--access-logfile", "--error-logfile", "--log-level", "--no-access-log", "--access-log"),
    *("--capture-output", "--graceful-timeout", "--timeout-graceful-shutdown", "--worker-tmp-dir"),
}
"""What Bulletproof decides itself, so that nobody misses it."""
_FLAGS = {"--proxy-headers", "--factory", "--no-access-log", "--access-log", "--capture-output", "--preload"} | {
    *("--reload", "--use-colors", "--no-use-colors", "--no-server-header", "--no-date-header"),
    "--enable-stdio-inheritance",
}
"""Options without a value."""
_ELSEWHERE = {"--chdir", "--pythonpath", "--app-dir"}
_MIGRATORS = (
    (("flask", "db", "upgrade"), "Flask-Migrate"),
    (("alembic", "upgrade", "head"), "Alembic"),
    (("manage.py", "migrate"), "Django"),
    (("django-admin", "migrate"), "Django"),
)
_COLLECTS = ("manage.py", "collectstatic")
_STARTERS = frozenset({"python", "python3", "exec", "poetry", "pipenv", "uv", "run"})
_WITH_VALUE = frozenset({"--app", "-A", "--env-file", "-e", "-d", "--directory", "-c", "--config", "--settings"})
"""Options of flask, alembic and manage.py that take a value."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One process type."""

    name: str
    command: str
    number: int
    """Of its line, from 1."""


class Meaning(msgspec.Struct, frozen=True, kw_only=True):
    """What one line means here, for a person."""

    line: Line
    words: str
    tool: str = ""
    """The built-in migrator that does what a `release:` line does."""


class Procfile(msgspec.Struct, frozen=True, kw_only=True):
    """What a Procfile says."""

    tables: Mapping[str, object]
    """As a configuration: `app`, `migrations` and `workers`, as far as there is something to say."""
    meanings: tuple[Meaning, ...]

    @property
    def entry(self) -> str:
        """What the web process loads; empty when it does not say."""
        app = self.tables.get("app")
        return str(app.get("entry", "")) if isinstance(app, dict) else ""


def parse_procfile(text: str, file_name: str = FILE_NAME) -> Procfile:
    """Understand a Procfile. Raises UsageError `procfile-invalid` with line and column."""
    tables: dict[str, dict[str, object]] = {"app": {}, "migrations": {}, "workers": {}}
    meanings = []
    for line in _lines(text, file_name):
        tool = ""
        if line.name == _WEB:
            tables["app"], words = _web(line.command)
        elif line.name == _RELEASE:
            command, tool, words = _release(line.command)
            tables["migrations"] = {"command": command} if command else {}
        else:
            tables["workers"][line.name] = {"command": line.command}
            words = "a worker: it runs beside the web processes, of one release at a time"
        meanings.append(Meaning(line=line, words=words, tool=tool))
    return Procfile(tables={name: table for name, table in tables.items() if table}, meanings=tuple(meanings))


def _lines(text: str, file_name: str) -> Iterator[Line]:
    seen: set[str] = set()
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        if not raw.strip() or raw.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(raw.strip())
        if found is None:
            raise _invalid(file_name, number, 1, raw, "a line is `name: command`")
        name, command = found[1], found[2]
        column = raw.index(":") + 2
        if name in seen:
            raise _invalid(file_name, number, 1, raw, f"`{name}` stands here a second time")
        if not command:
            raise _invalid(file_name, number, column, raw, f"`{name}` has no command")
        if name not in {_WEB, _RELEASE} and not _fits(name, ProcessName):
            words = f"`{name}` must begin with a letter and have at most 31 letters, digits, dashes and underscores"
            raise _invalid(file_name, number, 1, raw, words)
        if not _fits(command, ProcessCommand):
            raise _invalid(file_name, number, column, raw, "the command is longer than 2000 characters")
        if words := commands.fault(command):
            raise _invalid(file_name, number, column, raw, words)
        seen.add(name)
        yield Line(name=name, command=command, number=number)


def _invalid(file_name: str, line: int, column: int, raw: str, words: str) -> UsageError:
    return UsageError(
        "procfile-invalid",
        f"{file_name}:{line}:{column}: {words}",
        hint=f"correct line {line} of {file_name}",
        context=("".join(sign if sign.isprintable() else " " for sign in raw[:100]),),
    )


def _fits(value: object, kind: object) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _web(command: str) -> tuple[dict[str, object], str]:
    """The table `app` that a `web:` line means, and words about it."""
    words = shlex.split(command) if commands.is_simple(command) else []
    words = words[1:] if words[:1] == ["exec"] else words
    words = words[2:] if words[:1] in (["python"], ["python3"]) and words[1:2] == ["-m"] else words
    server = words[0] if words else ""
    if server not in _TAKEN:
        known = "it is no plain command of gunicorn or uvicorn"
        return {}, f"not taken over: {known}, one of which Bulletproof runs; what it loads is found in the source"
    found, loads, left = _options(server, words[1:])
    # In another folder the same name is another module, and the source is searched for the one that is meant.
    entry = _entry(server, loads, is_factory="--factory" in words) if _ELSEWHERE.isdisjoint(left) else ""
    if not entry:
        left = (*left, *([loads] if loads else []))
    table: dict[str, object] = {**({"entry": entry} if entry else {}), **found}
    if found.get("server", server) == Server.UVICORN.value:
        table["server"] = Server.UVICORN.value
    told = ", ".join(f"{key} {value}" for key, value in table.items()) or "nothing of it"
    return table, f"{told}{f'; not taken over: {shlex.join(left)}' if left else ''}"


def _options(server: str, words: list[str]) -> tuple[dict[str, object], str, tuple[str, ...]]:
    """The keys of `app` that a server's arguments give, what it is to load, and the arguments that are left."""
    found: dict[str, object] = {}
    loads, left = "", []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            loads = loads or word
            continue
        name, equals, value = word.partition("=")
        if word[1] != "-" and len(word) > 2:  # noqa: PLR2004  -w4
            name, equals, value = word[:2], "=", word[2:]
        if not equals and name not in _FLAGS:
            value = next(rest, "")
        if name in _CLASS and value.startswith(_UVICORN_WORKERS):
            found["server"] = Server.UVICORN.value
        elif name in _TAKEN[server] and (number := _number(_TAKEN[server][name], value)) is not None:
            found[_TAKEN[server][name]] = number
        elif name not in _OURS:
            left += [word] if equals or not value else [name, value]
    if found.get("server") == Server.UVICORN.value:
        found.pop("threads", None)
    return found, loads, tuple(left)


def _number(key: str, value: str) -> float | int | None:
    """The value of a key of `app`, when it can have it; a `$WEB_CONCURRENCY` is none."""
    if not value.isdecimal():
        return None
    kind = next(field.type for field in msgspec.structs.fields(App) if field.name == key)
    return int(value) if _fits(int(value), kind) else None


def _entry(server: str, loads: str, *, is_factory: bool) -> str:
    """What is loaded, as `module:object` or `module:factory()`; empty when it is something else."""
    whole = loads if ":" in loads or not loads or server == "uvicorn" else f"{loads}:application"
    whole = f"{whole}()" if is_factory and not whole.endswith("()") else whole
    return whole if _fits(whole, Entry) else ""


def _release(command: str) -> tuple[str, str, str]:
    """The migration command that a `release:` line means, or the built-in migrator that does it; and words about it."""
    parts = [part.strip() for part in command.split("&&")]
    others = [part for part in parts if not _is_just(part, _COLLECTS)]
    note = "" if len(others) == len(parts) else "; its collectstatic is no part of a migration and is left out"
    tools = [next((tool for words, tool in _MIGRATORS if _is_just(part, words)), "") for part in others]
    if all(tools):
        who = " and ".join(dict.fromkeys(tools))
        return "", who, f"{f'what {who} does is found without it' if who else 'nothing to migrate'}{note}"
    whole = " && ".join(others)
    if not _fits(whole, next(field.type for field in msgspec.structs.fields(Migrations) if field.name == "command")):
        return "", "", "not taken over: it is too long"
    return whole, "", f"migrates the database: command = {json.dumps(whole, ensure_ascii=False)} of [migrations]{note}"


def _is_just(part: str, wanted: tuple[str, ...]) -> bool:
    """Whether a command is `wanted` and nothing else, whatever starts it and options aside."""
    words = list(_without_options(shlex.split(part)))
    while words and words[0] in _STARTERS and len(words) > len(wanted):
        words = words[1:]
    return tuple(word.rpartition("/")[2] for word in words) == wanted


def _without_options(words: list[str]) -> Iterator[str]:
    rest = iter(words)
    for word in rest:
        if word in _WITH_VALUE:
            next(rest, "")
        elif not word.startswith("-"):
            yield word
