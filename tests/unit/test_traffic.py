from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from typing import TYPE_CHECKING, Literal

import psutil
import pytest

from bulletproof.demo.ledger import Log, duplicated_writes, lost_writes
from bulletproof.demo.traffic import Load, Traffic, _Generator
from bulletproof.demo.users import BACKLOG_SECONDS, Pace, logins, loopback, paced_questions
from bulletproof.errors import BulletproofError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


QUICK = Load(clients=6, rate=100, slow_clients=0, bound_seconds=60, timeout_seconds=10)

Trouble = Literal["", "drop", "refuse", "hang", "cut", "lie", "drip"]


class App(ThreadingHTTPServer):
    """A tiny app with the API that the traffic speaks, a real SQLite file, and troubles to order."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, database: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.database = database
        self.trouble: Trouble = ""
        self.spoiled = 0
        self.received = 0
        self.closing = 0
        self.stalled_until = 0.0
        self.closes_silently = False
        self.sessions: set[str] = set()
        self.lock = threading.Lock()
        self.connection = sqlite3.connect(database, check_same_thread=False)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("CREATE TABLE chart (id INTEGER PRIMARY KEY, title TEXT)")
        self.connection.commit()

    def titles(self) -> list[str]:
        """All that was written."""
        with closing(sqlite3.connect(self.database)) as connection:
            return [title for (title,) in connection.execute("SELECT title FROM chart")]

    def handle_error(self, request: object, client_address: object) -> None:
        """Let a client go; anything else is a mistake in this test."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # typeshed names private types


