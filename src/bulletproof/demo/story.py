"""The demonstration: a real app under constant traffic, deployed, broken in many ways, killed and rolled back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bulletproof.demo.commands import Commands, Ended
from bulletproof.demo.ledger import Report, duplicated_writes, lost_writes
from bulletproof.demo.playground import Playground
from bulletproof.demo.traffic import Load, Traffic
from bulletproof.errors import BulletproofError

RECOVERY_SECONDS = 10.0
"""A killed deployer's host is whole again within this time: a promise."""
_CALM_SECONDS = 0.2
"""Before and after each scene, so that what it breaks lies inside its window."""
_LOAD = Load(bound_seconds=1200)
"""On a machine that is busy with other things the scenes take long."""
_JUNK = "datacharted-junk.bin"


class Scene(msgspec.Struct, frozen=True):
    """Something that happens to a live app, and how it has to end."""

    title: str
    words: tuple[str, ...]
    """What is typed after `bulletproof`; `@v2` stands for the short revision of that tag."""
    outcome: str
    reference: str = ""
    """The error that must be told."""
    kill_at: str = ""
    """The step at which the deployer is killed with SIGKILL."""


SCENES = (
    Scene("deploy v2", ("deploy", "v2"), "deployed"),
    Scene("a package that does not exist", ("deploy", "missing-dependency"), "undone", "dependencies-failed"),
    Scene("an import that fails", ("deploy", "import-error"), "undone", "crashed-at-boot"),
    Scene("a crash at boot", ("deploy", "crash-at-boot"), "undone", "crashed-at-boot"),
    Scene("boots, but answers 500", ("deploy", "answers-500"), "undone", "health-gate-failed"),
    Scene("never listens", ("deploy", "never-listens"), "undone", "health-gate-failed"),
    Scene("answers too late", ("deploy", "too-slow"), "undone", "health-gate-failed"),
    Scene("fills the disk at boot", ("deploy", "fills-disk"), "undone", "crashed-at-boot"),
    Scene("a good one that ignores SIGTERM", ("deploy", "stubborn"), "deployed"),
    Scene("a migration that fails half-way", ("deploy", "migration-fails"), "undone", "migration-failed"),
    Scene("a migration that takes too long", ("deploy", "migration-too-slow"), "undone", "migration-too-slow"),
    Scene("v3 adds a column; killed at its swap", ("deploy", "v3"), "undone", kill_at="swap"),
    Scene("v3 adds and fills a column", ("deploy", "v3"), "deployed"),
    Scene("roll back to v2, by code alone", ("rollback", "@v2"), "deployed"),
    Scene("v4 adds a second name: expand", ("deploy", "v4-expand"), "deployed"),
    Scene("v4 needs only that one: contract", ("deploy", "v4-contract"), "deployed"),
    Scene("drops a column that users filled", ("deploy", "destructive"), "undone", "data-loss"),
    Scene("roll back to v3, by a down migration", ("rollback", "@v3", "--allow-data-loss"), "deployed"),
)


class Take(msgspec.Struct, frozen=True, kw_only=True):
    """What a scene came to, and what the users saw of it."""

    scene: Scene
    outcome: str
    seconds: float
    report: Report
    surprise: str = ""
    """How it ended otherwise than it has to; empty when it did not."""


class Play(msgspec.Struct, frozen=True, kw_only=True):
    """The whole demonstration."""

    takes: tuple[Take, ...]
    whole: Report
    acknowledged: int
    lost: int
    duplicated: int

    @property
    def is_good(self) -> bool:
        """No request failed, no write was lost or doubled, and every scene ended as it has to."""
        return not (self.whole.failed or self.lost or self.duplicated or any(take.surprise for take in self.takes))


def play(stage: Stage, scenes: tuple[Scene, ...], watch: Callable[[Take], None], load: Load | None = None) -> Play:
    """Play the scenes under constant traffic; tells `watch` of each. Raises BulletproofError when it cannot go on."""
    takes = []
    with Traffic.start(stage.address, stage.folder, load or _LOAD) as traffic:
        begun = traffic.mark()
        for scene in scenes:
            takes.append(_take(stage, scene, traffic))
            watch(takes[-1])
        whole = traffic.report(begun)
        tokens = traffic.acknowledged()
        sent = tokens | traffic.unacknowledged()
    return Play(
        takes=tuple(takes),
        whole=whole,
        acknowledged=len(tokens),
        lost=len(lost_writes(tokens, stage.database)),
        duplicated=len(duplicated_writes(sent, stage.database)),
    )


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """The app, deployed once and serving."""

    folder: Path
    playground: Playground
    commands: Commands
    address: str

    def revision(self, tag: str) -> str:
        """The short revision of `@tag`, by which a release is named."""
        return self.playground.revision(tag.removeprefix("@"))

    @property
    def database(self) -> Path:
        """The live database, which the ledger is held against."""
        return self.commands.root / "var" / "lib" / "datacharted" / "app.db"


@contextmanager
def stage(folder: Path, tell: Callable[[str], None], *, keep: bool = False) -> Iterator[Stage]:
    """The example app's first release, serving; stopped at the end unless it is to be kept."""
    tell("laying the example's repository: six releases, and twelve with a mishap")
    playground = Playground.make(folder / "project")
    commands = Commands(root=folder / "root", folder=playground.folder)
    try:
        tell("deploying v1, the first release: packages come from the index once")
        address, boot_seconds = _deploy_first(commands)
        playground.adapt(boot_seconds)
        yield Stage(folder=folder, playground=playground, commands=commands, address=address)
    except BaseException:
        commands.run("stop")
        raise
    if not keep:
        commands.run("stop")


def _deploy_first(commands: Commands) -> tuple[str, float]:
    """Deploy v1; tells its address, and the seconds that it needed to be healthy."""
    first = commands.run("deploy", "v1")
    if first.outcome != "deployed":
        raise BulletproofError(
            "demo-not-prepared", f"the first deployment ended as {first.outcome}: {first.events[-1:]}"
        )
    gate = next(event for event in first.events if event.get("event") == "step-done" and event.get("step") == "gate")
    return str(first.events[-1]["address"]), float(str(gate["seconds"]))


def _take(stage: Stage, scene: Scene, traffic: Traffic) -> Take:
    """Play one scene inside its own window of the traffic."""
    time.sleep(_CALM_SECONDS)
    since = traffic.mark()
    words = tuple(stage.revision(word) if word.startswith("@") else word for word in scene.words)
    ended = stage.commands.run_and_kill(words, at_step=scene.kill_at)
    if scene.kill_at:
        stage.commands.wait_until_whole(RECOVERY_SECONDS)
    seconds = traffic.mark() - since
    (stage.database.parent / _JUNK).unlink(missing_ok=True)
    time.sleep(_CALM_SECONDS)
    outcome = _last_outcome(stage) if scene.kill_at else ended.outcome
    return Take(
        scene=scene,
        outcome=outcome,
        seconds=seconds,
        report=traffic.report(since),
        surprise=_surprise(scene, outcome, ended),
    )


def _last_outcome(stage: Stage) -> str:
    """How the journal says that the last deployment ended, told by a process of its own."""
    return str(stage.commands.status()["last_outcome"])


def _surprise(scene: Scene, outcome: str, ended: Ended) -> str:
    if outcome != scene.outcome:
        return f"ended as {outcome}, not as {scene.outcome} (exit {ended.status}, {ended.reference or 'no error'})"
    if scene.reference and ended.reference != scene.reference:
        return f"told {ended.reference}, not {scene.reference}"
    return ""
