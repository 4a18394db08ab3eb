"""The model lane: the real engine and pipelines over a host in memory, killed at every boundary, and killed again."""

from __future__ import annotations

import functools
import importlib
import os
import random
from collections import Counter

import pytest

from crash_model import Lane, Violation
from crash_scenarios import SCENARIOS, Scenario
from planted import Bug, planted

FRESH = ("bulletproof.engine", "bulletproof.operations")
pytestmark = pytest.mark.xdist_group("model")

SEED = int(os.environ.get("BULLETPROOF_SEED", "20261127"))


STRIDE = int(os.environ.get("BULLETPROOF_STRIDE", "15"))
"""1 is exhaustive over two kills, and takes several times as long."""


def lane(stride: int = 1) -> Lane:
    """A lane over the engine and the operations as they are imported now."""
    return Lane(
        stride=stride,
        activate=importlib.import_module("bulletproof.operations.activate"),
        journal=importlib.import_module("bulletproof.engine.journal"),
    )


@functools.cache
def schedules(scenario: Scenario) -> Counter[str]:
    """What the host became in each schedule of a scenario, counted."""
    return Counter(lane(STRIDE).exhaust(scenario, random.Random(SEED)))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_a_killed_deployer_leaves_the_host_entirely_old_or_entirely_new(scenario: Scenario) -> None:
    """Killed at any boundary, and its recovery killed at any boundary, the host becomes whole, and no request fails."""
    outcomes = schedules(scenario)

    assert outcomes
    assert set(outcomes) <= {"old", "new"}
    assert "old" in outcomes or scenario.only_forward
    assert "new" in outcomes or scenario.fails


def test_the_lane_runs_ten_thousand_schedules() -> None:
    """Every boundary, and a fifteenth of those of each recovery: at least 10,000 schedules at every change."""
    assert sum(schedules(scenario).total() for scenario in SCENARIOS) >= 10_000


