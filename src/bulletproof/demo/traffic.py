"""Constant traffic on an app: bounded, paced, on loopback, never retried, from a process of its own.

The process (`python -m bulletproof.demo.traffic --url http://127.0.0.1:8000 --out FILE`) plays the users and writes
down what they saw; `Traffic` starts and ends it and reports. Where it cannot know, it raises: it never says "0 failed".
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bulletproof.demo.ledger import (
    FIRST_FAILURES,
    SILENCE_SECONDS,
    Ledger,
    Log,
    Reason,
    Report,
    Request,
    measure,
)
from bulletproof.demo.users import SLOW_SECONDS, Browser, Pace, logins, loopback, paced_questions, slow_questions
from bulletproof.effects.process import last_lines
from bulletproof.errors import BulletproofError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from bulletproof.demo.users import Address, Question

_PULSE_SECONDS = 0.1
_SLOW_PAUSE = 1.05  # A slow client asks again a little after its answer is due.
_MARGIN_SECONDS = 5.0  # For the generator to write down that a request timed out, on a machine that is busy.
_BOUNDS = {
    "clients": (1, 64),
    "rate": (1.0, 500.0),
    "write_share": (0.0, 1.0),
    "slow_clients": (0, 8),
    "bound_seconds": (0.1, 3600.0),
    "timeout_seconds": (0.1, 60.0),
}
_OPTIONS = {
    "--clients": "clients",
    "--rate": "rate",
    "--write-share": "write_share",
    "--slow-clients": "slow_clients",
    "--for": "bound_seconds",
    "--timeout": "timeout_seconds",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much traffic; raises UsageError(`traffic-load-odd`) for more than one machine's loopback should see."""

    clients: int = 12
    """Paced clients; every second one keeps its connection, the others open one for each request."""
    rate: float = 120.0
    """Requests a second of all paced clients together."""
    write_share: float = 0.2
    slow_clients: int = 1
    """On top of `clients` and `rate`: each asks for /api/slow over and over."""
    bound_seconds: float = 300.0
    """Sends nothing after this; requests in flight are over `timeout_seconds` later."""
    timeout_seconds: float = 30.0
    """A request without an answer for so long has failed."""

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            value: float = getattr(self, name)
            if not low <= value <= high:
                raise UsageError("traffic-load-odd", f"{name} is {value}, not between {low} and {high}")


class _Client(threading.Thread):
    """One user: logs in, then asks on the beat until told to stop."""

    def __init__(self, *, name: str, log: Log, browser: Browser, pace: Pace, questions: Iterator[Question]) -> None:
        super().__init__(daemon=True)
        self.stop = threading.Event()
        self.is_logged_in = False
        self.broken = ""
        self._log = log
        self._browser = browser
        self._pace = pace
        self._questions = questions
        self._logins = logins(name)

    def run(self) -> None:
        """Ask until told to stop; an error that is not the server's ends the whole traffic."""
        try:
            while not self.stop.wait(self._pace.pause_seconds(time.monotonic())):
                self._ask(next(self._questions if self.is_logged_in else self._logins))
        except BaseException as error:
            self.broken = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._browser.close()

    def _ask(self, question: Question) -> None:
        sent = self._log.sent(question.kind, question.token)
        answer = self._browser.ask(question)
        seconds = time.monotonic() - sent.at
        if question.kind == "login":
            self.is_logged_in = not answer.error
        elif answer.status == HTTPStatus.UNAUTHORIZED:
            self.is_logged_in = False  # It failed; as a user would, the client logs in before it asks again.
        self._log.write(
            Request(
                number=sent.number,
                at=sent.at,
                seconds=seconds,
                kind=question.kind,
                connection=answer.connection,
                status=answer.status,
                error=answer.error,
                version=answer.version,
                token=question.token,
                asked_seconds=question.asked_seconds,
            )
        )


def _client(name: str, index: int, *, log: Log, address: Address, load: Load) -> _Client:
    """The paced clients come first, then the slow ones; every second one keeps its connection."""
    is_slow = index >= load.clients
    period_seconds = SLOW_SECONDS * _SLOW_PAUSE if is_slow else load.clients / load.rate
    return _Client(
        name=name,
        log=log,
        browser=Browser(address, timeout_seconds=load.timeout_seconds, keeps_connection=index % 2 == 1),
        pace=Pace(first=time.monotonic() + index / load.rate, period_seconds=period_seconds),
        questions=slow_questions() if is_slow else paced_questions(name, write_share=load.write_share, first=index),
    )


