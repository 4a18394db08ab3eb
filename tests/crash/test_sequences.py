"""Random sequences of what people and mishaps do to an app, against a model of the writes that were acknowledged."""

from __future__ import annotations

import functools

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from bulletproof.domain.deployment import Kind
from bulletproof.errors import UsageError
from crash.test_model import BUGS, FRESH, lane
from crash_model import Death, Lane, Violation, World, release_of
from crash_scenarios import Scenario
from planted import planted

pytestmark = pytest.mark.xdist_group("sequences")

BOUNDARIES = st.none() | st.integers(1, 130)
"""Where the deployer is killed, if it is; so many boundaries has a migration that is undone at the gate."""
AGAIN = st.none() | st.integers(1, 25)
"""Where its recovery is."""
_ALWAYS_FATAL = frozenset({"build", "crash", "500", "migration"})
"""With the others a first deployment goes live: nothing is put then, and nobody asked through the proxy before."""
BUDGET = hypothesis.settings(
    max_examples=100,
    stateful_step_count=12,
    deadline=None,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow],
)


def machine_over(lane: Lane) -> type[RuleBasedStateMachine]:
    """A machine over the operations as they are imported now."""

    class Sequences(Host):
        def __init__(self) -> None:
            super().__init__(lane)

    return Sequences


class Host(RuleBasedStateMachine):
    """A host in memory and what happens to it; after every step the oracle judges it."""

    def __init__(self, lane: Lane) -> None:
        super().__init__()
        self.lane = lane
        self.world = World()
        self.journal = lane.journal.Journal.in_memory(lambda: "2026-01-01T00:00:00.000+00:00")
        self.steps: list[str] = []
        self.has_stranger = False

    @initialize(is_strict=st.booleans(), has_stranger=st.booleans())
    def begin(self, is_strict: bool, has_stranger: bool) -> None:  # noqa: FBT001  hypothesis gives them
        """An app whose releases mind tables that they do not know, or not; somebody may write past it."""
        self.world.migrator.is_strict = is_strict
        self.has_stranger = has_stranger

    @rule(count=st.integers(1, 3))
    def write(self, count: int) -> None:
        """Users write."""
        for _ in range(count):
            self.world.ask()

    @rule(at=BOUNDARIES, again=AGAIN)
    def deploy(self, at: int | None, again: int | None) -> None:
        """A good release."""
        self._deploy(frozenset(), at, again, migrates=False)

    @rule(bad=st.sampled_from(["build", "crash", "500", "public"]), at=BOUNDARIES, again=AGAIN)
    def deploy_bad(self, bad: str, at: int | None, again: int | None) -> None:
        """One that cannot go live."""
        self._deploy(frozenset({bad}), at, again, migrates=False)

    @rule(at=BOUNDARIES, again=AGAIN)
    def deploy_migrating(self, at: int | None, again: int | None) -> None:
        """One that needs a table more."""
        self._deploy(frozenset(), at, again, migrates=True)

    @rule(bad=st.sampled_from(["migration", "put", "crash", "500"]), at=BOUNDARIES, again=AGAIN)
    def deploy_migrating_and_bad(self, bad: str, at: int | None, again: int | None) -> None:
        """One that needs a table more, and cannot go live."""
        self._deploy(frozenset({bad}), at, again, migrates=True)

    @precondition(lambda self: self.can_roll_back())
    @rule(at=BOUNDARIES, again=AGAIN)
    def roll_back(self, at: int | None, again: int | None) -> None:
        """To the release before."""
        self._do(Kind.ROLLBACK, at, again)

    @precondition(lambda self: self.journal.live())
    @rule(at=BOUNDARIES, again=AGAIN)
    def stop(self, at: int | None, again: int | None) -> None:
        """It is to stay stopped."""
        self._do(Kind.STOP, at, again)

    @precondition(lambda self: self.journal.live())
    @rule(at=BOUNDARIES, again=AGAIN)
    def start(self, at: int | None, again: int | None) -> None:
        """It is to serve again."""
        self._do(Kind.START, at, again)

    def can_roll_back(self) -> bool:
        """Whether an earlier release was ever live."""
        try:
            return bool(self.lane.activate.rollback_target(self.journal, ""))
        except UsageError:
            return False

    def _deploy(self, bad: frozenset[str], at: int | None, again: int | None, *, migrates: bool) -> None:
        """Its source knows all that the database has."""
        number, migrator = len(self.journal.entries()) + 1, self.world.migrator
        known = self.world.database.revisions or ("0001",)
        fresh = f"for-{number}"
        migrator.known[release_of(number)] = (*known, fresh) if migrates else known
        if "migration" in bad:
            migrator.failing.add(fresh if migrates else known[0])
        self._do(Kind.DEPLOY, at, again, bad)

    def _do(self, kind: Kind, at: int | None, again: int | None, bad: frozenset[str] = frozenset()) -> None:
        """One command, perhaps killed, perhaps its recovery as well; then the host is judged."""
        self.steps.append(f"{kind} {'/'.join(bad)} killed at {at}, {again}")
        world, journal, lane = self.world, self.journal, self.lane
        scenario = Scenario(str(kind), kind=kind, bad=bad, is_strict=world.migrator.is_strict, has_past=True)
        world.must_serve = bool(journal.live()) and journal.wants_running() and kind is not Kind.STOP
        world.bad, world.bad_from = bad, len(journal.entries()) + 1
        world.has_stranger = self.has_stranger and bool(journal.live())  # a first database may be removed again
        before = self._lived()
        if lane.is_killed(world, Death(at=at), functools.partial(lane.ask_for, scenario, world, journal)):
            recover = functools.partial(lane.recover, world, journal)
            if lane.is_killed(world, Death(at=again), recover):
                recover()
        elif bad & _ALWAYS_FATAL:
            assert self._lived() == before, f"{self.steps}: what is bad went live"
        world.must_serve = False
        lane.judge(scenario, world, journal, "; ".join(self.steps))
        world.bad, world.bad_from = frozenset(), 1_000_000

    def _lived(self) -> tuple[object, ...]:
        return tuple(one.number for one in self.journal.lived())


def run(lane: Lane, budget: hypothesis.settings = BUDGET) -> None:
    """Try sequences until one breaks a promise or the budget is spent."""
    run_state_machine_as_test(machine_over(lane), settings=budget)


def test_no_sequence_breaks_a_promise() -> None:
    """Whatever is done in whatever order, and killed wherever: the host is whole, and no acknowledged write is lost."""
    run(lane())


@pytest.mark.parametrize("name", ["snapshot put back twice", "resume before the commit"])
def test_a_planted_bug_is_caught(name: str) -> None:
    """The sequences have teeth: bugs that lose a write or leave the host in between are found."""
    (bug,) = (bug for bug in BUGS if bug.name == name)
    budget = hypothesis.settings(BUDGET, derandomize=True, database=None, phases=[Phase.generate], max_examples=500)
    with planted(bug, FRESH), pytest.raises(Violation):
        run(lane(), budget)
