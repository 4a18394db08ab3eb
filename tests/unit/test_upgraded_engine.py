"""A host whose proxy and relay were started by an older Bulletproof, which began them with other words."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from bulletproof.domain.deployment import Kind, Outcome
from bulletproof.domain.process import PROXY, RELAY, ProcessSpec, web_name
from bulletproof.operations.activate import activate
from bulletproof.operations.attempt import Order
from crash_scenarios import CONFIG
from fakes.proxy import FakeProxy
from unit.test_worker_switch import Shop


def test_what_an_older_bulletproof_started_gives_way_to_what_is_started_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The app has died, proxy and relay of the older one have not: a start brings all of it up at the first time."""
    shop = Shop()
    shop.deploy(CONFIG)
    shop.world.supervisor.stop(web_name(1))
    for name in ("relay", "process"):
        monkeypatch.setattr(FakeProxy, name, _as_newer(getattr(FakeProxy, name)))

    result = activate(shop.session(), Order(kind=Kind.START))

    assert (result.outcome, result.cause) == (Outcome.DEPLOYED, None)
    assert {f"stop {RELAY}", f"stop {PROXY}"} <= set(shop.world.supervisor.history)


def _as_newer(begin: object) -> object:
    def newer(proxy: FakeProxy) -> ProcessSpec:
        process = begin(proxy)  # type: ignore[operator]
        assert isinstance(process, ProcessSpec)
        return replace(process, argv=("newer", *process.argv))

    return newer
