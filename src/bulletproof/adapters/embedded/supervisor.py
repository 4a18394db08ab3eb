"""The embedded supervisor's process: `python -m` this to have one in the background, unless there is one already."""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bulletproof.adapters.embedded import kernel, running, wire
from bulletproof.adapters.embedded.diary import note
from bulletproof.adapters.embedded.policy import Policy
from bulletproof.adapters.embedded.supervision import Supervision
from bulletproof.domain.layout import Layout
from bulletproof.effects import durable
from bulletproof.errors import BulletproofError

_UMASK = 0o027  # also of all that we start: what the app writes is nobody's outside its group


def main(arguments: Sequence[str]) -> int:
    """Start a supervisor that outlives us; 0 when it answers or another one has the place, else 1 and words in its log.

    In the supervisor itself this returns when it has ended.
    """
    running.keep_descriptor_free()
    layout, policy = _understood(arguments)
    os.umask(_UMASK)
    if not _is_ours(layout):
        return 0
    durable.make_folder(layout.logs)
    log = os.open(layout.logs / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    reading, writing = os.pipe()
    if os.fork() != 0:
        os.close(writing)
        return 0 if os.read(reading, 1) else 1
    os.close(reading)
    _detach(log)
    return _supervise(layout, policy, ready=writing)


def _understood(arguments: Sequence[str]) -> tuple[Layout, Policy]:
    parser = argparse.ArgumentParser(prog="bulletproof-supervisor")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--app", required=True)
    parser.add_argument("--runtime", type=Path, required=True)
    parser.add_argument("--policy", default="{}")
    options = parser.parse_args(arguments)
    layout = Layout(root=options.root, app=options.app, runtime=options.runtime)
    return layout, wire.decode(options.policy.encode(), Policy)


def _is_ours(layout: Layout) -> bool:
    """Take the place of the one supervisor; the descriptor stays open, so it is ours until we end, however we do."""
    lock = os.open(layout.sockets / "supervisor.flock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _detach(log: int) -> None:
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    kernel.become_subreaper()


def _supervise(layout: Layout, policy: Policy, *, ready: int) -> int:
    try:
        supervision = Supervision(layout, policy)
    except (BulletproofError, OSError) as error:
        note(f"not started: {error}")
        return 1
    os.write(ready, b"y")
    os.close(ready)
    supervision.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
