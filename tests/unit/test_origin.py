"""Whom a deployment comes from: what is known apart from what is claimed, in journals old and new."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from bulletproof.domain.deployment import Kind
from bulletproof.domain.origin import Origin, claims, plain
from bulletproof.engine.journal import VERSION, Beginning, Journal
from bulletproof.engine.pipeline import Phase

_RUN = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_ACTOR": "octocat",
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "o/r",
    "GITHUB_RUN_ID": "7",
}


def _beginning(origin: Origin | None) -> Beginning:
    words = origin.words if origin else "ada@laptop"
    return Beginning(
        kind=Kind.DEPLOY, pipeline="deploy", release=lambda number: f"{number}-x", revision="x", title="",
        started_by=words, origin=origin,
    )  # fmt: skip


def test_the_journal_keeps_both_and_reads_what_an_older_one_wrote(tmp_path: Path) -> None:
    """Entries with an origin and without stand side by side, in a file of the version that older ones read."""
    origin = Origin(account="deploy@server", key="ci", address="192.0.2.7", claimed_by="octocat")
    with closing(Journal.open(tmp_path / "journal.db")) as journal:
        journal.begin(_beginning(None))
        journal.record(1).close("undone", "")
        begun = journal.begin(_beginning(origin))
        assert journal.record(2).phase() is Phase.OPEN
        assert journal.record(2).intended() == frozenset()
    read = Journal.read(tmp_path / "journal.db")
    assert read is not None
    with closing(read):
        old, new = read.entries()

    assert VERSION == 1
    assert (old.origin, old.started_by) == (None, "ada@laptop")
    assert new == begun
    assert new.origin == origin


@pytest.mark.parametrize(
    ("origin", "words", "short"),
    [
        (Origin(account="ada@laptop"), "ada@laptop", "ada@laptop"),
        (Origin(account="deploy@srv", address="::1"), "deploy@srv from ::1", "deploy@srv"),
        (
            Origin(account="deploy@srv", key="ci", address="192.0.2.7", claimed_by="cat", claimed_run="https://x/1"),
            'key "ci" from 192.0.2.7, who claims to be cat, https://x/1',
            "key ci (cat?)",
        ),
    ],
    ids=["here", "ssh", "key"],
)
def test_what_is_claimed_is_said_to_be(origin: Origin, words: str, short: str) -> None:
    """And what is known stands first."""
    assert (origin.words, origin.short) == (words, short)


def test_a_workflow_claims_its_actor_and_its_run() -> None:
    """That of who ran it again, when somebody did, with the attempt."""
    assert claims(_RUN, "runner@vm") == ("octocat", "https://github.com/o/r/actions/runs/7")
    again = {**_RUN, "GITHUB_TRIGGERING_ACTOR": "hubot[bot]", "GITHUB_RUN_ATTEMPT": "2"}
    assert claims(again, "runner@vm") == ("hubot[bot]", "https://github.com/o/r/actions/runs/7/attempts/2")
    assert claims({}, "ada@laptop") == ("ada@laptop", "")


def test_what_comes_from_elsewhere_moves_no_cursor() -> None:
    """Neither a line end nor a colour is left of it, and not more than a line."""
    assert plain("a\x1b[31m\r\nb\u2028c") == "a[31mbc"
    assert len(plain("x" * 1000)) == 300
