"""What the proof reads from a trace, how it chooses among faults, and what it makes of verdicts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from bulletproof.errors import BulletproofError, UsageError
from bulletproof.prove import report, runner, strace, sweep
from bulletproof.prove.host import Ended
from bulletproof.prove.strace import Call, Injection
from bulletproof.prove.sweep import Point, Verdict

_TRACE = """\
openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC) = 3
openat(AT_FDCWD, "/r/lock", O_RDWR|O_CREAT, 0600) = 3
write(1, "{\\"event\\": \\"step-started\\", \\"app\\": \\"proof\\", \\"step\\": \\"fetch\\"}\\n", 60) = 60
mkdir("/r/x", 0755) = 0
mkdir("/r/y", 0755) = -1 ENOSPC (No space left on device) (INJECTED)
write(1, "{\\"event\\": \\"step-failed\\", \\"app\\": \\"proof\\", \\"step\\": \\"fetch\\"}\\n", 60) = 60
rmdir("/r/x") = 0
"""


def test_a_trace_tells_the_calls_and_their_steps(tmp_path: Path) -> None:
    """Calls that make nothing are counted and left out; a step begins after it was told; the fault's step is kept."""
    (tmp_path / "trace").write_text(_TRACE)
    trace = strace.read(tmp_path / "trace", "begin")
    assert trace.calls == (
        Call("openat", 2, "begin"),
        Call("write", 1, "begin"),
        Call("mkdir", 1, "fetch"),
        Call("mkdir", 2, "fetch"),
        Call("write", 2, "fetch"),
        Call("rmdir", 1, "undo of fetch"),
    )
    assert (trace.has_fired, trace.step) == (True, "fetch")
    assert "INJECTED" in trace.last


def test_calls_are_counted_from_where_their_step_began(tmp_path: Path) -> None:
    """So that the name of a fault stays what it is when an earlier step changes; the fault finds it by itself."""
    recorded = 'write(5, "{\\"event\\": \\"step-started\\", \\"step\\": \\"fetch\\"}\\n", 60) = 60\n'
    (tmp_path / "told").write_text(recorded + _TRACE)
    calls = strace.read(tmp_path / "told", "begin", tells=True).calls
    assert calls[2:] == (
        Call("write", 2, "begin"),
        Call("mkdir", 1, "fetch"),
        Call("mkdir", 2, "fetch"),
        Call("write", 1, "fetch"),
        Call("rmdir", 1, "undo of fetch"),
    )
    assert strace.read(tmp_path / "none", "fetch") == strace.Trace((), "fetch", has_fired=False, last="")


@pytest.mark.parametrize(
    ("line", "after"),
    [
        ('{"event": "step-started", "app": "proof", "step": "fetch"}', "fetch"),
        ('{"event": "step-failed", "app": "proof", "step": "gate"}', "undo of gate"),
        ('{"event": "deployment", "outcome": "deployed"}', "end"),
        ('{"event": "step-done", "app": "proof", "step": "gate"}', "gate"),
    ],
)
def test_a_line_of_events_tells_the_step(line: str, after: str) -> None:
    """As the command writes it and as strace shows that."""
    assert strace.step_after(line, "gate") == after
    assert strace.step_after(line.replace('"', '\\"'), "gate") == after


def test_a_killed_run_was_met_at_its_last_call(tmp_path: Path) -> None:
    """Of a kill there is no more than the end of the trace."""
    (tmp_path / "trace").write_text(_TRACE.splitlines()[1] + "\n+++ killed by SIGKILL +++\n")
    trace = strace.read(tmp_path / "trace", "begin")
    assert trace.has_fired
    assert trace.last.startswith("openat(")


def test_each_call_is_met_by_what_can_happen_to_it() -> None:
    """A kill by anything, a broken disk by what changes one, a full one by what needs room."""
    assert Call("rename", 1, "").faults() == ("KILL", "ENOSPC", "EIO")
    assert Call("unlink", 1, "").faults() == ("KILL", "EIO")
    assert Call("connect", 1, "").faults() == ("KILL",)
    assert Injection("rename", 3, "KILL").option == "inject=rename:signal=KILL:when=3"
    assert Injection("rename", 3, "EIO").option == "inject=rename:error=EIO:when=3"


