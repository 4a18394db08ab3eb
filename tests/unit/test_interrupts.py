"""Signals interrupt a step that can be undone, and wait when they must not."""

from __future__ import annotations

import os
import signal

import pytest

from bulletproof.effects.interrupts import Interrupted, Interrupts

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_interrupts_once(number: signal.Signals) -> None:
    """The first signal raises Interrupted and names itself; a second one during the undo does not."""
    with Interrupts():
        with pytest.raises(Interrupted, match=number.name):
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_shield_holds_until_it_is_put_down(number: signal.Signals) -> None:
    """A signal behind the shield interrupts nothing until `expose`, which raises it, once."""
    with Interrupts() as interrupts:
        interrupts.shield()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted, match=number.name):
            interrupts.expose()
        interrupts.expose()


def test_the_handlers_before_are_put_back() -> None:
    """After the block signals mean what they meant before it."""
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interrupts():
        pass

    assert [signal.getsignal(number) for number in SIGNALS] == before
