"""Abort: undo on purpose the deployment that runs, by asking its own process to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from bulletproof.effects import lock
from bulletproof.effects.lock import Holder
from bulletproof.effects.processes import Asked
from bulletproof.errors import Refused

_LOOK_SECONDS = 0.2


def abort(lock_file: Path, watch: Callable[[Holder], None]) -> int | None:
    """Ask the owner of the deployment lock to undo, and wait for its end; returns its deployment's number, if any.

    `watch` is told of the owner before it is asked. An undo takes the time that it takes. Raises Refused
    `nothing-to-abort`, `recovery-runs` or `not-ours`.
    """
    holder = lock.peek(lock_file)
    if holder is None:
        raise _nothing()
    if holder.verb == lock.RECOVERY_VERB:
        raise Refused("recovery-runs", f"{holder.in_words()} makes the host whole, which nobody may interrupt")
    try:
        with closing(Asked(holder.pid)) as owner:
            if not _is_still(lock_file, holder):
                raise _nothing()
            watch(holder)
            owner.ask_to_end()
            while not owner.has_ended(_LOOK_SECONDS) and (now := lock.peek(lock_file)) and now.pid == holder.pid:
                holder = now
    except ProcessLookupError:
        raise _nothing() from None
    except PermissionError as error:
        raise Refused("not-ours", f"{holder.in_words()} is another user's process") from error
    return holder.deployment


def _is_still(lock_file: Path, holder: Holder) -> bool:
    """Whether the lock is held, by whom we have a handle of: a note alone may be of one who died."""
    now = lock.peek(lock_file)
    return now is not None and (now.pid, now.started_at) == (holder.pid, holder.started_at) and lock.is_held(lock_file)


def _nothing() -> Refused:
    return Refused("nothing-to-abort", "no deployment runs on this host", hint="bulletproof status")
