"""A user's own app on hosts of its own, and an earlier revision of it from which the present one migrates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from bulletproof.domain.layout import Layout
from bulletproof.effects.process import run, run_checked
from bulletproof.effects.project import Project
from bulletproof.errors import BulletproofError
from bulletproof.prove import oracle, runner, subject, sweep
from bulletproof.prove.host import Host
from bulletproof.prove.scenarios import MIGRATING, OF_ANY_APP, SCENARIOS
from bulletproof.prove.subject import Subject

_MIGRATIONS = ("*migrations*", "*alembic*", "*versions*", "*migrate*")
"""Where revisions of data are written down, as git names paths."""


class Former(NamedTuple):
    """An earlier revision, and data that it can serve."""

    words: str
    folder: Path
    data: Path | None


class Migration(NamedTuple):
    """A deployment that migrates the data, or why there is none."""

    words: str
    app: Subject | None = None
    points: tuple[sweep.Point, ...] = ()


class Wish(NamedTuple):
    """Which faults, and on how many hosts side by side."""

    faults: int
    seed: int
    only: str
    hosts: int


class Proven(NamedTuple):
    """What came of them."""

    verdicts: tuple[sweep.Verdict, ...]
    seconds: float
    migration: str
    """Which migration of the data was met, or why none was."""


def prove_app(
    base: Path,
    project: Project,
    layout: Layout,
    settings: Mapping[str, str],
    wish: Wish,
    *,
    tell: Callable[[str], None],
    watch: runner.Watch,
) -> Proven:
    """Deploy the files that lie here, on a copy of the live data if there are any, and inject faults into that."""
    database = layout.data / project.config.database.file
    data = subject.copy_of(database, base / "data.db") if database.exists() else None
    app = subject.own(project, data, settings)
    tell(f"recording what a deployment of {app.name} does")
    known = runner.record_all(base / "record", OF_ANY_APP, app)
    migration = find_migration(base, project, layout, data, settings)
    tell(f"a migration is {migration.words}")
    chosen = sweep.choose([*known, *migration.points], wish.only, wish.faults, wish.seed)
    tell(f"injecting {sum(1 + len(point.then) for point in chosen)} faults")
    begun, verdicts = time.monotonic(), []
    for what, names in ((app, OF_ANY_APP), (migration.app, MIGRATING)):
        points = [point for point in chosen if point.scenario in names]
        if what is not None and points:
            works = runner.works(points, (), wish.seed)
            verdicts += runner.prove(base / names[0], works, watch, hosts=wish.hosts, subject=what)
    return Proven(tuple(verdicts), time.monotonic() - begun, migration.words)


def find_migration(
    base: Path, project: Project, layout: Layout, data: Path | None, settings: Mapping[str, str]
) -> Migration:
    """Record the present files as they follow the live release, else the revision before the last migration in git."""
    reasons = []
    for number, former in enumerate(_formers(base, project, layout, data)):
        app = subject.migrating(project, former.folder, former.data, settings)
        try:
            found = _record(base / f"migration-{number}", app)
        except BulletproofError as error:
            reasons.append(f"{former.words}: {error.message}")
            continue
        if found is not None:
            return Migration(f"met while {former.words} is replaced", *found)
        reasons.append(f"what lies here needs no other data than {former.words}")
    return Migration(f"not met: {'; '.join(reasons) or 'there is no earlier revision in git'}")


def _formers(base: Path, project: Project, layout: Layout, data: Path | None) -> Iterator[Former]:
    if data is not None and layout.current.exists():
        yield Former("the live release", layout.source(layout.current.resolve().name), data)
    if revision := _before_last_migration(project.folder):
        folder = base / "former"
        _extract(project.folder, revision, folder)
        yield Former(f"revision {revision[:9]} with new data", folder, None)


def _before_last_migration(folder: Path) -> str:
    """The parent of the last commit that touched a migration below this folder; empty without one."""
    last = _git(
        folder, "log", "-1", "--format=%H", "--", *(f":(glob)**/{name}/**" for name in _MIGRATIONS), *_MIGRATIONS
    )
    return _git(folder, "rev-parse", "--verify", "--quiet", f"{last}^") if last else ""


def _git(folder: Path, *words: str) -> str:
    done = run(("git", "-C", folder, *words), folder=folder)
    return done.output.strip() if done.status == 0 else ""


def _extract(project: Path, revision: str, folder: Path) -> None:
    archive = folder.with_suffix(".tar")
    folder.mkdir()
    for argv in (
        ("git", "-C", project, "archive", "--output", archive, f"{revision}:./"),
        ("tar", "-xf", archive, "-C", folder),
    ):
        run_checked(argv, folder=project, reference="no-former", failure=f"revision {revision} cannot be laid")


def _record(base: Path, app: Subject) -> tuple[Subject, tuple[sweep.Point, ...]] | None:
    """What its migrating deployment and its recoveries do, and what the data are like then; None if none migrates."""
    host = Host.lay(base, app)
    try:
        calls = sweep.record(host, SCENARIOS[MIGRATING[0]])
        if all(call.step != "migrate" for call in calls):
            return None
        app = replace(app, schema=oracle.World.of(host).schema)
        points = sweep.points(MIGRATING[0], calls)
        for name in MIGRATING[1:]:
            points += sweep.points(name, sweep.record(host, SCENARIOS[name]))
        return app, tuple(points)
    finally:
        host.end()
