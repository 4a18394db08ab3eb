"""The record of the checks: bounded, whole after a torn line, and what the logs tell since the last time."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bulletproof.domain.background import check_process
from bulletproof.domain.check import Finding, State
from bulletproof.domain.config import AppConfig, Check
from bulletproof.domain.layout import Layout
from bulletproof.domain.process import ProcessSpec, is_check
from bulletproof.domain.runs import GRACE_SECONDS, LONGEST_SECONDS, Logged, Run, in_words, run_of
from bulletproof.effects import health_record
from bulletproof.effects.health_record import alone, append_run, read_record
from bulletproof.effects.log_reading import read_on

NOW = 1_790_000_000
DAY = 86400


def run(at: int, **checks: int) -> Run:
    """A run of these checks."""
    return Run(at=at, until=at + 1020, checks=checks or {"response": 0})


def test_what_is_kept_of_findings() -> None:
    """States of all, words of what is not well, the numbers, and for how long it speaks."""
    findings = [
        Finding(name="response", state=State.OK, words="healthy", measures={"latency_ms": 12.4}),
        Finding(name="disk", state=State.CRITICAL, words="full\nof things" + "x" * 400, measures={"free_bytes": 7.0}),
    ]
    found = run_of(findings, at=NOW, next_at=NOW + 900, is_stopped=False, logged=Logged(requests=4, errors=1))
    assert (found.checks, found.latency_ms, found.free_bytes) == ({"response": 0, "disk": 2}, 12.4, 7)
    assert list(found.words) == ["disk"]
    assert len(found.words["disk"]) == 300
    assert found.until == NOW + 900 + GRACE_SECONDS
    assert found.state is State.CRITICAL
    seldom = run_of(findings, at=NOW, next_at=NOW + 20 * 3600, is_stopped=True, logged=Logged())
    assert seldom.until == NOW + LONGEST_SECONDS + GRACE_SECONDS
    line = in_words(found)
    moment = datetime.fromtimestamp(NOW, UTC)
    assert line.startswith(f"{moment:%Y-%m-%dT%H:%M:%SZ}  critical  disk: full of things")
    assert line.endswith("; answers in 12 ms; 4 requests, 1 answered with 5xx")
    assert "2 checks are well" in in_words(run(NOW, response=0, disk=0))


def test_a_torn_line_counts_for_nothing(tmp_path: Path) -> None:
    """Wherever a power cut tears the last line, those before it stay, and the next run takes its place."""
    file = tmp_path / "state" / "health.jsonl"
    with alone(file) as is_alone:
        assert is_alone
        for at in (NOW, NOW + 900):
            append_run(file, run(at), now=at)
    whole = file.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole), 7):
        file.write_bytes(whole[:cut])
        found = read_record(file)
        assert ([one.at for one in found.runs], found.damaged) == ([NOW], 0)
        append_run(file, run(NOW + 1800), now=NOW + 1800)
        assert [one.at for one in read_record(file).runs] == [NOW, NOW + 1800]
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_damaged_line_is_left_out_and_counted(tmp_path: Path) -> None:
    """What cannot be read hides nothing else; neither does a state that there is not."""
    file = tmp_path / "health.jsonl"
    for at in (NOW, NOW + 900):
        append_run(file, run(at), now=at)
    lines = file.read_text().splitlines()
    odd = lines[0].replace('"response":0', '"response":9')
    file.write_text("\n".join([lines[0], "\x00\x00{", odd, lines[1]]) + "\n")
    found = read_record(file)
    assert ([one.at for one in found.runs], found.damaged) == ([NOW, NOW + 900], 2)
    assert read_record(tmp_path / "none").runs == ()
    end = read_record(file, last_bytes=len(lines[1]) + 3)
    assert ([one.at for one in end.runs], end.damaged) == ([NOW + 900], 0)


def test_it_is_bounded_by_age_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines older than 90 days go, those of a clock that was far ahead too, and of too many the older half."""
    file = tmp_path / "health.jsonl"
    for at in (NOW - 91 * DAY, NOW + 2 * DAY, NOW - 89 * DAY):
        append_run(file, run(at), now=at)
    append_run(file, run(NOW), now=NOW)
    assert [one.at for one in read_record(file).runs] == [NOW - 89 * DAY, NOW]
    monkeypatch.setattr(health_record, "LARGEST_BYTES", 20 * len(file.read_bytes().splitlines()[0]))
    for at in range(NOW + 1, NOW + 60):
        append_run(file, run(at), now=at)
        assert file.stat().st_size <= health_record.LARGEST_BYTES + 200
    assert read_record(file).runs[-1].at == NOW + 59
    assert 8 <= len(read_record(file).runs) <= 22


