"""What the traffic saw: every request sent and answered, measured over a window, and held against the database.

The ledger is a measurement and no state: a line at a time without fsync, so it does not pass the durable door.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Literal

import msgspec

from bulletproof.errors import BulletproofError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

Kind = Literal["read", "write", "slow", "up", "login"]

Reason = Literal["asked", "bound", "orphaned", "broken"]
"""Why the generator stopped; only after the first two did every request come to its end."""

FIRST_FAILURES = 5
"""How many failures a report tells in words."""

SILENCE_SECONDS = 2.0
"""A generator that gave no sign, or a load in which nobody asked, for longer than this measured nothing."""


class Sent(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="sent"):
    """A request is about to be sent; written first, so that one without an answer is known."""

    number: int
    """Counts from 0 without a hole."""
    at: float
    kind: Kind
    token: str = ""


class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="answered"):
    """A request that is over, well or not."""

    number: int
    at: float
    """When it was sent, on the clock of `time.monotonic`, which all processes of a Linux machine share."""
    seconds: float
    kind: Kind
    connection: Literal["new", "kept"]
    """`kept` if an earlier answer had come over the same connection."""
    status: int
    """0 if no whole answer came."""
    error: str
    """Why it failed, in words; empty if it did not."""
    version: str
    token: str = ""
    asked_seconds: float = 0.0
    """How long the server was asked to take; no part of the wait."""

    @property
    def ended(self) -> float:
        """When its answer was whole, or given up."""
        return self.at + self.seconds

    @property
    def has_failed(self) -> bool:
        """Whether it was not answered as it had to be."""
        return self.error != ""

    @property
    def wait_seconds(self) -> float:
        """How long its user waited beyond what was asked for."""
        return max(0.0, self.seconds - self.asked_seconds)

    @property
    def is_acknowledged_write(self) -> bool:
        """Whether the server promised that this write is kept."""
        return self.kind == "write" and not self.has_failed

    def in_words(self, since: float) -> str:
        """One sentence that tells this failure, with its time after `since`."""
        return (
            f"{self.kind} at {self.at - since:+.2f} s, {self.connection} connection, {self.seconds:.2f} s: {self.error}"
        )


class Pulse(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="pulse"):
    """The generator lives; everything sent before `at` stands above this line."""

    at: float
    logged_in: int
    """How many clients have a session."""


class End(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="end"):
    """The generator's last line; without it, it was killed."""

    at: float
    reason: Reason
    words: str = ""


Line = Sent | Request | Pulse | End

_DECODER: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