class Handler(BaseHTTPRequestHandler):
    """One connection to the app."""

    protocol_version = "HTTP/1.1"
    server: App

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer /up, /api/slow and the list."""
        if self._is_spoiled():
            return
        if self.path.startswith("/api/slow"):
            time.sleep(float(self.path.partition("=")[2]))
        self._answer(200, {"status": "ok"} if self.path == "/up" else {"charts": []})

    def do_POST(self) -> None:
        """Register a user, or write a chart and answer after the commit."""
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._is_spoiled():
            return
        if self.path == "/api/register":
            self.server.sessions.add(told["username"])
            self._answer(201, {"id": 1}, cookie=told["username"])
            return
        with self.server.lock, self.server.connection:
            self.server.connection.execute("INSERT INTO chart (title) VALUES (?)", (told["title"],))
        self._answer(201, {"id": 1, "title": told["title"]})

    def _is_spoiled(self) -> bool:
        with self.server.lock:
            self.server.received += 1
            self.server.closing += self.close_connection
            trouble = self.server.trouble
            is_stranger = self.path == "/api/charts" and self._user() not in self.server.sessions
            self.server.spoiled += bool(trouble or is_stranger)
        time.sleep(max(0.0, self.server.stalled_until - time.monotonic()))
        if trouble:
            self._spoil(trouble)
        elif is_stranger:
            self._answer(401, {})
        return bool(trouble or is_stranger)

    def _spoil(self, trouble: Trouble) -> None:
        match trouble:
            case "refuse":
                self._answer(500, {})
            case "lie":
                self._answer(201 if self.command == "POST" else 200, {"title": "another", "status": "no"})
            case "cut":
                self.send_response(200 if self.command == "GET" else 201)
                self.send_header("Content-Length", "5000")
                self.end_headers()
                self.wfile.write(b'{"charts": []}')
                self._hang_up()
            case "hang":
                time.sleep(1.5)
                self._hang_up()
            case "drip":
                self._drip()
            case _:
                self._hang_up()

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5000")
        self.end_headers()
        for _ in range(100):  # Ends when the client is gone.
            self.wfile.write(b" ")
            time.sleep(0.1)

    def _user(self) -> str:
        return self.headers.get("Cookie", "").partition("session=")[2]

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, status: int, told: dict[str, object], *, cookie: str = "") -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("X-DataCharted-Version", "v1")
        self.send_header("Content-Length", str(len(body)))
        if cookie:
            self.send_header("Set-Cookie", f"session={cookie}; HttpOnly; Path=/")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.close_connection or self.server.closes_silently


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """A running app."""
    server = App(tmp_path / "app.db")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
    server.connection.close()


@contextmanager
def running(app: App, folder: Path, load: Load = QUICK) -> Iterator[Traffic]:
    """Traffic on the app whose process is gone afterwards, whatever the test did to it."""
    traffic = Traffic.start(app.url, folder, load)
    try:
        yield traffic
    finally:
        with suppress(ProcessLookupError):
            os.kill(traffic.pid, signal.SIGKILL)
        with suppress(BulletproofError):
            traffic.stop()


def lines(path: Path) -> list[dict[str, object]]:
    """The ledger as anyone may read it."""
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def slow_lines(path: Path) -> list[dict[str, object]]:
    """The lines of slow requests."""
    return [line for line in lines(path) if line.get("kind") == "slow"]


def is_gone(pid: int) -> bool:
    """Whether the process has ended, reaped or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(is_so: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


# The users


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org:8000",
        "http://localhost:8000",
        "http://10.0.0.1",
        "http://0.0.0.0:8000",
        "http://128.0.0.1:8000",
        "http://[::1]:8000",
        "http://127.0.0.1@example.org/",
        "http://127.0.0.1:99999",
        "https://127.0.0.1:8000",
        "http://127.0.0.1:8000/app",
        "127.0.0.1:8000",
        "",
    ],
)
def test_traffic_never_leaves_the_machine(tmp_path: Path, url: str) -> None:
    """Any address but plain http to 127.0.0.0/8 is refused before anything starts, by both sides."""
    with pytest.raises(UsageError, match="traffic-not-loopback"):
        loopback(url)
    with pytest.raises(UsageError, match="traffic-not-loopback"):
        Traffic.start(url, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_process_refuses_a_foreign_address_by_itself(tmp_path: Path) -> None:
    """The process checks the address too, ends with status 2 and writes nothing."""
    argv = [sys.executable, "-m", "bulletproof.demo.traffic", "--url=http://10.0.0.1", f"--out={tmp_path / 'x'}"]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 2
    assert "traffic-not-loopback" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_loopback_addresses_are_taken() -> None:
    """All of 127.0.0.0/8 is this machine; port 80 is meant when none is named."""
    assert loopback("http://127.0.0.1:8000/") == ("127.0.0.1", 8000)
    assert loopback("http://127.3.2.1") == ("127.3.2.1", 80)


@pytest.mark.parametrize(
    "odd", [{"clients": 0}, {"rate": 501.0}, {"write_share": 1.1}, {"slow_clients": 9}, {"bound_seconds": 3601.0}]
)
def test_a_load_has_bounds(odd: dict[str, float]) -> None:
    """More traffic than a loopback should see, or none, is refused in words that name the number."""
    with pytest.raises(UsageError, match=f"{next(iter(odd))} is"):
        Load(**odd)  # type: ignore[arg-type]  # one number at a time, whole where it must be


def test_users_keep_the_beat_and_forget_an_old_backlog() -> None:
    """Missed beats are made up for at once, those older than the backlog never, and the beat stays in step."""
    pace = Pace(first=10.0, period_seconds=0.1)
    assert pace.pause_seconds(9.75) == pytest.approx(0.25)
    assert pace.pause_seconds(10.04) == pytest.approx(0.06)
    assert [pace.pause_seconds(10.35) for _ in range(3)] == pytest.approx([0.0, 0.0, 0.05])
    now, caught_up = 60.02, 0
    while (pause := pace.pause_seconds(now)) == 0.0:
        caught_up += 1
    assert caught_up == BACKLOG_SECONDS / 0.1
    assert pause == pytest.approx(0.08)


def test_users_write_their_share_and_never_the_same_token() -> None:
    """Of many requests the asked share writes, each its own token, a few ask for /up, the rest reads."""
    asked = [list(islice(paced_questions(f"r-{user}", write_share=0.2, first=user), 200)) for user in range(3)]
    kinds = Counter(question.kind for user in asked for question in user)
    assert kinds == {"write": 120, "up": 30, "read": 450}
    tokens = [question.token for user in asked for question in user if question.kind == "write"]
    assert len(set(tokens)) == 120
    assert all(token.startswith("t-r-") for token in tokens)
    assert asked[0][0].kind != asked[1][3].kind == "write"


def test_a_user_registers_under_a_new_name_each_time() -> None:
    """A registration without an answer may have taken the name, so the next one uses another."""
    first, second = islice(logins("r-1"), 2)
    assert json.loads(first.body or b"")["username"] != json.loads(second.body or b"")["username"]


# Real traffic on a real server


def test_a_healthy_app_is_seen_healthy(app: App, tmp_path: Path) -> None:
    """All is answered, at the asked rate, half over kept connections, and the file holds each write once."""
    with Traffic.start(app.url, tmp_path, Load(rate=100, slow_clients=2)) as traffic:
        since = traffic.mark()
        time.sleep(2.0)
        report = traffic.report(since)
    assert (report.failed, report.failures) == (0, ())
    assert report.versions == {"v1": report.requests}
    assert report.rate == pytest.approx(100, rel=0.3)
    assert report.requests == pytest.approx(200, rel=0.3)
    assert report.window_seconds == pytest.approx(2.0, abs=0.5)
    assert 0 < report.longest_gap_seconds < 1.0
    assert 0 < report.longest_wait_seconds < 1.0
    assert 0 < (report.read_p50_seconds or 0) <= (report.read_p99_seconds or 0) <= report.longest_wait_seconds + 1e-9
    assert 20 <= report.writes_acknowledged <= len(traffic.acknowledged())
    assert sorted(app.titles()) == sorted(traffic.acknowledged())
    assert traffic.unacknowledged() == frozenset()
    answered = [line for line in lines(traffic.path) if line["event"] == "answered"]
    assert Counter(line["kind"] for line in answered)["login"] == 14
    assert Counter(line["kind"] for line in answered)["slow"] >= 2
    assert sum(line["connection"] == "kept" for line in answered) == pytest.approx(len(answered) / 2, rel=0.3)
    assert app.received == len(answered)
    assert app.closing == pytest.approx(len(answered) / 2, rel=0.3)


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("drop", "RemoteDisconnected"),
        ("refuse", "500 instead of 20"),
        ("cut", "IncompleteRead"),
        ("lie", "with the answer to something else"),
    ],
)
def test_each_spoiled_answer_is_a_failure_once(app: App, tmp_path: Path, trouble: Trouble, words: str) -> None:
    """Dropped, refused, cut short or answered with something else: the report counts what the server did, no more."""
    with running(app, tmp_path) as traffic:
        healthy = traffic.mark()
        time.sleep(0.3)
        since = traffic.mark()
        app.trouble = trouble
        time.sleep(0.5)
        app.trouble = ""
        report = traffic.report(since)
        assert app.spoiled >= 5
        assert report.failed == app.spoiled
        assert words in report.failures[0]
        assert report.longest_gap_seconds >= 0.4
        assert traffic.report(healthy, since).failed <= QUICK.clients
        after = traffic.mark() + 0.2
        time.sleep(0.7)
        assert traffic.report(after).failed == 0
        traffic.stop()
        sent = [line for line in lines(traffic.path) if line["event"] == "sent"]
        assert app.received == len(sent)
        assert sorted(app.titles()) == sorted(traffic.acknowledged())
        assert not traffic.acknowledged() & traffic.unacknowledged()
        assert traffic.unacknowledged()