class _Generator:
    """All clients, and why they stop: asked to, at the bound, without a parent, or broken."""

    def __init__(self, *, address: Address, log: Log, load: Load, parent: int) -> None:
        self._log = log
        self._load = load
        self._parent = parent
        self._is_asked = False
        self._began = time.monotonic()
        run = secrets.token_hex(3)
        self._clients = [
            _client(f"{run}-{index}", index, log=log, address=address, load=load)
            for index in range(load.clients + load.slow_clients)
        ]

    def ask_to_stop(self, *_: object) -> None:
        """Handle SIGTERM; a mere flag, since a handler that takes a lock can wait for itself."""
        self._is_asked = True

    def run(self) -> int:
        """Play until there is a reason to stop, let what is in flight come to its end, and return the exit status."""
        for client in self._clients:
            client.start()
        while not (reason := self._reason_to_stop()):
            self._pulse()
        for client in self._clients:
            client.stop.set()
        finished_by = time.monotonic() + self._load.timeout_seconds + 1.0
        while self._is_playing() and self._parent == os.getppid() and time.monotonic() < finished_by:
            self._pulse()
        return self._end(reason)

    def _reason_to_stop(self) -> Reason | None:
        if any(client.broken for client in self._clients):
            return "broken"
        if os.getppid() != self._parent:
            return "orphaned"
        if self._is_asked:
            return "asked"
        return "bound" if time.monotonic() - self._began >= self._load.bound_seconds else None

    def _is_playing(self) -> bool:
        return any(client.is_alive() for client in self._clients)

    def _pulse(self) -> None:
        self._log.pulse(sum(client.is_logged_in for client in self._clients))
        time.sleep(_PULSE_SECONDS)

    def _end(self, reason: Reason) -> int:
        """Write the last line and return the exit status: 0 only if every request came to its end."""
        words = "; ".join(client.broken for client in self._clients if client.broken)
        if self._is_playing() and reason != "orphaned":
            words = words or "a request did not end within its timeout"
        if words:
            reason = "broken"
        self._log.end(reason, words)
        return 0 if reason in {"asked", "bound"} else 1


def main() -> int:
    """Run the process that plays the users."""
    parser = argparse.ArgumentParser(prog="bulletproof.demo.traffic", description=__doc__, allow_abbrev=False)
    parser.add_argument("--url", required=True)
    parser.add_argument("--out", required=True, type=Path, help="the ledger, a new file")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="end when this process is no more the parent")
    for option, name in _OPTIONS.items():
        default = getattr(Load(), name)
        parser.add_argument(option, dest=name, type=type(default), default=default)
    given = vars(parser.parse_args())
    try:
        load = Load(**{name: given[name] for name in _OPTIONS.values()})
        address = loopback(given["url"])
        generator = _Generator(address=address, log=Log(given["out"]), load=load, parent=given["parent"])
    except (UsageError, OSError) as error:
        parser.error(str(error))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, generator.ask_to_stop)
    return generator.run()


# The side that asks


