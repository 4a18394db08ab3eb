"""What happens by itself when a deployer dies: its lock is taken, and a recovery runs that inherits it."""

from __future__ import annotations

import os
import subprocess
import sys

from bulletproof.adapters.embedded.diary import note
from bulletproof.adapters.embedded.policy import Policy, doubling
from bulletproof.adapters.embedded.running import tell_start
from bulletproof.domain.layout import Layout
from bulletproof.effects.lock import RECOVERY_VERB, HeldLock, Holder, peek, take_from_dead
from bulletproof.errors import Refused

LOCK_DESCRIPTOR_NAME = "BULLETPROOF_LOCK_FD"
"""The environment variable that tells the recovery which descriptor holds the lock."""


class Recovery:
    """Looks for a dead deployer, and runs one recovery at a time. Times are monotonic seconds."""

    def __init__(self, layout: Layout, policy: Policy) -> None:
        self._layout = layout
        self._policy = policy
        self._child: subprocess.Popen[bytes] | None = None
        self._failures_in_row = 0
        self._not_before = 0.0
        self._dead: Holder | None = None
        """Whose death the last recovery came after."""

    @property
    def pid(self) -> int | None:
        """The recovery that runs now."""
        return self._child.pid if self._child else None

    def look(self, now: float) -> None:
        """Start a recovery if one is needed; it never looks again while one lives."""
        if self._child is not None:
            self._see_whether_it_ended(self._child, now)
        elif now >= self._not_before or self._is_another_death():
            try:
                self._start_if_needed()
            except (OSError, Refused) as error:
                self._back_off(f"no recovery could be started: {error}", now)

    def _is_another_death(self) -> bool:
        """Whether it is not the one whose recoveries have failed: no reason to wait as long as for that one."""
        holder = peek(self._layout.lock)
        if holder is None or holder.verb == RECOVERY_VERB or self._dead is None:
            return False
        return holder != self._dead

    def _start_if_needed(self) -> None:
        lock = take_from_dead(self._layout.lock)
        if lock is None:
            return
        if lock.holder.verb != RECOVERY_VERB and lock.holder != self._dead:
            self._dead, self._failures_in_row = lock.holder, 0
        try:
            self._child = self._spawn(lock)
        finally:
            lock.leave_to_child()  # with its note: if there is no child, we shall find it again
        note(f"the deployer died ({lock.holder.in_words()}): recovering as {self._child.pid}")

    def _spawn(self, lock: HeldLock) -> subprocess.Popen[bytes]:
        log = os.open(self._layout.logs / "recover.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            tell_start("recovery", log)
            return subprocess.Popen(
                self._argv(),
                cwd="/",
                env={**os.environ, LOCK_DESCRIPTOR_NAME: str(lock.fileno())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock.fileno(),),
                start_new_session=True,
            )
        finally:
            os.close(log)

    def _argv(self) -> tuple[str, ...]:
        root, app = str(self._layout.root), self._layout.app
        ours = (sys.executable, "-P", "-m", "bulletproof", "--root", root, "recover", "--app", app)
        return self._policy.recover_argv or ours

    def _see_whether_it_ended(self, child: subprocess.Popen[bytes], now: float) -> None:
        status = child.poll()
        if status is None:
            return
        self._child = None
        if status == 0:
            self._failures_in_row = 0
            note("recovered")
        else:
            self._back_off(f"the recovery ended with status {status}", now)

    def _back_off(self, words: str, now: float) -> None:
        self._failures_in_row += 1
        first, longest = self._policy.recover_first_pause_seconds, self._policy.recover_longest_pause_seconds
        pause = doubling(first, longest, self._failures_in_row)
        self._not_before = now + pause
        note(f"{words}; looking again in {pause:.1f} s")