def test_two_do_not_write_it_at_once(tmp_path: Path) -> None:
    """The second one is told so."""
    file = tmp_path / "health.jsonl"
    with alone(file) as first, alone(file) as second:
        assert (first, second) == (True, False)
    with alone(file) as again:
        assert again


def test_logs_are_read_on_through_rotations(tmp_path: Path) -> None:
    """Each request is counted once: after the log was renamed, packed, emptied, or begun anew."""
    access, printed = tmp_path / "access.log", tmp_path / "web-1.log"
    access.write_text('{"status":500}\n' * 3)
    first = read_on(access, printed, {})
    assert (first.requests, first.errors) == (0, 0)
    with access.open("a") as log:
        log.write('{"status":200}\n{"status":503}\n{"status":5')
    second = read_on(access, printed, first.positions)
    assert (second.requests, second.errors) == (2, 1)
    with access.open("a") as log:
        log.write('00}\n{"status":200}\n')
    access.rename(tmp_path / "access-2026-11-28.log")
    access.write_text('{"status":404}\n')
    third = read_on(access, printed, second.positions)
    assert (third.requests, third.errors) == (3, 1)
    with gzip.open(tmp_path / "access-2026-11-29.log.gz", "wb") as packed:
        packed.write(b"x")
    access.write_text("")
    fourth = read_on(access, printed, third.positions)
    assert (fourth.requests, fourth.positions["access"][1]) == (0, 0)
    access.unlink()
    assert read_on(access, printed, fourth.positions) == Logged()


def test_each_error_of_the_app_is_counted_once(tmp_path: Path) -> None:
    """A traceback with the line that announces it and with its cause is one error; its last line is what is told."""
    access, printed = tmp_path / "access.log", tmp_path / "web-1.log"
    printed.write_text("old ERROR\n")
    known = read_on(access, printed, {}).positions
    with printed.open("a") as log:
        log.write(
            "[2026-11-28 03:00:00 +0000] [7] [INFO] Booting\n"
            "[2026-11-28] ERROR in app: Exception on /chart [GET]\n"
            "Traceback (most recent call last):\n"
            '  File "a.py", line 1, in f\n'
            "KeyError: 'a'\n"
            "\n"
            "During handling of the above exception, another exception occurred:\n"
            "\n"
            "Traceback (most recent call last):\n"
            '  File "a.py", line 2, in f\n'
            "app.models.NotThere: chart 7\n"
            "[2026-11-28] ERROR in mail: no answer\n"
            "all is well, no errors\n"
        )
    found = read_on(access, printed, known)
    assert (found.complaints, found.complaint) == (2, "[2026-11-28] ERROR in mail: no answer")
    with printed.open("a") as log:
        log.write('Traceback (most recent call last):\n  File "a.py"\napp.models.NotThere: chart 8\n')
    found = read_on(access, printed, found.positions)
    assert (found.complaints, found.complaint) == (1, "app.models.NotThere: chart 8")


def test_what_runs_by_the_clock() -> None:
    """Our own `check`, into health.log; another schedule has another name, so that the old one is stopped; or none."""
    layout = Layout(Path("/r"), "shop", Path("/r/run"))

    def made(schedule: str = Check().schedule) -> ProcessSpec | None:
        return check_process(("bulletproof",), layout, AppConfig(name="shop", check=Check(schedule=schedule)))

    usual, often = made(), made(schedule="* * * * *")
    assert usual is not None
    assert often is not None
    assert (usual.argv, usual.schedule) == (("bulletproof", "check", "--scheduled", "--app", "shop"), "*/15 * * * *")
    assert usual.log == Path("/r/var/log/shop/health.log")
    assert is_check(usual.name)
    assert usual.name != often.name
    assert usual == made()
    assert made(schedule="never") is None
