"""The deployment lock: flock(2) on an open file, so it dies with its owner, and a note in that file of who it is."""

# The kernel alone decides who holds the lock; the note only says it in words. It is written after the lock was got and
# emptied before it is given back, so a note in the file of a lock that nobody holds means that its owner died in the
# middle. The note needs no fsync: it tells of kills, which the page cache survives. What a power cut interrupted is
# told by the journal, which must be asked after a boot whatever the note says.

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import os
import pwd
import stat
import time
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from bulletproof.errors import LockHeld, Refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RECOVERY_VERB = "recover"
BACKUP_VERB = "backup"
BACKUP_PATIENCE_SECONDS = 600.0  # a copy of 100 GB; a backup by the clock is no reason to refuse a person's deployment
RECOVERY_PATIENCE_SECONDS = 15.0  # a recovery ends by itself, within 10 s by our own promise
_SETTLING_SECONDS = 0.5  # a lock without a note changes hands at this moment; the note follows within microseconds
_POLL_SECONDS = 0.1
_NOTE_BYTES = 4096  # more than any note; one page, so that a single write is never seen in parts by a reader


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds the lock and what for."""

    verb: str
    """What was typed, such as `deploy`."""
    pid: int
    user: str
    started_at: str
    """When the command began, ISO 8601 in UTC."""
    deployment: int | None
    """Its number in the journal, once it has one."""
    step: str

    @classmethod
    def of_this_process(cls, verb: str, *, step: str, deployment: int | None = None) -> Holder:
        """Describe the running process."""
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        return cls(verb=verb, pid=os.getpid(), user=user_name(), started_at=now, deployment=deployment, step=step)

    def in_words(self) -> str:
        """Say for a person who this is, at which step and since when."""
        number = "" if self.deployment is None else f" of deployment {self.deployment}"
        return f"`{self.verb}`{number} by {self.user} (pid {self.pid}), at step {self.step}, {_age(self.started_at)}"


_UNREADABLE = Holder(verb="unknown", pid=0, user="unknown", started_at="", deployment=None, step="unknown")


class HeldLock:
    """The lock while it is ours: until `release`, or until the last process that has its descriptor ends.

    It is no context manager on purpose: a release says that all is well, which is not so on every way out of a block.
    """

    def __init__(self, descriptor: int, path: Path, holder: Holder, *, left_by: Holder | None = None) -> None:
        self._descriptor = descriptor
        self.path = path
        self.holder = holder
        self.left_by = left_by
        """The owner before us if it died in the middle, so that there may be something to recover."""

    def fileno(self) -> int:
        """Return the descriptor that holds the lock, for `pass_fds` of a child that is to `inherit` it."""
        return self._descriptor

    def announce(self, holder: Holder) -> None:
        """Write into the note who holds the lock from now on."""
        content = msgspec.json.encode(holder) + b"\n"
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))  # the newline already ends it, should we be killed between the two
        self.holder = holder

    def update(self, *, step: str, deployment: int | None = None) -> None:
        """Write the step that begins into the note, and the deployment's number once it is known."""
        number = self.holder.deployment if deployment is None else deployment
        self.announce(replace(self.holder, step=step, deployment=number))

    def release(self) -> None:
        """Empty the note, then give the lock back, for every process that has the descriptor; again does nothing."""
        if self._descriptor >= 0:
            # A note that stays is taken for one of somebody who died, and the journal says that nothing is left to do:
            # no reason to call a deployment failed that is done.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self.leave_to_child()

    def leave_to_child(self) -> None:
        """Close our descriptor only: a child that was given it holds the lock from now on, and frees it by ending."""
        os.close(self._descriptor)
        self._descriptor = -1


def acquire(
    path: Path, holder: Holder, *, wait_seconds: float = 0.0, tell: Callable[[Holder], None] = lambda _: None
) -> HeldLock:
    """Take the lock and note `holder` in it; `left_by` of the result is the owner before, if it died in the middle.

    Waits up to `wait_seconds` for another owner, and for a recovery at least RECOVERY_PATIENCE_SECONDS, since it ends
    by itself; calls `tell` once with each owner that it waits for. Raises LockHeld that names the owner and its step,
    Refused when `path` cannot be a lock, and OSError.
    """
    began, told = time.monotonic(), 0
    while (descriptor := _lock(path)) is None:
        owner = peek(path)
        rest = began + _patience(owner, wait_seconds) - time.monotonic()
        if rest <= 0:
            raise _lock_held(owner)
        if owner is not None and owner.pid != told and owner.deployment is not None:
            tell(owner)
            told = owner.pid
        time.sleep(min(_POLL_SECONDS, rest))
    held = HeldLock(descriptor, path, holder, left_by=_dead_owner(descriptor))
    held.announce(holder)
    return held


