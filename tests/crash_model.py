"""A host in memory that dies at a chosen boundary, a client that asks it after every effect, and an oracle."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import crash_repair
from bulletproof.domain.background import names_of
from bulletproof.domain.backup import Reason
from bulletproof.domain.config import AppConfig
from bulletproof.domain.deployment import Kind
from bulletproof.domain.health import Answer
from bulletproof.domain.layout import Layout
from bulletproof.domain.process import PROXY, RELAY, Phase, generation_of, is_backup, is_check, is_replica, web_name
from bulletproof.domain.source import Source
from bulletproof.errors import BulletproofError, StepFailed
from bulletproof.ports import Host, Resources, Taking
from crash_scenarios import CONFIG, Scenario
from fakes.adoption import FakeAdoption
from fakes.backups import FakeBackups
from fakes.database import Content, FakeDatabase
from fakes.mender import FakeMender
from fakes.migrator import FakeMigrator
from fakes.proxy import FakeProxy
from fakes.rehearsal import FakeRehearsal
from fakes.releases import FakeReleases
from fakes.replica import FakeReplica
from fakes.settings import FakeSettings
from fakes.supervisor import FakeSupervisor
from fakes.swap import FakeSwap

LAYOUT = Layout(root=Path("/model"), app="app", runtime=Path("/model/run"))
READS = frozenset({
    "manifest", "existing", "is_running", "state", "names", "target", "connections", "is_listening", "exists", "check",
    "size", "today", "frozen", "numbers", "port", "process", "relay", "history", "notes", "why_not", "ask", "log_tail",
    "upgrade", "downgrade", "misfits", "openers", "proof", "run", "boot", "end", "look", "is_changed", "rewind", "copy",
    "has_program", "empty_wal", "found", "kept", "damage",
    "find", "describe", "would_write", "make", "make_all",
    "public", "maintenance", "await_certificate",
    "all", "get", "make_place", "lay_database", "free_bytes", "refuse_unmovable", "replaced", "compare", "lay", "seen",
})  # fmt: skip
"""What only looks, or changes only what is gone with the deployer or its scratch: no boundary lies in it."""


class Violation(AssertionError):
    """A promise was broken."""


class Killed(BaseException):
    """The deployer is dead."""


@dataclass
class Death:
    """Dies at the boundary that is so many away."""

    at: int | None = None
    passed: int = 0
    is_dead: bool = False

    def boundary(self) -> None:
        """One point at which the deployer may die; once dead it does nothing any more."""
        if self.is_dead:
            raise Killed
        self.passed += 1
        if self.passed == self.at:
            self.is_dead = True
            raise Killed


class Mortal:
    """A port whose effects have a boundary before and after, each followed by a client's request."""

    def __init__(self, port: object, world: World, reads: frozenset[str]) -> None:
        self._port = port
        self._world = world
        self._reads = reads

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if name in self._reads:
            return method

        def effect(*values: object, **named: object) -> object:
            self._world.death.boundary()
            self._world.refuse(name)
            result = method(*values, **named)
            self._world.ask()
            self._world.death.boundary()
            return result

        return effect


