"""kill -9 of a deployer that changes the data: entirely old or entirely new by itself, no write lost."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
import pytest

import workshop
from bulletproof.demo.traffic import Traffic
from bulletproof.effects.isolation import why_no_namespaces
from bulletproof.operations.pipelines import ACTIVATE_MIGRATING, MIGRATING
from embedded.data import Data, ask, assert_kept, grow, kept, last_number, remains, set_aside, snapshots, version
from embedded.places import until
from embedded.test_kill import _must_be_entirely, _names
from embedded.test_migrate import patient
from live_app import LASTING, Event, LiveApp, breaks_only_live

pytestmark = [
    pytest.mark.skipif(
        bool(why_no_namespaces()), reason=f"the kernel lets this user make no cell: {why_no_namespaces()}"
    ),
    pytest.mark.timeout(600),
]

MakeApp = Callable[[str], LiveApp]
_SWAPPED = {"start", "gate"}
"""Killed at the beginning of one of these, a deployer has put the migrated data in place."""
_UNDONE = [step.name for step in reversed(MIGRATING.before) if step.undo is not None]
_HELD = _names(ACTIVATE_MIGRATING.before)[_names(ACTIVATE_MIGRATING.before).index("hold") :]


@dataclass(frozen=True, slots=True)
class Before:
    """What a killed deployment has to leave as it is, unless it was committed."""

    release: str
    version: str
    data: Data
    snapshots: set[int]
    since: float

    @classmethod
    def of(cls, app: LiveApp, traffic: Traffic) -> Before:
        """As it is now."""
        return cls(
            release=app.layout.current.resolve().name,
            version=app.version(),
            data=Data.of(app.database),
            snapshots=snapshots(app),
            since=traffic.mark(),
        )

    def must_be_back(self, app: LiveApp, traffic: Traffic, status: Event) -> None:
        """The old release serves with the data as they were, and nothing of the new one is left."""
        _must_be_entirely(app, status, self.release)
        assert app.version() == self.version
        assert self.data.is_kept_in(app.database)
        assert snapshots(app) == self.snapshots
        self.must_be_whole(app, traffic)

    def must_be_whole(self, app: LiveApp, traffic: Traffic) -> None:
        """Nobody was failed, no write lost, nothing left."""
        assert_kept(app, traffic, self.since)
        assert not remains(app)


# --- a deployment


@pytest.fixture(scope="module")
def warm(make_lasting_app: MakeApp) -> LiveApp:
    """An app with v2 live."""
    app = patient(make_lasting_app("killed"))
    app.deploy("v2")
    return app


@pytest.fixture(scope="module")
def warm_traffic(warm: LiveApp) -> Iterator[Traffic]:
    """Reads and writes on it without a pause; at the end no write may be lost or doubled."""
    with warm.under_load(LASTING) as traffic:
        yield traffic


_ALL = _names((*MIGRATING.before, *MIGRATING.after))
_FROM_THE_REHEARSAL_ON = _ALL[_ALL.index("rehearse") :]
"""Until then it is the pipeline of every deployment, which test_kill.py kills."""


@pytest.mark.xdist_group("migrate-kill")
@pytest.mark.parametrize("step", _FROM_THE_REHEARSAL_ON)
def test_a_killed_migration_is_entirely_old_or_entirely_new(warm: LiveApp, warm_traffic: Traffic, step: str) -> None:
    """Before the commit point release and data are as they were, after it both are new; no command, no failure."""
    before, revision = Before.of(warm, warm_traffic), grow(warm)
    killed = warm.kill_at("step-started", step, "deploy", revision)
    status, number = warm.wait_until_whole(), last_number(warm)

    assert killed.status == -signal.SIGKILL
    is_new = status["last_outcome"] == "deployed"
    # A gate may be passed while the signal is on its way.
    assert is_new is (step in _names(MIGRATING.after)) or step == "gate"
    if is_new:
        _must_be_entirely(warm, status, killed.events[0]["release"])
        assert warm.version() == f"grown-{version(warm.database)}"
        assert ask(kept(warm, number), "SELECT version_num FROM alembic_version") == [
            tuple(row) for row in before.data.rows["alembic_version"]
        ]
        before.must_be_whole(warm, warm_traffic)
    else:
        before.must_be_back(warm, warm_traffic, status)
    aside = len(set_aside(warm, number))
    assert aside == int(step in _SWAPPED and not is_new) or (step == "swap" and aside <= 1)


@pytest.mark.xdist_group("migrate-kill")
@pytest.mark.parametrize("step", ["snapshot", "gate"])
def test_a_recovery_that_is_killed_itself_is_taken_up_by_the_next(
    warm: LiveApp, warm_traffic: Traffic, step: str
) -> None:
    """Killed as soon as it is there and once more while it undoes, before and after the data was swapped."""
    before, revision = Before.of(warm, warm_traffic), grow(warm)
    warm.kill_at("step-started", step, "deploy", revision)
    killed = set()
    for seconds in (0.0, 0.6):
        recovery = until(lambda: [one for one in _recoveries(warm) if one.pid not in killed], "nothing recovers")[0]
        time.sleep(seconds)
        recovery.kill()
        killed.add(recovery.pid)
    status = warm.wait_until_whole()

    assert len(killed) == 2
    before.must_be_back(warm, warm_traffic, status)


def _recoveries(app: LiveApp) -> list[psutil.Process]:
    """The processes that recover the app now."""
    found = []
    for process in app.processes():
        with contextlib.suppress(psutil.Error):
            if "recover" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.mark.xdist_group("migrate-kill")
def test_the_next_migration_after_all_these_kills_works(warm: LiveApp, warm_traffic: Traffic) -> None:
    """A command goes on where nothing was left behind."""
    since, revision = warm_traffic.mark(), grow(warm)
    warm.kill_at("step-started", "gate", "deploy", revision)
    done = warm.deploy(revision, "--wait", "30")

    assert warm.version() == f"grown-{version(warm.database)}"
    assert warm.status()["serving"] == done.release
    assert_kept(warm, warm_traffic, since)
    assert not remains(warm)


# --- a rollback, and an undo


@pytest.fixture(scope="module")
def back(make_lasting_app: MakeApp) -> LiveApp:
    """An app with v4-contract live, and v3 before it, which cannot work with today's data."""
    app = patient(make_lasting_app("back"))
    app.deploy("v3")
    app.deploy("v4-contract")
    return app


