"""The deployment lock with real processes: who holds it, who may take it, and what the note in it is worth."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import importlib.util
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bulletproof.effects import lock
from bulletproof.errors import LockHeld, Refused

REAL = Path(lock.__file__)
SOURCE = REAL.read_text(encoding="utf-8")
AT_ONCE_SECONDS = 2.0  # for a busy machine; it takes milliseconds
ME = lock.Holder.of_this_process("deploy", step="preflight")
NOTE = msgspec.json.encode(ME) + b"\n"

# The programs get the text of the lock as a file, so that a test can plant a bug in it.
LOAD = """
import importlib.util, os, pathlib, subprocess, sys, time
spec = importlib.util.spec_from_file_location("lock_under_test", sys.argv[1])
lock = importlib.util.module_from_spec(spec)
sys.modules["lock_under_test"] = lock
spec.loader.exec_module(lock)
from bulletproof.errors import LockHeld
path = pathlib.Path(sys.argv[2])
me = lock.Holder.of_this_process("deploy", step="build", deployment=7)
"""
HOLD = LOAD + """
held = lock.acquire(path, me)
print("held", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""  # fmt: skip
TAKE_TURNS = LOAD + """
path.with_name(f"ready-{os.getpid()}").touch()
while len(list(path.parent.glob("ready-*"))) < 3:
    time.sleep(0.001)
turns = 0
while turns < 25:
    try:
        held = lock.acquire(path, me)
    except LockHeld:
        continue
    inside = os.open(path.with_name("inside"), os.O_CREAT | os.O_EXCL)
    time.sleep(0.001)
    os.unlink(path.with_name("inside"))
    os.close(inside)
    held.release()
    turns += 1
"""  # fmt: skip


class Owner:
    """A process that holds the lock and does what it is told, line by line."""

    def __init__(self, source: Path, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, source, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._expect("held")

    def do(self, line: str) -> None:
        """Run a line of Python in it."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        self._expect("done")

    def kill(self) -> None:
        """End it as a power cut would, and leave it as a zombie, whose number nobody else can have."""
        self.process.kill()
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)

    def _expect(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{word}\n"


@contextlib.contextmanager
def owner(source: Path, path: Path) -> Iterator[Owner]:
    """Give a process that holds the lock, and end it."""
    holding = Owner(source, path)
    try:
        yield holding
    finally:
        holding.process.kill()
        holding.process.communicate()


@contextlib.contextmanager
def living(pid: int) -> Iterator[None]:
    """End a process whose parent is not this one."""
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a lock that nobody has taken yet."""
    return tmp_path / "lock"


def load(source: Path = REAL) -> ModuleType:
    """Return a lock of its own from this text, in which a test may change something."""
    spec = importlib.util.spec_from_file_location("lock_under_test", source)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["lock_under_test"] = importlib.util.module_from_spec(spec)  # where its dataclass is looked up
    spec.loader.exec_module(module)
    return module


def with_flock(module: ModuleType, before: Callable[[int], object]) -> ModuleType:
    """Make the lock call `before` with the operation each time that it is about to call flock(2)."""

    def flock(descriptor: int, operation: int) -> None:
        before(operation)
        fcntl.flock(descriptor, operation)

    module.__dict__["fcntl"] = SimpleNamespace(**{**vars(fcntl), "flock": flock})
    return module


def is_free(path: Path) -> bool:
    """Tell whether nobody holds the lock."""
    with path.open("rb") as file:
        return lock._try_flock(file.fileno())


def has_died_in_the_middle(path: Path) -> bool:
    """Tell what the supervisor would find, and leave everything as it was."""
    taken = lock.take_from_dead(path)
    if taken is not None:
        taken.leave_to_child()
    return taken is not None


# What must be true of the lock, each as a check of any text of it.


def check_death_frees(source: Path, path: Path) -> None:
    """The lock of an owner that got SIGKILL is free at once, though its number may still stand for a process."""
    with owner(source, path) as dead:
        dead.kill()
        began = time.monotonic()
        try:
            load(source).acquire(path, ME).release()
        except LockHeld as error:
            raise AssertionError("the lock of a dead owner is held") from error
        assert time.monotonic() - began < AT_ONCE_SECONDS


def check_turns(source: Path, path: Path) -> None:
    """Three processes that want it all the time never have it at once, and each gets its turns."""
    command = [sys.executable, "-c", TAKE_TURNS, str(source), str(path)]
    wanting = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        ends = [process.communicate(timeout=60)[1] for process in wanting]
    finally:
        for process in wanting:
            process.kill()
            process.communicate()
    assert [process.returncode for process in wanting] == [0, 0, 0], "".join(ends)


def check_children(source: Path, path: Path) -> None:
    """A program that the owner has started, and that outlives it, does not keep the lock."""
    start = "child = subprocess.Popen(['sleep', '60'], close_fds=False, stdin=-3, stdout=-3); "
    with owner(source, path) as parent:
        parent.do(start + "path.with_name('child').write_text(str(child.pid))")
        with living(int(path.with_name("child").read_text(encoding="utf-8"))):
            parent.kill()
            assert is_free(path), "a child keeps the lock of its dead parent"


def check_release(source: Path, path: Path) -> None:
    """The note is empty before the lock is given back, so whoever gets it next never takes us for dead."""
    notes: dict[int, bytes] = {}
    module = with_flock(load(source), lambda operation: notes.update({operation: path.read_bytes()}))
    module.acquire(path, ME).release()
    assert notes[fcntl.LOCK_UN] == b"", "there is a note in a lock that is given back"


def check_removed(source: Path, path: Path) -> None:
    """A file that was removed between open and flock locks nothing, so the one at the path is locked."""
    removals = iter([path.unlink])
    held = with_flock(load(source), lambda _: next(removals, lambda: None)()).acquire(path, ME)
    assert path.exists(), "a file is locked that is not there any more"
    assert os.path.samestat(path.stat(), os.fstat(held.fileno()))
    held.release()


def check_empty_note_is_left_alone(source: Path, path: Path) -> None:
    """An owner that has just got the lock, or is giving it back, is not disturbed by a look for the dead."""
    path.touch()
    calls: list[int] = []
    assert with_flock(load(source), calls.append).take_from_dead(path) is None
    assert calls == [], "the lock was touched"


def check_released_meanwhile(source: Path, path: Path) -> None:
    """An owner that gives the lock back between the look at its note and our flock has not died."""
    path.write_bytes(NOTE)
    module = with_flock(load(source), lambda _: path.write_bytes(b""))
    assert module.take_from_dead(path) is None, "a clean end is taken for a death"
    assert is_free(path), "the lock was kept"


CHECKS = [
    check_death_frees, check_turns, check_children, check_release, check_removed, check_empty_note_is_left_alone,
    check_released_meanwhile,
]  # fmt: skip
PLANTED = {  # the text of the lock, what the bug makes of it, the check that must find it, and in which words
    "pidfile lock": ("""\
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
""", """\
    owner = _parse(os.pread(descriptor, _NOTE_BYTES, 0))
    return owner is None or not _is_alive(owner.pid)
""", check_death_frees, "of a dead owner is held"),
    "no lock at all": ("LOCK_EX | fcntl.LOCK_NB", "LOCK_UN", check_turns, "FileExistsError"),
    "children inherit": ("    if not stat.S_IS", "    os.set_inheritable(descriptor, True)\n    if not stat.S_IS",
                         check_children, "a child keeps"),
    "unlock before the note is empty": ("""\
            os.ftruncate(self._descriptor, 0)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
""", """\
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.ftruncate(self._descriptor, 0)
""", check_release, "given back"),
    "removed file taken for the lock": ("        if _is_still_at(path, descriptor):\n            return descriptor",
                                        "        return descriptor", check_removed, "not there any more"),
    "lock touched without a note": ("    if _has_note(descriptor) and _try_flock", "    if _try_flock",
                                    check_empty_note_is_left_alone, "was touched"),
    "note not read again": ("        owner = _dead_owner(descriptor)\n        if owner is not None",
                            "        owner = _dead_owner(descriptor) or _UNREADABLE\n        if owner is not None",
                            check_released_meanwhile, "taken for a death"),
}  # fmt: skip


@pytest.mark.parametrize("check", CHECKS)
def test_what_must_be_true_of_the_lock(check: Callable[[Path, Path], None], path: Path) -> None:
    """Death frees it, two never have it, children do not keep it, and the note tells the dead from the living."""
    check(REAL, path)


@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bugs_are_caught(bug: str, path: Path) -> None:
    """The same check fails on a lock with a bug in it: one that trusts the number in the file, for example."""
    right, wrong, check, words = PLANTED[bug]
    assert SOURCE.count(right) == 1, "the text that this bug changes is not there any more"
    planted = path.with_name("planted.py")
    planted.write_text(SOURCE.replace(right, wrong), encoding="utf-8")
    with pytest.raises(AssertionError, match=words):
        check(planted, path)


def test_whoever_comes_second_is_told_who_is_first(path: Path) -> None:
    """LockHeld (exit 5) names verb, deployment, user, pid, step and age of the owner, and the option that waits."""
    with owner(REAL, path) as first:
        first.do("held.update(step='cutover', deployment=12)")
        with pytest.raises(LockHeld) as raised:
            lock.acquire(path, ME)
        user = lock.Holder.of_this_process("", step="").user
        assert raised.value.exit_code == 5
        assert raised.value.reference == "lock-held"
        assert "--wait SECONDS" in raised.value.hint
        for words in (
            "`deploy` of deployment 12",
            f"by {user} (pid {first.process.pid})",
            "at step cutover, for",
        ):
            assert words in raised.value.message
        noted = lock.peek(path)
        assert noted is not None
        assert noted == replace(ME, pid=first.process.pid, started_at=noted.started_at, deployment=12, step="cutover")


def test_waiting_ends_when_the_lock_is_free(path: Path) -> None:
    """With wait_seconds a second one gets the lock as soon as the first gives it back, and not before."""
    with owner(REAL, path) as first:
        later = threading.Timer(0.4, first.do, ["held.release()"])
        later.start()
        began = time.monotonic()
        held = lock.acquire(path, ME, wait_seconds=20)
        assert 0.3 < time.monotonic() - began < 0.4 + AT_ONCE_SECONDS
        later.join()
        assert held.left_by is None
        assert lock.peek(path) == ME
        held.release()


def test_waiting_ends_when_the_time_is_up(path: Path) -> None:
    """An owner that stays is waited for as long as asked, then it is LockHeld; without wait_seconds at once."""
    with owner(REAL, path):
        for seconds in (0.0, 0.5):
            began = time.monotonic()
            with pytest.raises(LockHeld):
                lock.acquire(path, ME, wait_seconds=seconds)
            assert seconds <= time.monotonic() - began < seconds + AT_ONCE_SECONDS


def test_a_recovery_is_waited_for(path: Path) -> None:
    """A recovery is waited for without being asked to, up to its patience; so is one that has not said so yet."""
    module = load()
    module.__dict__["RECOVERY_PATIENCE_SECONDS"] = 0.5
    with owner(REAL, path) as first:
        first.do("held.announce(lock.Holder.of_this_process('recover', step='undo build'))")
        began = time.monotonic()
        with pytest.raises(LockHeld, match="`recover`"):
            module.acquire(path, ME)
        assert 0.5 <= time.monotonic() - began < 0.5 + AT_ONCE_SECONDS
        later = threading.Timer(0.7, first.do, ["held.release()"])
        later.start()
        lock.acquire(path, ME).release()
        later.join()
    with owner(REAL, path) as dead:
        dead.process.kill()
        dead.process.communicate()
        taken = lock.take_from_dead(path)
        assert taken is not None
        began = time.monotonic()
        with pytest.raises(LockHeld, match=f"pid {dead.process.pid}"):
            module.acquire(path, ME)
        assert time.monotonic() - began >= 0.5
        taken.release()


def test_a_lock_that_changes_hands_is_waited_for(path: Path) -> None:
    """A lock without a note has an owner for moments only: it is waited for, and if it stays it is said plainly."""
    other = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(LockHeld, match="has not said which"):
        lock.acquire(path, ME)
    later = threading.Timer(0.2, os.close, [other])
    later.start()
    lock.acquire(path, ME).release()
    later.join()


def test_the_dead_are_told_from_the_living(path: Path) -> None:
    """Only a lock whose owner died in the middle is taken from it: not of a living one, nor after a clean end."""
    assert not has_died_in_the_middle(path)
    with owner(REAL, path) as first:
        note = path.read_bytes()
        assert not has_died_in_the_middle(path)
        assert path.read_bytes() == note
        first.do("held.release()")
        assert not has_died_in_the_middle(path)
        first.process.kill()
        first.process.wait()
        assert not has_died_in_the_middle(path)
    with owner(REAL, path) as second:
        second.kill()
        taken = lock.take_from_dead(path)
        assert taken is not None
        assert taken.holder == taken.left_by == lock.peek(path)
        assert (taken.holder.pid, taken.holder.step, taken.holder.deployment) == (second.process.pid, "build", 7)
        taken.release()
        assert not has_died_in_the_middle(path)


def test_the_next_owner_learns_who_died(path: Path) -> None:
    """Whoever takes the lock before the supervisor does is told who died in it, also if the note is garbage."""
    with owner(REAL, path) as dead:
        dead.kill()
        held = lock.acquire(path, ME)
        assert held.left_by is not None
        assert held.left_by.pid == dead.process.pid
        held.release()
    path.write_bytes(b"\x00\xff{")
    held = lock.acquire(path, ME)
    assert held.left_by is not None
    assert held.left_by.verb == "unknown"
    held.release()
    path.write_bytes(b"{}")
    assert has_died_in_the_middle(path)


def test_a_child_inherits_the_lock(path: Path) -> None:
    """A child that was given the descriptor holds the lock when the parent has left it, and frees it by ending."""
    path.write_bytes(NOTE)
    taken = lock.take_from_dead(path)
    assert taken is not None
    program = (
        LOAD
        + """
held = lock.inherit(int(sys.argv[3]), path)
assert not os.get_inheritable(held.fileno())
held.announce(lock.Holder.of_this_process("recover", step=held.left_by.step))
print("held", flush=True)
sys.stdin.read()
"""
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, REAL, path, str(taken.fileno())],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[taken.fileno()],
    )  # fmt: skip
    try:
        taken.leave_to_child()
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        noted = lock.peek(path)
        assert noted is not None
        assert (noted.verb, noted.pid, noted.step) == ("recover", child.pid, ME.step)
        assert not has_died_in_the_middle(path)
        child.kill()
        child.wait()
        assert has_died_in_the_middle(path)
    finally:
        child.kill()
        child.communicate()


def test_only_the_descriptor_of_the_lock_can_be_inherited(path: Path) -> None:
    """A descriptor of the same file that does not hold the lock, or of another file, is refused as LockHeld."""
    held = lock.acquire(path, ME)
    for wrong in (path, path.with_name("other")):
        descriptor = os.open(wrong, os.O_RDWR | os.O_CREAT)
        with pytest.raises(LockHeld):
            lock.inherit(descriptor, path)
        os.close(descriptor)
    held.release()


def test_a_released_lock_stays_released(path: Path) -> None:
    """A second release does nothing, above all not to the next owner."""
    first = lock.acquire(path, ME)
    first.release()
    second = lock.acquire(path, ME)
    first.release()
    assert lock.peek(path) == ME
    with pytest.raises(LockHeld):
        lock.acquire(path, ME)
    second.release()


def test_a_note_that_cannot_be_emptied_keeps_nobody_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails at the very end of a deployment does not make it one that failed: the lock is free."""
    held = lock.acquire(path, ME)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "ftruncate", fail)
        held.release()
    assert not lock.is_held(path)
    lock.acquire(path, ME).release()


def test_the_file_is_private_and_never_behind_a_symlink(path: Path, tmp_path: Path) -> None:
    """The lock has mode 0600 whatever the umask; a symlink and a pipe are refused, and what they lead to stays."""
    before = os.umask(0)
    try:
        lock.acquire(path, ME).release()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    target = tmp_path / "target"
    target.write_bytes(NOTE)
    (tmp_path / "link").symlink_to(target)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        for refused in (lock.take_from_dead, lock.peek, lambda wrong: lock.acquire(wrong, ME)):
            with pytest.raises(Refused):
                refused(tmp_path / name)
    assert target.read_bytes() == NOTE
    with pytest.raises(FileNotFoundError):
        lock.acquire(tmp_path / "no/lock", ME)
    assert lock.peek(tmp_path / "no/lock") is None


def test_a_note_is_read_whole_or_not_at_all(path: Path) -> None:
    """A shorter note over a longer one is read well, also when its writer died before it cut off the rest."""
    held = lock.acquire(path, replace(ME, step="x" * 500))
    held.update(step="gate")
    assert lock.peek(path) == replace(ME, step="gate")
    assert path.read_bytes().count(b"\n") == 1
    held.release()
    path.write_bytes(NOTE + b"xxxxx\n")
    assert lock.peek(path) == ME
    path.write_bytes(NOTE[:-10])
    assert lock.peek(path) is None


@given(st.one_of(st.binary(), st.builds(lambda cut, tail: NOTE[:cut] + tail, st.integers(0, len(NOTE)), st.binary())))
def test_no_garbage_in_the_note_is_an_error(note: bytes) -> None:
    """Whatever is in the file, it is a holder or nobody."""
    found = lock._parse(note)
    assert found is None or found.in_words()


@pytest.mark.parametrize(
    ("ago", "words"),
    [(0, "for 0 s"), (59, "for 59 s"), (60, "for 1 minute"), (7199, "for 1 hour"), (7200, "for 2 hours"),
     (200000, "for 2 days"), (-100, "for 0 s")],
)  # fmt: skip
def test_ages_in_words(ago: int, words: str) -> None:
    """The age of an owner is said in the largest unit, and a clock that was set back makes it no riddle."""
    began = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=ago + 0.1)
    assert lock._age(began.isoformat()) == words
    assert lock._age("yesterday") == lock._age("2024-01-01T00:00:00") == "since an unknown time"
