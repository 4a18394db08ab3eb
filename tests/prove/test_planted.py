"""The proof proves itself: bugs planted in a copy of Bulletproof, each caught by faults in a real host."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from bulletproof.prove import runner, strace, sweep
from bulletproof.prove.host import Host, scratch
from bulletproof.prove.hostile import CASES
from bulletproof.prove.scenarios import SCENARIOS
from planted import Bug, interpreter_with

pytestmark = [
    pytest.mark.skipif(not strace.is_there(), reason="strace is not installed"),
    pytest.mark.timeout(600),
]

_PIPELINE = "bulletproof.engine.pipeline"
_STEPS = "bulletproof.operations.steps"
_MOST = 12
"""Faults that a bug may survive before it counts as not found."""


def _bugs() -> list[object]:
    found: list[tuple[str, Bug, str]] = [
        # where the faults are, the bug that they must show, and the oracle's words about the promise that it breaks
        (
            "deploy/settings/KILL:fsync",  # the last of these three is all that lies in the step and between the two
            Bug(
                "intent after effect",
                _PIPELINE,
                "    record.intend(step.name)\n    try:\n        around.tell(StepStarted(step=step.name))\n"
                "        note = step.do(target)\n",
                "    try:\n        around.tell(StepStarted(step=step.name))\n        note = step.do(target)\n"
                "        record.intend(step.name)\n",
            ),
            "left over: ",
        ),
        (
            "migrate/gate/KILL",
            Bug("forward-order undo", _PIPELINE, "in reversed(pipeline.before):", "in pipeline.before:"),
            "a deployment is not closed",
        ),
        (
            "hostile/ten deployments at once",
            Bug(
                "a lock that locks nothing",
                "bulletproof.effects.lock",
                "        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
                "        pass\n",
            ),
            r"is live|not even this can be read",
        ),
        (
            "deploy/drain/KILL",
            Bug("no commit record", _PIPELINE, "        record.commit()\n", "        pass\n"),
            "processes of the live deployment",
        ),
        (
            "deploy/gate/KILL",
            Bug(
                "closed before it is undone",
                _PIPELINE,
                "            touched = _undo(pipeline, target, record, around)\n"
                '            record.close(outcomes.undone if touched else outcomes.refused, "the deployer was killed")',
                '            record.close(outcomes.undone, "the deployer was killed")\n',
            ),
            "processes of deployment|left over: ",
        ),
        (
            "deploy/adopt/KILL",
            Bug(
                "finishes nothing after a kill",
                _PIPELINE,
                "        case Phase.COMMITTED:\n            _finish(pipeline, target, record, around, outcomes)",
                '        case Phase.COMMITTED:\n            record.close(outcomes.done, "")',
            ),
            "processes of deployment",
        ),
        (
            "hostile/app answers 500",
            Bug("gate accepts 500", "bulletproof.domain.health", "range(200, 400)", "range(200, 600)"),
            "the proxy answers 500",
        ),
        (
            "recover-migrated/gate/KILL:unlinkat",
            Bug(
                "snapshot put back twice", _PIPELINE, "        if step.name in taken_back:\n            continue\n", ""
            ),
            "a deployment is not closed|acknowledged writes are lost|rows are gone",
        ),
        (
            "migrate/gate/KILL",
            Bug(
                "snapshot not put back",
                "bulletproof.operations.migrate",
                "    attempt.host.swap.put_back(attempt.number, attempt.host.rehearsal.copy(attempt.number))\n",
                "",
            ),
            "the schema is not what the serving release needs",
        ),
        (
            "migrate/rehearse/KILL:connect",
            Bug(
                "orphaned child",
                "bulletproof.effects.cell",
                "_PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38\n",
                "_PR_SET_NO_NEW_PRIVS = 29, 24, 36, 38\n",
            ),
            "processes of deployment",
        ),
        (
            "deploy/fetch/KILL",
            Bug(
                "pidfile lock",
                "bulletproof.effects.lock",
                "    try:\n        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
                "    if os.fstat(descriptor).st_size:\n        return False\n"
                "    try:\n        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
            ),
            "the lock's note is left",
        ),
        (
            "deploy/fetch/KILL",
            Bug(
                "nobody recovers",
                "bulletproof.adapters.embedded.recovery",
                "        if lock is None:\n",
                "        if lock is None or lock is not None:\n",
            ),
            "a deployment is not closed",
        ),
        (
            "deploy/schema/KILL",
            Bug(
                "a secret in the journal",
                _STEPS,
                '    return f"{len(frozen)} settings" if',
                '    return f"{frozen}" if frozen or',
            ),
            "journal",
        ),
        (
            "deploy/verify/KILL",
            Bug(
                "current stays where the cutover put it",
                _STEPS,
                "        _give_out_files_of(attempt, previous.release)\n",
                "",
            ),
            "current leads to|proof/current",
        ),
        (
            "rollback/prune/KILL",
            Bug(
                "prune by date",
                _STEPS,
                "    for release in gone:\n",
                "    folder = host.layout.releases\n"
                "    dated = sorted(host.releases.existing(), key=lambda name: (folder / name).stat().st_mtime)\n"
                "    for release in dated[:-1]:\n",
            ),
            "leads nowhere",
        ),
    ]
    return [pytest.param(*one, id=one[1].name.replace(" ", "-")) for one in found]


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder for the copy and its host."""
    with scratch() as folder:
        yield folder


@pytest.mark.parametrize(("where", "bug", "words"), _bugs())
def test_a_planted_bug_is_caught(base: Path, where: str, bug: Bug, words: str) -> None:
    """Within a dozen faults where it can show, for what it is; one that survives them would survive in Bulletproof."""
    problems = _faults(base / "host", interpreter_with(bug, base / "planted"), where)
    assert re.search(words, "\n".join(problems)), f"{bug}: {problems or 'survived'}"


def _faults(base: Path, python: str, where: str) -> list[str]:
    """What the first fault that breaks a promise breaks, on a host that a sound Bulletproof has laid and recorded."""
    host = Host.lay(base)
    try:
        works = _works(host, where)
        host = host.with_python(python)
        with host.load() as load:
            faults = sweep.Sweep(host, load)
            for work in works:
                if problems := work(faults)[0].problems:
                    return list(problems)
        return []
    finally:
        host.end()


def _works(host: Host, where: str) -> list[runner.Work]:
    name = where.partition("/")[0]
    if name == "hostile":
        return runner.works([], [case for case in CASES if f"hostile/{case.name}" == where], seed=1)
    known = sweep.points(name, sweep.record(host, SCENARIOS[name]))
    chosen = [point for point in known if str(point).startswith(where)]
    others = random.Random(1).sample(chosen, min(len(chosen), _MOST))
    return [partial(_meet, point) for point in others]


def _meet(point: sweep.Point, faults: sweep.Sweep) -> Sequence[sweep.Verdict]:
    return faults.meet(point)