@pytest.fixture(scope="module")
def back_traffic(back: LiveApp) -> Iterator[Traffic]:
    """The same for that one."""
    with back.under_load(LASTING) as traffic:
        yield traffic


@pytest.fixture(scope="module")
def broken(back: LiveApp) -> str:
    """A release with one more migration, which crashes beside the live data alone."""
    workshop.git(back.folder, "checkout", "--quiet", "--force", "v4-contract")
    back.configure()
    grow(back)
    return breaks_only_live(back)


@pytest.mark.xdist_group("migrate-kill-undo")
@pytest.mark.parametrize("step", _UNDONE)
def test_an_undo_that_is_killed_is_finished(back: LiveApp, back_traffic: Traffic, broken: str, step: str) -> None:
    """What it began to undo is undone to the end, and what was put back once is not put back again."""
    before = Before.of(back, back_traffic)
    back.kill_at("step-undone", step, "deploy", broken)
    status = back.wait_until_whole()

    assert status["last_outcome"] == "undone"
    before.must_be_back(back, back_traffic, status)
    assert len(set_aside(back, last_number(back))) == 1


@pytest.mark.xdist_group("migrate-kill-undo")
@pytest.mark.parametrize("step", [*_HELD, "cutover"])
def test_a_killed_rollback_is_entirely_old_or_entirely_new(back: LiveApp, back_traffic: Traffic, step: str) -> None:
    """The same where migrations are taken back."""
    if back.version() != "v4-contract":
        back.deploy("v4-contract")
    (earlier,) = {str(one["release"]) for one in back.history() if one["number"] == 1}
    before = Before.of(back, back_traffic)
    killed = back.kill_at("step-started", step, "rollback", earlier, "--allow-data-loss")
    status = back.wait_until_whole()

    assert killed.events[0].items() >= {"kind": "rollback", "release": earlier}.items()
    is_new = status["last_outcome"] == "deployed"
    assert is_new is (step == "cutover") or step == "gate"
    if is_new:
        _must_be_entirely(back, status, earlier)
        assert (back.version(), version(back.database)) == ("v3", "0002")
        before.must_be_whole(back, back_traffic)
    else:
        before.must_be_back(back, back_traffic, status)