@dataclass
class World:
    """The state that outlives a deployer, and what its users are promised."""

    releases: FakeReleases = field(default_factory=FakeReleases)
    supervisor: FakeSupervisor = field(default_factory=FakeSupervisor)
    proxy: FakeProxy = field(default_factory=FakeProxy)
    database: FakeDatabase = field(default_factory=FakeDatabase)
    settings: FakeSettings = field(default_factory=FakeSettings)
    migrator: FakeMigrator = field(init=False)
    swap: FakeSwap = field(init=False)
    rehearsal: FakeRehearsal = field(init=False)
    backups: FakeBackups = field(init=False)
    adoption: FakeAdoption = field(init=False)
    replica: FakeReplica = field(default_factory=FakeReplica)
    mender: FakeMender = field(default_factory=FakeMender)
    death: Death = field(default_factory=Death)
    bad: frozenset[str] = frozenset()
    """What is wrong with every instance from `bad_from` on: crash, 500, public."""
    bad_from: int = 1_000_000
    seconds: float = 0.0
    must_serve: bool = False
    """Whether a request may not fail now: the app serves, and nobody stopped it."""
    failed: list[str] = field(default_factory=list)
    acknowledged: int = 0
    """A bit for each write of a user that was acknowledged: one that the database does not hold is lost."""
    written: int = 0
    """How many writes there were."""
    has_stranger: bool = False
    """Whether somebody whom no hold stops writes whenever the database lets them."""
    strange: int = 0
    """Their writes; after an undo they may be in what was set aside."""

    def __post_init__(self) -> None:
        self.migrator = FakeMigrator(self.database, known={release_of(number): ("0001",) for number in range(1, 20)})
        self.swap = FakeSwap(self.database, self.at, self.users)
        self.rehearsal = FakeRehearsal(self.database, self.migrator, self.swap, at=self.at)
        self.backups = FakeBackups(self.database, self.snapshot_of)
        self.adoption = FakeAdoption(self.database)

    def at(self, file: Path) -> Content:
        """What lies at a path: the copy of a rehearsal, or a backup that was laid."""
        laid = self.backups.laid.get(str(file))
        return laid if laid is not None else self.rehearsal.copies[int(file.name)]

    def snapshot_of(self, number: int) -> Content:
        """What a snapshot holds."""
        return self.swap.snapshots[number]

    def migrator_of(self, file: Path) -> FakeMigrator:
        """The migrator of what lies there."""
        laid = FakeDatabase()
        laid.content = self.at(file)
        return replace(self.migrator, database=laid)

    def users(self) -> tuple[str, ...]:
        """The instances that run, each with the database open."""
        by_clock = {name for name in self.supervisor.names() if is_backup(name) or is_check(name)}
        return tuple(name for name in self.supervisor.names() if name not in {PROXY, RELAY} | by_clock)

    def refuse(self, effect: str) -> None:
        """Fail the effects that the scenario says fail."""
        if effect in self.bad:
            raise StepFailed(f"{effect}-failed", "as the scenario wants it")

    def ask(self) -> None:
        """A user's request: it may wait in a hold; where it must be served, it may not meet a dead instance."""
        self.look_at_workers()
        if self.has_stranger and not self.swap.is_seized:
            self.strange |= self.write()
        number = self.proxy.target()
        if PROXY not in self.supervisor.names() or number is None:
            return
        if self.answers(number):
            self.acknowledged |= self.write()
        elif self.must_serve:
            self.failed.append(f"a request met instance {number}, which does not answer")

    def look_at_workers(self) -> None:
        """Workers and timers are of one release at a time; none runs in a hold, nor does the replica."""
        generations = {generation_of(name) for name in self.supervisor.names()} - {None}
        if len(generations) > 1:
            self.failed.append(f"workers of the deployments {generations} run at once")
        if any(map(is_replica, self.supervisor.names())) and (self.swap.is_seized or self.proxy.is_held):
            self.failed.append("the replica runs while requests wait")
        if generations and (self.swap.is_seized or self.proxy.is_held):
            self.failed.append(f"workers of {generations} run while requests wait")

    def write(self) -> int:
        """One write, and its bit."""
        self.written += 1
        self.database.rows |= 1 << self.written
        return 1 << self.written

    def answers(self, number: int) -> bool:
        """Whether the instance answers well."""
        return self.is_up(number) and not (number >= self.bad_from and self.bad & {"crash", "500"})

    def is_up(self, number: int) -> bool:
        """Whether the instance runs."""
        return self.supervisor.state(web_name(number)).phase is Phase.RUNNING

    def answer(self, number: int) -> Answer:
        """What an instance answers on its own socket."""
        if not self.is_up(number):
            return Answer(status=0, seconds=0.0, words="no answer: refused")
        return Answer(status=200 if self.answers(number) else 500, seconds=0.0)

    def public(self) -> Answer:
        """What is answered through the proxy."""
        number = self.proxy.target()
        if PROXY not in self.supervisor.names() or number is None:
            return Answer(status=0, seconds=0.0, words="no answer: refused")
        if "public" in self.bad and number >= self.bad_from:
            return Answer(status=502, seconds=0.0)
        return self.answer(number)

    def sleep(self, seconds: float) -> None:
        """Time passes for the model alone."""
        self.seconds += seconds

    def host(self) -> Host:
        """The host as a deployer sees it."""
        # A deployer of its own: what the one before had in memory, or had locked, went with it.
        self.swap.is_seized = False
        self.rehearsal.running.clear()
        mortal: Any = {
            name: Mortal(getattr(self, name), self, READS - {"state"} if name == "migrator" else READS)
            for name in (
                "releases",
                "supervisor",
                "proxy",
                "database",
                "settings",
                "migrator",
                "rehearsal",
                "swap",
                "adoption",
                "backups",
                "mender",
            )
        }
        return Host(
            layout=LAYOUT,
            migrator_of=self.migrator_of,
            engine=("bulletproof",),
            replica=self.replica,
            resources=lambda: Resources(free_disk=1 << 40, free_memory=1 << 40),
            ask_instance=lambda number, _path, _seconds: self.answer(number),
            ask_public=lambda _path, _seconds: self.public(),
            log_tail=lambda _number, _lines: (),
            set_data_aside=lambda _name: "",
            wipe=lambda: None,
            chronicle=lambda _line: None,
            lead_log=lambda _number: None,
            prune_logs=lambda _number: None,
            keep_report=lambda _number, _content: None,
            claim_data=lambda: None,
            as_app=lambda argv: argv,
            trespasses=lambda: (),
            unsafe_data=lambda: "",
            drifts=lambda _: (),
            newer=lambda _: {},
            reread=_mortal(self.mender.reread, self),
            clock=lambda: self.seconds,
            sleep=self.sleep,
            **mortal,
        )


