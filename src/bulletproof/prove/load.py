"""A light load on a host: the tiny app's with a ledger of every write, a user's own app's by asking its health path."""

from __future__ import annotations

import http.client
import threading
import time
from contextlib import closing
from typing import Protocol, Self

from bulletproof.demo.traffic import Load as Amount
from bulletproof.demo.traffic import Traffic
from bulletproof.errors import BulletproofError

LIGHT = Amount(clients=2, rate=8, write_share=0.5, slow_clients=0, bound_seconds=3600, timeout_seconds=60)
_EVERY_SECONDS = 0.25
_TIMEOUT_SECONDS = 60.0
_BROKEN = 500
UNHEARD = -1
"""The load paused by itself, so that nothing can be said."""


class Load(Protocol):
    """Users of an app, while it is entered."""

    def __enter__(self) -> Self:
        """They begin."""

    def __exit__(self, *ended: object) -> None:
        """They stop."""

    def failed(self, since: float) -> int:
        """How many requests failed since then, on the clock of `time.monotonic`; UNHEARD when it cannot be known."""

    def acknowledged(self) -> frozenset[str]:
        """The writes that must be in the database, each once."""


class Ledgered:
    """The demonstration's traffic, with its ledger."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic

    def __enter__(self) -> Self:
        """It has begun already."""
        return self

    def __exit__(self, *ended: object) -> None:
        """Its process ends."""
        try:
            self._traffic.stop()
        except BulletproofError:
            if ended[0] is None:
                raise

    def failed(self, since: float) -> int:
        """By the ledger."""
        try:
            return self._traffic.report(since).failed
        except BulletproofError as error:
            if error.reference == "traffic-silent":
                return UNHEARD
            raise

    def acknowledged(self) -> frozenset[str]:
        """By the ledger."""
        return self._traffic.acknowledged()


class Visitor:
    """Somebody who asks for one page again and again; whatever is not answered, or with 5xx, has failed."""

    def __init__(self, address: str, path: str) -> None:
        self._address, self._path = address.removeprefix("http://"), path
        self._failures: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._visit, daemon=True)

    def __enter__(self) -> Self:
        """It begins."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """It ends with the request that is under way."""
        self._stop.set()
        self._thread.join()

    def failed(self, since: float) -> int:
        """By what it saw."""
        return sum(at >= since for at in self._failures)

    def acknowledged(self) -> frozenset[str]:
        """It writes nothing: nobody knows how in an app that is not ours."""
        return frozenset()

    def _visit(self) -> None:
        while not self._stop.wait(_EVERY_SECONDS):
            begun = time.monotonic()
            if not self._is_answered():
                self._failures.append(begun)

    def _is_answered(self) -> bool:
        try:
            with closing(http.client.HTTPConnection(self._address, timeout=_TIMEOUT_SECONDS)) as connection:
                connection.request("GET", self._path)
                return connection.getresponse().status < _BROKEN
        except (OSError, http.client.HTTPException):
            return False