def test_a_sample_gives_each_kind_its_turn_and_depends_on_the_seed_alone() -> None:
    """A rare call is not lost among a thousand of another."""
    calls = [Call("fchmod", number, "build") for number in range(1, 1000)] + [Call("symlink", 1, "cutover")]
    points = sweep.points("deploy", calls, ("KILL",))
    chosen = sweep.sample(points, 5, seed=1)
    assert Point("deploy", "cutover", Injection("symlink", 1, "KILL")) in chosen
    assert len(set(chosen)) == 5
    assert chosen == sweep.sample(points, 5, seed=1)
    assert set(sweep.sample(points, 10_000, seed=2)) == set(points)
    assert str(points[-1]) == "deploy/cutover/KILL:symlink:1"


def _verdict(*problems: str, failed: int = 0, is_seen: bool = False, recovery: float = 0.5) -> Verdict:
    return Verdict(
        name="deploy/gate/KILL:write:1",
        scenario="deploy",
        step="gate",
        fault="KILL",
        has_fired=True,
        outcome="old",
        problems=problems,
        recovery_seconds=recovery,
        has_recovered=recovery > 0,
        seconds=2.0,
        failed_requests=failed,
        is_seen=is_seen,
    )


def test_the_page_names_what_broke_a_promise() -> None:
    """Counts by step and kind, and requests that users lost to a fault in what serves them counted apart."""
    verdicts = [_verdict(), _verdict("a file is left", failed=2), _verdict(failed=7, is_seen=True)]
    page = report.page(verdicts, 60.0, seed=9, known=5000)
    assert "| deploy | gate | 3 | 0 | 0 | 0 | 3 | 0 | 1 | 0.5 s | 0.5 s | 0.5 s |" in page
    assert "1 broke a promise, 2 requests failed (7 more" in page
    assert "- `deploy/gate/KILL:write:1`: a file is left" in page
    assert "seed 9" in page
    assert "No promise was broken." in report.page([_verdict()], 60.0, seed=9, known=1)


def test_the_times_of_recoveries_are_told() -> None:
    """Median, 99th percentile and worst of those that were needed; what was late under overload is counted."""
    verdicts = [_verdict(recovery=number / 10) for number in range(200)]
    words = report.verdict_line(verdicts, 60.0)
    assert "199 recoveries by itself: half within 10.0 s, 99 % within 19.8 s, the slowest 19.9 s; 99 later" in words
    assert report.rows(verdicts)[0][-3:] == ("10.0 s", "19.8 s", "19.9 s")
    assert report.rows([_verdict(recovery=0)])[0][-3:] == ("-", "-", "-")


def test_a_kill_is_followed_by_faults_in_its_recoveries() -> None:
    """By the seed alone, and named so that the whole can be had again."""
    first = Point("deploy", "gate", Injection("rename", 3, "KILL"))
    full = Point("deploy", "gate", Injection("rename", 3, "ENOSPC"))
    inner = Point("recover-undo", "verify", Injection("unlinkat", 2, "EIO"))
    again = Point("recover-undo", "verify", Injection("fsync", 1, "KILL"))
    known = [first, full, inner, again]
    chosen = sweep.choose(known, "deploy/", 10, seed=1)
    assert sweep.choose(known, "gate/", 10, seed=1) == chosen
    assert {point.injection for point in chosen} == {first.injection, full.injection}
    for point in chosen:
        assert bool(point.then) == (point.injection.fault == "KILL")
        assert {one.fault for one in point.then[:-1]} <= {"KILL"}
        assert sweep.choose(known, str(point), 1, seed=2)[0].injection == point.injection
    (kill,) = (point for point in chosen if point.then)
    assert set(kill.then) <= {inner.injection, again.injection}
    assert sweep.choose(known, str(kill), 1, seed=2) == [kill]
    assert str(kill).startswith("deploy/gate/KILL:rename:3+")
    unfollowed = [point for seed in range(20) for point in sweep.choose(known, "gate/KILL", 1, seed) if not point.then]
    assert unfollowed  # whose recovery is timed