@dataclass(frozen=True)
class Lane:
    """Runs schedules over the operations as they are imported, planted bug or not."""

    activate: ModuleType
    journal: ModuleType
    stride: int = 1
    """The recovery is killed at every so manieth boundary, from one by chance on."""

    def exhaust(self, scenario: Scenario, chance: random.Random) -> list[str]:
        """Every boundary killed, then boundaries of the recovery, then a second recovery at one by chance.

        Returns what the host became in each schedule. Raises Violation when a promise is broken.
        """
        outcomes: list[str] = []
        prepared = self._prepare(scenario)
        for first in itertools.count(1):
            world, journal = copy.deepcopy(prepared[0]), self._copy(prepared[1])
            ask = functools.partial(self.ask_for, scenario, world, journal)
            if not self.is_killed(world, Death(at=first), ask):
                return [*outcomes, self.judge(scenario, world, journal, f"{scenario}, not killed")]
            for second in itertools.count(chance.randint(1, self.stride), self.stride):
                where = f"{scenario}, killed at {first}, its recovery at {second}"
                one, its_journal = copy.deepcopy(world), self._copy(journal)
                recover = functools.partial(self.recover, one, its_journal)
                is_killed_again = self.is_killed(one, Death(at=second), recover)
                if is_killed_again and self.is_killed(one, Death(at=chance.randint(1, 30)), recover):
                    self.is_killed(one, Death(), recover)
                outcomes.append(self.judge(scenario, one, its_journal, where))
                if not is_killed_again:
                    break
        raise AssertionError

    def _prepare(self, scenario: Scenario) -> tuple[World, Any]:
        """The host before the scenario: what was done undisturbed, perhaps a reboot."""
        world, journal = World(), self.journal.Journal.in_memory(lambda: "2026-01-01T00:00:00.000+00:00")
        world.migrator.is_strict = scenario.is_strict
        if scenario.migrates and scenario.kind is Kind.ROLLBACK:
            self._make_migrating(scenario, world, len(scenario.before))
        if scenario.has_origin:
            world.adoption.content = Content(("table_0001",), ("0001",), 1)
            world.acknowledged = 1
        for kind in scenario.before:
            before = replace(scenario, kind=kind, name="before", set_values=(), has_new_proxy=False)
            self.ask_for(before, world, journal, scenario.config)
        if scenario.kind is Kind.RESTORE:
            self._back_up(world, journal.live())
        if scenario.kind is Kind.REPAIR:
            crash_repair.break_all(world, ("flask",) if "damage" in scenario.bad else ())
        if scenario.reboot:
            world.supervisor = FakeSupervisor()
        live = journal.live()
        world.must_serve = (
            bool(live) and journal.wants_running() and not scenario.reboot and scenario.kind is not Kind.STOP
        )
        world.bad, world.bad_from = scenario.bad, len(journal.entries()) + (2 if scenario.brings_back else 1)
        world.has_stranger = scenario.has_stranger
        if scenario.migrates and scenario.kind is Kind.DEPLOY:
            self._make_migrating(scenario, world, world.bad_from)
        return world, journal

    def _back_up(self, world: World, live: Any) -> None:
        world.backups.take(
            Taking(
                reason=Reason.ASKED,
                release=live.release,
                revision="",
                settings=live.number,
                taken_by="model",
                folders={"uploads": Path("/uploads")},
            )
        )
        world.acknowledged |= world.write()  # what the restore is about to replace

    def _make_migrating(self, scenario: Scenario, world: World, number: int) -> None:
        """The releases from this deployment on need a table more."""
        if scenario.at_boot:
            world.rehearsal.at_boot = ("0002",)
            return
        for one in range(number, 20):
            world.migrator.known[release_of(one)] = ("0001", "0002")
        if "migration" in scenario.bad:
            world.migrator.failing.add("0002")

    def is_killed(self, world: World, death: Death, act: Callable[[], None]) -> bool:
        """Act until the end or death; whether it was death."""
        world.death = death
        with contextlib.suppress(Killed):
            act()
        killed, world.death = death.is_dead, Death()
        return killed

    def ask_for(self, scenario: Scenario, world: World, journal: Any, config: AppConfig | None = None) -> None:
        """What a person asks for; that it ends undone is no surprise here."""
        session = self._session(world, journal)
        if scenario.kind is Kind.STOP:
            self.activate.stop(session)
            return
        if scenario.kind is Kind.REPAIR:
            self.activate.repair(session, crash_repair.wished(world.releases.existing()))
            return
        live = journal.live()
        order = self.activate.Order(
            kind=scenario.kind,
            source=Source(folder=Path("/project"), revision="f" * 40) if scenario.kind is Kind.DEPLOY else None,
            config=(config or scenario.config) if scenario.kind is Kind.DEPLOY else None,
            backup="b1" if scenario.kind is Kind.RESTORE else "",
            release=self.activate.rollback_target(journal, "") if scenario.kind is Kind.ROLLBACK and live else "",
            set_values=dict(scenario.set_values),
        )
        world.proxy.wish = "second" if scenario.has_new_proxy else None
        self.activate.activate(session, order)

    def recover(self, world: World, journal: Any) -> None:
        """Finish or undo what was killed. Raises Violation when that cannot be done."""
        world.proxy.wish = None
        try:
            self.activate.recover(self._session(world, journal))
        except BulletproofError as error:
            raise Violation(f"a recovery could not end: {error}") from error

    def _session(self, world: World, journal: Any) -> Any:
        """A deployer's session on the world; its journal has boundaries too."""
        mortal = copy.copy(journal)
        mortal.begin = _mortal(journal.begin, world)
        mortal.append = _mortal(journal.append, world)
        return self.activate.Session(
            host=world.host(),
            journal=mortal,
            around=self.activate.Surroundings(
                tell=lambda _event: None,
                clock=lambda: world.seconds,
                shield=lambda: None,
                expose=lambda: None,
                make_room=lambda: False,
            ),
            begun=lambda _entry: None,
            taken_up=lambda _entry: None,
            started_by="model",
        )

    def _copy(self, journal: Any) -> Any:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        journal._connection.backup(connection)
        return self.journal.Journal(connection, journal._now)

    def judge(self, scenario: Scenario, world: World, journal: Any, where: str) -> str:
        """The oracle: says what the host became, old or new. Raises Violation when it is neither."""

        def promise(kept: object, words: str) -> None:
            if not kept:
                raise Violation(f"{where}: {words}")

        live, wants_running = journal.live(), journal.wants_running()
        promise(journal.unfinished() is None, "the journal is not closed")
        promise(not world.failed, "; ".join(world.failed))
        running = set(world.supervisor.names())
        if wants_running and scenario.reboot and not running:
            # A recovery does not start what a reboot stopped: `start` does.
            self.ask_for(Scenario("start", kind=Kind.START), world, journal)
            live, running = journal.live(), set(world.supervisor.names())
        by_clock, replicas, checks = (set(filter(kind, running)) for kind in (is_backup, is_replica, is_check))
        running -= by_clock | checks | replicas
        if wants_running and live:
            beside = {name for names in names_of(scenario.config, live.number).values() for name in names}
            promise(running == {PROXY, RELAY, web_name(live.number)} | beside, f"{running} run, {live.number} is live")
            promise(len(by_clock) == 1, f"{by_clock} make backups by the clock")
            promise(len(checks) == 1, f"{checks} look at everything by the clock")
            promise(len(replicas) == 1, f"{replicas} replicate the database")
            promise(world.proxy.target() == live.number, f"the proxy leads to {world.proxy.target()}")
            promise(world.answers(live.number), "the live instance does not answer well")
            promise(world.settings.today() == world.settings.frozen(live.number), "the settings are not the live ones")
        else:
            every = running | by_clock | checks | replicas
            promise(not every, f"{every} run although nothing should")
            promise(not world.supervisor.is_running(), "the supervisor runs although nothing should")
            promise(world.proxy.target() is None, "the proxy leads somewhere")
        lived = journal.lived()
        self._judge_proxy(scenario, world, lived, promise)
        rows = world.database.rows
        # What an app had before its first deployment stays where it was.
        at_stake = world.acknowledged if lived else world.acknowledged & ~1
        if scenario.kind is Kind.RESTORE and world.bad_from in {one.number for one in lived}:
            # What the restore replaced is a backup that nothing prunes.
            rows |= self._judge_restored(world, promise)
        else:
            promise(world.backups.files == "of today", "the files are not today's")
        promise(rows & at_stake == at_stake, "acknowledged writes are lost")
        for content in world.swap.aside:
            rows |= content.rows
        promise(rows & world.strange == world.strange, "a stranger's writes are lost")
        self._judge_data(scenario, world, live, lived, promise)
        promise(world.database.exists() == bool(lived), "the database is there without a release, or gone with one")
        self._judge_leftovers(world, lived, promise)
        if scenario.kind is Kind.STOP:
            return "old" if wants_running else "new"
        if scenario.kind is Kind.REPAIR:
            is_done = any(one.is_committed for one in journal.entries() if one.deployment.number == world.bad_from)
            return crash_repair.judge(world, world.bad_from, live.release, is_done=is_done, promise=promise)
        return "new" if world.bad_from in {one.number for one in lived} else "old"

    def _judge_leftovers(self, world: World, lived: Any, promise: Callable[..., None]) -> None:
        """Nothing is left of what did not live, and nothing is missing of what did."""
        promise(not world.rehearsal.copies, f"copies of the data are left: {world.rehearsal.copies}")
        left = world.backups.new.keys() | world.backups.old.keys()
        promise(not left, f"folders of the restores {left} are left")
        promise(not world.swap.is_seized, "the database is locked")
        on_disk = set(world.releases.existing())
        promise(on_disk <= {one.release for one in lived} | {crash_repair.OLD}, f"releases nobody needs: {on_disk}")
        kept = list(dict.fromkeys(one.release for one in reversed(lived)))[: CONFIG.keep.releases]
        promise(set(kept) <= on_disk, f"{kept} are needed, only {on_disk} are there")
        promise(
            set(world.settings.numbers()) <= {one.number for one in lived}, "settings of a deployment that never lived"
        )

    def _judge_proxy(self, scenario: Scenario, world: World, lived: Any, promise: Callable[..., None]) -> None:
        """It is configured as what is live brought it, and works by that."""
        is_new = scenario.has_new_proxy and world.bad_from in {one.number for one in lived}
        kept, in_force = world.proxy.kept, world.proxy.in_force
        promise(kept == ("second" if is_new else "first"), f"the proxy is configured as the {kept}")
        promise(PROXY not in world.supervisor.names() or in_force == kept, f"the proxy works by the {in_force}")

    def _judge_restored(self, world: World, promise: Callable[..., None]) -> int:
        """The data are the backup's, and what was there before is kept; tells its rows."""
        kept = [one for one in world.backups.made.values() if one.manifest.reason is Reason.RESTORE]
        promise(len(kept) == 1, f"{len(kept)} backups of what was replaced")
        promise(kept[0].is_proven, "what was replaced is not proven")
        promise("uploads" in kept[0].manifest.folders, "the files that were replaced are not kept")
        promise(world.backups.files == "of the backup", "the files are not the backup's")
        taken = world.backups.contents["b1"].rows
        promise(world.database.rows & taken == taken, "the backup's rows are not there")
        before = world.backups.contents[kept[0].name].rows
        promise(before & ~world.database.rows, "nothing was taken back")
        return before

    def _judge_data(
        self, scenario: Scenario, world: World, live: Any, lived: Any, promise: Callable[..., None]
    ) -> None:
        """The schema is the one that the live release needs, and snapshots are those of migrations that lived."""
        numbers = {one.number for one in lived}
        promise(not world.swap.numbers(), f"snapshots are left that should be backups: {world.swap.numbers()}")
        changed = {one.manifest.deployment for one in world.backups.made.values()} - {None}
        promise(changed <= numbers, f"backups of {changed}, of which only {numbers} lived")
        if scenario.migrates and scenario.kind is Kind.DEPLOY and live and live.number == world.bad_from:
            promise(live.number in changed, "nothing is kept of the data from before the migration")
        needed = world.migrator.known[live.release] if live else ()
        if scenario.at_boot and world.bad_from in numbers:
            needed = ("0001", "0002")
        has = world.database.revisions
        is_exact = scenario.is_strict or (scenario.kind is Kind.DEPLOY and not scenario.has_past)
        is_right = has == needed if is_exact else set(needed).issubset(has)
        promise(is_right or not live, f"the database is at {has}, the live release needs {needed}")


def release_of(number: int) -> str:
    """The release that deployment `number` makes."""
    return f"{number}-fffffff"


def _mortal(effect: Callable[..., Any], world: World) -> Callable[..., Any]:
    def dying(*values: object, **named: object) -> Any:
        world.death.boundary()
        result = effect(*values, **named)
        world.death.boundary()
        return result

    return dying
