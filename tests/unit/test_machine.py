"""What the machine says of itself, and how long its disk lasts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.domain.trend import lost_per_day
from bulletproof.effects.machine import clock_error, reboot_wanted_by, replaced_libraries

NOW = 1_790_000_000
DAY = 86400
GIB = 1 << 30


def test_the_clock_is_asked_of_the_kernel() -> None:
    """It tells how wrong it may be, or that nobody keeps it: as `adjtimex` of another program has it."""
    error = clock_error()
    assert error is None or 0 <= error < 100


def test_a_reboot_that_is_waited_for(tmp_path: Path) -> None:
    """By the files that Debian's packages make, each package named once."""
    flag = tmp_path / "reboot-required"
    assert reboot_wanted_by(flag) is None
    flag.write_text("*** System restart required ***\n")
    assert reboot_wanted_by(flag) == ()
    (tmp_path / "reboot-required.pkgs").write_text("linux-base\nlibssl3\nlinux-base\n")
    assert reboot_wanted_by(flag) == ("linux-base", "libssl3")


def test_a_library_that_was_replaced_is_seen(tmp_path: Path) -> None:
    """As an upgrade does it: another file by the same name while a process runs the old one."""
    original = next(Path(sys.prefix).glob("lib/python3*/site-packages/**/*.so"))
    library = tmp_path / "libfoo.so.1"
    shutil.copy(original, library)
    script = "import mmap, sys; f = open(sys.argv[1], 'rb'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)"
    argv = [sys.executable, "-c", f"{script}; print('ready', flush=True); sys.stdin.read()", str(library)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        nowhere = tmp_path / "nowhere"
        assert replaced_libraries([process.pid], nowhere) == ()
        shutil.copy(original, tmp_path / "new")
        (tmp_path / "new").rename(library)
        assert replaced_libraries([process.pid, os.getpid()], nowhere) == ("libfoo.so.1",)
        assert replaced_libraries([process.pid], tmp_path) == ()
        process.communicate(timeout=10)
    assert replaced_libraries([process.pid], nowhere) == ()


def test_a_disk_that_is_filled() -> None:
    """By so much a day; not before three days; a day on which much came or went is no trend."""
    quarters = range(0, 10 * DAY, 900)
    steady = [(NOW - ago, 100 * GIB + ago * GIB // DAY) for ago in quarters]
    assert lost_per_day(steady, NOW) == pytest.approx(GIB, rel=0.01)
    assert lost_per_day([one for one in steady if one[0] > NOW - 2 * DAY], NOW) is None
    assert lost_per_day([], NOW) is None
    jump = [(NOW - ago, 100 * GIB + (40 * GIB if ago > 5 * DAY else 0)) for ago in quarters]
    assert lost_per_day(jump, NOW) == 0
    emptied = [(NOW - ago, 100 * GIB - ago) for ago in quarters]
    lost = lost_per_day(emptied, NOW)
    assert lost is not None
    assert lost < 0


@given(st.lists(st.tuples(st.integers(NOW - 20 * DAY, NOW + DAY), st.integers(0, 1 << 50)), max_size=50))
def test_whatever_was_noted_it_is_a_number_or_nothing(free: list[tuple[int, int]]) -> None:
    """The order plays no part."""
    assert lost_per_day(free, NOW) == lost_per_day(reversed(free), NOW)