def test_a_name_of_no_fault_is_refused() -> None:
    """A proof of nothing would break no promise; the steps that there are are told."""
    known = [
        Point("deploy", "gate", Injection("rename", 3, "KILL")),
        Point("deploy", "drain", Injection("rename", 4, "KILL")),
        Point("recover-undo", "verify", Injection("unlinkat", 2, "EIO")),
    ]
    with pytest.raises(UsageError, match="begins with `deploy/gaet`") as refused:
        sweep.choose(known, "deploy/gaet", 10, seed=1)
    assert refused.value.reference == "fault-unknown"
    assert refused.value.context == ("deploy: gate, drain", "recover-undo: verify")
    assert sweep.choose([], "hostile/", 10, seed=1) == []


@pytest.mark.parametrize(
    ("out", "err", "words"),
    [
        ('{"event": "deployment", "outcome": "undone", "error": {"reference": "r", "message": "m"}}\n', "", "3: r: m"),
        ('{"event": "deployment", "outcome": "deployed"}\n', "it broke\n", "3: it broke"),
        ("cut of", "", "3: cut of"),
    ],
)
def test_how_a_command_ended_is_told_by_its_last_event(out: str, err: str, words: str) -> None:
    """In its own words of the error; without one by the end of what it printed."""
    assert Ended(status=3, out=out, err=err, seconds=1.0).words.startswith(words)


class FakeHost:
    """Of a host the life alone."""

    laid: ClassVar[list[Path]] = []

    @classmethod
    def lay(cls, base: Path, _subject: object) -> FakeHost:
        """Count it."""
        cls.laid.append(base)
        return cls()

    def load(self) -> contextlib.AbstractContextManager[None]:
        """Nobody."""
        return contextlib.nullcontext()

    def end(self) -> None:
        """Nothing to end."""


@pytest.fixture
def fake_host(monkeypatch: pytest.MonkeyPatch) -> type[FakeHost]:
    """What `runner.prove` lays; its last deployment ends well."""
    monkeypatch.setattr(FakeHost, "laid", [])
    monkeypatch.setattr(runner, "Host", FakeHost)
    monkeypatch.setattr(sweep.Sweep, "rest", lambda _: [])
    return FakeHost


def test_a_fault_whose_load_broke_is_met_on_another_host(fake_host: type[FakeHost], tmp_path: Path) -> None:
    """It is not dropped, and one that breaks every load ends the proof."""
    tries: list[int] = []

    def works_twice(_: object) -> list[Verdict]:
        tries.append(1)
        if len(tries) == 1:
            raise BulletproofError("traffic-ended", "the load is gone")
        return [_verdict()]

    assert runner.prove(tmp_path, [works_twice], lambda _: None, hosts=1) == [_verdict()]
    assert len(fake_host.laid) == 2

    def never(_: object) -> list[Verdict]:
        raise BulletproofError("traffic-ended", "the load is gone")

    with pytest.raises(BulletproofError, match="21 were left again"):
        runner.prove(tmp_path, [never], lambda _: None, hosts=1)


@pytest.mark.usefixtures("fake_host")
def test_what_a_last_deployment_shows_is_told_of_the_last_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Something that is left for ever, or that it does not end well; an error of our own ends the proof."""

    def found(rest: Callable[[object], list[str]]) -> list[tuple[str, ...]]:
        monkeypatch.setattr(sweep.Sweep, "rest", rest)
        works = [lambda _: [_verdict()]] * 2
        return [one.problems for one in runner.prove(tmp_path, works, lambda _: None, hosts=1)]

    def fails(reference: str) -> Callable[[object], list[str]]:
        def rest(_: object) -> list[str]:
            raise BulletproofError(reference, "it is so")

        return rest

    assert found(lambda _: []) == [(), ()]
    assert sorted(found(lambda _: ["left for ever: x"])) == [(), ("afterwards left for ever: x",)]
    assert sorted(found(fails("host-not-prepared"))) == [(), ("afterwards it is so",)]
    with pytest.raises(BulletproofError, match="it is so"):
        found(fails("odd"))
