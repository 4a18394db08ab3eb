from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from bulletproof.demo.ledger import End, Ledger, Log, Pulse, Request, Sent, duplicated_writes, lost_writes, measure
from bulletproof.errors import BulletproofError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from bulletproof.demo.ledger import Kind, Line


def request(
    number: int,
    at: float,
    ended: float,
    *,
    kind: Kind = "read",
    error: str = "",
    status: int = 200,
    version: str = "v1",
) -> list[Line]:
    """Both lines of a request that is over."""
    answered = Request(
        number=number,
        at=at,
        seconds=ended - at,
        kind=kind,
        connection="new",
        status=status,
        error=error,
        version=version,
        token=f"t-{number}" if kind == "write" else "",
        asked_seconds=1.0 if kind == "slow" else 0.0,
    )
    return [Sent(number=number, at=at, kind=kind, token=answered.token), answered]


def ledger(folder: Path, *written: Line, pulses: float = 10.0) -> Ledger:
    """A ledger with these lines and a pulse each half second from 0 to `pulses`."""
    path = folder / "ledger.jsonl"
    beats = [Pulse(at=half / 2, logged_in=1) for half in range(int(pulses * 2) + 1)]
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in [*written, *beats]))
    made = Ledger(path)
    made.read()
    return made


def steady(count: int, *, every: float = 1.0) -> list[Line]:
    """Good reads at 0, `every`, 2 * `every` …, answered in a tenth of a second."""
    return [line for number in range(count) for line in request(number, number * every, number * every + 0.1)]


def test_a_request_belongs_to_a_window_that_it_overlaps(tmp_path: Path) -> None:
    """A request sent before the window that fails inside it is blamed on it; one over before or sent after is not."""
    made = ledger(
        tmp_path,
        *request(0, 1.0, 1.9, error="before"),
        *request(1, 1.5, 2.5, error="into", status=0),
        *request(2, 2.2, 2.3),
        *request(3, 3.9, 5.0, error="out of", status=502),
        *request(4, 4.1, 4.2, error="after"),
    )
    report = measure(made, since=2.0, until=4.0, asked_rate=1.0)
    assert (report.requests, report.failed) == (3, 2)
    assert [words.rpartition(": ")[2] for words in report.failures] == ["into", "out of"]
    assert report.failures[0] == "read at -0.50 s, new connection, 1.00 s: into"
    assert report.longest_wait_seconds == pytest.approx(1.1)
    assert report.versions == {"v1": 2}


def test_only_the_first_failures_are_told_in_words(tmp_path: Path) -> None:
    """All failures are counted, five are told, the earliest first."""
    failures = [request(number, 1 + number / 10, 1.95, error=f"e{number}") for number in range(9)]
    made = ledger(tmp_path, *[line for pair in failures for line in pair])
    report = measure(made, since=0.5, until=2.5, asked_rate=1.0)
    assert report.failed == 9
    assert [words[-2:] for words in report.failures] == ["e0", "e1", "e2", "e3", "e4"]


def test_the_longest_gap_reaches_to_the_edges_of_the_window(tmp_path: Path) -> None:
    """The gap counts from the window's beginning, between good answers, and to its end; a bad answer ends none."""
    made = ledger(tmp_path, *steady(6), *request(6, 5.2, 5.3, error="no", status=500))
    assert measure(made, since=0.1, until=5.0, asked_rate=1.0).longest_gap_seconds == pytest.approx(1.0)
    assert measure(made, since=0.2, until=1.8, asked_rate=1.0).longest_gap_seconds == pytest.approx(0.9)
    assert measure(made, since=2.3, until=3.5, asked_rate=1.0).longest_gap_seconds == pytest.approx(0.8)
    assert measure(made, since=4.9, until=6.5, asked_rate=1.0).longest_gap_seconds == pytest.approx(1.4)
    assert measure(made, since=5.2, until=6.5, asked_rate=1.0).longest_gap_seconds == pytest.approx(1.3)