BUGS = (
    Bug(
        "intent after effect",
        "bulletproof.engine.pipeline",
        "    record.intend(step.name)\n"
        "    try:\n"
        "        around.tell(StepStarted(step=step.name))\n"
        "        note = step.do(target)\n",
        "    try:\n"
        "        around.tell(StepStarted(step=step.name))\n"
        "        note = step.do(target)\n"
        "        record.intend(step.name)\n",
    ),
    Bug(
        "forward-order undo",
        "bulletproof.engine.pipeline",
        "for step in reversed(pipeline.before):",
        "for step in pipeline.before:",
    ),
    Bug("no commit record", "bulletproof.engine.pipeline", "        record.commit()\n", "        pass\n"),
    Bug(
        "closed before it is undone",
        "bulletproof.engine.pipeline",
        "            touched = _undo(pipeline, target, record, around)\n"
        '            record.close(outcomes.undone if touched else outcomes.refused, "the deployer was killed")',
        '            record.close(outcomes.undone, "the deployer was killed")\n'
        "            touched = _undo(pipeline, target, record, around)",
    ),
    Bug(
        "recovery finishes what was not committed",
        "bulletproof.engine.pipeline",
        "        case Phase.OPEN:\n",
        "        case Phase.OPEN if False:\n",
    ),
    Bug(
        "finishes nothing after a kill",
        "bulletproof.engine.pipeline",
        "        case Phase.COMMITTED:\n            _finish(pipeline, target, record, around, outcomes)",
        '        case Phase.COMMITTED:\n            record.close(outcomes.done, "")',
    ),
    Bug(
        "requests let on before the commit",
        "bulletproof.operations.pipelines",
        "    before=(*_FRESH, _DATABASE, _PROXY, _OPEN, _START, _FIRST_GATE),\n",
        "    before=(*_FRESH, _DATABASE, _PROXY, _OPEN, _START, _FIRST_GATE, _CUTOVER),\n",
    ),
    Bug(
        "old instance stopped before the cutover",
        "bulletproof.operations.pipelines",
        "    before=(*_NEW, _START, _GATE, _PROXY, _CUTOVER, _VERIFY),\n",
        "    before=(*_NEW, _START, _GATE, _DRAIN, _PROXY, _CUTOVER, _VERIFY),\n",
    ),
    Bug(
        "resume before the commit",
        "bulletproof.operations.pipelines",
        "_SWAP, _START, _GATE),\n        after=(_CUTOVER, _ADOPT,",
        "_SWAP, _START, _GATE, _CUTOVER),\n        after=(_ADOPT,",
    ),
    Bug(
        "snapshot put back twice",
        "bulletproof.engine.pipeline",
        "        if step.name in taken_back:\n            continue\n",
        "",
    ),
    Bug(
        "migration of a copy from before the hold",
        "bulletproof.operations.migrate",
        "    rehearsal.rewind(number, seconds_left(attempt))\n",
        "",
    ),
    Bug(
        "the way is not noted",
        "bulletproof.engine.pipeline",
        "            self._record.turn(other.name)\n",
        "",
    ),
    Bug(
        "adopted data stay although the deployment was undone",
        "bulletproof.operations.pipelines",
        'Step("data", adopt_data, undo=leave_data)',
        'Step("data", adopt_data)',
    ),
    Bug(
        "gate accepts 500",
        "bulletproof.operations.gate",
        "        progress = progress.after(path, answer)\n",
        "        progress = progress.after(path, type(answer)(status=200, seconds=0.0))\n",
    ),
    Bug(
        "undo does not cut back",
        "bulletproof.operations.steps",
        "        attempt.host.proxy.route_to(previous.number)\n",
        "",
    ),
    Bug(
        "prune removes the release that a rollback needs",
        "bulletproof.operations.steps",
        "attempt.manifest.config.keep.releases)",
        "1)",
    ),
    Bug(
        "settings kept although the deployment was undone",
        "bulletproof.operations.steps",
        "    attempt.host.settings.freeze(attempt.number, frozen)\n",
        "    attempt.host.settings.freeze(attempt.number, frozen)\n    attempt.host.settings.write(frozen)\n",
    ),
    Bug(
        "new workers before the commit",
        "bulletproof.operations.pipelines",
        "    before=(*_NEW, _START, _GATE, _PROXY, _CUTOVER, _VERIFY),\n",
        "    before=(*_NEW, _START, _GATE, _WORKERS, _PROXY, _CUTOVER, _VERIFY),\n",
    ),
    Bug(
        "old workers left running",
        "bulletproof.operations.workers",
        "    stopped = _stop(host, _others(host, number))\n",
        "    stopped = []\n",
    ),
    Bug(
        "another proxy is not taken back",
        "bulletproof.operations.pipelines",
        'Step("proxy", adopt_proxy, undo=give_proxy_back)',
        'Step("proxy", adopt_proxy)',
    ),
    Bug(
        "another proxy does not begin with a deployment",
        "bulletproof.operations.pipelines",
        "_START, _GATE, _PROXY, _CUTOVER, _VERIFY),\n    after=_FINISH,\n    fork=_fork(MIGRATING)",
        "_START, _GATE, _CUTOVER, _VERIFY),\n    after=_FINISH,\n    fork=_fork(MIGRATING)",
    ),
    Bug("workers run in the hold", "bulletproof.operations.pipelines", "_PROXY, _PAUSE, held,", "_PROXY, held,"),
    Bug(
        "old workers are not brought back",
        "bulletproof.operations.pipelines",
        'Step("pause", pause_background, undo=resume_background)',
        'Step("pause", pause_background)',
    ),
    Bug(
        "the replica runs in the hold",
        "bulletproof.operations.replica",
        "    stop_all(attempt.host, _running(attempt.host))\n",
        "",
    ),
    Bug(
        "the replica is not brought back",
        "bulletproof.operations.replica",
        "    if trouble := _replicate(host):",
        '    if trouble := "":',
    ),
    Bug(
        "the replica does not begin with a deployment",
        "bulletproof.operations.replica",
        "    return _replicate(attempt.host)",
        '    return ""',
    ),
    Bug(
        "a restore that is undone leaves the backup's data",
        "bulletproof.operations.pipelines",
        'Step("swap", put_backup, undo=put_snapshot_back)',
        'Step("swap", put_backup)',
    ),
    Bug(
        "a restore that is undone leaves the backup's files",
        "bulletproof.operations.pipelines",
        'Step("folders", exchange_folders, undo=exchange_folders_back)',
        'Step("folders", exchange_folders)',
    ),
    Bug(
        "what a restore replaced is not kept",
        "bulletproof.operations.restore",
        "backup or host.backups.take(_replaced(attempt))",
        "backup or host.backups.all()[0]",
    ),
    Bug(
        "what a restore replaced is thrown away before it is a backup",
        "bulletproof.operations.restore",
        "        backup = backup_of(host, attempt.deployment, Reason.RESTORE)\n",
        "        backup = backup_of(host, attempt.deployment, Reason.RESTORE)\n"
        "        host.backups.discard_replaced(number)\n",
    ),
    Bug(
        "a snapshot is thrown away although no backup was made of it",
        "bulletproof.operations.backups",
        '    if attempt.number not in host.swap.numbers():\n        return ""\n',
        '    host.swap.discard(attempt.number)\n    return ""\n',
    ),
    Bug(
        "a repair that is undone leaves what it mended",
        "bulletproof.operations.pipelines",
        'Step("mend", mend, undo=unmend)',
        'Step("mend", mend)',
    ),
    Bug(
        "how it was is noted after it is mended",
        "bulletproof.operations.repair",
        "    mender.keep(attempt.number, Note(before=mender.found(repairs.changes), repairs=repairs))\n"
        "    for change in repairs.changes:\n        mender.make(change)\n",
        "    for change in repairs.changes:\n        mender.make(change)\n"
        "    mender.keep(attempt.number, Note(before=mender.found(repairs.changes), repairs=repairs))\n",
    ),
    Bug(
        "units that are taken back are not read",
        "bulletproof.operations.repair",
        "    if any(isinstance(change, Text) for change in note.before):\n        attempt.host.reread()\n",
        "",
    ),
    Bug(
        "the damaged release is thrown away before the commit",
        "bulletproof.operations.repair",
        "        attempt.host.releases.exchange(name, attempt.number)\n",
        "        attempt.host.releases.exchange(name, attempt.number)\n"
        "        attempt.host.releases.discard_rebuilt(name, attempt.number)\n",
    ),
    Bug(
        "a repair is finished by what only the dead deployer knew",
        "bulletproof.operations.repair",
        "    host, repairs = attempt.host, _repairs(attempt)\n",
        "    host, repairs = attempt.host, attempt.order.repairs if attempt.order else Repairs()\n",
    ),
)

