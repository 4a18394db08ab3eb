"""What the checks by the clock note on a real host, and what `history`, `uptime` and `logs` make of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from bulletproof.cli.check import ground_of
from bulletproof.cli.target import Target
from bulletproof.domain.check import State
from bulletproof.domain.runs import Run
from bulletproof.operations.checks import checks_of, run_checks
from bulletproof.operations.record import note_run
from live_app import Event, LiveApp

pytestmark = [pytest.mark.xdist_group("health"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def app(make_lasting_app: Callable[[str], LiveApp]) -> LiveApp:
    """An app that is looked at by the clock, at a time that never comes in a test."""
    made = make_lasting_app("health")
    made.settings["check"] = {"schedule": "7 4 29 2 *"}
    made.configure()
    made.deploy("v1")
    return made


def by_the_clock(app: LiveApp) -> list[Event]:
    """What the supervisor runs by the clock to look at everything."""
    table = json.loads((app.layout.sockets / "children.json").read_text())
    return [entry["process"] for entry in table["entries"] if entry["process"]["name"].startswith("check-")]


def look(app: LiveApp) -> Event:
    """Run what the supervisor would when it is due, as the supervisor does; tells the line that was noted."""
    (process,) = by_the_clock(app)
    with Path(str(process["log"])).open("a") as log:
        surroundings = cast("dict[str, str]", process["environment"])
        argv = cast("list[str]", process["argv"])
        subprocess.run(argv, env=surroundings, cwd=str(process["folder"]), stdout=log, check=True, timeout=60)
    noted = json.loads(app.layout.health.read_text().splitlines()[-1])
    assert isinstance(noted, dict)
    return noted


def test_an_hour_in_which_all_is_well_gives_no_alarm(app: LiveApp) -> None:
    """A run for each of its minutes, with people at work all the while: none of them complains of anything."""
    target = Target(root=app.root, app=app.name)
    began = datetime.now(UTC) - timedelta(hours=1)
    with app.under_load():
        runs = [_look_at(target, began + timedelta(minutes=minute)) for minute in range(61)]
    assert [run.words for run in runs if run.state is not State.OK] == []
    assert sum(run.logged.requests for run in runs) > 61
    assert json.loads(app.run("history", "--json", status=0).out)["incidents"] == []
    hour = json.loads(app.run("uptime", "--json", status=0).out)["uptime"]["24 hours"]
    assert (hour["down_seconds"], hour["share"]) == (0, 1.0)
    assert hour["up_seconds"] >= 3600
    app.layout.health.unlink()


def _look_at(target: Target, moment: datetime) -> Run:
    """What a run by the clock does, as if it were that time."""
    ground = ground_of(target)
    return note_run(ground, run_checks(ground, checks_of(ground.config)), moment)


def test_what_is_noted(app: LiveApp) -> None:
    """States, the time of an answer, requests and errors since the last time; a line in health.log for each run."""
    first = look(app)
    checks = cast("dict[str, int]", first["checks"])
    assert checks["response"] == checks["service"] == 0
    assert cast("float", first["latency_ms"]) > 0
    assert cast("int", first["until"]) > cast("int", first["at"])
    for _ in range(7):
        app.ask("/up")
    with app.layout.access_log.open("a") as log:
        log.write('{"status":500}\n')
    with app.layout.web_log(1).open("a") as log:
        log.write("Traceback (most recent call last):\n  File\nKeyError: 'x'\n")
    logged = cast("dict[str, object]", look(app)["logged"])
    assert (logged["errors"], logged["complaint"]) == (1, "KeyError: 'x'")
    assert 8 <= cast("int", logged["requests"]) <= 12
    lines = app.run("logs", "health", status=0).out.splitlines()
    assert lines == app.layout.health_log.read_text().splitlines()
    assert len(lines) == 2
    assert f"1 answered with 5xx; 1 new errors in its log, the last: {logged['complaint']}" in lines[1]


def test_an_outage_is_an_incident(app: LiveApp) -> None:
    """It begins with the check that found it and ends with the first that did not, with the deployment between."""
    app.layout.environment.chmod(0o644)
    look(app)
    app.deploy("v2")
    app.layout.environment.chmod(0o600)
    look(app)
    told = json.loads(app.run("history", "--json", status=0).out)
    (incident,) = [one for one in told["incidents"] if one["state"] == "critical"]
    assert list(incident["words"]) == ["settings"]
    assert incident["end"] is not None
    assert incident["checks"] == 1
    assert [one["release"][0] for one in told["deployments"]] == ["1", "2"]
    assert incident["begin"] <= told["deployments"][1]["at"] <= incident["end"]
    assert told["days"][0]["errors"] == 1
    shown = app.run("history", status=0).out
    assert shown.index("✗ critical, for ") < shown.index("● 2: deploy 2-") < shown.index("answers in ms")


def test_uptime_counts_what_was_seen(app: LiveApp) -> None:
    """A day of runs of which one did not answer; the rest of the time is unknown, and a torn line changes nothing."""
    now = json.loads(app.layout.health.read_text().splitlines()[-1])["at"]
    made = [
        {"at": now - ago, "until": now - ago + 1020, "checks": {"response": 2 if ago == 9000 else 0}}
        for ago in range(18000, 0, -900)
    ]
    kept = app.layout.health.read_bytes()
    app.layout.health.write_bytes("".join(json.dumps(one) + "\n" for one in made).encode() + kept[:-9])
    day = json.loads(app.run("uptime", "--json", status=0).out)["uptime"]["24 hours"]
    assert day["down_seconds"] == 900
    assert 17000 < day["up_seconds"] < 17400
    assert 0.94 < day["share"] < 0.96
    assert 86000 < day["up_seconds"] + day["down_seconds"] + day["unknown_seconds"] < 86401
    shown = app.run("uptime", status=0).out.splitlines()
    assert shown[1].startswith("24 hours  9")
    look(app)
    assert all(json.loads(line) for line in app.layout.health.read_text().splitlines())


def test_a_stop_is_no_outage(app: LiveApp) -> None:
    """Nothing looks at it then, and the time is told apart; nothing of it runs."""
    app.run("stop", status=0)
    assert not app.processes()
    day = json.loads(app.run("uptime", "--json", status=0).out)["uptime"]["24 hours"]
    assert day["stopped_seconds"] > 0
