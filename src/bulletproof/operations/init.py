"""`init`: look at an app, write its bulletproof.toml, and tell what was found and what follows from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec.structs import asdict

from bulletproof.domain import toml
from bulletproof.domain.config import AppConfig, Server
from bulletproof.domain.frameworks import ASGI, Framework
from bulletproof.domain.settings import DATABASES, NOT_YET_OURS
from bulletproof.effects.durable import write_file
from bulletproof.effects.env_file import EnvFile
from bulletproof.effects.project import TABLE, find_config, read_config
from bulletproof.errors import UsageError
from bulletproof.operations.detect import Choose, DatabaseFound, Findings, Found, detect

_HEAD = """\
# Bulletproof's configuration of this app. Only the name is needed: every other line can be deleted.
# A line behind a # shows what holds without it; take the # away to say something else.

"""
_COMMENTS = {
    "name": "of the app on its host",
    "app.entry": "what the server loads",
    "app.server": 'or "uvicorn", for an ASGI app',
    "app.workers": "processes that answer requests",
    "app.threads": "in each of them",
    "app.timeout_seconds": "a worker that is silent for longer is restarted",
    "app.user": "as whom it runs on a server that root set up",
    "app.persistent": 'folders that users fill, such as ["uploads"]',
    "health.paths": "must answer before a release serves; none means /up, or / if there is no /up",
    "health.passes": "good answers in a row",
    "health.deadline_seconds": "until all of them are there",
    "health.timeout_seconds": "for one of them",
    "database.setting": "the environment variable that holds its URL",
    "database.file": "an SQLite database's name in the data folder",
    "database.links": "where the source opens it, if no setting tells: links to it",
    "database.journal": 'or "wal": for a new or adopted one, and when it is migrated',
    "proxy.port": 'on 127.0.0.1; or domain = "example.org" in its place, for HTTPS',
    "proxy.static_files": "given out by the proxy itself",
    "drain.seconds": "for requests in flight when a new release serves",
    "drain.stop_seconds": "for a process that was told to stop",
    "keep.releases": "for a rollback",
    "keep.backups": "the last ones; besides, the last of so many days, weeks and months:",
    "keep.daily": "days",
    "keep.weekly": "weeks",
    "keep.monthly": "months",
    "backup.schedule": 'when one is made and proven by itself, or "never"',
    "backup.compress": "smaller, and slower to make",
    "check.schedule": 'when all is looked at and noted, or "never"',
    "migrations.command": "migrates the database; Alembic and Flask-Migrate are found without it",
    "migrations.allow_data_loss": 'revisions that may drop data, such as ["3f2c9a"]',
    "hold.seconds": "the longest that a request may wait for a migration",
    "rehearsal.memory_mib": "for a release on a copy of the data",
    "rehearsal.allow": 'what it must read of the machine, such as ["/srv/models"]',
    "require.free_disk_mib": "or no deployment begins",
    "require.free_memory_mib": "likewise",
    "workers": 'more processes: workers.mail.command = "celery -A app worker"',
    "timers": 'by the clock: timers.tidy = { schedule = "@daily", command = "flask tidy" }',
}
_CHOSEN = {"workers", "timers"}
"""Tables whose keys a person chooses."""
_SHOWN = {"check": {"schedule"}}
"""Of these tables only so much is shown: a file of every threshold would be read by nobody."""
_FIRST_PORT = 8000
_OFFER = 'with database.journal = "wal" in bulletproof.toml, readers and writers do not wait for one another'
_COMMENT_COLUMN = 36
_TOOLS = {"flask-migrate": "Flask-Migrate", "alembic": "Alembic", "django": "Django"}
_WRITTEN_DOWN = {
    "Django": 'write DATABASES = {"default": dj_database_url.config()} and add dj-database-url to requirements.txt',
}
"""How an app learns of its database, by framework, where it is more than reading a setting."""


class Initialised(msgspec.Struct, frozen=True, kw_only=True):
    """What `init` did."""

    findings: Findings
    config: AppConfig
    """What the written file says, read back from it."""
    path: Path


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One finding for a person: a topic, what was found, and where or what follows."""

    topic: str
    what: str
    why: str


