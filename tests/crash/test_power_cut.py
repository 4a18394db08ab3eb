"""Real power cuts: an ext4 that loses at once whatever was not fsynced, and what the durable door has done stays.

Each case works on a loop image, shuts the file system down without flushing its journal (EXT4_IOC_SHUTDOWN), mounts it
again and looks. All run in one program, which is this file too, in a mount namespace of its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from bulletproof.effects import durable

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, the same number as that of xfs
WITHOUT_FLUSHING_THE_LOG = 2
IMAGE_MIB = 32
SOURCE = Path(durable.__file__).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Case:
    """What is there before (it is synced), what is done just before the cut, and whether that is still so after it."""

    before: Callable[[Path], object]
    act: Callable[[ModuleType, Path], object]
    is_done: Callable[[Path], bool]


def build_tree(root: Path) -> None:
    """Write a small tree as another program does, without any fsync."""
    (root / "t/in").mkdir(parents=True)
    for name in ("t/a", "t/in/b"):
        (root / name).write_text("built", encoding="utf-8")


def is_built(root: Path) -> bool:
    """Tell whether that tree is whole."""
    return all((root / name).is_file() and text(root / name) == "built" for name in ("t/a", "t/in/b"))


def text(path: Path) -> str:
    """Return what is in a file, nothing when there is none."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def two_folders(root: Path) -> None:
    """Make a file in one folder, and another folder."""
    (root / "from").mkdir()
    (root / "to").mkdir()
    (root / "from/f").write_text("moved", encoding="utf-8")


def commit_in_journal(root: Path) -> sqlite3.Connection:
    """Commit one row in a new database as the engine's journal does, and leave it open, as a crash does."""
    database = sqlite3.connect(root / "journal.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE record (step TEXT)")
    database.execute("INSERT INTO record VALUES ('cutover')")
    return database


def is_committed(root: Path) -> bool:
    """Tell whether the row is there and the database is whole."""
    with closing(sqlite3.connect(root / "journal.db")) as database:
        rows = database.execute("SELECT step FROM record").fetchall()
        return rows == [("cutover",)] and database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def is_empty(root: Path) -> bool:
    """Tell whether nothing is left, not even under another name."""
    return [path.name for path in root.iterdir()] == ["lost+found"]


def with_syncfs(door: ModuleType, root: Path) -> None:
    """Sync a built tree."""
    build_tree(root)
    door.sync_tree(root / "t")


def without_syncfs(door: ModuleType, root: Path) -> None:
    """Sync a built tree on a kernel that is too old."""
    build_tree(root)
    door.__dict__["_kernel"] = lambda: (4, 18)
    door.sync_tree(root / "t")


def nothing(_root: Path) -> None:
    """Begin with an empty disk."""


CASES = {
    "write a new file": Case(
        nothing, lambda d, r: d.write_file(r / "f", "x" * 9000), lambda r: len(text(r / "f")) == 9000),
    "write over a file": Case(
        lambda r: (r / "f").write_text("old" * 5000, encoding="utf-8"),
        lambda d, r: d.write_file(r / "f", "new"), lambda r: text(r / "f") == "new"),
    "copy a file": Case(
        lambda r: (r / "s").write_text("old", encoding="utf-8"),
        lambda d, r: d.copy_file(r / "s", r / "f"), lambda r: text(r / "f") == "old"),
    "append the first line": Case(
        nothing, lambda d, r: d.append_line(r / "log", "one"), lambda r: text(r / "log") == "one\n"),
    "append a line": Case(
        lambda r: (r / "log").write_text("one\n", encoding="utf-8"),
        lambda d, r: d.append_line(r / "log", "two"), lambda r: text(r / "log") == "one\ntwo\n"),
    "replace a symlink": Case(
        lambda r: (r / "l").symlink_to("1"),
        lambda d, r: d.replace_symlink(r / "l", "2"), lambda r: str((r / "l").readlink()) == "2"),
    "make folders": Case(nothing, lambda d, r: d.make_folder(r / "a/b/c"), lambda r: (r / "a/b/c").is_dir()),
    "remove a file": Case(
        lambda r: (r / "f").write_text("x", encoding="utf-8"),
        lambda d, r: d.remove(r / "f"), lambda r: not (r / "f").exists()),
    "remove a tree": Case(build_tree, lambda d, r: d.remove_tree(r / "t"), is_empty),
    "rename": Case(
        two_folders, lambda d, r: d.rename(r / "from/f", r / "to/f"),
        lambda r: text(r / "to/f") == "moved" and not (r / "from/f").exists()),
    "sync a tree": Case(nothing, with_syncfs, is_built),
    "sync a tree file by file": Case(nothing, without_syncfs, is_built),
    "commit in the journal": Case(nothing, lambda _, r: commit_in_journal(r), is_committed),
}  # fmt: skip
CUTS = 5  # until one loses it: whoever calls sync(2) meanwhile writes all disks, and hides a missing fsync
PLANTED = {  # the case, the text of the door, and what the bug makes of it
    "missing folder fsync": ("write a new file", "        os.rename(temporary, path)\n    sync_folder(path.parent)",
                             "        os.rename(temporary, path)"),
    "missing file fsync": ("write a new file", "            yield file\n            os.fsync(file)",
                           "            yield file"),
    "missing folder fsync of a symlink": ("replace a symlink", "    sync_folder(link.parent)", "    pass"),
    "missing syncfs": ("sync a tree", "            _syncfs(descriptor)", "            return"),
}  # fmt: skip


