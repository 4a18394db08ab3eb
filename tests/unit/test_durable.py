"""The durable door on a disk that forgets what was not fsynced, on the real one, and with bugs planted in its text."""

# ruff: noqa: D102 (the methods of the model disk are what `os` calls so)

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from bulletproof.effects import durable

SOURCE = Path(durable.__file__).read_text(encoding="utf-8")
NOBODY = 65534


class PowerCut(BaseException):
    """The model disk has stopped; not an Exception, since no code of the program runs after it."""


@dataclass(eq=False)
class Inode:
    """A file, folder or symlink: as programs see it, and as it is on the platter."""

    kind: str
    mode: int
    content: bytes = b""
    safe_content: bytes = b""
    safe_mode: int = 0

    def __post_init__(self) -> None:
        self.safe_mode = self.mode

    def after(self, luck: str) -> tuple[str, int, bytes]:
        """Return what is seen after a power cut when the writes in flight were `lost`, `half` done or `all` done."""
        if luck == "all":
            return self.kind, self.mode, self.content
        if self.kind != "file":
            return self.kind, self.safe_mode, self.content
        seen = self.safe_content
        if luck == "half":
            pairs = zip(self.safe_content, self.content, strict=False)
            common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            seen = self.content[: (common + len(self.content)) // 2]
        return self.kind, self.safe_mode, seen


Names = dict[tuple[Inode, str], Inode | None]
Seen = tuple[str, int, bytes]
View = dict[str, Seen]


def a_file(content: str, mode: int = 0o600) -> Seen:
    """Describe a file."""
    return "file", mode, content.encode()


def a_folder(mode: int = 0o755) -> Seen:
    """Describe a folder."""
    return "folder", mode, b""


def a_link(target: str) -> Seen:
    """Describe a symlink."""
    return "symlink", 0o777, target.encode()


@dataclass
class Change:
    """Names that change together, and the folders whose fsync is still to come."""

    names: Names
    unsynced: set[Inode]


@dataclass
class ModelDisk:
    """The part of the module `os` that the door uses, over a disk that keeps what was not fsynced only by luck.

    Harsher than ext4 and xfs: changes of names that await an fsync of their folder may reach the disk in any
    combination, without the content of the files, and no fsync does more than it says.
    """

    umask: int = 0o077
    stop_at: int | None = None
    """Number of the change or fsync before which the power is cut."""
    fail_at: int | None = None
    """Number of the change or fsync that fails because the disk is full."""
    longest_write: int = 1 << 20
    steps: int = 0
    is_off: bool = False
    pid: int = (1 << 22) + 1  # beyond what Linux gives out, so no living process
    root: Inode = field(default_factory=lambda: Inode("folder", 0o755))
    base: Names = field(default_factory=dict)
    log: list[Change] = field(default_factory=list)
    open_files: dict[int, tuple[Inode, int]] = field(default_factory=dict)
    offsets: dict[int, int] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("O_") or name in {"strerror", "urandom", "W_OK"}:
            return getattr(os, name)
        raise AttributeError(name)

    # The primitives.

    def open(self, path: Path | str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        folder, name, inode = self._find(path, dir_fd)
        if inode is None:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
            self._step()
            inode = Inode("file", mode & ~self.umask)
            self._change({(folder, name): inode})
        elif flags & os.O_EXCL:
            raise FileExistsError(path)
        if flags & os.O_DIRECTORY and inode.kind != "folder":
            raise NotADirectoryError(path)
        if flags & os.O_TRUNC:
            self._step()
            inode.content = b""
        descriptor = 1000 + len(self.offsets)
        self.open_files[descriptor], self.offsets[descriptor] = (inode, flags), 0
        return descriptor

    def close(self, descriptor: int) -> None:
        del self.open_files[descriptor]

    def write(self, descriptor: int, content: bytes) -> int:
        self._step()
        inode, flags = self.open_files[descriptor]
        content = bytes(content) if flags & os.O_APPEND else bytes(content)[: self.longest_write]
        at = len(inode.content) if flags & os.O_APPEND else self.offsets[descriptor]
        inode.content = inode.content[:at] + content + inode.content[at + len(content) :]
        self.offsets[descriptor] = at + len(content)
        return len(content)

    def read(self, descriptor: int, count: int) -> bytes:
        content = self.pread(descriptor, count, self.offsets[descriptor])
        self.offsets[descriptor] += len(content)
        return content

    def pread(self, descriptor: int, count: int, offset: int) -> bytes:
        return self.open_files[descriptor][0].content[offset : offset + count]

    def ftruncate(self, descriptor: int, length: int) -> None:
        self._step()
        inode = self.open_files[descriptor][0]
        inode.content = inode.content[:length]

    def fchmod(self, descriptor: int, mode: int) -> None:
        self._step()
        self.open_files[descriptor][0].mode = mode

    def fsync(self, descriptor: int) -> None:
        self._step()
        self._make_safe(self.open_files[descriptor][0])

    def syncfs(self, _descriptor: int) -> None:
        self._step()
        for inode in [self.root, *(inode for inode in self.names().values() if inode)]:
            self._make_safe(inode)

    def rename(
        self, old: Path | str, new: Path | str, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        folder, name, inode = self._find(old, src_dir_fd)
        to_folder, to_name, replaced = self._find(new, dst_dir_fd)
        if inode is None:
            raise FileNotFoundError(old)
        if replaced and (replaced.kind == "folder") != (inode.kind == "folder"):
            raise IsADirectoryError(new) if replaced.kind == "folder" else NotADirectoryError(new)
        if replaced and self._inside(replaced):
            raise OSError(errno.ENOTEMPTY, "not empty", str(new))
        self._step()
        self._change({(folder, name): None, (to_folder, to_name): inode})

    def unlink(self, path: Path | str, *, dir_fd: int | None = None) -> None:
        folder, name, inode = self._find(path, dir_fd)
        if inode is None:
            raise FileNotFoundError(path)
        if inode.kind == "folder":
            raise IsADirectoryError(path)
        self._step()
        self._change({(folder, name): None})

    def rmdir(self, path: Path | str, *, dir_fd: int | None = None) -> None:
        folder, name, inode = self._find(path, dir_fd)
        if inode is None:
            raise FileNotFoundError(path)
        if self._inside(inode):
            raise OSError(errno.ENOTEMPTY, "not empty", str(path))
        self._step()
        self._change({(folder, name): None})

    def symlink(self, target: Path | str, path: Path | str) -> None:
        folder, name, inode = self._find(path, None)
        if inode is not None:
            raise FileExistsError(path)
        self._step()
        self._change({(folder, name): Inode("symlink", 0o777, str(target).encode())})

    def mkdir(self, path: Path | str, mode: int = 0o777) -> None:
        folder, name, inode = self._find(path, None)
        if inode is not None:
            raise FileExistsError(path)
        self._step()
        self._change({(folder, name): Inode("folder", mode & ~self.umask)})

    def stat(self, path: Path | str) -> SimpleNamespace:
        inode = self._find(path, None)[2]
        if inode is None:
            raise FileNotFoundError(path)
        kind = {"file": stat.S_IFREG, "folder": stat.S_IFDIR, "symlink": stat.S_IFLNK}[inode.kind]
        return SimpleNamespace(st_mode=kind | inode.mode, st_size=len(inode.content))

    lstat = stat

    def fstat(self, descriptor: int) -> SimpleNamespace:
        inode = self.open_files[descriptor][0]
        return SimpleNamespace(st_mode=inode.mode, st_size=len(inode.content))

    def listdir(self, descriptor: int) -> list[str]:
        return self._inside(self.open_files[descriptor][0])

    def access(self, _path: Path, _mode: int, *, effective_ids: bool) -> bool:
        return effective_ids

    def getpid(self) -> int:
        return self.pid

    # What becomes of it.

    def names(self, chosen: tuple[Change, ...] | None = None) -> Names:
        """Return all names; with `chosen`, those after a power cut: what was fsynced and these changes."""
        names = dict(self.base)
        for change in self.log:
            if chosen is None or not change.unsynced or change in chosen:
                names.update(change.names)
        return names

    def settle(self) -> None:
        """Make all that is there durable and begin to count."""
        for inode in [self.root, *(inode for inode in self.names().values() if inode)]:
            self._make_safe(inode)
        self.base, self.log, self.steps = self.names(), [], 0

    def view(self, chosen: tuple[Change, ...] | None = None, luck: str = "all") -> View:
        """Return the tree without what the door may leave behind: `.bp-` names, and a last line without its end."""
        names, view = self.names(chosen), View()

        def look(folder: Inode, path: str) -> None:
            for (place, name), inode in names.items():
                if place is folder and inode is not None and not name.startswith(durable.LEFTOVER_PREFIX):
                    view[f"{path}/{name}"] = inode.after(luck)
                    look(inode, f"{path}/{name}")

        look(self.root, "")
        return without_torn_lines(view)

    def survivors(self) -> Iterator[View]:
        """Yield each tree that a power cut at this moment may leave."""
        pending = [change for change in self.log if change.unsynced]
        if len(pending) <= 6:
            choices = [c for size in range(len(pending) + 1) for c in itertools.combinations(pending, size)]
        else:
            choices = [tuple(pending[:size]) for size in range(len(pending) + 1)]
            choices += [(change,) for change in pending]
        for chosen, luck in itertools.product(choices, ("lost", "half", "all")):
            yield self.view(chosen, luck)

    def leftovers(self) -> list[str]:
        """Return the `.bp-` names that programs see."""
        return [name for (_, name), inode in self.names().items() if inode and name.startswith(durable.LEFTOVER_PREFIX)]

    def _step(self) -> None:
        self.steps += 1
        self.is_off = self.is_off or self.steps == self.stop_at
        if self.is_off:
            raise PowerCut
        if self.steps == self.fail_at:
            raise OSError(errno.ENOSPC, "disk full")

    def _find(self, path: Path | str, dir_fd: int | None) -> tuple[Inode, str, Inode | None]:
        names, folder = self.names(), self.root if dir_fd is None else self.open_files[dir_fd][0]
        *parents, name = str(path).strip("/").split("/")
        for parent in parents:
            inside = names.get((folder, parent))
            if inside is None:
                raise FileNotFoundError(errno.ENOENT, "no such folder", str(path))
            folder = inside
        return folder, name, names.get((folder, name)) if name else folder

    def _inside(self, folder: Inode) -> list[str]:
        return [name for (place, name), inode in self.names().items() if place is folder and inode]

    def _change(self, names: Names) -> None:
        self.log.append(Change(names, {folder for folder, _ in names}))

    def _make_safe(self, inode: Inode) -> None:
        inode.safe_content, inode.safe_mode = inode.content, inode.mode
        for change in self.log:
            change.unsynced.discard(inode)


def without_torn_lines(view: View) -> View:
    """Leave out what an append does not count as a line, and a log without a line."""
    for path, (kind, mode, content) in list(view.items()):
        if path.endswith(".log"):
            view[path] = (kind, mode, content[: content.rfind(b"\n") + 1])
            if not view[path][2]:
                del view[path]
    return view


@dataclass(frozen=True)
class Case:
    """One call of the door."""

    name: str
    before: View
    act: Callable[[ModuleType, Path], object]
    changes: dict[str, Seen | None]
    """What is different in the end; None is gone."""
    again: Callable[[ModuleType, Path], object] | None = None
    """What to call when `act` was killed after it had been done, if not the same."""
    between: tuple[Callable[[ModuleType, Path], object], ...] = ()
    """Calls that are whole by themselves, of which `act` consists."""
    is_repeatable: bool = True

    def after(self) -> View:
        """Return what is to be seen in the end."""
        return {name: seen for name, seen in {**self.before, **self.changes}.items() if seen}


TREE = {
    "t": a_folder(), "t/a": a_file("1"), "t/in": a_folder(), "t/in/b": a_file("2"), "t/in/deep": a_folder(),
    "t/out": a_link("../keep"), "keep": a_folder(), "keep/c": a_file("3"),
}  # fmt: skip
TREE_GONE = dict.fromkeys([name for name in TREE if name.startswith("t")])
HALF_REMOVED = {".bp-gone-1": a_folder(), ".bp-gone-1/x": a_file("x")}
TWO_FOLDERS = {"from": a_folder(), "to": a_folder()}
LONG = "o" * 5000


def _rename_again(door: ModuleType, root: Path) -> None:
    door.sync_folder(root / "to")
    door.sync_folder(root / "from")


CASES = [
    Case("write a new file", {}, lambda d, r: d.write_file(r / "f", "nëw text", mode=0o640),
         {"f": a_file("nëw text", 0o640)}),
    Case("write over a file", {"f": a_file("old text")}, lambda d, r: d.write_file(r / "f", b"new", mode=0o664),
         {"f": a_file("new", 0o664)}),
    Case("write over a symlink", {"o": a_file("o"), "f": a_link("o")}, lambda d, r: d.write_file(r / "f", "new"),
         {"f": a_file("new", 0o644)}),
    Case("copy", {"s": a_file("source" * 9)}, lambda d, r: d.copy_file(r / "s", r / "f", mode=0o444),
         {"f": a_file("source" * 9, 0o444)}),
    Case("copy over", {"s": a_file("source"), "f": a_file("old")}, lambda d, r: d.copy_file(r / "s", r / "f"),
         {"f": a_file("source", 0o644)}),
    Case("first line", {}, lambda d, r: d.append_line(r / "x.log", "one", mode=0o640),
         {"x.log": a_file("one\n", 0o640)}, is_repeatable=False),
    Case("next line", {"x.log": a_file("one\n")}, lambda d, r: d.append_line(r / "x.log", "two"),
         {"x.log": a_file("one\ntwo\n")}, is_repeatable=False),
    Case("after a torn line", {"x.log": a_file("one\n" + LONG)}, lambda d, r: d.append_line(r / "x.log", "two"),
         {"x.log": a_file("one\ntwo\n")}, is_repeatable=False),
    Case("new symlink", {"1": a_folder()}, lambda d, r: d.replace_symlink(r / "l", "./1/"), {"l": a_link("./1/")}),
    Case("replace a symlink", {"l": a_link("1")}, lambda d, r: d.replace_symlink(r / "l", Path("2")),
         {"l": a_link("2")}),
    Case("make folders", {}, lambda d, r: d.make_folder(r / "a/b/c", mode=0o775),
         dict.fromkeys(["a", "a/b", "a/b/c"], a_folder(0o775)),
         between=(lambda d, r: d.make_folder(r / "a", mode=0o775), lambda d, r: d.make_folder(r / "a/b", mode=0o775))),
    Case("make one more", {"a": a_folder()}, lambda d, r: d.make_folder(r / "a/b", mode=0o700),
         {"a/b": a_folder(0o700)}),
    Case("folder is there", {"a": a_folder()}, lambda d, r: d.make_folder(r / "a", mode=0o700), {}),
    Case("remove a file", {"f": a_file("x")}, lambda d, r: d.remove(r / "f"), {"f": None}),
    Case("remove a symlink", {"k": a_file("x"), "l": a_link("k")}, lambda d, r: d.remove(r / "l"), {"l": None}),
    Case("remove nothing", {}, lambda d, r: (d.remove(r / "f"), d.remove(r / "no/f")), {}),
    Case("remove a tree", TREE, lambda d, r: d.remove_tree(r / "t"), TREE_GONE),
    Case("remove a tree that is a file", {"t": a_file("x")}, lambda d, r: d.remove_tree(r / "t"), {"t": None}),
    Case("remove a tree that is a symlink", {**TREE, "l": a_link("t")}, lambda d, r: d.remove_tree(r / "l"),
         {"l": None}),
    Case("remove no tree", {}, lambda d, r: (d.remove_tree(r / "t"), d.remove_tree(r / "no/t")), {}),
    Case("remove a half-removed tree", HALF_REMOVED, lambda d, r: d.remove_tree(r / "t"), dict.fromkeys(HALF_REMOVED)),
    Case("rename over", {"f": a_file("x"), "g": a_file("y")}, lambda d, r: d.rename(r / "f", r / "g"),
         {"f": None, "g": a_file("x")}, lambda d, r: d.sync_folder(r)),
    Case("move a file", {**TWO_FOLDERS, "from/f": a_file("x")}, lambda d, r: d.rename(r / "from/f", r / "to/f"),
         {"from/f": None, "to/f": a_file("x")}, _rename_again),
    Case("move a folder", {**TWO_FOLDERS, "from/t": a_folder(), "from/t/f": a_file("x")},
         lambda d, r: d.rename(r / "from/t", r / "to/t"),
         {"from/t": None, "from/t/f": None, "to/t": a_folder(), "to/t/f": a_file("x")}, _rename_again),
]  # fmt: skip
ROOT = Path("/data")
UNDONE = "a power cut undoes what was reported as done"
PART = "a part is left"
NOT_LASTING = "what a killed call did is taken for durable"
LEFT = "something is left behind"
WRONG = "not what was asked for"


def load(source: str = SOURCE) -> ModuleType:
    """Return the door made from this text, which a test may have changed."""
    module = ModuleType("door_under_test")
    exec(compile(source, "durable.py", "exec"), module.__dict__)  # noqa: S102 (a planted bug is run on purpose)
    return module


def plug(door: ModuleType, disk: ModelDisk) -> ModuleType:
    """Make `door` work on the model disk."""
    flock = SimpleNamespace(flock=lambda *_: None, LOCK_EX=fcntl.LOCK_EX)
    door.__dict__.update(os=disk, fcntl=flock, _syncfs=disk.syncfs)
    return door


def disk_before(case: Case, **settings: Any) -> ModelDisk:
    """Return a disk on which all that the case begins with is durable."""
    disk = ModelDisk(umask=0)
    disk.mkdir(ROOT, 0o755)
    for name, (kind, mode, content) in case.before.items():
        if kind == "symlink":
            disk.symlink(content.decode(), ROOT / name)
        elif kind == "folder":
            disk.mkdir(ROOT / name, mode)
        else:
            disk.write(disk.open(ROOT / name, os.O_WRONLY | os.O_CREAT, mode), content)
    disk.settle()
    disk.open_files.clear()
    for name, value in {"umask": 0o077, "longest_write": 5, **settings}.items():
        setattr(disk, name, value)
    return disk


def run_whole(door: ModuleType, case: Case) -> tuple[ModelDisk, list[View], View]:
    """Run a case undisturbed; return the disk, all that it may show at any time, and what it shows in the end."""
    allowed = [disk_before(case).view()]
    for part in (*case.between, case.act):
        disk = disk_before(case)
        part(plug(door, disk), ROOT)
        allowed.append(disk.view())
    expected = {f"{ROOT}/{name}": seen for name, seen in case.after().items()}
    assert disk.view() == {str(ROOT): a_folder(), **expected}, WRONG
    return disk, allowed, allowed[-1]


def check_power_cuts(door: ModuleType, case: Case) -> None:
    """Cut the power before each change: what is left is old or new; cut it after the return: it is new."""
    whole, allowed, new = run_whole(door, case)
    assert not whole.leftovers(), LEFT
    assert not whole.open_files, LEFT
    for after in whole.survivors():
        assert after == new, UNDONE
    for step in range(1, whole.steps + 1):
        disk = disk_before(case, stop_at=step)
        with pytest.raises(PowerCut):
            case.act(plug(door, disk), ROOT)
        for after in disk.survivors():
            assert after in allowed, f"{PART} by a power cut before step {step}"


def check_kills(door: ModuleType, case: Case) -> None:
    """Kill the call before each change: the next one reaches a state that lasts, and a sweep leaves nothing behind."""
    whole, allowed, new = run_whole(door, case)
    for step in range(1, whole.steps + 1):
        disk = disk_before(case, stop_at=step)
        with pytest.raises(PowerCut):
            case.act(plug(door, disk), ROOT)
        assert disk.view() in allowed, f"{PART} by a kill before step {step}"
        disk.stop_at, disk.is_off, disk.pid = None, False, disk.pid + 1
        (case.act if case.again is None or disk.view() != new else case.again)(door, ROOT)
        for after in disk.survivors():
            assert after == disk.view(), f"{NOT_LASTING}, killed before step {step}"
        assert disk.view() == new or not case.is_repeatable, WRONG
        for folder in [path for path, seen in disk.view().items() if seen[0] == "folder"]:
            door.sweep(Path(folder))
        assert not disk.leftovers(), LEFT


def check_full_disk(door: ModuleType, case: Case) -> None:
    """Let each change fail: the error is raised, and what is there is old or new, without anything unfinished."""
    whole, allowed, _ = run_whole(door, case)
    for step in range(1, whole.steps + 1):
        disk = disk_before(case, fail_at=step)
        with pytest.raises(OSError, match="disk full"):
            case.act(plug(door, disk), ROOT)
        assert disk.view() in allowed, f"{PART} by an error at step {step}"
        assert not [name for name in disk.leftovers() if not name.startswith(".bp-gone-")], LEFT
        assert not disk.open_files, LEFT


def check_sync_tree(door: ModuleType) -> None:
    """What others have written, never fsynced, survives once sync_tree has returned."""
    disk = disk_before(Case("", {"t": a_folder()}, lambda *_: None, {}))
    disk.mkdir(ROOT / "t/in")
    disk.write(disk.open(ROOT / "t/in/f", os.O_WRONLY | os.O_CREAT), b"built")
    plug(door, disk).sync_tree(ROOT / "t")
    assert all(after == disk.view() for after in disk.survivors()), UNDONE


def check_move_of_unsynced(door: ModuleType) -> None:
    """What another program wrote without an fsync is whole where `rename` has put it."""
    disk = disk_before(CASES[0])
    disk.write(disk.open(ROOT / "f", os.O_WRONLY | os.O_CREAT), b"built")
    plug(door, disk).rename(ROOT / "f", ROOT / "g")
    assert all(after == disk.view() for after in disk.survivors()), UNDONE


def check_all(door: ModuleType) -> None:
    """Hold every call of the door against every fault of the model."""
    check_sync_tree(door)
    check_move_of_unsynced(door)
    for case in CASES:
        check_power_cuts(door, case)
        check_kills(door, case)
        check_full_disk(door, case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("check", [check_power_cuts, check_kills, check_full_disk])
def test_every_call_is_whole_or_not_at_all(check: Callable[[ModuleType, Case], None], case: Case) -> None:
    """A power cut, a kill and a full disk at every primitive leave old or new, and new after the return."""
    check(load(), case)


def test_what_others_wrote_is_kept() -> None:
    """What another program built without any fsync survives a power cut after sync_tree, and a file after rename."""
    check_sync_tree(load())
    check_move_of_unsynced(load())


PLANTED = {  # function, text in it, what the bug makes of it, and the words in which the checks find it
    "no folder fsync after a write": ("new_file", "sync_folder(path.parent)", "pass", UNDONE),
    "no file fsync": ("new_file", "os.fsync(file)", "pass", UNDONE),
    "rename before fsync": ("new_file", "    os.fsync(file)\n        os.rename(temporary, path)",
                            "    os.rename(temporary, path)\n            os.fsync(file)", PART),
    "mode after fsync": ("new_file", "os.fchmod(file, mode)\n            yield file\n            os.fsync(file)",
                         "yield file\n            os.fsync(file)\n            os.fchmod(file, mode)", UNDONE),
    "write in place": ("write_file", "new_file(path, mode) as file:",
                       "_opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:", f"{UNDONE}|{WRONG}"),
    "short write taken for a whole one": ("_write_all", "while rest", "if rest", WRONG),
    "temporary file left behind": ("_temporary_beside", "_discard(temporary, failure)", "pass", LEFT),
    "symlink removed, then made": ("replace_symlink", "os.rename(t", "remove(link)\n        os.rename(t", PART),
    "no folder fsync after a symlink": ("replace_symlink", "sync_folder(link.parent)", "pass", UNDONE),
    "folder made in place": ("_make_one_folder", "os.mkdir(", "temporary = path\n                os.mkdir(", PART),
    "no fsync of a new folder": ("_make_one_folder", "os.fsync(descriptor)", "pass", UNDONE),
    "no fsync above a new folder": ("_make_one_folder", "os.fsync(parent)", "pass", UNDONE),
    "a folder that exists taken for durable": ("make_folder", "sync_folder(existing.parent)", "pass", NOT_LASTING),
    "nothing to remove taken for durable": ("remove", "        sync_f", "            sync_f", NOT_LASTING),
    "no fsync after a removal": ("remove", "sync_folder(path.parent)", "pass", UNDONE),
    "tree deleted where it stands": ("remove_tree", "os.rename(path.name, _gone_name(), src_dir_fd=parent, dst_dir_fd=",
                                     "_delete(path.name, parent=", PART),
    "tree deleted before it is gone": ("remove_tree", "os.fsync(parent)\n        for", "pass\n        for", PART),
    "half-removed tree left lying": ("remove_tree", "if name.startswith(_GONE)", "if False", LEFT),
    "only one folder of a move fsynced": ("rename", "if source.parent != destination.parent", "if False", UNDONE),
    "target folder of a move not fsynced": ("rename", "sync_folder(destination.parent)", "pass", UNDONE),
    "moved file not fsynced": ("rename", "_sync_content(source)", "pass", UNDONE),
    "first line before its name lasts": ("append_line", "sync_folder(path.parent)", "pass", UNDONE),
    "torn line left in place": ("append_line", "if end < size", "if False", WRONG),
    "line not fsynced": ("append_line", "os.fsync(file)", "pass", UNDONE),
    "tree not synced": ("sync_tree", "_syncfs(descriptor)", "pass", UNDONE),
    "sweep forgets the unfinished": ("_is_leftover", "return not (", "return False and (", LEFT),
}  # fmt: skip


def planted(bug: str) -> ModuleType:
    """Return a door with this bug in it."""
    function, right, wrong, _ = PLANTED[bug]
    start = SOURCE.index(f"def {function}(")
    text = SOURCE[start : SOURCE.index("\n\n\n", start)]
    assert text.count(right) == 1, "the text that this bug changes is not there any more"
    return load(SOURCE.replace(text, text.replace(right, wrong)))


@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bugs_are_caught(bug: str) -> None:
    """The checks above fail on a door with a bug in it, and say why: so they will when somebody makes it."""
    with pytest.raises(AssertionError, match=PLANTED[bug][-1]):
        check_all(planted(bug))


@pytest.fixture
def tight_umask() -> Iterator[None]:
    """Run with a umask that takes every right from others, and give the old one back."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def build(root: Path, before: View) -> None:
    """Put what a test begins with into a real folder."""
    for name, (kind, mode, content) in before.items():
        path = root / name
        if kind == "symlink":
            path.symlink_to(content.decode())
            continue
        if kind == "folder":
            path.mkdir()
        else:
            path.write_bytes(content)
        path.chmod(mode)


def look(root: Path) -> View:
    """Return a real tree."""
    view = View()
    for path in sorted(root.rglob("*")):
        mode, name = stat.S_IMODE(path.lstat().st_mode), str(path.relative_to(root))
        if path.is_symlink():
            view[name] = a_link(os.readlink(path))  # noqa: PTH115 (a Path would tidy it)
        else:
            view[name] = a_folder(mode) if path.is_dir() else ("file", mode, path.read_bytes())
    return view


def open_descriptors() -> int:
    """Count what this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.usefixtures("tight_umask")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_real_disk_agrees(case: Case, tmp_path: Path) -> None:
    """A real folder ends up as the model does: content, targets as given, exact modes, nothing left or open."""
    build(tmp_path, case.before)
    descriptors = open_descriptors()
    case.act(durable, tmp_path)
    assert look(tmp_path) == case.after()
    assert open_descriptors() == descriptors


@pytest.fixture
def plain_folder() -> Iterator[Path]:
    """Give a folder in which this test is nobody in particular, so that modes hold for it; root is root after it."""
    folder = Path(tempfile.mkdtemp(prefix="bulletproof-test-"))
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        subprocess.run(["chmod", "-R", "u+rwx", folder], check=False)
        shutil.rmtree(folder)


def test_read_only_trees_are_removed(plain_folder: Path) -> None:
    """Folders without any right for their owner, and files in them, are no obstacle to remove_tree."""
    folders = dict.fromkeys(["t", "t/a", "t/a/b", "t/c"], a_folder())
    build(plain_folder, {**folders, "t/a/b/f": a_file("x"), "t/c/g": a_file("x")})
    for name, mode in {
        "t/a/b/f": 0o000,
        "t/a/b": 0o000,
        "t/a": 0o500,
        "t/c/g": 0o400,
        "t/c": 0o555,
        "t": 0o100,
    }.items():
        (plain_folder / name).chmod(mode)
    durable.remove_tree(plain_folder / "t")
    assert not list(plain_folder.iterdir())


def test_what_a_symlink_in_a_tree_leads_to_keeps_its_mode(plain_folder: Path) -> None:
    """remove_tree opens up folders of the tree only, not a read-only one that a symlink in it leads to."""
    build(plain_folder, {"keep": a_folder(), "keep/f": a_file("x"), "t": a_folder(), "t/l": a_link("../keep")})
    (plain_folder / "keep").chmod(0o500)
    durable.remove_tree(plain_folder / "t")
    assert stat.S_IMODE((plain_folder / "keep").stat().st_mode) == 0o500
    assert (plain_folder / "keep/f").read_text(encoding="utf-8") == "x"


def swap_while_removed(door: ModuleType, root: Path) -> int:
    """Put a symlink in the place of a folder just when remove_tree has seen it; return the mode of its target after."""
    build(root, {"outside": a_folder(0o500), "t": a_folder(), "t/in": a_folder()})

    def unlink(name: str, *, dir_fd: int) -> None:
        try:
            os.unlink(name, dir_fd=dir_fd)
        except IsADirectoryError:
            if name == "in":
                os.rename(name, "aside", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
                os.symlink(root / "outside", name, dir_fd=dir_fd)
            raise

    racing = ModuleType("os")
    racing.__dict__.update({**vars(os), "unlink": unlink})
    door.__dict__["os"] = racing
    with contextlib.suppress(OSError):
        door.remove_tree(root / "t")
    return stat.S_IMODE((root / "outside").stat().st_mode)


def test_a_symlink_slipped_in_is_not_followed(tmp_path: Path) -> None:
    """An app that swaps a folder for a symlink while it is removed gains nothing; a door that follows it is caught."""
    assert swap_while_removed(load(), tmp_path) == 0o500
    right = "os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW"
    assert SOURCE.count(right) == 1
    (tmp_path / "again").mkdir()
    assert swap_while_removed(load(SOURCE.replace(right, "os.O_PATH | os.O_DIRECTORY")), tmp_path / "again") == 0o700


def test_folders_below_one_that_we_may_not_write(plain_folder: Path) -> None:
    """make_folder needs no right on the parent of a folder that is there, as it is with a home below /home."""
    build(plain_folder, {"home": a_folder(), "home/me": a_folder()})
    (plain_folder / "home").chmod(0o111)
    durable.make_folder(plain_folder / "home/me/state")
    assert (plain_folder / "home/me/state").is_dir()


def test_trees_deeper_than_the_stack_are_removed(tmp_path: Path) -> None:
    """A tree of 1,500 levels, whose path no system call would take, goes without a RecursionError."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for name in ["t", *("d" * 20 for _ in range(1500))]:
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    durable.remove_tree(tmp_path / "t")
    assert not list(tmp_path.iterdir())


def test_a_limit_in_the_middle_of_a_write_leaves_the_old(tmp_path: Path) -> None:
    """A file that cannot grow any more (EFBIG stands for a full disk) stays as it was, and no temporary one stays."""
    build(tmp_path, {"f": a_file("old"), "x.log": a_file("one\n")})
    program = """
import pathlib, resource, sys
from bulletproof.effects import durable
root = pathlib.Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for call in (durable.write_file, durable.append_line):
    try:
        call(root / ("f" if call is durable.write_file else "x.log"), "x" * 5000)
    except OSError as error:
        print(error.errno)
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(errno.EFBIG), str(errno.ENOSPC)]
    assert look(tmp_path) == {"f": a_file("old"), "x.log": a_file("one\n")}


def test_errors_say_which_file(tmp_path: Path) -> None:
    """A failing call names the file that was asked for, not a descriptor, and adds no note about cleaning up."""
    with pytest.raises(FileNotFoundError) as raised:
        durable.write_file(tmp_path / "no/f", "x")
    assert "no/" in str(raised.value)
    assert not hasattr(raised.value, "__notes__")
    disk = disk_before(CASES[0], fail_at=3)
    with pytest.raises(OSError, match="disk full: '/data/f'"):
        CASES[0].act(plug(load(), disk), ROOT)


def test_refusals(tmp_path: Path) -> None:
    """What would lose something or cannot be done whole is refused, and changes nothing."""
    full = {"a": a_folder(), "a/x": a_file("x"), "b": a_folder(), "b/y": a_file("y")}
    build(tmp_path, {**full, "f": a_file("f"), "hole": a_link("nowhere")})
    before = look(tmp_path)
    refusals: list[tuple[type[Exception], Callable[[], object]]] = [
        (OSError, lambda: durable.rename(tmp_path / "a", tmp_path / "b")),
        (IsADirectoryError, lambda: durable.rename(tmp_path / "f", tmp_path / "b")),
        (IsADirectoryError, lambda: durable.remove(tmp_path / "a")),
        (IsADirectoryError, lambda: durable.replace_symlink(tmp_path / "a", "b")),
        (IsADirectoryError, lambda: durable.write_file(tmp_path / "a", "x")),
        (NotADirectoryError, lambda: durable.make_folder(tmp_path / "f")),
        (NotADirectoryError, lambda: durable.make_folder(tmp_path / "f/below")),
        (NotADirectoryError, lambda: durable.make_folder(tmp_path / "hole")),
        (FileNotFoundError, lambda: durable.make_folder(tmp_path / "new/../other")),
        (ValueError, lambda: durable.append_line(tmp_path / "f", "two\nlines")),
        (OSError, lambda: durable.append_line(tmp_path / "hole", "x")),
        (ValueError, lambda: durable.remove_tree(tmp_path / "..")),
        (ValueError, lambda: durable.remove_tree(Path())),
    ]
    for error, refused in refusals:
        with pytest.raises(error):
            refused()
        assert look(tmp_path) == before


def test_folders_made_at_the_same_time(tmp_path: Path) -> None:
    """Several makers of one path all succeed, and what the first has put in it stays."""
    failures: list[BaseException] = []

    def make(name: str, barrier: threading.Barrier, round_number: int) -> None:
        try:
            barrier.wait()
            durable.make_folder(tmp_path / f"{round_number}/b/c")
            durable.write_file(tmp_path / f"{round_number}/b/c" / name, name)
        except BaseException as error:  # noqa: BLE001 (shown below)
            failures.append(error)

    for number in range(20):
        barrier = threading.Barrier(3)
        threads = [threading.Thread(target=make, args=(name, barrier, number)) for name in "xyz"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(path.name for path in (tmp_path / f"{number}/b/c").iterdir()) == ["x", "y", "z"]
    assert failures == []
    assert not list(tmp_path.rglob(".bp-*"))


def test_lines_of_many_writers_stay_whole(tmp_path: Path) -> None:
    """Lines that several threads append at the same time are all there, each in one piece."""

    def append(number: int) -> None:
        for _ in range(20):
            durable.append_line(tmp_path / "x.log", f"{number}" * 99)

    threads = [threading.Thread(target=append, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (tmp_path / "x.log").read_text(encoding="utf-8").splitlines()
    assert sorted(lines) == sorted(f"{n}" * 99 for n in range(4) for _ in range(20))


def test_sweep_spares_the_living_and_takes_what_the_dead_left(tmp_path: Path) -> None:
    """The unfinished file of a living writer stays; killed, it goes, also before anybody has waited for the process."""
    program = """
import pathlib, sys, time
from bulletproof.effects import durable
with durable.new_file(pathlib.Path(sys.argv[1]) / "f", 0o600) as file:
    print("writing", flush=True)
    time.sleep(60)
"""
    writer = subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        assert durable.sweep(tmp_path) == []
        assert len(list(tmp_path.iterdir())) == 1
        writer.kill()
        os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)
        assert len(durable.sweep(tmp_path)) == 1
        assert not list(tmp_path.iterdir())
    finally:
        writer.kill()
        writer.communicate()


def test_sweep_is_not_fooled_by_a_number_that_was_given_out_again(tmp_path: Path) -> None:
    """A leftover whose maker's pid belongs to another process by now is deleted, and files of others are not."""
    own = durable._maker(os.getpid())
    left = [f".bp-new-{os.getpid()}.1.ab", ".bp-new-", ".bp-new-x", f".bp-new-{os.getpid()}", ".bp-gone-1"]
    kept = [f".bp-new-{own}.ab", "bp-new-1", ".bp", "f"]
    build(tmp_path, dict.fromkeys([*left, *kept], a_file("x")))
    assert durable.sweep(tmp_path) == sorted(left)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    assert durable.sweep(tmp_path / "no") == []


def test_without_syncfs_each_file_is_synced(tmp_path: Path) -> None:
    """Where syncfs(2) cannot be relied upon, sync_tree opens what is a file, and a pipe does not stop it."""
    build(tmp_path, TREE)
    os.mkfifo(tmp_path / "t/pipe")
    door = load()
    synced: list[str] = []
    counting = ModuleType("os")
    counting.__dict__.update(vars(os))
    counting.__dict__["fsync"] = lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
    door.__dict__.update(os=counting, _kernel=lambda: (5, 7))
    door.sync_tree(tmp_path / "t")
    assert sorted(synced) == sorted(["a", "b", "deep", "in", "t", tmp_path.name])


def test_syncfs_tells_its_errors() -> None:
    """A sync that failed is an OSError with its number, not a silent success; the same bug planted is silent."""
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)) as raised:
        durable._syncfs(-1)
    assert raised.value.errno == errno.EBADF
    right = ".syncfs(descriptor) != 0"
    assert SOURCE.count(right) == 1
    load(SOURCE.replace(right, ".syncfs(descriptor) > 0"))._syncfs(-1)