def test_an_answer_after_the_window_ends_no_gap_inside_it(tmp_path: Path) -> None:
    """A good answer that comes after the window's end leaves the gap inside the window as long as it was."""
    made = ledger(tmp_path, *steady(3), *request(3, 3.0, 5.0))
    assert measure(made, since=1.0, until=4.0, asked_rate=1.0).longest_gap_seconds == pytest.approx(1.9)


def test_idleness_is_the_time_in_which_nobody_asked(tmp_path: Path) -> None:
    """A request under way makes no idleness, however long it takes; time between requests and to the edges does."""
    made = ledger(tmp_path, *request(0, 1.0, 5.0), *request(1, 2.0, 2.1), *request(2, 6.5, 6.6))
    assert measure(made, since=0.2, until=5.0, asked_rate=1.0).longest_idle_seconds == pytest.approx(0.8)
    assert measure(made, since=1.0, until=7.0, asked_rate=1.0).longest_idle_seconds == pytest.approx(1.5)
    assert measure(made, since=6.0, until=8.4, asked_rate=1.0).longest_idle_seconds == pytest.approx(1.8)


def test_a_slow_request_waits_only_beyond_what_it_asked_for(tmp_path: Path) -> None:
    """The second that a slow request asks for is no wait, and slow requests are no part of the paced rate."""
    made = ledger(tmp_path, *request(0, 1.0, 2.3, kind="slow"), *request(1, 1.0, 1.1), *request(2, 1.5, 1.6, kind="up"))
    report = measure(made, since=0.9, until=2.9, asked_rate=120.0)
    assert report.longest_wait_seconds == pytest.approx(0.3)
    assert report.requests == 3
    assert report.rate == pytest.approx(1.0)
    assert report.asked_rate == 120.0


def test_the_rate_counts_what_was_sent_inside_the_window(tmp_path: Path) -> None:
    """A request that only reaches into the window is reported, but is no part of the rate inside it."""
    made = ledger(tmp_path, *request(0, 0.5, 1.5), *request(1, 1.2, 1.3))
    report = measure(made, since=1.0, until=2.0, asked_rate=1.0)
    assert (report.requests, report.rate) == (2, 1.0)


def test_reads_have_nearest_rank_percentiles(tmp_path: Path) -> None:
    """Half of the good reads are not slower than p50, 99 % not than p99; without a good read there is neither."""
    reads = [request(number, 1.0, 1.0 + (number + 1) / 100) for number in range(100)]
    odd = [request(100, 1.0, 2.5, error="no"), request(101, 1.0, 2.5, kind="write")]
    report = measure(
        ledger(tmp_path, *[line for pair in reads + odd for line in pair]), since=0.5, until=3.0, asked_rate=1.0
    )
    assert report.read_p50_seconds == pytest.approx(0.50)
    assert report.read_p99_seconds == pytest.approx(0.99)
    three = ledger(tmp_path, *request(0, 1.0, 1.1), *request(1, 1.0, 1.3), *request(2, 1.0, 1.2))
    assert measure(three, since=0.5, until=1.5, asked_rate=1.0).read_p50_seconds == pytest.approx(0.2)
    failing = ledger(tmp_path, *request(0, 1.0, 1.1, error="no"))
    assert measure(failing, since=0.5, until=1.5, asked_rate=1.0).read_p99_seconds is None


def test_answers_are_counted_by_the_version_they_name(tmp_path: Path) -> None:
    """Bad answers name a version too, an answer without a name stands under the empty one, no answer under none."""
    made = ledger(
        tmp_path,
        *request(0, 1.0, 1.1),
        *request(1, 1.0, 1.1, version="v2"),
        *request(2, 1.0, 1.1, version="v2", status=500, error="500 instead of 200"),
        *request(3, 1.0, 1.1, version="", status=502, error="502 instead of 200"),
        *request(4, 1.0, 1.1, version="", status=0, error="ConnectionResetError"),
    )
    assert measure(made, since=0.5, until=1.5, asked_rate=1.0).versions == {"v1": 1, "v2": 2, "": 1}