def test_a_stall_is_a_gap_and_a_wait_but_no_failure(app: App, tmp_path: Path) -> None:
    """A server that stalls for a second fails nobody; the longest wait and the longest gap show it."""
    with running(app, tmp_path) as traffic:
        since = traffic.mark()
        time.sleep(0.3)
        app.stalled_until = time.monotonic() + 1.0
        time.sleep(1.5)
        report = traffic.report(since)
        assert report.failed == 0
        assert 0.9 <= report.longest_gap_seconds < 2.0
        assert 0.9 <= report.longest_wait_seconds < 2.0
        assert report.longest_idle_seconds < 0.8


def test_a_report_waits_for_the_last_request_of_its_window(app: App, tmp_path: Path) -> None:
    """A window that closes while the server stalls is reported when its requests are over, with their whole wait."""
    with running(app, tmp_path) as traffic:
        since = traffic.mark()
        app.stalled_until = time.monotonic() + 1.0
        time.sleep(0.3)
        report = traffic.report(since)
        assert time.monotonic() >= app.stalled_until
        assert report.failed == 0
        assert report.longest_wait_seconds >= 0.8
        assert report.window_seconds < 0.8


def test_a_server_that_never_answers_is_given_up(app: App, tmp_path: Path) -> None:
    """A request without an answer fails at its timeout, and is not sent again."""
    load = Load(clients=4, rate=40, slow_clients=0, timeout_seconds=0.5)
    with running(app, tmp_path, load) as traffic:
        since = traffic.mark()
        app.trouble = "hang"
        time.sleep(1.2)
        app.trouble = ""
        report = traffic.report(since)
        assert report.failed == app.spoiled > 0
        assert "timed out" in report.failures[0]
        assert 0.5 <= report.longest_wait_seconds < 1.2
        traffic.stop()
        assert app.received == sum(line["event"] == "sent" for line in lines(traffic.path))


