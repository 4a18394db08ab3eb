"""What a deployment told is shown again as it was shown the first time, whoever watches and however late."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest

from bulletproof.cli.recording import Recording, show_again
from bulletproof.cli.render import JsonEvents, Lines, Renderer
from bulletproof.domain.deployment import Deployment, Kind, Live, Outcome
from bulletproof.domain.events import Committed, StepDone, StepFailed, StepStarted, StepUndone
from bulletproof.domain.layout import Layout
from bulletproof.effects import chronicle
from bulletproof.effects.chronicle import Told
from bulletproof.engine.journal import Entry
from bulletproof.errors import NeedsPerson, UsageError
from bulletproof.errors import StepFailed as Failed
from bulletproof.operations.activate import Result

_LIVE = Live(number=1, release="1-aaaaaaa")
_ENTRY = Entry(
    deployment=Deployment(
        number=2, kind=Kind.ROLLBACK, release="2-bbbbbbb", revision="b" * 40, previous=_LIVE, started_at="2026-01-01"
    ),
    pipeline="deploy",
    title="A “title”",
    started_by="ada@laptop",
)
_GOOD = Result(outcome=Outcome.DEPLOYED, number=2, release="2-bbbbbbb", serving=_LIVE, seconds=3.5, troubles=("one",))
_BAD = Result(
    outcome=Outcome.UNDONE,
    number=2,
    release="2-bbbbbbb",
    serving=_LIVE,
    seconds=3.5,
    step="gate",
    cause=Failed("health-gate-failed", "it answered 500", context=("a line",)),
    warning="the log is full",
)
_REFUSED = Result(outcome=Outcome.REFUSED, number=2, release="", serving=None, seconds=1, cause=UsageError("x", "y"))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Where the app lies."""
    return Layout(root=tmp_path, app="shop", runtime=tmp_path / "run")


def _play(renderer: Renderer, result: Result | NeedsPerson) -> None:
    renderer.begun(_ENTRY)
    renderer.event(StepStarted(step="build"))
    renderer.event(StepDone(step="build", seconds=1.25, note="two\nlines"))
    renderer.event(StepStarted(step="gate"))
    renderer.event(StepFailed(step="gate", seconds=1.25, reference="health-gate-failed", message="it answered 500"))
    renderer.event(StepUndone(step="build", seconds=0.5))
    renderer.taken_up(_ENTRY)
    renderer.event(Committed())
    if isinstance(result, NeedsPerson):
        renderer.failed(result, _LIVE)
    else:
        renderer.ended(result, "http://127.0.0.1:8000")


def _again(layout: Layout, renderer: Renderer) -> list[int | None]:
    with contextlib.closing(Told(layout.events(2))) as told:
        return [show_again(line, renderer) for line in told.new()]


@pytest.mark.parametrize(
    ("result", "code"),
    [(_GOOD, 0), (_BAD, 3), (_REFUSED, 2), (NeedsPerson("undo-failed", "it stands", hint="look"), 4)],
)
@pytest.mark.parametrize("is_json", [True, False])
def test_what_was_told_is_shown_again(
    layout: Layout, capsys: pytest.CaptureFixture[str], result: Result | NeedsPerson, code: int, *, is_json: bool
) -> None:
    """Each line and each event, and the exit code with the last one only."""

    def renderer() -> Renderer:
        return JsonEvents("shop") if is_json else Lines("shop", is_live=False)

    _play(Recording(renderer(), layout), result)
    first = capsys.readouterr()
    codes = _again(layout, renderer())
    second = capsys.readouterr()

    assert codes == [None] * 8 + [code]
    if is_json:
        one, other = ([json.loads(line) for line in told.out.splitlines()] for told in (first, second))
        assert [{**event, "seconds": 0} for event in one] == [{**event, "seconds": 0} for event in other]
    else:
        assert first.err == second.err
        assert "health-gate-failed" in first.err or result is not _BAD


def test_it_is_readable_by_its_owner_alone(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    """The last lines of an app's log may be in it."""
    _play(Recording(JsonEvents("shop"), layout), _GOOD)
    capsys.readouterr()

    assert layout.events(2).stat().st_mode & 0o777 == 0o600
    assert layout.told.stat().st_mode & 0o777 == 0o700


def test_it_does_not_grow_for_ever_and_keeps_its_end(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A deployment that tells more than any does is kept as far as there is room, and how it ended."""
    monkeypatch.setattr(chronicle, "LARGEST_BYTES", 4000)
    kept = Recording(JsonEvents("shop"), layout)
    kept.begun(_ENTRY)
    for _ in range(200):
        kept.event(StepDone(step="build", seconds=1, note="x" * 100))
    kept.ended(_GOOD, "")
    capsys.readouterr()

    assert layout.events(2).stat().st_size < 5000
    assert _again(layout, JsonEvents("shop"))[-1] == 0


def test_half_a_line_hides_no_other(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    """What a full disk or a kill left in the middle does not swallow what a recovery tells behind it."""
    kept = Recording(JsonEvents("shop"), layout)
    kept.begun(_ENTRY)
    with layout.events(2).open("ab") as file:
        file.write(b'{"type": "happe')
    kept.ended(_BAD, "")
    with layout.events(2).open("ab") as file:
        file.write(b"\xff\xfe\n[]\n{}\nnull\n")
    capsys.readouterr()

    assert 3 in _again(layout, JsonEvents("shop"))


def test_a_disk_that_takes_no_more_costs_no_deployment(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    """What is told is shown all the same when it cannot be kept."""
    kept = Recording(Lines("shop", is_live=False), layout)
    kept.begun(_ENTRY)
    chronicle_of = kept._chronicle
    assert chronicle_of is not None
    chronicle_of.close()
    with Path("/dev/full").open("wb") as full:
        chronicle_of._file = full.fileno()
        kept.ended(_GOOD, "")

    assert "rolled back to" in capsys.readouterr().err


def test_nothing_is_kept_before_there_is_a_deployment(layout: Layout) -> None:
    """A lock that is held, or a bad command line, is no deployment's business."""
    with contextlib.redirect_stdout(io.StringIO()):
        Recording(JsonEvents("shop"), layout).failed(UsageError("x", "y"), None)

    assert not layout.told.exists()
