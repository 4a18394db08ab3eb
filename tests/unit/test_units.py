"""Units: systemd's own judge finds nothing in them, names lead there and back, and no word of a secret is in one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.domain import units
from bulletproof.domain.process import PROXY, RELAY, ProcessSpec, timer_name, web_name, worker_name
from bulletproof.domain.units import Patience

WEB = ProcessSpec(
    name=web_name(3),
    argv=("/bin/sh", "-c", "sleep 1; echo 100% $HOME"),
    folder=Path("/"),
    log=Path("/var/log/shop/web-3.log"),
    settings=Path("/var/lib/bulletproof/shop/settings/3.json"),
    runtime=Path("/run/bulletproof/shop/3"),
    stop_signal="SIGQUIT",
)
HOLD = ProcessSpec(
    name=RELAY,
    argv=("/bin/cat",),
    folder=Path("/"),
    log=Path("/var/log/shop/log"),
    listen=Path("/run/bulletproof/shop/hold.sock"),
)
NIGHTLY = ProcessSpec(
    name=timer_name(3, "mail"),
    argv=("/bin/true",),
    folder=Path("/"),
    log=Path("/var/log/shop/log"),
    schedule="0 3 13 * fri",
    timeout_seconds=60.0,
    drain_seconds=7.5,
    is_group=True,
)
ALL = [WEB, HOLD, NIGHTLY]
NAMES = [PROXY, RELAY, web_name(12), worker_name(3, "mail-out", 2), timer_name(3, "a.b_c")]


def lay(folder: Path, process: ProcessSpec) -> list[Path]:
    """Write the units of a process."""
    unit = units.unit_name("shop", process.name)
    files = {unit: units.service("shop", process, folder / "env", Patience())}
    if process.schedule:
        files[units.beside(unit, "timer")] = units.timer("shop", process)
    if process.listen:
        files[units.beside(unit, "socket")] = units.socket("shop", process)
    for name, text in files.items():
        (folder / name).write_text(text)
    return [folder / name for name in files]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("process", ALL, ids=lambda process: process.name)
def test_systemd_finds_nothing_in_them(tmp_path: Path, process: ProcessSpec) -> None:
    """No unknown key, no missing program, no odd value."""
    files = lay(tmp_path, process)
    argv = ("systemd-analyze", "verify", "--man=no", *map(str, files))
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("app", ["shop", "shop-web", "a"])
def test_a_name_leads_to_a_unit_and_back(app: str, name: str) -> None:
    """And to no other app's process, however the apps are called."""
    unit = units.unit_name(app, name)
    assert units.process_name(app, unit) == name
    assert units.process_name("other", unit) is None


def test_an_app_does_not_take_another_ones_unit_for_its_own() -> None:
    """`shop` and `shop-web` on one host."""
    assert units.process_name("shop", units.unit_name("shop-web", web_name(1))) is None
    assert units.process_name("shop", units.unit_name("shop-web", PROXY)) is None


def test_a_timer_notes_how_long_a_run_may_go_on() -> None:
    """Whoever stops it reads that from the unit, so that nothing need be remembered."""
    assert units.drain_seconds(units.timer("shop", NIGHTLY)) == 7.5
    assert units.drain_seconds("[Timer]\n") == 0


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_a_value_takes_one_variable(value: str) -> None:
    """Whatever it holds, it does not end its quotes."""
    text = units.environment_file({"A": value, "B": "b"})
    assert text.startswith('A="')
    assert text.endswith('"\nB="b"\n')
    inner = text[3 : -len('"\nB="b"\n')]
    assert inner.replace("\\\\", "").replace('\\"', "").count('"') == 0
