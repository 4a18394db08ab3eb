"""Private folders for something large: many processes make and sweep them at once, and none takes another's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

_MAKES = """
import sys
from bulletproof.effects.scratch import scratch_folder
for _ in range(40):
    with scratch_folder("bp-t-") as folder:
        (folder / "file").write_text("mine")
        assert (folder / "file").read_text() == "mine"
"""
_DIES = """
import os, signal
from bulletproof.effects.scratch import scratch_folder
with scratch_folder("bp-t-") as folder:
    (folder / "file").write_text("left")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _start(program: str, place: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "TMPDIR": str(place)}
    return subprocess.Popen([sys.executable, "-P", "-c", program], env=environment, stderr=subprocess.PIPE)


def test_many_at_once_take_nobody_elses(tmp_path: Path) -> None:
    """A found bug: one that was made this instant was swept as left by somebody dead."""
    makers = [_start(_MAKES, tmp_path) for _ in range(4)]
    said = [maker.communicate(timeout=60)[1].decode() for maker in makers]
    assert said == ["", "", "", ""]
    assert list(tmp_path.iterdir()) == []


def test_what_the_dead_left_goes_with_the_next(tmp_path: Path) -> None:
    """Whoever comes next removes it, and what is of no one's making stays."""
    (tmp_path / "bp-t-folder-of-a-person").mkdir()
    died = _start(_DIES, tmp_path)
    died.communicate(timeout=60)
    assert (died.returncode, len(list(tmp_path.iterdir()))) == (-signal.SIGKILL, 2)
    _start(_MAKES, tmp_path).communicate(timeout=60)
    assert [path.name for path in tmp_path.iterdir()] == ["bp-t-folder-of-a-person"]
