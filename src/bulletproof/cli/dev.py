"""`bulletproof dev`: run the app here as it is configured, while a person works on it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from bulletproof.cli.afar import engine_words, root_words
from bulletproof.domain.address import find_address
from bulletproof.domain.config import AppConfig
from bulletproof.domain.cron import next_after
from bulletproof.domain.settings import database_url
from bulletproof.effects import durable
from bulletproof.effects.dev_environment import find_environment, make_environment
from bulletproof.effects.dotenv import read_dotenv
from bulletproof.effects.interrupts import Interrupted, Interrupts
from bulletproof.effects.local_time import local_now
from bulletproof.effects.project import Project, find_project
from bulletproof.effects.route import may_listen
from bulletproof.effects.scratch import scratch_folder
from bulletproof.effects.source_tree import find_entry
from bulletproof.effects.sqlite_copy import copy_database
from bulletproof.effects.ssh import SshHost
from bulletproof.errors import Refused, UsageError
from bulletproof.operations.develop import MIGRATE, Stage, migrate, migration_of, run_side_by_side, tasks_of
from bulletproof.wiring import layout_of

_FIRST_PORT, _LAST_PORT = 5000, 6000
_COLOURS = ("cyan", "green", "magenta", "yellow", "blue")
_HELP = """\
Run the app here: its web server, workers and timers side by side. Changed code is loaded at once. Ctrl-C ends all.

\b
  bulletproof dev
  bulletproof dev --migrate           the database brought up to date first
  bulletproof dev --copy              with a copy of the data that is deployed on this machine
  bulletproof dev --copy --host prod  … or on that host
  bulletproof dev --timer report      that timer at once, and not only when it is due

Settings come from .env; what your shell says goes before. Without --copy the app opens the database that it opens by
itself. Without .venv one is made, with what a deployment would install.
"""


@click.command("dev", help=_HELP)
@click.option("--port", type=click.IntRange(1, 65535), help="On 127.0.0.1.  [default: the first free one from 5000]")
@click.option("--copy", "is_copied", is_flag=True, help="Work on a fresh copy of the deployed data, which is changed.")
@click.option(
    "--host", "wish", metavar="HOST", help="Where the data for --copy are: a name from [hosts], or an address."
)
@click.option("--migrate", "is_migrated", is_flag=True, help="First bring the database up to date that the app opens.")
@click.option("--timer", "at_once", multiple=True, metavar="NAME", help="Run that timer at the beginning as well.")
@click.pass_obj
def dev_command(
    root: Path, *, port: int | None, is_copied: bool, wish: str | None, is_migrated: bool, at_once: tuple[str, ...]
) -> None:
    """Find out, say, run."""
    if wish and not is_copied:
        raise click.UsageError("--host says where the data for --copy are")
    project = find_project(Path.cwd())
    config, folder = project.config, project.folder
    if unknown := set(at_once) - config.timers.keys():
        raise click.UsageError(f"no timer is named {', '.join(sorted(unknown))}")
    server = config.app.server.value
    environment = find_environment(folder, server)
    if environment is None:
        click.echo("making .venv with what a deployment would install …", err=True)
        environment = make_environment(folder, server, layout_of(root, config.name).cache / "uv")
    entry = config.app.entry or find_entry(folder, config.app.server)
    settings = {**_settings(project, environment), **(_copied(project, root, wish) if is_copied else {})}
    chosen = port or next(port for port in range(_FIRST_PORT, _LAST_PORT) if may_listen(port))
    tasks = tasks_of(config, entry, environment, chosen)
    names = [task.name for task in tasks] + ([MIGRATE] if is_migrated else [])
    stage = Stage(folder=folder, environment=settings, tell=_teller(names))
    try:
        with Interrupts():
            if is_migrated:
                migrate(migration_of(config, entry, folder, environment), stage)
            _tell_what_runs(config, chosen)
            status = run_side_by_side(tasks, stage, at_once=frozenset(at_once))
    except Interrupted:
        click.echo("\nended", err=True)
        return
    sys.exit(1 if status else 0)


def _tell_what_runs(config: AppConfig, port: int) -> None:
    for name, timer in config.timers.items():
        due = next_after(timer.schedule, local_now())
        click.echo(f"timer {name}: {timer.schedule}, next at {due:%Y-%m-%d %H:%M}", err=True)
    click.echo(f"{config.name} at {click.style(f'http://127.0.0.1:{port}', bold=True)}; Ctrl-C ends it", err=True)


def _settings(project: Project, environment: Path) -> dict[str, str]:
    """What the processes get: our environment over the project's .env, and the project's packages first."""
    dotenv = project.folder / ".env"
    given = read_dotenv(dotenv) if dotenv.exists() else {}
    source = os.pathsep.join(filter(None, (str(project.folder / "src"), os.environ.get("PYTHONPATH", ""))))
    ours = {
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(environment),
        "PYTHONPATH": source,
        "PYTHONUNBUFFERED": "1",
    }
    return {**given, **os.environ, **ours}


def _copied(project: Project, root: Path, wish: str | None) -> dict[str, str]:
    """The setting that leads to a fresh copy of the deployed data. It is the person's alone, and outside the source."""
    config, layout = project.config, layout_of(root, project.config.name)
    place = root / "dev" / config.name
    durable.make_folder(place, mode=0o700)
    copy = place / config.database.file
    for suffix in ("", "-wal", "-shm", "-journal"):
        durable.remove(copy.with_name(copy.name + suffix))
    if wish:
        _fetch(project, wish, copy)
    elif (layout.data / config.database.file).exists():
        with scratch_folder("bulletproof-dev-copy-") as scratch:
            copy_database(layout.data / config.database.file, scratch / "copy.db")
            durable.copy_file(scratch / "copy.db", copy, mode=0o600)
    else:
        raise UsageError("nothing-deployed", f"{config.name} has no data on this machine", hint="--host HOST")
    url = database_url(os.environ.get(config.database.setting), str(copy))
    if url is None:
        raise UsageError("database-elsewhere", f"{config.database.setting} names no SQLite database, so none is copied")
    click.echo(f"a copy of the data: {copy} ({config.database.setting}={url})", err=True)
    return {config.database.setting: url}


def _fetch(project: Project, wish: str, copy: Path) -> None:
    host = SshHost(find_address(wish, project.config.hosts))
    host.connect()
    with durable.new_file(copy, 0o600) as file, os.fdopen(os.dup(file), "wb") as said:
        words = (*engine_words(host), *root_words(click.get_current_context()), "handout", "--app", project.config.name)
        status = host.run(words, said=said)
        if status != 0:
            raise Refused(
                "data-not-copied", f"{host.address.called} gave no copy of the data", hint="what it said is above"
            )


def _teller(names: list[str]) -> Callable[[str, str], None]:
    width = max(map(len, names))

    def tell(name: str, line: str) -> None:
        colour = _COLOURS[names.index(name) % len(_COLOURS)]
        click.echo(f"{click.style(name.ljust(width), fg=colour)} | {line}")

    return tell
