"""When the replica begins and ends in a deployment, and what its troubles do to one, on a host in memory."""

from __future__ import annotations

from bulletproof.domain.deployment import Outcome
from bulletproof.domain.events import StepDone
from bulletproof.errors import Refused
from bulletproof.operations.activate import stop
from fakes.replica import FakeReplica
from unit.test_worker_switch import Shop


def notes(shop: Shop) -> list[str]:
    """What the step said of itself in each deployment."""
    return [event.note for event in shop.told if isinstance(event, StepDone) and event.step == "replica"]


def test_one_that_is_wished_otherwise_is_exchanged_and_one_that_is_not_is_left_alone() -> None:
    """A deployment without a migration does not interrupt it; another place or none ends it."""
    shop = Shop()
    shop.deploy()
    began = len(shop.world.supervisor.history)
    shop.deploy()
    assert not [line for line in shop.world.supervisor.history[began:] if "replica" in line]
    for mark in ("elsewhere", ""):
        shop.world.replica = FakeReplica(mark=mark)
        shop.deploy()
    assert [line for line in shop.world.supervisor.history if "replica" in line] == [
        "start replica-model",
        "stop replica-model",
        "start replica-elsewhere",
        "stop replica-elsewhere",
    ]
    assert notes(shop) == [""] * 4


def test_one_that_cannot_be_keeps_no_deployment_from_being_done() -> None:
    """It is told, by the step and by what is wrong with what serves."""
    shop = Shop()
    shop.world.replica.trouble = Refused("litestream-not-installed", "there is no litestream", hint="install it")
    assert shop.deploy().outcome is Outcome.DEPLOYED
    assert notes(shop) == ["the database is not replicated: there is no litestream (install it)"]
    shop.world.replica.trouble = None
    assert shop.deploy().troubles == ()
    shop.world.supervisor.crash("replica-model")
    assert shop.deploy().troubles == ("replica crashed, and runs again: killed by SIGKILL",)


def test_a_stop_ends_it_after_all_that_writes() -> None:
    """What the site and its workers wrote at their end is sent as well."""
    shop = Shop()
    shop.deploy()
    stop(shop.session())
    ended = [line for line in shop.world.supervisor.history if line.startswith("stop")]
    assert ended.index("stop replica-model") > max(ended.index(f"stop {name}") for name in ("web-1", "timer-1-tidy"))