def test_a_window_with_an_open_request_is_not_reported(tmp_path: Path) -> None:
    """While a request of the window has no end, or the generator was not heard after it, there is no report."""
    made = ledger(tmp_path, *steady(5), Sent(number=5, at=4.5, kind="read"))
    assert measure(made, since=1.0, until=4.4, asked_rate=1.0).failed == 0
    with pytest.raises(BulletproofError, match="traffic-unsettled"):
        measure(made, since=1.0, until=4.6, asked_rate=1.0)
    with pytest.raises(BulletproofError, match="traffic-unsettled"):
        measure(ledger(tmp_path, *steady(5), pulses=3.0), since=1.0, until=3.5, asked_rate=1.0)


def test_an_empty_window_is_refused(tmp_path: Path) -> None:
    """A window that ends where it begins, or before, is a mistake of the caller."""
    for until in (2.0, 1.0):
        with pytest.raises(UsageError, match="traffic-window-empty"):
            measure(ledger(tmp_path, *steady(5)), since=2.0, until=until, asked_rate=1.0)


def test_silence_inside_the_window_is_no_report(tmp_path: Path) -> None:
    """Neither a generator without a sign nor clients that ask nothing for two seconds lead to "0 failed"."""
    quiet = ledger(tmp_path, *steady(3), *request(3, 6.0, 6.1))
    assert measure(quiet, since=0.5, until=4.0, asked_rate=1.0).failed == 0
    with pytest.raises(BulletproofError, match=r"traffic-silent.*2\.1 s"):
        measure(quiet, since=0.5, until=4.2, asked_rate=1.0)
    path = tmp_path / "stopped.jsonl"
    beats = [Pulse(at=at, logged_in=1) for at in (0.0, 1.0, 3.2, 4.0)]
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in [*steady(10, every=0.5), *beats]))
    stopped = Ledger(path)
    stopped.read()
    for since, until in ((0.5, 3.9), (0.5, 1.1), (3.1, 3.9)):  # A part of the pause is enough.
        with pytest.raises(BulletproofError, match=r"traffic-silent.*2\.2 s"):
            measure(stopped, since=since, until=until, asked_rate=1.0)
    assert measure(stopped, since=3.2, until=3.9, asked_rate=1.0).failed == 0
    assert measure(stopped, since=0.5, until=1.0, asked_rate=1.0).failed == 0


def test_a_slow_request_does_not_hide_that_nobody_asked(tmp_path: Path) -> None:
    """Silence is judged by the paced requests alone."""
    made = ledger(tmp_path, *request(0, 0.5, 0.6), *request(1, 0.5, 4.0, kind="slow"), *request(2, 3.5, 3.6))
    with pytest.raises(BulletproofError, match="traffic-silent"):
        measure(made, since=0.5, until=4.0, asked_rate=1.0)


def test_writes_are_acknowledged_or_may_exist(tmp_path: Path) -> None:
    """A good answer acknowledges a write; a failed one and one without an answer may or may not exist."""
    made = ledger(
        tmp_path,
        *request(0, 1.0, 1.1, kind="write", status=201),
        *request(1, 1.0, 1.1, kind="write", status=500, error="500 instead of 201"),
        *request(2, 1.0, 1.1),
        Sent(number=3, at=1.2, kind="write", token="t-3"),
        Sent(number=4, at=1.2, kind="read"),
    )
    assert made.acknowledged() == {"t-0"}
    assert made.unacknowledged() == {"t-1", "t-3"}
    assert measure(made, since=0.5, until=1.15, asked_rate=1.0).writes_acknowledged == 1


