"""Processes side by side: workers begin anew when the source changes, timers run when they are due; nothing is left."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bulletproof.effects.source_changes import SourceChanges
from bulletproof.errors import StepFailed
from bulletproof.operations import develop
from bulletproof.operations.develop import WEB, Stage, Task, migrate, run_side_by_side
from embedded.places import until

_WEB = "until [ -e stop ]; do sleep 0.02; done"


class _Scene:
    """Tasks that run, and what they told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[str] = []

    def stage(self) -> Stage:
        """Where they run."""
        environment = {"PATH": os.environ["PATH"]}
        return Stage(
            folder=self.folder, environment=environment, tell=lambda name, line: self.told.append(f"{name} {line}")
        )

    @contextmanager
    def running(self, *tasks: Task, at_once: frozenset[str] = frozenset()) -> Iterator[None]:
        """Until the web server ends."""
        web = Task(name=WEB, argv=("/bin/sh", "-c", _WEB))
        status: list[int] = []
        beside = threading.Thread(
            target=lambda: status.append(run_side_by_side((web, *tasks), self.stage(), at_once=at_once))
        )
        beside.start()
        try:
            yield
        finally:
            (self.folder / "stop").touch()
            beside.join(timeout=30)
        assert status == [0], self.told

    def count(self, line: str) -> int:
        """How often a line was told."""
        return self.told.count(line)


@pytest.fixture
def scene(tmp_path: Path) -> _Scene:
    """A folder with a Python file."""
    (tmp_path / "app.py").write_text("")
    return _Scene(tmp_path)


def _task(name: str, script: str, **values: object) -> Task:
    return Task(name=name, argv=("/bin/sh", "-c", script), **values)  # type: ignore[arg-type]


def test_workers_begin_anew_when_the_source_is_changed(scene: _Scene) -> None:
    """One that runs, one that had crashed and one that will not end; each once, and nobody waits for the last."""
    runs = _task("runs", "trap 'echo bye; exit' TERM; echo hello; while :; do sleep 0.05; done")
    crashed = _task("crashed", "echo tried; exit 3")
    stubborn = _task("stubborn", "trap '' TERM; echo here; while :; do sleep 0.05; done", stop_seconds=1.5)
    with scene.running(runs, crashed, stubborn):
        until(lambda: scene.count("runs hello") == 1 and scene.count("stubborn here") == 1)
        until(lambda: "crashed ended with exit status 3" in scene.told)
        (scene.folder / "app.py").write_text("changed = 1\n")
        until(lambda: scene.count("runs hello") == 2 and scene.count("crashed tried") == 2)
        assert scene.count("stubborn here") == 1
        until(lambda: scene.count("stubborn here") == 2)

    assert scene.count("runs app.py was changed, so it begins anew") == 1
    assert scene.told.index("runs bye") < len(scene.told) - 1 - scene.told[::-1].index("runs hello")
    assert scene.count("crashed ended with exit status 3") == 2


def test_timers_run_when_they_are_due(scene: _Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock, of which a minute passes in a third of a second; one at a time, and none for ever."""
    began, start = time.monotonic(), datetime(2026, 11, 28, 12, 0, 30, tzinfo=UTC)
    monkeypatch.setattr(develop, "local_now", lambda: start + timedelta(seconds=180 * (time.monotonic() - began)))
    quick = _task("quick", "echo ran", schedule="* * * * *", timeout_seconds=60)
    slow = _task("slow", "sleep 1000", schedule="* * * * *", timeout_seconds=1.5, stop_seconds=0.1)
    yearly = _task("yearly", "echo rarely", schedule="@yearly", timeout_seconds=60)
    never = _task("never", "echo never", schedule="@yearly", timeout_seconds=60)
    with scene.running(quick, slow, yearly, never, at_once=frozenset({"yearly"})):
        until(lambda: scene.count("quick ran") >= 3)
        until(lambda: "slow ended after 2 s, its longest time" in scene.told)

    assert scene.count("yearly rarely") == 1
    assert "slow is due again and still runs, so this time is left out" in scene.told
    assert "never never" not in scene.told


def test_a_migration_is_shown_and_its_failure_ends_it(scene: _Scene) -> None:
    """Its lines, then that it failed."""
    migrate("echo 'to 2'", scene.stage())
    with pytest.raises(StepFailed, match="exit status 4"):
        migrate("echo no; exit 4", scene.stage())

    assert scene.told == ["migrate echo 'to 2'", "migrate to 2", "migrate echo no; exit 4", "migrate no"]


def test_what_is_no_source_is_not_looked_at(tmp_path: Path) -> None:
    """Environments, hidden folders, other files; what is removed and made counts."""
    ours = ("app.py", "shop/models.py")
    for name in (*ours, ".venv/lib/x.py", "own/pyvenv.cfg", "own/x.py", "node_modules/x.py", "a.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    changes = SourceChanges(tmp_path)
    assert changes.since() == ()
    for path in [*tmp_path.rglob("*.*")]:
        if path.is_file():
            path.write_text("another")
    assert changes.since() == ours
    (tmp_path / "app.py").rename(tmp_path / "main.py")
    assert changes.since() == ("app.py", "main.py")
    assert changes.since() == ()
