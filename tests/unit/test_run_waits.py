"""`run` waits while a deployment migrates the data: what it wrote in the middle could not be kept."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bulletproof.domain.deployment import Kind, Outcome
from bulletproof.domain.layout import Layout
from bulletproof.engine.journal import Beginning, Journal
from bulletproof.operations import pipelines
from bulletproof.operations.migrate import migrates_now


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """The journal of the app `shop` below the test's folder, with its first deployment just begun."""
    with closing(Journal.open(Layout(root=tmp_path, app="shop", runtime=tmp_path).journal)) as journal:
        journal.begin(
            Beginning(
                kind=Kind.DEPLOY,
                pipeline="deploy",
                release=lambda number: f"{number}-fffffff",
                revision="f" * 40,
                title="",
                started_by="a test",
            )
        )
        yield journal


def test_only_a_deployment_that_migrates_has_the_data_to_itself(journal: Journal) -> None:
    """From its look for others who have the database open until it is closed, and not while it prepares."""
    record = journal.record(1)
    for step in pipelines.DEPLOY.before:
        record.intend(step.name)
    assert migrates_now(journal) is None

    record.intend("openers")
    assert migrates_now(journal) == 1
    record.commit()
    assert migrates_now(journal) == 1
    record.close(Outcome.DEPLOYED, "")
    assert migrates_now(journal) is None


@pytest.mark.parametrize("name", ["migrating", "activate-migrating", "cold-migrating", "start-migrating"])
def test_every_way_with_a_migration_is_told_by_its_step(name: str) -> None:
    """Before anything of the data is touched."""
    steps = [step.name for step in pipelines.pipeline_named(name).before]

    assert "openers" in steps
    assert steps.index("openers") < steps.index("snapshot")


def test_the_command_waits_for_its_end(journal: Journal, tmp_path: Path) -> None:
    """It says for whom it waits, and goes on by itself; here to find that nothing is live."""
    record = journal.record(1)
    record.intend("openers")
    argv = (sys.executable, "-m", "bulletproof", "--root", str(tmp_path), "run", "--app", "shop", "--", "true")
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as command:
        try:
            assert command.stderr is not None
            assert command.stderr.readline() == "deployment 1 migrates the data; waiting for its end\n"
            time.sleep(0.3)
            assert command.poll() is None
            record.close(Outcome.UNDONE, "")
            assert command.wait(20) == 2
            assert "nothing-deployed" in command.stderr.read()
        finally:
            command.kill()
