"""What runs the processes, and what users reach."""

from __future__ import annotations

from typing import Protocol

from bulletproof.domain.maintenance import Maintenance
from bulletproof.domain.process import ProcessSpec, ProcessState
from bulletproof.domain.public import Public


class Supervisor(Protocol):
    """What runs the app's processes, restarts them when they crash, and is the only one that may."""

    def ensure_running(self) -> None:
        """The supervisor runs when this returns. Raises StepFailed when it cannot."""

    def shutdown(self) -> None:
        """Stop every process, then the supervisor itself; idempotent."""

    def is_running(self) -> bool:
        """Whether the supervisor answers."""

    def start(self, process: ProcessSpec) -> None:
        """Run it, and run it again whenever it crashes; idempotent by name. Raises StepFailed.

        One with a schedule is run whenever that is due, one run at a time, and nothing is caught up.
        """

    def stop(self, name: str) -> None:
        """Its stop signal, then after its `stop_seconds` SIGKILL to all that it started; idempotent.

        It returns when nothing of the process is left and its runtime folder is gone. One with a schedule may first go
        on for its `drain_seconds`.
        """

    def ask_to_stop(self, name: str) -> None:
        """Begin what `stop` does and return at once, so that several can be stopped in the time of one; idempotent."""

    def state(self, name: str) -> ProcessState:
        """What is known of the process; phase ABSENT when it was never asked for or the supervisor does not run."""

    def names(self) -> tuple[str, ...]:
        """The processes that it was asked to run."""


class Proxy(Protocol):
    """What listens for the public and dials one path, and the switch of where that path leads."""

    def process(self) -> ProcessSpec:
        """The proxy's process, its configuration written durably."""

    def processes(self) -> tuple[ProcessSpec, ...]:
        """The proxy's process and the relay's as they are to be, touching nothing."""

    def drift(self) -> str:
        """How what it reads at its next start differs from what was written for it, in words; empty when it does not.

        Nothing is told of one that was never set up.
        """

    def relay(self) -> ProcessSpec:
        """The parking relay's process."""

    def port(self) -> int:
        """The port it listens on, chosen once and kept. Raises Refused when the wished one is taken."""

    def check(self) -> None:
        """Raise Refused when what is wished cannot be had: a port that is taken, or forbidden."""

    def public(self) -> Public:
        """How people ask for the app once what is wished is in force."""

    def adopt(self, number: int, *, runs: bool) -> str:
        """What is wished is in force, and kept; says what changed. One that `runs` drops no request.

        Raises StepFailed `proxy-not-valid` or `proxy-not-reloaded`: the old one is in force then.
        """

    def give_back(self, number: int, *, runs: bool) -> None:
        """What was in force before deployment `number` adopted another one is so again; idempotent."""

    def end_streams(self) -> None:
        """End what would never end by itself, such as websockets, with a word to both sides. Raises StepFailed."""

    def let_in(self) -> None:
        """New connections are taken, should a call that let them wait have been killed; idempotent."""

    def maintenance(self) -> Maintenance | None:
        """Whether the app is closed to the public, who gets a page instead."""

    def maintain(self, wish: Maintenance | None) -> None:
        """Close the app to the public from one instant on, or open it; it stays so whatever runs or starts."""

    def notes(self) -> tuple[str, ...]:
        """What a person should know of how the public gets the app: maintenance, and certificates that are not good."""

    def await_certificate(self) -> None:
        """Come back when people can be served over TLS, or when it is known that they cannot be yet."""

    def is_listening(self) -> bool:
        """Whether something accepts connections on the port."""

    def route_to(self, number: int) -> None:
        """The cutover: new requests go to deployment `number`'s instance, from one instant on."""

    def hold(self) -> None:
        """New requests wait at the parking relay."""

    def close(self) -> None:
        """The path leads nowhere."""

    def target(self) -> int | None:
        """The number of the instance that gets new requests; None when they are held or go nowhere."""

    def connections(self, number: int) -> int:
        """How many connections to deployment `number`'s instance are open or waiting to be accepted."""