def initialise(
    folder: Path,
    *,
    name: str | None = None,
    entry: str | None = None,
    is_forced: bool = False,
    choose: Choose | None = None,
) -> Initialised:
    """Find out what the app in the folder needs and write it down.

    `name` and `entry` are taken instead of what would be found; `choose` is asked where several apps could be meant.
    Raises UsageError when there is a configuration already (and not `is_forced`), and all that `detect` raises; nothing
    was written then.
    """
    path = folder / toml.FILE_NAME
    _refuse_to_overwrite(folder, is_forced=is_forced)
    if name is not None:
        _refuse_misfit("--name", f"name = {json.dumps(name)}")
    if entry is not None:
        _refuse_misfit("--entry", f'name = "app"\napp.entry = {json.dumps(entry)}')
    findings = detect(folder, entry=entry, choose=choose)
    try:
        write_file(path, toml_text(findings, name or findings.name.what))
    except OSError as error:
        words = f"{path} cannot be written: {error.strerror}"
        raise UsageError("config-unwritable", words, hint=f"ls -ld {folder}") from error
    return Initialised(findings=findings, config=read_config(path), path=path)


def _refuse_to_overwrite(folder: Path, *, is_forced: bool) -> None:
    if not folder.is_dir():
        raise UsageError("folder-missing", f"{folder} is no folder", hint="cd into the folder of your app")
    found = find_config(folder)
    if found and found.name != toml.FILE_NAME:
        words = f"{found} configures this app already, in its table [{'.'.join(TABLE)}]; nothing was written"
        raise UsageError("config-exists", words, hint="bulletproof deploy")
    if found and not is_forced:
        hint = "bulletproof deploy, or bulletproof init --force to write it anew"
        raise UsageError("config-exists", f"{found} is there already; nothing was written", hint=hint)


def _refuse_misfit(option: str, text: str) -> None:
    """Judge an option's value as the configuration that it would become."""
    try:
        toml.parse(text, option)
    except UsageError as error:
        _, _, words = error.message.partition(": ")
        raise UsageError("option-invalid", f"{option}: {words}", hint="bulletproof init --help") from error


_SHOWN_OF_PROXY = {"proxy.port", "proxy.static_files"}
"""All else of it is for an app with a domain."""


def toml_text(findings: Findings, name: str) -> str:
    """The text of the bulletproof.toml: what was found as lines that hold, every other key as a comment."""
    holding = {"name": name, "app.entry": findings.entry.what, **_other_than_default(findings)}
    beneath = findings.procfile.tables if findings.procfile else {}
    defaults = {**_defaults(toml.parse('name = "app"', beneath=beneath)), "proxy.port": _FIRST_PORT}
    comments = {**_COMMENTS, "app.entry": findings.entry.where}
    lines = []
    for key, default in defaults.items():
        if key.startswith("proxy.") and key not in _SHOWN_OF_PROXY:
            continue
        value = holding.get(key, default)
        line = f"{'' if key in holding else '# '}{key} = {_toml_value(value)}"
        lines.append(f"{line:{_COMMENT_COLUMN}}  # {comments.get(key, 'from the Procfile')}\n")
    return _HEAD + "".join(lines)


def _other_than_default(findings: Findings) -> dict[str, object]:
    """What was found and what the defaults would get wrong."""
    found: dict[str, object] = {}
    if findings.framework.server is not Server.GUNICORN:
        found["app.server"] = findings.framework.server.value
    if findings.health and findings.health.what != "/up":
        found["health.paths"] = [findings.health.what]
    if findings.database and findings.database.setting not in {"", AppConfig(name="app").database.setting}:
        found["database.setting"] = findings.database.setting
    if findings.database and findings.database.links:
        found["database.links"] = list(findings.database.links)
    if findings.persistent:
        found["app.persistent"] = [one.what for one in findings.persistent]
    return found


def _defaults(config: AppConfig) -> dict[str, object]:
    """Every key of the configuration, dotted, with what holds without it; of what a Procfile has, the commands."""
    defaults: dict[str, object] = {}
    for key, value in msgspec.to_builtins(config).items():
        if key in _CHOSEN and value:
            defaults.update({f"{key}.{name}.command": one["command"] for name, one in value.items()})
        else:
            inner = value if isinstance(value, dict) else {}
            shown = {name: default for name, default in inner.items() if name in _SHOWN.get(key, inner)}
            defaults.update({f"{key}.{name}": default for name, default in shown.items()} if inner else {key: value})
    return defaults


