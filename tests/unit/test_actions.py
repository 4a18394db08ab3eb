"""In GitHub Actions: groups, few annotations, a summary, and no command that an app's words could give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bulletproof.cli.actions import block, command, harmless, plain
from bulletproof.cli.render import Lines, choose_renderer
from bulletproof.cli.render_actions import ActionsLog
from bulletproof.domain.deployment import Deployment, Kind, Live, Outcome
from bulletproof.domain.events import StepDone, StepFailed, StepUndone
from bulletproof.engine.journal import Entry
from bulletproof.errors import StepFailed as Broken
from bulletproof.operations.activate import Result

_ENTRY = Entry(
    deployment=Deployment(
        number=3, kind=Kind.DEPLOY, release="3-abcdef0", revision="a" * 40,
        previous=Live(number=2, release="2-fedcba0"), started_at="2026-11-28T02:00:00+00:00",
    ),
    pipeline="deploy",
    title="Fix | <b>*all*</b>",
    started_by='key "ci" from 192.0.2.7',
)  # fmt: skip


@pytest.fixture
def summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job's summary."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    return tmp_path / "summary.md"


def _ended(outcome: Outcome, cause: BaseException | None = None, troubles: tuple[str, ...] = ()) -> Result:
    serving = (
        Live(number=3, release="3-abcdef0") if outcome is Outcome.DEPLOYED else Live(number=2, release="2-fedcba0")
    )
    return Result(
        outcome=outcome, number=3, release="3-abcdef0", serving=serving, seconds=4.2, cause=cause, troubles=troubles
    )


def test_the_surroundings_choose_and_no_terminal_does(summary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some runners give their steps a terminal."""
    assert isinstance(choose_renderer("shop", as_json=False), ActionsLog)
    monkeypatch.delenv("GITHUB_ACTIONS")
    assert isinstance(choose_renderer("shop", as_json=False), Lines)
    assert not summary.exists()


def test_a_deployment_has_a_group_for_each_step_and_a_summary(
    summary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What serves stands first; the steps are folded; nothing of the title is Markdown."""
    shown = ActionsLog("shop")
    shown.begun(_ENTRY)
    shown.event(StepDone(step="build", seconds=2.0, note="14 packages\n::error::no annotation"))
    shown.event(StepDone(step="pause", seconds=0.0, note=""))
    shown.ended(_ended(Outcome.DEPLOYED), "http://127.0.0.1:8000")
    log, told = capsys.readouterr().err, summary.read_text()

    assert re.search(
        r"^::group::build  2\.0 s  14 packages\n  \| ::error::no annotation\n::endgroup::$", log, re.MULTILINE
    )
    assert "pause" not in log
    assert "::notice title=deployed 3-abcdef0 in 4.2 s::3-abcdef0 serves at http://127.0.0.1:8000" in log
    assert told.startswith(
        "### ✅ shop: deployed\n\n`3-abcdef0` “Fix \\| \\<b\\>\\*all\\*\\</b\\>”\n\n**Now: 3-abcdef0 serves"
    )
    assert "<details><summary>1 steps</summary>" in told
    assert 'deployment 3, by key "ci" from 192.0.2.7' in told


def test_a_failure_says_what_was_seen_and_what_serves(summary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As an annotation, and in the summary with the app's last lines and the next command."""
    shown = ActionsLog("shop")
    shown.begun(_ENTRY)
    shown.event(StepFailed(step="gate", seconds=3.0, reference="health-gate-failed", message="never healthy"))
    shown.event(StepUndone(step="start", seconds=0.5))
    cause = Broken(
        "health-gate-failed", "never healthy", hint="bulletproof logs 3", context=("::warning::x", "a ``` b")
    )
    shown.ended(_ended(Outcome.UNDONE, cause), "http://127.0.0.1:8000")
    log, told = capsys.readouterr().err, summary.read_text()

    assert (
        "::error title=health-gate-failed::never healthy%0Afailed, and everything was undone; 2-fedcba0 serves" in log
    )
    assert [line for line in log.splitlines() if line.lstrip().startswith("::")] == [
        line for line in log.splitlines() if line.startswith("::error title=")
    ]
    assert "**Now: 2-fedcba0 serves at" in told
    assert "````text\n::warning::x\na ``` b\n````" in told
    assert "Next: `bulletproof logs 3`" in told


def test_no_more_annotations_than_are_shown(summary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """GitHub shows ten of a kind; the tenth says how many more there are, and those stand in the log."""
    ActionsLog("shop").ended(_ended(Outcome.DEPLOYED, troubles=tuple(f"trouble {n}" for n in range(25))), "")
    log = capsys.readouterr().err

    assert len(re.findall(r"^::warning::", log, re.MULTILINE)) == 10
    assert "::warning::and 16 more, in the log" in log
    assert "warning: trouble 24" in log
    assert "trouble 24" in summary.read_text()


@given(st.text())
@example("a ##[error]x\n\t::set-output name=x::y")
def test_no_text_gives_a_command(text: str) -> None:
    """Neither at the beginning of a line, where blanks do not count, nor in the old form anywhere."""
    shown = harmless(text)

    assert "##[" not in shown
    assert not any(line.strip().startswith("::") for line in re.split(r"[\r\n]", shown))


@given(st.text(), st.text())
def test_a_command_is_one_line(text: str, title: str) -> None:
    """Whatever is in it; and what is in a property ends no property."""
    made = command("error", text, title=title)

    assert not set("\r\n") & set(made)
    assert made.split("::")[1].count("=") >= 1
    assert ":" not in made.removeprefix("::error title=").split("::")[0]


@given(st.text(alphabet="`a\n", max_size=30))
def test_lines_end_no_block(text: str) -> None:
    """A fence is longer than any in it."""
    made = block(tuple(text.split("\n"))).split("\n")

    assert made[-1] == made[0].removesuffix("text")
    assert made[-1] not in [line.strip() for line in made[1:-1]]


def test_words_are_no_markdown() -> None:
    """As they are."""
    assert plain("a|b_c*d<e>[f](g)") == "a\\|b\\_c\\*d\\<e\\>\\[f\\](g)"