def test_a_server_that_is_away_fails_all(tmp_path: Path, app: App) -> None:
    """Refused connections are failures with status 0, and fewer requests than asked for are visible in the rate."""
    with running(app, tmp_path, Load(clients=2, rate=100, slow_clients=0)) as traffic:
        app.trouble = "drop"
        app.shutdown()
        app.socket.close()
        time.sleep(0.3)
        since = traffic.mark()
        time.sleep(0.5)
        report = traffic.report(since)
        assert report.failed == report.requests >= 10
        assert "ConnectionRefusedError" in report.failures[-1]
        assert report.versions == {}
        assert report.longest_gap_seconds == pytest.approx(report.window_seconds)
        assert report.read_p50_seconds is None


def test_an_overloaded_app_shows_in_the_rate(app: App, tmp_path: Path) -> None:
    """When clients wait they ask less: the rate falls below the asked one, and the backlog is not sent later."""
    with running(app, tmp_path, Load(clients=2, rate=100, slow_clients=0)) as traffic:
        since = traffic.mark()
        app.stalled_until = time.monotonic() + 2.0
        time.sleep(2.5)
        report = traffic.report(since)
        assert report.failed == 0
        assert report.rate < 0.7 * report.asked_rate
        assert report.asked_rate == 100


def test_an_acknowledged_write_that_is_gone_is_lost(app: App, tmp_path: Path) -> None:
    """What is deleted behind the app's back is found by its token, in a database that is in use."""
    with running(app, tmp_path) as traffic:
        wait_until(lambda: len(traffic.acknowledged()) >= 10)
        tokens = traffic.acknowledged()
        assert lost_writes(tokens, app.database) == frozenset()
        assert duplicated_writes(tokens, app.database) == frozenset()
        gone, twice = sorted(tokens)[:2]
        with app.lock, app.connection:
            app.connection.execute("DELETE FROM chart WHERE title = ?", (gone,))
            app.connection.execute("INSERT INTO chart (title) VALUES (?)", (twice,))
        assert lost_writes(tokens, app.database) == {gone}
        assert duplicated_writes(tokens, app.database) == {twice}


def test_a_lost_session_fails_once_and_logs_in_again(app: App, tmp_path: Path) -> None:
    """A 401 is a failure of the request that met it; the client then logs in and goes on."""
    with running(app, tmp_path) as traffic:
        since = traffic.mark()
        app.sessions.clear()
        time.sleep(0.8)
        report = traffic.report(since)
        assert report.failed == app.spoiled == QUICK.clients
        assert "401 instead of" in report.failures[0]
        logged_in = [line for line in lines(traffic.path) if line["event"] == "answered" and line["kind"] == "login"]
        assert len(logged_in) == 2 * QUICK.clients