def _toml_value(value: object) -> str:
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    return json.dumps(whole, ensure_ascii=False)


def describe(findings: Findings) -> Iterator[Line]:
    """What was found, topic by topic, as a person reads it."""
    yield Line(topic="entry", what=findings.entry.what, why=findings.entry.where)
    yield from _server_lines(findings)
    if findings.settings_module:
        yield Line(topic="django", what=findings.settings_module.what, why=findings.settings_module.where)
    if findings.packages:
        what = f"{len(findings.packages)} in {findings.package_list}"
        yield Line(topic="packages", what=what, why=_packages_reason(findings))
    yield _settings_line(findings.env, _asked_for(findings))
    if findings.database:
        yield _database_line(findings.database)
        yield from _data_lines(findings.database)
    if findings.journal:
        why = f"{findings.journal.where}; {_OFFER}"
        yield Line(topic="journal", what=findings.journal.what, why=why)
    for one in findings.persistent:
        why = f"{one.where}; lives in the data folder, and the first deployment copies what is in it"
        yield Line(topic="folder", what=f"{one.what}/", why=why)
    if findings.migrations:
        why = f"{_TOOLS[findings.migrations.what]}; the first deployment runs them on a new database"
        is_folder = findings.migrations.what != "django" or "/" in findings.migrations.where
        yield Line(topic="migrations", what=f"{findings.migrations.where}{'/' if is_folder else ''}", why=why)
    for meaning in findings.procfile.meanings if findings.procfile else ():
        what = f"{meaning.line.name} (line {meaning.line.number})"
        yield Line(topic="Procfile", what=what, why=f"{meaning.line.command}: {meaning.words}")
    yield _health_line(findings.health)
    if findings.python:
        yield Line(topic="python", what=findings.python.what, why=f"asked for in {findings.python.where}")
    if findings.git.is_repository:
        yield Line(topic="source", what="git", why="a deployment takes the last commit, or the one you name")
    else:
        yield Line(topic="source", what="this folder", why="there is no git repository, so files are taken as they are")


def _server_lines(findings: Findings) -> Iterator[Line]:
    """The server where it is not the usual one, or is added to what the app depends on."""
    server = findings.framework.server
    reasons = [] if server is Server.GUNICORN else [_server_reason(findings.framework)]
    if findings.packages and server.value not in map(str.lower, findings.packages):
        reasons.append(f"added to each release, since {findings.package_list} does not name it")
    if reasons:
        yield Line(topic="server", what=server.value, why="; ".join(reasons))


def _packages_reason(findings: Findings) -> str:
    unused = f"; {', '.join(findings.unused_lists)} not used" if findings.unused_lists else ""
    itself = ", with the project itself" if findings.is_installed else ""
    return f"installed for each release, apart from all others{itself}{unused}"


def _server_reason(framework: Framework) -> str:
    return "it is a plain ASGI app" if framework is ASGI else f"{framework.name} is loaded as an ASGI app"


def _settings_line(env: EnvFile | None, asked: tuple[str, ...]) -> Line:
    if env and env.names:
        why = f"{', '.join(env.names)}: taken by the first deployment, afterwards changed by `bulletproof env`"
        return Line(topic="settings", what=f"{len(env.names)} in {env.name}", why=why)
    if asked:
        why = f".env.example asks for {', '.join(asked)}: write them into .env before the first deployment"
        return Line(topic="settings", what="none yet", why=why)
    return Line(topic="settings", what="none", why="there is no .env; later: `bulletproof env set NAME=VALUE`")


def _asked_for(findings: Findings) -> tuple[str, ...]:
    """The settings that a person must give: all of .env.example but the URL of a database that is ours to place."""
    names = findings.env_example.names if findings.env_example else ()
    database = findings.database
    ours = database.setting if database and database.kind in {"", "sqlite"} else ""
    return tuple(name for name in names if name != ours)