class Traffic:
    """Traffic that runs; a context manager that ends it.

    `report` tells what the users saw; `acknowledged` are the writes that must be in the database, each once.
    """

    def __init__(self, *, process: subprocess.Popen[bytes], path: Path, load: Load) -> None:
        self.path = path
        """The ledger."""
        self.began = float("inf")
        """When every client had a session; windows begin here or later."""
        self._process = process
        self._load = load
        self._ledger = Ledger(path)

    @classmethod
    def start(cls, url: str, folder: Path, load: Load | None = None, *, ready_seconds: float = 30.0) -> Self:
        """Start the traffic, its ledger in `folder`, and wait until every client is logged in.

        Raises UsageError for an address outside 127.0.0.0/8, and `traffic-not-ready` if a client could not log in.
        """
        loopback(url)
        load = load or Load()
        path = folder / f"traffic-{secrets.token_hex(4)}.jsonl"
        argv = [sys.executable, "-P", "-m", "bulletproof.demo.traffic", "--url", url, "--out", str(path)]
        argv += ["--parent", str(os.getpid())]
        argv += [f"{option}={getattr(load, name)}" for option, name in _OPTIONS.items()]
        with path.with_suffix(".err").open("wb") as errors:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, start_new_session=True
            )
        traffic = cls(process=process, path=path, load=load)
        try:
            traffic._wait_until_ready(ready_seconds)
        except BaseException:
            traffic._kill()
            raise
        return traffic

    @property
    def pid(self) -> int:
        """The process that plays the users."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.stop()
        else:
            self._kill()  # What went wrong is on its way already.

    def mark(self) -> float:
        """Now, as an edge of a window."""
        return time.monotonic()

    def stop(self) -> None:
        """Let the requests in flight come to their end, and end the process; raises as `report` if it was broken."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(self._load.timeout_seconds + _MARGIN_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()
        self._look()

    def report(self, since: float, until: float | None = None) -> Report:
        """What the users saw between two marks; until now if `until` is not given.

        Blocks until the last request sent inside the window is over: milliseconds, or up to the request timeout if
        the app hangs. Raises `traffic-ended` or `traffic-silent` if the traffic did not run all through the window.
        """
        now = self.mark()
        until = now if until is None else until
        if not self.began <= since < until <= now:
            raise UsageError(
                "traffic-window-odd", f"no window from {since:.2f} to {until:.2f}; traffic began {self.began:.2f}"
            )
        while not self._is_settled(until):
            time.sleep(_PULSE_SECONDS / 4)
        return measure(self._ledger, since=since, until=until, asked_rate=self._load.rate)

    def acknowledged(self) -> frozenset[str]:
        """The tokens of the writes that were acknowledged so far: all of them must be in the database."""
        self._look()
        return self._ledger.acknowledged()

    def unacknowledged(self) -> frozenset[str]:
        """The tokens of the writes that failed or wait for an answer: they may be in the database."""
        self._look()
        return self._ledger.unacknowledged()

    def _is_settled(self, until: float) -> bool:
        """Whether the window up to `until` can be reported; raises if it never will be."""
        self._look()
        if self._ledger.is_settled(until):
            return True
        if self._ledger.end:
            words = f"the traffic ended ({self._ledger.end.reason}) before the window did"
            raise BulletproofError("traffic-ended", words, hint="start it with a longer bound")
        self._refuse_silence(time.monotonic())
        if time.monotonic() > until + self._load.timeout_seconds + _MARGIN_SECONDS:
            raise BulletproofError("traffic-unsettled", "a request outlasted its timeout; its end is not known")
        return False

    def _look(self) -> None:
        """Read the ledger on; raises `traffic-broken` if the process is gone and did not end as it should."""
        is_over = self._process.poll() is not None
        self._ledger.read()
        end = self._ledger.end
        if end is None and not is_over:
            return
        if end is None or end.reason not in {"asked", "bound"}:
            words = f"{end.reason} {end.words}" if end else f"status {self._process.returncode}"
            context = last_lines(self.path.with_suffix(".err").read_text(errors="replace"))
            raise BulletproofError("traffic-broken", f"the traffic did not end as it should: {words}", context=context)

    def _refuse_silence(self, now: float) -> None:
        silent_seconds = now - self._ledger.heard_until
        if silent_seconds > SILENCE_SECONDS:
            raise BulletproofError("traffic-silent", f"the traffic gave no sign for {silent_seconds:.1f} s")

    def _wait_until_ready(self, ready_seconds: float) -> None:
        deadline = time.monotonic() + ready_seconds
        while time.monotonic() < deadline:
            self._look()
            pulse = self._ledger.pulses[-1] if self._ledger.pulses else None
            if pulse and pulse.logged_in == self._load.clients + self._load.slow_clients:
                self.began = pulse.at
                return
            time.sleep(_PULSE_SECONDS / 4)
        failures = tuple(r.in_words(r.at) for r in self._ledger.requests if r.has_failed)
        words = f"not every client of the traffic could log in within {ready_seconds:.0f} s"
        raise BulletproofError("traffic-not-ready", words, context=failures[:FIRST_FAILURES])

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()


if __name__ == "__main__":
    sys.exit(main())
