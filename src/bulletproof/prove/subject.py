"""What is deployed in a proof: the tiny app of ours, or a copy of a user's own with a copy of its data."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace

from bulletproof.domain.config import AppConfig
from bulletproof.effects import durable
from bulletproof.effects.process import run_checked
from bulletproof.effects.project import Project
from bulletproof.errors import UsageError

CANARY = "canary-7f3a91-do-not-print"
"""The value of a setting: a secret that may stand in no journal, log or command line."""
PLAIN = "plain"
GROWS = "grows"
"""So begin the titles of revisions that add a table each time that they are deployed."""
_CONFIG = """\
name = "{name}"

[app]
entry = "app:app"
workers = 1

[migrations]
command = "python migrate.py"

[backup]
schedule = "never"

[health]
deadline_seconds = 15

[drain]
stop_seconds = 2

[hold]
seconds = 25

[proxy]
port = {port}

[keep]
releases = 2
backups = 1

[require]
free_disk_mib = 1
free_memory_mib = 1
"""
_IDENTITY = ("-c", "user.name=Bulletproof", "-c", "user.email=prove@localhost", "-c", "commit.gpgsign=false")
_NO_SOURCE = shutil.ignore_patterns(".venv", "venv", "node_modules", "__pycache__", ".pytest_cache")


class Subject(msgspec.Struct, frozen=True):
    """An app to deploy."""

    name: str
    database: str
    """The name of its database in the data folder."""
    paths: tuple[str, ...]
    """What answers when it is well: the first of them that there is."""
    first: tuple[str, ...]
    """The words of its first deployment."""
    again: tuple[str, ...]
    """The words that deploy the same code again."""
    lay: Callable[[Path, int, Path], None]
    """Make its project's folder, for a proxy at that port; what is there while the live app is to be ill."""
    has_ledger: bool
    """Whether its users write, and its answers name the deployment that gave them."""
    has_former: bool = False
    """Whether an earlier revision lies in a folder of its own, is deployed first, and is gone back to before each
    fault, so that every deployment of the other one migrates."""
    schema: tuple[str, ...] = ()
    """What its data are like once they are migrated, by a recording; empty when it is not known."""


def own(project: Project, data: Path | None, settings: Mapping[str, str]) -> Subject:
    """The user's app: its files as they lie here, a copy of these data, these settings.

    Raises UsageError for an app whose data are no SQLite file.
    """
    config = project.config
    _refuse_foreign_data(config, settings)
    origin = ("--database", str(data)) if data else ("--new-database",)
    return Subject(
        name=config.name,
        database=config.database.file,
        paths=tuple(config.health.paths) or ("/up", "/"),
        first=("deploy", "--worktree", *origin),
        again=("deploy", "--worktree"),
        lay=partial(_lay_own, project, settings),
        has_ledger=False,
    )


def migrating(project: Project, former: Path, data: Path | None, settings: Mapping[str, str]) -> Subject:
    """The same app, whose data are as an earlier revision has them that lies in `former`: as it left `data`, or new."""
    app = own(project, data, settings)
    older = Project(project.config, former, former / project.path.name)

    def lay(folder: Path, port: int, marker: Path) -> None:
        _lay_own(project, settings, folder, port, marker)
        if not older.path.exists():
            shutil.copy(project.path, older.path)
        _lay_own(older, settings, former_folder(folder), port, marker)

    return replace(app, lay=lay, has_former=True)


def former_folder(project: Path) -> Path:
    """Where the earlier revision lies, beside the project of a host."""
    return project.with_name("former")


def copy_of(database: Path, place: Path) -> Path:
    """A consistent copy of a live database, by SQLite's own backup."""
    with (
        closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as live,
        closing(sqlite3.connect(place)) as copy,
    ):
        live.backup(copy)
    return place


def _refuse_foreign_data(config: AppConfig, settings: Mapping[str, str]) -> None:
    url = settings.get(config.database.setting, "")
    if url and not url.startswith("sqlite"):
        raise UsageError(
            "proof-without-copy",
            f"{config.database.setting} leads to a database that cannot be copied, and the proof touches no other",
            hint=f"bulletproof env unset {config.database.setting}",
        )


def _lay_own(project: Project, settings: Mapping[str, str], folder: Path, port: int, _marker: Path) -> None:
    import tomlkit  # noqa: PLC0415  heavy, and only this needs it
    from dotenv import set_key  # noqa: PLC0415

    shutil.copytree(project.folder, folder, symlinks=True, ignore=_NO_SOURCE)
    file = folder / project.path.name
    told = tomlkit.parse(file.read_text())
    table = told if file.name != "pyproject.toml" else told["tool"]["bulletproof"]
    table.setdefault("proxy", tomlkit.table())["port"] = port
    durable.write_file(file, tomlkit.dumps(told))
    (folder / ".env").touch()
    for name, value in {**settings, "BULLETPROOF_CANARY": CANARY}.items():
        set_key(folder / ".env", name, value)


def _lay_tiny(folder: Path, port: int, marker: Path) -> None:
    """A revision for each thing that a release can do; `marker` is there while the live app is to be ill."""
    shutil.copytree(Path(__file__).parent / "app", folder)
    (folder / "bulletproof.toml").write_text(_CONFIG.format(name=TINY.name, port=port))
    (folder / ".gitignore").write_text(".env\n")
    (folder / ".env").write_text(f"SECRET_KEY={CANARY}\n")
    healthy = (folder / "app.py").read_text()
    is_ill = f"os.path.exists({str(marker)!r})"
    crashes = f"{healthy}if {is_ill}:\n    raise RuntimeError('ill')\n"
    hangs = f"{healthy}if {is_ill}:\n    import time\n    time.sleep(1000)\n"
    answers_500 = f"{healthy}\n\ndef answer(*_asked):\n    return (500 if {is_ill} else 200), {{}}\n"
    _git(folder, "init", "--quiet", "--initial-branch=main")
    for tag, text in ((PLAIN, healthy), ("ill", crashes), ("sick", answers_500)):
        _commit(folder, tag, text)
    (folder / "grows").touch()
    for tag, text in ((GROWS, healthy), ("grows-ill", crashes), ("grows-hung", hangs)):
        _commit(folder, tag, text)
    _git(folder, "checkout", "--quiet", PLAIN)


def _commit(folder: Path, tag: str, text: str) -> None:
    (folder / "app.py").write_text(text)
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "-m", tag)
    _git(folder, "tag", tag)


def _git(folder: Path, *words: str) -> None:
    run_checked(
        ("git", *_IDENTITY, *words), folder=folder, reference="host-not-prepared", failure=f"git {words[0]} failed"
    )


TINY = Subject("proof", "app.db", ("/up",), ("deploy", PLAIN), ("deploy", PLAIN), _lay_tiny, has_ledger=True)