def peek(path: Path) -> Holder | None:
    """Read who is noted in the lock, without touching it; None when nobody is, or the note cannot be understood."""
    descriptor = _open(path, os.O_RDONLY)
    if descriptor is None:
        return None
    try:
        return _parse(os.pread(descriptor, _NOTE_BYTES, 0))
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether anybody holds the lock at this moment. It is taken for an instant, shared, to find out."""
    descriptor = _open(path, os.O_RDONLY)
    if descriptor is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def take_from_dead(path: Path) -> HeldLock | None:
    """Take the lock if its owner died in the middle, with its note kept; None in every other case.

    A living owner is not disturbed: an empty note ends the matter without touching the lock.
    """
    descriptor = _open(path, os.O_RDWR)
    if descriptor is None:
        return None
    if _has_note(descriptor) and _try_flock(descriptor) and _is_still_at(path, descriptor):
        owner = _dead_owner(descriptor)
        if owner is not None:
            return HeldLock(descriptor, path, owner, left_by=owner)
    os.close(descriptor)
    return None


def inherit(descriptor: int, path: Path) -> HeldLock:
    """Adopt the lock from a parent that passed its descriptor to this process; our own children do not get it.

    Raises LockHeld when that descriptor does not hold the lock at `path`.
    """
    os.set_inheritable(descriptor, False)  # noqa: FBT003 (its only form)
    if not (_is_still_at(path, descriptor) and _try_flock(descriptor)):
        raise _lock_held(peek(path))
    owner = _dead_owner(descriptor)
    return HeldLock(descriptor, path, owner or _UNREADABLE, left_by=owner)


def _lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock at `path`, None when somebody else does."""
    while True:
        descriptor = _open(path, os.O_RDWR | os.O_CREAT)
        if descriptor is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        if not _try_flock(descriptor):
            os.close(descriptor)
            return None
        if _is_still_at(path, descriptor):
            return descriptor
        os.close(descriptor)  # `destroy` removed the file between our open and our lock: this one locks nothing


def _open(path: Path, flags: int) -> int | None:
    """Open the file of the lock, closed on exec so that no child keeps the lock alive; None when it is not there."""
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Refused("lock-is-a-symlink", f"{path} is a symlink, and a lock is never taken through one") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Refused("lock-is-no-file", f"{path} is not a regular file, so it cannot be the lock")
    return descriptor


def _try_flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _has_note(descriptor: int) -> bool:
    return os.fstat(descriptor).st_size > 0


def _dead_owner(descriptor: int) -> Holder | None:
    """Return who is noted in a lock that we hold but have not written to, that is, who left it by dying."""
    if not _has_note(descriptor):
        return None
    return _parse(os.pread(descriptor, _NOTE_BYTES, 0)) or _UNREADABLE


def _parse(note: bytes) -> Holder | None:
    try:
        return msgspec.json.decode(note.partition(b"\n")[0], type=Holder)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _patience(owner: Holder | None, wait_seconds: float) -> float:
    """Return how long to wait in all for a lock that `owner` is noted in."""
    if owner is None:
        return max(wait_seconds, _SETTLING_SECONDS)
    # A dead owner of a lock that is held means that a recovery has taken it over and is about to say so.
    if owner.verb == BACKUP_VERB and _is_alive(owner.pid):
        return max(wait_seconds, BACKUP_PATIENCE_SECONDS)
    if owner.verb == RECOVERY_VERB or not _is_alive(owner.pid):
        return max(wait_seconds, RECOVERY_PATIENCE_SECONDS)
    return wait_seconds


def _is_alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _lock_held(owner: Holder | None) -> LockHeld:
    who = "another command that has not said which it is" if owner is None else owner.in_words()
    return LockHeld("lock-held", f"the deployment lock is held by {who}", hint="--wait SECONDS waits for it to end")


def _age(started_at: str) -> str:
    """Say how long ago a time in ISO 8601 was."""
    try:
        began = dt.datetime.fromisoformat(started_at)
        seconds = int((dt.datetime.now(dt.UTC) - began).total_seconds())
    except (ValueError, TypeError):
        return "since an unknown time"
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = seconds // length
            return f"for {count} {unit}{'' if count == 1 else 's'}"
    return f"for {max(seconds, 0)} s"


def user_name() -> str:
    """Who we are, in words."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run under a number without a name
        return str(os.getuid())
