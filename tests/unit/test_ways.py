"""The ways of deployments, as the documentation draws them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulletproof.engine.pipeline import Pipeline
from bulletproof.operations import pipelines
from bulletproof.operations.attempt import Attempt

_CONCEPTS = Path(__file__).parents[2] / "docs" / "concepts"


@pytest.mark.parametrize(("page", "label", "pipeline"), [
    ("deployment", "deploy ", pipelines.DEPLOY),
    ("deployment", "restart, env ", pipelines.ACTIVATE),
    ("deployment", "first deployment ", pipelines.FIRST),
    ("deployment", "… with data ", pipelines.ADOPTING),
    ("deployment", "after a stop ", pipelines.COLD),
    ("deployment", "start ", pipelines.START),
    ("deployment", "with a migration ", pipelines.MIGRATING),
    ("deployment", "stop ", pipelines.STOP),
    ("migrations", "migrating ", pipelines.MIGRATING),
])  # fmt: skip
def test_a_way_is_drawn_as_it_is_gone(page: str, label: str, pipeline: Pipeline[Attempt]) -> None:
    """Every step, in order, on its side of the commit point; what begins with … leaves out the first ones."""
    lines = (_CONCEPTS / f"{page}.md").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(label) and "│" in line)
    before, after = (side.split() for side in line.removeprefix(label).split("│"))
    names = [step.name for step in pipeline.before]
    assert before == (["…", *names[1 - len(before) :]] if before[:1] == ["…"] else names)
    assert after == [step.name for step in pipeline.after]