class Log:
    """The file as the generator writes it; one lock stamps and writes, so a pulse stands below all sent before it."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._lock = threading.Lock()
        self._numbers = itertools.count()

    def sent(self, kind: Kind, token: str) -> Sent:
        """Write that a request goes out now."""
        with self._lock:
            number, at = next(self._numbers), time.monotonic()
            line = Sent(number=number, at=at, kind=kind, token=token)
            self.write(line)
        return line

    def pulse(self, logged_in: int) -> None:
        """Write that the generator lives now."""
        with self._lock:
            self.write(Pulse(at=time.monotonic(), logged_in=logged_in))

    def end(self, reason: Reason, words: str) -> None:
        """Write the last line."""
        with self._lock:
            self.write(End(at=time.monotonic(), reason=reason, words=words))

    def write(self, line: Line) -> None:
        """Write a whole line at once; raises OSError if the disk does not take it, which ends the traffic."""
        text = msgspec.json.encode(line) + b"\n"
        if os.write(self._descriptor, text) != len(text):
            raise OSError("the ledger takes no whole line any more")


class Ledger:
    """The generator's file, read on from where the last reading stopped."""

    def __init__(self, path: Path) -> None:
        self.requests: list[Request] = []
        self.in_flight: dict[int, Sent] = {}
        self.pulses: list[Pulse] = []
        self.end: End | None = None
        self._path = path
        self._offset = 0
        self._sent = 0

    def read(self) -> None:
        """Take in all whole lines written since; raises `ledger-malformed` for a line that cannot be."""
        if not self._path.exists():
            return  # The generator has not begun; that it never does is seen by its missing pulse.
        with self._path.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        for line in whole.split(b"\n")[:-1]:
            self._take(line)
        self._offset += len(whole)

    @property
    def heard_until(self) -> float:
        """Until when everything that was sent is known; minus infinity before the first pulse."""
        last = self.end or (self.pulses[-1] if self.pulses else None)
        return last.at if last else -math.inf

    def is_settled(self, until: float) -> bool:
        """Whether the outcome of every request sent before `until` is known."""
        return self.heard_until >= until and not any(sent.at <= until for sent in self.in_flight.values())

    def acknowledged(self) -> frozenset[str]:
        """The tokens of all writes that the server promised to keep."""
        return frozenset(request.token for request in self.requests if request.is_acknowledged_write)

    def unacknowledged(self) -> frozenset[str]:
        """The tokens of writes that failed or have no answer yet: they may exist or not."""
        failed = {request.token for request in self.requests if request.kind == "write" and request.has_failed}
        return frozenset(failed | {sent.token for sent in self.in_flight.values() if sent.kind == "write"})

    def _take(self, text: bytes) -> None:
        try:
            line = _DECODER.decode(text)
        except msgspec.MsgspecError as error:
            raise _malformed(self._path, f"{error}: {text[:80]!r}") from error
        match line:
            case Sent():
                if line.number != self._sent:
                    raise _malformed(self._path, f"request {self._sent} is missing before request {line.number}")
                self._sent += 1
                self.in_flight[line.number] = line
            case Request():
                if self.in_flight.pop(line.number, None) is None:
                    raise _malformed(self._path, f"an answer to request {line.number}, which waits for none")
                self.requests.append(line)
            case Pulse():
                self.pulses.append(line)
            case End():
                self.end = line


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the users of the app saw in a window of time.

    It tells of every request that overlaps the window: those sent inside it, to whatever end they came, and those sent
    before it that were still unanswered when it opened, because what happens inside can break them too. So a request
    on the edge of two windows stands in both reports.
    """

    window_seconds: float
    requests: int
    failed: int
    failures: tuple[str, ...]
    """The first few in words, with their time after the window's beginning."""
    longest_wait_seconds: float
    """From sending to the whole answer or to giving up, failed ones too; less the second that a slow one asks for."""
    longest_gap_seconds: float
    """The longest time inside the window without a single good answer; the window's edges bound it."""
    longest_idle_seconds: float
    """The longest time in which no paced request was under way: what of a gap may be the instrument's own."""
    writes_acknowledged: int
    versions: Mapping[str, int]
    """Answers by the version that they named, good or bad; an empty name for answers that named none."""
    read_p50_seconds: float | None
    """None if no read was answered well."""
    read_p99_seconds: float | None
    rate: float
    """Paced requests sent per second of the window."""
    asked_rate: float


def measure(ledger: Ledger, *, since: float, until: float, asked_rate: float) -> Report:
    """Report on a window, all of whose requests are over.

    Raises `traffic-unsettled` if one is not, or if nothing is known of the window's end; `traffic-silent` if the
    generator gave no sign, or nobody asked anything, for over SILENCE_SECONDS inside it.
    """
    _refuse_unknown(ledger, since, until)
    requests = sorted((r for r in ledger.requests if r.at <= until and r.ended >= since), key=lambda r: r.at)
    paced = [r for r in requests if r.kind != "slow"]
    idle = _longest_idle(paced, since, until)
    _refuse_silence(max(idle, _longest_pause(ledger.pulses, since, until)))
    failures = [r for r in requests if r.has_failed]
    reads = sorted(r.seconds for r in requests if r.kind == "read" and not r.has_failed)
    return Report(
        window_seconds=until - since,
        requests=len(requests),
        failed=len(failures),
        failures=tuple(r.in_words(since) for r in failures[:FIRST_FAILURES]),
        longest_wait_seconds=max((r.wait_seconds for r in requests), default=0.0),
        longest_gap_seconds=_longest_gap([r.ended for r in requests if not r.has_failed], since, until),
        longest_idle_seconds=idle,
        writes_acknowledged=sum(r.is_acknowledged_write for r in requests),
        versions=dict(Counter(r.version for r in requests if r.status)),
        read_p50_seconds=_percentile(reads, 0.50),
        read_p99_seconds=_percentile(reads, 0.99),
        rate=sum(r.at >= since for r in paced) / (until - since),
        asked_rate=asked_rate,
    )