def test_a_connection_closed_between_requests_is_no_failure(app: App, tmp_path: Path) -> None:
    """A server may close a connection on which nobody asks; clients see it before they ask and open another."""
    app.closes_silently = True
    # So few that even on a busy machine the server has closed long before the next question.
    with running(app, tmp_path, Load(clients=4, rate=4, slow_clients=0)) as traffic:
        since = traffic.mark()
        time.sleep(3.0)
        report = traffic.report(since)
        assert report.failed == 0
        assert report.requests >= 4
        assert {line["connection"] for line in lines(traffic.path) if line["event"] == "answered"} == {"new"}


@pytest.mark.parametrize(
    ("trouble", "words"), [("refuse", "500 instead of 201"), ("lie", "201 with the answer to something else")]
)
def test_clients_that_cannot_log_in_are_no_traffic(app: App, tmp_path: Path, trouble: Trouble, words: str) -> None:
    """Traffic on an app that refuses, or gives no session, does not begin: it says why and leaves no process."""
    app.trouble = trouble
    with pytest.raises(BulletproofError, match="traffic-not-ready") as caught:
        Traffic.start(app.url, tmp_path, QUICK, ready_seconds=3.0)
    assert words in caught.value.context[0]
    time.sleep(0.3)  # for what the server has accepted already
    before = app.received
    time.sleep(0.3)
    assert app.received == before


def test_traffic_ends_by_itself_at_its_bound(app: App, tmp_path: Path) -> None:
    """At the bound the process ends well; a window inside is reported, one that reaches beyond is not."""
    began = time.monotonic()
    with running(app, tmp_path, Load(clients=4, rate=50, slow_clients=0, bound_seconds=1.5)) as traffic:
        since = traffic.mark()
        time.sleep(0.5)
        until = traffic.mark()
        wait_until(lambda: is_gone(traffic.pid), 5.0)
        assert 1.5 <= time.monotonic() - began < 5.0
        assert traffic.report(since, until).failed == 0
        with pytest.raises(BulletproofError, match=r"traffic-ended.*bound"):
            traffic.report(since)
        traffic.stop()
        assert lines(traffic.path)[-1]["reason"] == "bound"


def test_a_signal_ends_it_after_the_requests_in_flight(app: App, tmp_path: Path) -> None:
    """SIGTERM: nothing new is sent, the slow request in flight comes to its end, every one is in the ledger."""
    load = Load(clients=4, rate=50, slow_clients=1)
    with running(app, tmp_path, load) as traffic:
        since = traffic.mark()
        wait_until(lambda: len(slow_lines(traffic.path)) == 1)
        until = traffic.mark()
        os.kill(traffic.pid, signal.SIGTERM)
        wait_until(lambda: is_gone(traffic.pid), 5.0)
        traffic.stop()
        written = lines(traffic.path)
        assert written[-1]["reason"] == "asked"
        assert app.received == sum(line["event"] == "answered" for line in written)
        last_sent = max(float(str(line["at"])) for line in written if line["event"] == "sent")
        assert last_sent < until + 0.5
        assert sorted(app.titles()) == sorted(traffic.acknowledged())
        assert traffic.report(since, until).failed == 0
        assert [(line["event"], line.get("error")) for line in slow_lines(traffic.path)] == [
            ("sent", None),
            ("answered", ""),
        ]


def test_a_request_that_outlasts_its_timeout_breaks_the_traffic(app: App, tmp_path: Path) -> None:
    """Answers that come drop by drop past the timeout have no known end, so the traffic ends, and not well."""
    with running(app, tmp_path, Load(clients=2, rate=50, slow_clients=0, timeout_seconds=0.5)) as traffic:
        since = traffic.mark()
        app.trouble = "drip"
        time.sleep(0.3)
        until = traffic.mark()
        with pytest.raises(BulletproofError, match=r"traffic-broken.*did not end within its timeout"):
            traffic.stop()
        with pytest.raises(BulletproofError, match="traffic-broken"):
            traffic.report(since, until)


def test_a_killed_generator_is_never_zero_failed(app: App, tmp_path: Path) -> None:
    """After kill -9 of the generator every question raises, also for time before it."""
    with running(app, tmp_path) as traffic:
        since = traffic.mark()
        time.sleep(0.3)
        assert traffic.report(since).failed == 0
        until = traffic.mark()
        os.kill(traffic.pid, signal.SIGKILL)
        wait_until(lambda: is_gone(traffic.pid))
        questions: list[Callable[[], object]] = [
            lambda: traffic.report(since),
            lambda: traffic.report(since, until),
            traffic.acknowledged,
            traffic.stop,
        ]
        for question in questions:
            with pytest.raises(BulletproofError, match=r"traffic-broken.*-9"):
                question()