def cut_the_power(name: str, door_text: str, folder: Path) -> bool:
    """Run a case and a power cut inside the namespace; return whether what was done is still so."""
    case, image, root = CASES[name], str(folder / "image"), folder / "mounted"
    mount = ["mount", "-t", "ext4", "-o", "loop,commit=600", image, str(root)]
    subprocess.run(["mkfs.ext4", "-q", "-F", image, f"{IMAGE_MIB}M"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(mount, check=True)
    case.before(root)
    os.sync()
    with acted(case, door_text, root):
        disk = os.open(root, os.O_RDONLY)
        fcntl.ioctl(disk, SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING_THE_LOG))
        os.close(disk)
    subprocess.run(["umount", str(root)], check=True)
    subprocess.run(mount, check=True)
    is_done = case.is_done(root)
    subprocess.run(["umount", str(root)], check=True)
    return is_done


@contextmanager
def acted(case: Case, door_text: str, root: Path) -> Iterator[None]:
    """Do what the case does in a child that is killed at the end of the block, with all that it holds open."""
    from_child, to_parent = os.pipe()
    from_parent, to_child = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(to_child)
        door = ModuleType("door")
        exec(compile(door_text, "durable.py", "exec"), door.__dict__)  # noqa: S102 (a planted bug is run on purpose)
        held_open = case.act(door, root)
        os.write(to_parent, b"done")
        os.read(from_parent, 1)  # ends when the parent does
        os._exit(0 if held_open else 1)
    os.close(to_parent)
    try:
        if os.read(from_child, 4) != b"done":
            raise RuntimeError("the case itself has failed")
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def why_not() -> str:
    """Say why this machine cannot lose its power on purpose; empty when it can."""
    if os.geteuid() != 0:
        return "a power cut needs root: it mounts a file system and shuts it down"
    for program in ("mkfs.ext4", "mount", "umount", "unshare", "losetup"):
        if shutil.which(program) is None:
            return f"a power cut needs the program {program}"
    if not Path("/dev/loop-control").exists():
        return "a power cut needs a loop device"
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode != 0:
        return "a power cut needs a mount namespace, which is not allowed here"
    return ""


WHY_NOT = why_not()
pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]
BIND = """
import errno, pathlib, subprocess, sys
from bulletproof.effects import durable
folder = pathlib.Path(sys.argv[1])
subprocess.run(["mount", "--bind", folder / "keep", folder / "t/in/mounted"], check=True)
try:
    durable.remove_tree(folder / "t")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a folder for the image, and see to it that no loop device is left of it."""
    folder = tmp_path_factory.mktemp("power-cut")
    (folder / "mounted").mkdir()
    yield folder
    assert_nothing_is_left(folder)


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, str]:
    """Cut the power in every case and with every planted bug, and return what was `kept` and `lost`."""
    work = [(name, name, SOURCE) for name in CASES]
    for bug, (name, right, wrong) in PLANTED.items():
        assert SOURCE.count(right) == 1, "the text that this bug changes is not there any more"
        work.append((bug, name, SOURCE.replace(right, wrong)))
    done = in_namespace(__file__, folder, work=work)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def in_namespace(*words: str | Path, work: Sequence[tuple[str, str, str]] = ()) -> subprocess.CompletedProcess[str]:
    """Run Python in a mount namespace of its own, which takes its mounts with it whatever becomes of it."""
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, *map(str, words)]
    return subprocess.run(command, input=json.dumps(work), capture_output=True, text=True, timeout=120, check=False)


def assert_nothing_is_left(folder: Path) -> None:
    """Wait for the kernel to detach the loop device, which it does when the last process of the namespace is gone."""
    find = ["losetup", "-j", str(folder / "image")]
    deadline = time.monotonic() + 5
    while devices := subprocess.run(find, check=True, capture_output=True, text=True).stdout:
        assert time.monotonic() < deadline, devices
        time.sleep(0.05)


@pytest.mark.parametrize("name", CASES)
def test_what_was_done_survives_a_power_cut(name: str, outcomes: dict[str, str]) -> None:
    """After a call of the door has returned, and after a commit in WAL with FULL, a power cut takes nothing back."""
    assert outcomes[name] == "kept"


@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bugs_lose_it(bug: str, outcomes: dict[str, str]) -> None:
    """Without its fsync the same call is lost, so this power cut is one that would show a missing fsync."""
    assert outcomes[bug] == "lost"


def test_a_failure_leaves_nothing_mounted(folder: Path) -> None:
    """A case that fails while the image is mounted takes mount and loop device with it."""
    broken = f"{SOURCE}\n\ndef write_file(*_, **__):\n    raise RuntimeError('on purpose')\n"
    done = in_namespace(__file__, folder, work=[("broken", "write a new file", broken)])
    assert done.returncode == 1
    assert "on purpose" in done.stderr
    assert_nothing_is_left(folder)


def test_what_is_mounted_in_a_tree_is_not_emptied(tmp_path: Path) -> None:
    """remove_tree refuses with EBUSY to go into a mounted folder, and what is mounted there keeps its files."""
    (tmp_path / "t/in/mounted").mkdir(parents=True)
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep/f").write_text("x", encoding="utf-8")
    done = in_namespace("-c", BIND, tmp_path)
    assert done.stdout.split() == ["EBUSY"], done.stderr
    assert text(tmp_path / "keep/f") == "x"


if __name__ == "__main__":
    outcome = {
        key: "kept" if all(cut_the_power(name, door_text, Path(sys.argv[1])) for _ in range(CUTS)) else "lost"
        for key, name, door_text in json.load(sys.stdin)
    }
    sys.stdout.write(json.dumps(outcome))