def lost_writes(
    tokens: Iterable[str], database: Path, *, table: str = "chart", column: str = "title"
) -> frozenset[str]:
    """Which of these acknowledged tokens the SQLite file does not hold.

    Take the tokens before the call: what is acknowledged later may be missing from the older look. Raises
    `ledger-database-unreadable` if it cannot be read (which is no answer, least of all "nothing lost").
    """
    return frozenset(tokens) - _occurrences(database, table, column).keys()


def duplicated_writes(
    tokens: Iterable[str], database: Path, *, table: str = "chart", column: str = "title"
) -> frozenset[str]:
    """Which of these tokens, each sent once, the SQLite file holds more than once; raises as `lost_writes`."""
    occurrences = _occurrences(database, table, column)
    return frozenset(token for token in tokens if occurrences.get(token, 0) > 1)


def _occurrences(database: Path, table: str, column: str) -> dict[str, int]:
    """How often each value of the column occurs, read past the app and past the tool under test.

    In WAL mode even a read-only connection leaves an empty -wal and -shm beside a database that nobody had open.
    """
    if not all(re.fullmatch(r"[A-Za-z_]\w*", name) for name in (table, column)):
        raise UsageError("ledger-name-odd", f"{table}.{column} is no plain name of a table and a column")
    # Qualified, because SQLite takes a lone quoted name that is no column for a string.
    query = f'SELECT "{table}"."{column}", COUNT(*) FROM "{table}" GROUP BY 1'  # noqa: S608 - both names are plain
    try:
        address = f"{database.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=5.0)) as connection:
            return {str(value): int(count) for value, count in connection.execute(query)}
    except sqlite3.Error as error:
        raise BulletproofError("ledger-database-unreadable", f"{database} could not be read: {error}") from error


def _longest_gap(times: Iterable[float], since: float, until: float) -> float:
    """The longest time inside the window in which none of `times` lies, from edge to edge."""
    inside = sorted(time for time in times if since <= time <= until)
    return max(later - earlier for earlier, later in itertools.pairwise([since, *inside, until]))


def _longest_idle(requests: Sequence[Request], since: float, until: float) -> float:
    """The longest time inside the window in which none of these requests, ordered by `at`, was under way."""
    longest, busy_until = 0.0, since
    for request in requests:
        longest = max(longest, request.at - busy_until)
        busy_until = max(busy_until, request.ended)
    return max(longest, until - busy_until)


def _longest_pause(pulses: Sequence[Pulse], since: float, until: float) -> float:
    """The longest time between two pulses of which a part lies inside the window."""
    pairs = itertools.pairwise(pulse.at for pulse in pulses)
    return max((later - earlier for earlier, later in pairs if later > since and earlier < until), default=0.0)


def _refuse_unknown(ledger: Ledger, since: float, until: float) -> None:
    if since >= until:
        raise UsageError("traffic-window-empty", f"a window cannot last from {since} to {until}")
    if not ledger.is_settled(until):
        raise BulletproofError("traffic-unsettled", "what became of the window's last requests is not known")


def _refuse_silence(seconds: float) -> None:
    if seconds > SILENCE_SECONDS:
        raise BulletproofError(
            "traffic-silent",
            f"the traffic paused by itself for {seconds:.1f} s inside the window, so nothing can be said of it",
            hint="free the machine of other work, or ask for less traffic, and measure again",
        )


def _percentile(ordered: Sequence[float], share: float) -> float | None:
    """The value that `share` of all do not exceed (nearest rank)."""
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None


def _malformed(path: Path, words: str) -> BulletproofError:
    return BulletproofError("ledger-malformed", f"{path} is no whole ledger: {words}")