CAUGHT_BY = {
    "intent after effect": "deployment",
    "forward-order undo": "not verified through the proxy",
    "no commit record": "deployment",
    "closed before it is undone": "deployment",
    "recovery finishes what was not committed": "deployment",
    "finishes nothing after a kill": "first deployment",
    "requests let on before the commit": "first deployment",
    "old instance stopped before the cutover": "deployment",
    "resume before the commit": "migration",
    "snapshot put back twice": "migrated release crashes",
    "migration of a copy from before the hold": "migration",
    "the way is not noted": "migration",
    "adopted data stay although the deployment was undone": "first deployment with data that it migrates crashes",
    "gate accepts 500": "answers 500",
    "undo does not cut back": "not verified through the proxy",
    "prune removes the release that a rollback needs": "third deployment prunes",
    "settings kept although the deployment was undone": "settings that break",
    "new workers before the commit": "deployment with workers",
    "old workers left running": "deployment with workers",
    "another proxy is not taken back": "another proxy, and answers 500 behind it",
    "another proxy does not begin with a deployment": "deployment with another proxy",
    "workers run in the hold": "migration with workers",
    "old workers are not brought back": "migration with workers",
    "the replica runs in the hold": "migration",
    "the replica is not brought back": "migration cannot be put in place",
    "the replica does not begin with a deployment": "deployment",
    "a restore that is undone leaves the backup's data": "restore after which it crashes",
    "a restore that is undone leaves the backup's files": "restore after which it crashes",
    "what a restore replaced is not kept": "restore",
    "what a restore replaced is thrown away before it is a backup": "restore",
    "a snapshot is thrown away although no backup was made of it": "migration",
    "a repair that is undone leaves what it mended": "repair that gives no whole release",
    "how it was is noted after it is mended": "repair",
    "units that are taken back are not read": "repair that gives no whole release",
    "the damaged release is thrown away before the commit": "repair",
    "a repair is finished by what only the dead deployer knew": "repair",
}
"""The scenario that breaks over each bug."""


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_a_planted_bug_is_caught(bug: Bug) -> None:
    """The lane has teeth: each bug breaks a promise in at least one schedule of the scenario named for it."""
    (scenario,) = (scenario for scenario in SCENARIOS if scenario.name == CAUGHT_BY[bug.name])
    with planted(bug, FRESH), pytest.raises(Violation):
        lane(STRIDE).exhaust(scenario, random.Random(SEED))