def test_a_stopped_generator_is_silent(app: App, tmp_path: Path) -> None:
    """A generator that stands still makes the report raise while it does, and for the window in which it did."""
    with running(app, tmp_path) as traffic:
        since = traffic.mark()
        os.kill(traffic.pid, signal.SIGSTOP)
        time.sleep(0.5)
        with pytest.raises(BulletproofError, match=r"traffic-silent.*no sign"):
            traffic.report(since)
        os.kill(traffic.pid, signal.SIGCONT)
        time.sleep(0.5)
        with pytest.raises(BulletproofError, match=r"traffic-silent.*paused by itself"):
            traffic.report(since)
        since = traffic.mark()
        time.sleep(0.5)
        assert traffic.report(since).failed == 0


def test_a_ledger_that_takes_no_more_ends_the_traffic(app: App, tmp_path: Path) -> None:
    """When the file cannot grow (as on a full disk) the traffic breaks, and says why, instead of going on unwritten."""
    with running(app, tmp_path) as traffic:
        since = traffic.mark()
        size = traffic.path.stat().st_size + 5000
        psutil.Process(traffic.pid).rlimit(psutil.RLIMIT_FSIZE, (size, size))
        wait_until(lambda: is_gone(traffic.pid))
        with pytest.raises(BulletproofError, match="traffic-broken") as caught:
            traffic.report(since)
        assert any("Error" in line for line in caught.value.context)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_one_broken_client_ends_the_whole_traffic(app: App, tmp_path: Path) -> None:
    """A client that breaks by its own fault is not missed in silence: all stop, and the last line says it."""
    load = Load(clients=3, rate=50, slow_clients=0, bound_seconds=5)
    log = Log(tmp_path / "log")
    generator = _Generator(address=loopback(app.url), log=log, load=load, parent=os.getppid())
    generator._clients[1]._questions = iter(())
    began = time.monotonic()
    assert generator.run() == 1
    assert time.monotonic() - began < 4.0
    end = lines(tmp_path / "log")[-1]
    assert (end["reason"], end["words"]) == ("broken", "StopIteration: ")


def test_a_window_lies_within_the_traffic(app: App, tmp_path: Path) -> None:
    """A window that began before the traffic, or ends in the future, is a mistake of the caller."""
    before = time.monotonic()
    with running(app, tmp_path) as traffic:
        now = traffic.mark()
        for since, until in ((before, now), (now, now + 60), (now, now)):
            with pytest.raises(UsageError, match="traffic-window-odd"):
                traffic.report(since, until)


def test_an_error_in_the_block_is_not_hidden(app: App, tmp_path: Path) -> None:
    """What goes wrong beside the traffic comes through, and the traffic is gone."""
    traffic = Traffic.start(app.url, tmp_path, QUICK)
    with pytest.raises(ZeroDivisionError), traffic:
        raise ZeroDivisionError
    assert is_gone(traffic.pid)


PARENT = """
import os, pathlib, signal, sys
from bulletproof.demo.traffic import Load, Traffic
traffic = Traffic.start(sys.argv[1], pathlib.Path(sys.argv[2]), Load(clients=4, rate=50))
print(traffic.pid, traffic.path, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_traffic_dies_with_its_parent(app: App, tmp_path: Path) -> None:
    """When the process that started it is killed, the traffic ends within two seconds and says so in its ledger."""
    argv = [sys.executable, "-c", PARENT, app.url, str(tmp_path)]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    pid, _, path = ended.stdout.strip().partition(" ")
    try:
        wait_until(lambda: is_gone(int(pid)), 2.0)
    finally:
        if not is_gone(int(pid)):
            os.kill(int(pid), signal.SIGKILL)
    assert lines(tmp_path / path)[-1]["reason"] == "orphaned"
