"""A deployment does not go backwards unless it is told to: decided by the commits that what is live came after."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import workshop
from bulletproof.cli.actions import is_meant
from bulletproof.domain.history import comes_after, is_commit, packed
from bulletproof.effects.source import resolve

_COMMITS = st.lists(st.integers(0, 10_000).map(lambda number: hashlib.sha1(b"%d" % number).hexdigest()), unique=True)  # noqa: S324


@given(_COMMITS, _COMMITS)
def test_a_history_knows_its_commits_and_no_others(some: list[str], others: list[str]) -> None:
    """However many there are."""
    history = packed(some)

    assert all(comes_after(history, commit) for commit in some)
    assert not any(comes_after(history, commit) for commit in set(others) - set(some))


@pytest.mark.parametrize("history", ["", "no base64!", "AAAA", "=", "QUJD"])
def test_what_is_no_history_knows_nothing(history: str) -> None:
    """Nothing raises: a deployment is not refused for what another version wrote."""
    assert not comes_after(history, "a" * 40)


def test_files_without_a_commit_have_no_place_in_it() -> None:
    """A working tree is neither older nor newer."""
    assert not comes_after(packed(["a" * 40]), "worktree")
    assert is_commit("a" * 64)
    assert not is_commit("files")


def test_the_repository_tells_what_a_commit_came_after(tmp_path: Path) -> None:
    """All of its ancestors, those of merged branches as well, and never itself."""
    folder = tmp_path / "app"
    first = workshop.commit(folder, {"a": "1"}, "First")
    second = workshop.commit(folder, {"a": "2"}, "Second")
    workshop.git(folder, "checkout", "-q", "-b", "side", first)
    side = workshop.commit(folder, {"b": "1"}, "Beside")
    workshop.git(folder, "merge", "-q", "--no-edit", second)
    found = resolve(folder)

    assert all(comes_after(found.history, commit) for commit in (first, second, side))
    assert not comes_after(found.history, found.revision)
    assert not comes_after(resolve(folder, second).history, side)


@pytest.mark.parametrize(
    ("revision", "variables", "is_it"),
    [
        ("v1", {}, True),
        (None, {}, False),
        ("v1", {"CI": "true"}, False),
        ("v1", {"CI": "false"}, True),
        ("v1", {"GITHUB_ACTIONS": "true"}, False),
    ],
    ids=["person", "nothing-named", "ci", "no-ci", "github"],
)
def test_a_person_who_names_a_revision_means_it(
    monkeypatch: pytest.MonkeyPatch,
    revision: str | None,
    variables: dict[str, str],
    is_it: bool,  # noqa: FBT001
) -> None:
    """What a job names may be a day old."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert is_meant(revision) is is_it