def _database_line(database: DatabaseFound) -> Line:
    kind = DATABASES.get(database.kind, database.kind)
    if database.links:
        why = f"seen in {database.where}; {database.links[0]} is a link to it in each release"
        return Line(topic="database", what=kind, why=f"{why}, and it will live in the data folder")
    told = f"its URL is in {database.setting} ({database.where})" if database.setting else f"seen in {database.where}"
    if not kind:
        why = f"{told}; SQLite in the data folder, unless you set that to another"
        return Line(topic="database", what="not told", why=why)
    if database.kind != "sqlite":
        return Line(topic="database", what=kind, why=f"{told}, and stays there; {NOT_YET_OURS}")
    return Line(topic="database", what=kind, why=f"{told}; it will live in the data folder")


def _data_lines(database: DatabaseFound) -> Iterator[Line]:
    """The databases that are here already: which one comes along, and that the others are left alone."""
    for file, holds in zip(database.files, database.holds, strict=True):
        if file == database.used:
            follows = "the first deployment copies it, if it is the one that the app opens"
        elif database.used:
            follows = "not used and not touched"
        else:
            follows = "copied by the first deployment, if it is the one that the app opens"
        yield Line(topic="data", what=file, why=f"{holds}; {follows}")
    if database.used and database.used not in database.files:
        yield Line(topic="data", what=database.used, why="copied by the first deployment, if the app opens it")


def _health_line(health: Found | None) -> Line:
    if health:
        return Line(topic="health", what=health.what, why=f"{health.where}; must answer well before a release serves")
    return Line(
        topic="health", what="/", why="no route /up was found, so the front page must answer before a release serves"
    )


def warnings(findings: Findings) -> Iterator[str]:
    """What a person should put right, each with how."""
    if findings.git.is_env_tracked:
        yield ".env is tracked by git, so the repository holds the secrets: git rm --cached .env, then change them"
    if findings.git.is_config_ignored:
        yield f"git ignores {toml.FILE_NAME}: take it out of .gitignore and commit it"
    if findings.git.problem:
        yield findings.git.problem
    if findings.requirements_problem:
        yield findings.requirements_problem
    elif (
        findings.packages
        and (package := findings.framework.package)
        and not any(name.lower() == package for name in findings.packages)
    ):
        yield f"{findings.package_list} does not name {findings.framework.name}"
    for meaning in findings.procfile.meanings if findings.procfile else ():
        if meaning.tool and not findings.migrations:
            yield f"the Procfile migrates with {meaning.tool}, and no migrations were found: command of [migrations]"
    yield from _settings_warnings(findings.env, _asked_for(findings))
    for file in findings.database.tracked if findings.database else ():
        yield (
            f"{file} is tracked by git, so every clone has the data in it and a checkout changes them:"
            f" git rm --cached {file}, and add it to .gitignore"
        )
    if findings.database and not (findings.database.setting or findings.database.links):
        how = _WRITTEN_DOWN.get(findings.framework.name, "")
        yield (
            f"{findings.database.where} says where the database is: read that from DATABASE_URL,"
            f" or every release has a database of its own{f'; {how}' if how else ''}"
        )


def _settings_warnings(env: EnvFile | None, asked: tuple[str, ...]) -> Iterator[str]:
    if not env:
        return
    if env.problem:
        yield f"{env.problem}; the first deployment will refuse it"
        return
    if env.empty:
        yield f".env gives no value to {', '.join(env.empty)}"
    if missing := [name for name in asked if name not in env.names]:
        yield f".env.example asks for {', '.join(missing)}, which .env does not have"


def as_json(done: Initialised) -> dict[str, object]:
    """The findings as `--json` prints them; of settings the names alone."""
    findings = done.findings
    meanings = findings.procfile.meanings if findings.procfile else ()
    in_words = {
        "framework": findings.framework.name,
        "procfile": {
            one.line.name: {"line": one.line.number, "command": one.line.command, "means": one.words}
            for one in meanings
        },
    }
    found = msgspec.to_builtins({**asdict(findings), **in_words})
    for file in (found["env"], found["env_example"]):
        if file:
            del file["flask_app"], file["sqlite_files"]
    return {**found, "warnings": list(warnings(done.findings)), "written": str(done.path)}
