"""The users that the traffic plays: what they ask, how they ask it, and what counts as an answer."""

from __future__ import annotations

import http.client
import ipaddress
import itertools
import json
import math
import secrets
import select
import time
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from bulletproof.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulletproof.demo.ledger import Kind

SLOW_SECONDS = 1.0
"""What a slow user asks the app to take."""

BACKLOG_SECONDS = 0.5
"""A user who waited sends what was missed at once, but forgets what is older than this."""

_UP_EVERY = 20  # One paced request in so many asks for /up.


class Address(NamedTuple):
    """Where the app listens."""

    host: str
    port: int


def loopback(url: str) -> Address:
    """Where to send; raises UsageError unless it is plain http to an address of this machine alone."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 80
        is_ours = ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        is_ours = False
    if not is_ours or parts.scheme != "http" or parts.path.strip("/"):
        hint = "give an address of this machine, such as http://127.0.0.1:8000"
        raise UsageError("traffic-not-loopback", f"traffic goes to 127.0.0.0/8 only, not to {url}", hint=hint)
    return Address(host, port)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One request and what answers it."""

    kind: Kind
    path: str
    expects: int = 200
    body: bytes | None = None
    token: str = ""
    asked_seconds: float = 0.0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back; `status` 0 if nothing whole did, `error` empty if it is what was asked for."""

    connection: Literal["new", "kept"]
    status: int = 0
    error: str = ""
    version: str = ""


class _Told(msgspec.Struct):
    """What the app's bodies say, as far as we look."""

    title: str = ""
    status: str = ""
    charts: list[msgspec.Raw] | None = None


class Browser:
    """One user's connection and cookies. It asks once: what goes wrong has failed."""

    def __init__(self, address: Address, *, timeout_seconds: float, keeps_connection: bool) -> None:
        self._cookies: dict[str, str] = {}
        self._keeps_connection = keeps_connection
        self._timeout_seconds = timeout_seconds
        self._connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout_seconds)

    def ask(self, question: Question) -> Answer:
        """Send it and read the whole answer."""
        connection: Literal["new", "kept"] = "kept" if self._is_connected() else "new"
        try:
            status, version, body = self._exchange(question)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Answer(connection=connection, error=f"{type(error).__name__}: {error}")
        return Answer(
            connection=connection, status=status, error=self._complaint(question, status, body), version=version
        )

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _is_connected(self) -> bool:
        """Whether the connection can be used again; as any client, we see that a server closed it before we ask."""
        if self._connection.sock and select.select([self._connection.sock], [], [], 0)[0]:
            self._connection.close()
        return self._connection.sock is not None

    def _exchange(self, question: Question) -> tuple[int, str, bytes]:
        given_up_at = time.monotonic() + self._timeout_seconds
        headers = {
            "Content-Type": "application/json",
            "Cookie": "; ".join(f"{k}={v}" for k, v in self._cookies.items()),
        }
        if not self._keeps_connection:
            headers["Connection"] = "close"
        if self._connection.sock is None:
            self._connection.connect()
        self._connection.sock.settimeout(max(0.001, given_up_at - time.monotonic()))
        self._connection.request("POST" if question.body else "GET", question.path, question.body, headers)
        with self._connection.getresponse() as response:
            body = response.read()
        if not self._keeps_connection:
            self._connection.close()
        for cookie in response.headers.get_all("Set-Cookie", []):
            name, _, value = cookie.partition(";")[0].partition("=")
            self._cookies[name.strip()] = value
        return response.status, response.headers.get("X-DataCharted-Version", ""), body

    def _complaint(self, question: Question, status: int, body: bytes) -> str:
        """Why this is not the answer; empty if it is."""
        if status != question.expects:
            return f"{status} instead of {question.expects}: {body[:80].decode(errors='replace')}"
        try:
            told = msgspec.json.decode(body, type=_Told)
        except msgspec.MsgspecError as error:
            return f"{status} with a body that is no answer: {error}"
        is_answer = {
            "read": told.charts is not None,
            "write": told.title == question.token,
            "up": told.status == "ok",
            "login": bool(self._cookies),
            "slow": True,
        }[question.kind]
        return "" if is_answer else f"{status} with the answer to something else: {body[:80].decode(errors='replace')}"


class Pace:
    """An even beat that forgets what it missed by more than BACKLOG_SECONDS."""

    def __init__(self, *, first: float, period_seconds: float) -> None:
        self._due = first
        self._period_seconds = period_seconds

    def pause_seconds(self, now: float) -> float:
        """How long to wait for the next beat; nothing if it was missed."""
        forgotten = math.ceil(max(0.0, now - BACKLOG_SECONDS - self._due) / self._period_seconds)
        self._due += forgotten * self._period_seconds  # Whole beats, or all users would march in step after a pause.
        pause = max(0.0, self._due - now)
        self._due += self._period_seconds
        return pause


def paced_questions(name: str, *, write_share: float, first: int) -> Iterator[Question]:
    """Reads and writes, evenly mixed, and now and then /up; each write has a token of its own.

    `first` is where in the mix to begin, so that not all users write at once.
    """
    for number in itertools.count(first):
        if int((number + 1) * write_share) > int(number * write_share):
            token = f"t-{name}-{number}"
            body = json.dumps({"title": token, "numbers": [number, number + 1, number + 2]}).encode()
            yield Question(kind="write", path="/api/charts", expects=201, body=body, token=token)
        elif number % _UP_EVERY == _UP_EVERY // 2:
            yield Question(kind="up", path="/up")
        else:
            yield Question(kind="read", path="/api/charts")


def slow_questions() -> Iterator[Question]:
    """Nothing but requests that take SLOW_SECONDS."""
    path = f"/api/slow?seconds={SLOW_SECONDS}"
    return itertools.repeat(Question(kind="slow", path=path, asked_seconds=SLOW_SECONDS))


def logins(name: str) -> Iterator[Question]:
    """A new account each time: after a registration without an answer the old name may be taken."""
    for number in itertools.count():
        account = {"username": f"u-{name}-{number}", "password": secrets.token_hex(8)}
        yield Question(kind="login", path="/api/register", expects=201, body=json.dumps(account).encode())
