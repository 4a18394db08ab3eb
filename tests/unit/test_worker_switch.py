"""The order in which workers and timers of two releases end and begin, on a host in memory."""

from __future__ import annotations

from pathlib import Path

import msgspec

from bulletproof.domain.config import AppConfig, Timer, Worker
from bulletproof.domain.deployment import Kind, Outcome
from bulletproof.domain.events import Event
from bulletproof.domain.process import Phase, generation_of
from bulletproof.domain.source import Source
from bulletproof.engine.journal import Journal
from bulletproof.engine.pipeline import Surroundings
from bulletproof.errors import StepFailed
from bulletproof.operations.activate import Result, Session, activate
from bulletproof.operations.attempt import Order
from crash_model import World
from crash_scenarios import CONFIG

TWO = msgspec.structs.replace(
    CONFIG,
    workers={"mail": Worker(command="mail", count=2), "report": Worker(command="report", overlap=True)},
    timers={"tidy": Timer(schedule="@daily", command="tidy")},
)


class Shop:
    """A host in memory on which releases are deployed one after the other."""

    def __init__(self) -> None:
        self.world = World()
        self.journal = Journal.in_memory(lambda: "2026-01-01T00:00:00.000+00:00")
        self.told: list[Event] = []

    def deploy(self, config: AppConfig = TWO) -> Result:
        """Deploy another release with this configuration."""
        source = Source(folder=Path("/project"), revision="f" * 40)
        return activate(self.session(), Order(kind=Kind.DEPLOY, source=source, config=config))

    def session(self) -> Session:
        """A deployer's."""
        around = Surroundings(
            tell=self.told.append,
            clock=lambda: self.world.seconds,
            shield=lambda: None,
            expose=lambda: None,
            make_room=lambda: False,
        )
        return Session(
            host=self.world.host(),
            journal=self.journal,
            around=around,
            begun=lambda _: None,
            taken_up=lambda _: None,
            started_by="test",
        )

    def background(self) -> list[str]:
        """Every start and stop of workers and timers, in order."""
        return [line for line in self.world.supervisor.history if generation_of(line.partition(" ")[2]) is not None]


def test_only_what_may_overlap_starts_before_the_old_ones_end() -> None:
    """All of the old generation end before the first of the new one, save for a worker that was allowed to overlap."""
    shop = Shop()
    shop.deploy()
    began = len(shop.background())
    shop.deploy()

    assert shop.background()[began:] == [
        "start worker-2-report-1",
        "stop worker-1-report-1",
        "stop worker-1-mail-1",
        "stop worker-1-mail-2",
        "stop timer-1-tidy",
        "start worker-2-mail-1",
        "start worker-2-mail-2",
        "start timer-2-tidy",
    ]


def test_what_a_release_has_no_more_is_not_run_any_more() -> None:
    """A worker that was renamed, counted down or removed leaves nothing behind."""
    shop = Shop()
    shop.deploy()
    result = shop.deploy(msgspec.structs.replace(CONFIG, workers={"mail": Worker(command="mail")}))
    assert {name for name in shop.world.supervisor.names() if generation_of(name)} == {"worker-2-mail-1"}
    assert result.outcome is Outcome.DEPLOYED
    shop.deploy(CONFIG)
    assert not {name for name in shop.world.supervisor.names() if generation_of(name)}


def test_one_that_cannot_be_started_is_told_and_keeps_nothing_down() -> None:
    """The deployment is done, the others run, and its last words name the one that does not."""
    shop = Shop()
    shop.deploy()
    shop.world.supervisor.unstartable = {"worker-2-mail-2"}
    result = shop.deploy()

    assert result.outcome is Outcome.DEPLOYED
    assert result.troubles == ("mail does not run",)
    assert shop.world.supervisor.state("timer-2-tidy").phase is Phase.WAITING


def test_a_missing_program_ends_the_deployment_before_its_start() -> None:
    """It is named with the command that needs it, and nothing of the old release was touched."""
    shop = Shop()
    shop.deploy()
    before = shop.world.supervisor.names()
    shop.world.releases.missing = frozenset({"celery"})
    config = msgspec.structs.replace(CONFIG, workers={"mail": Worker(command="A=1 celery worker")})
    result = shop.deploy(config)

    assert (result.outcome, result.step) == (Outcome.UNDONE, "build")
    assert isinstance(result.cause, StepFailed)
    assert result.cause.reference == "worker-program-missing"
    assert "`mail` is to run `A=1 celery worker`" in result.cause.message
    assert shop.world.supervisor.names() == before