def test_a_ledger_is_read_on_and_half_a_line_waits(tmp_path: Path) -> None:
    """Reading again takes in only what is new, and a line that is not whole yet is left for the next time."""
    made = ledger(tmp_path, *steady(2), pulses=1.0)
    path = tmp_path / "ledger.jsonl"
    later = b"".join(msgspec.json.encode(line) + b"\n" for line in [*request(2, 2.0, 2.1), End(at=3.0, reason="asked")])
    with path.open("ab") as file:
        file.write(later[:-5])
    made.read()
    assert (len(made.requests), made.end, made.heard_until) == (3, None, 1.0)
    with path.open("ab") as file:
        file.write(later[-5:])
    made.read()
    assert (len(made.requests), made.end, made.heard_until) == (3, End(at=3.0, reason="asked"), 3.0)


@pytest.mark.parametrize(
    "text",
    [
        b'{"event": "sent", "number": 1, "at": 1.0, "kind": "read"}\n',
        b'{"event": "sent", "number": 0, "at": 1.0, "kind": "odd"}\n',
        b"\n",
        b'{"event": "sent", "number": 0, "at"\n',
        msgspec.json.encode(request(0, 1.0, 1.1)[1]) + b"\n",
    ],
)
def test_a_ledger_with_a_hole_is_refused(tmp_path: Path, text: bytes) -> None:
    """A line that is missing, malformed or fits nothing makes the ledger worthless, in words."""
    (tmp_path / "ledger.jsonl").write_bytes(text)
    with pytest.raises(BulletproofError, match="ledger-malformed"):
        Ledger(tmp_path / "ledger.jsonl").read()


def test_the_log_numbers_and_stamps_in_one_order(tmp_path: Path) -> None:
    """Lines of many threads stand in the order of their times, numbered without a hole, private to their owner."""
    log = Log(tmp_path / "log")
    threads = [threading.Thread(target=lambda: [log.sent("read", "") for _ in range(300)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    log.pulse(1)
    for thread in threads:
        thread.join()
    written = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    times = [float(str(line["at"])) for line in written]
    assert times == sorted(times)
    assert [line["number"] for line in written if line["event"] == "sent"] == list(range(1800))
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        Log(tmp_path / "log")


# The database


def database(folder: Path, *titles: str) -> Path:
    """A database with these charts, its name as awkward as a path may be."""
    path = folder / "my app?.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE chart (title TEXT)")
        connection.executemany("INSERT INTO chart VALUES (?)", [(title,) for title in titles])
    return path


def test_lost_and_duplicated_writes_are_found(tmp_path: Path) -> None:
    """A token that the file does not hold is lost, one that it holds twice duplicated; others' rows are no matter."""
    path = database(tmp_path, "a", "b", "b", "other", "other")
    assert lost_writes(["a", "b", "c"], path) == {"c"}
    assert duplicated_writes(["a", "b", "c"], path) == {"b"}
    assert lost_writes(["a"], path) == frozenset()


def test_the_database_is_asked_under_other_names(tmp_path: Path) -> None:
    """Table and column are the caller's to name."""
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE note (body TEXT)")
        connection.executemany("INSERT INTO note VALUES (?)", [("a",), ("a",)])
    assert lost_writes(["a", "b"], path, table="note", column="body") == {"b"}
    assert duplicated_writes(["a", "b"], path, table="note", column="body") == {"a"}


def test_a_database_that_cannot_be_read_is_no_answer(tmp_path: Path) -> None:
    """A missing file is not created, and missing tables, columns and damaged files raise instead of "nothing lost"."""
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"no database at all" * 100)
    for path in (tmp_path / "missing.db", damaged):
        with pytest.raises(BulletproofError, match="ledger-database-unreadable"):
            lost_writes([], path)
    assert not (tmp_path / "missing.db").exists()
    path = database(tmp_path, "a")
    for names in ({"table": "charts"}, {"column": "titel"}):
        with pytest.raises(BulletproofError, match="ledger-database-unreadable"):
            duplicated_writes(["a"], path, **names)
    with pytest.raises(UsageError, match="ledger-name-odd"):
        lost_writes(["a"], path, table='chart"; DROP TABLE chart; --')
