"""A deployment belongs to its host: it runs in a process of its own, and the command that asked for it only watches."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, NoReturn

import click

from bulletproof.cli.client import our_client, typed_there
from bulletproof.domain.bundle import bomb
from bulletproof.effects import lock
from bulletproof.effects.bundle import LARGEST_BUNDLE
from bulletproof.effects.process import Running, detach
from bulletproof.effects.reader import is_gone
from bulletproof.effects.scratch import room_for
from bulletproof.effects.transient import TransientUnit, begin_unit
from bulletproof.errors import RecoveryNeeded

DETACHED = "BULLETPROOF_DETACHED"
"""Tells a process that it is the one that outlives its connection."""

_OURSELVES = (sys.executable, "-P", "-m", "bulletproof", *sys.argv[1:])
_POLL_SECONDS = 0.05
_CHUNK_BYTES = 1 << 20
_GONE = 141
"""As if SIGPIPE had ended us: nobody reads any more what we say."""


def is_to_be_detached(*, wished: bool, on_server: bool) -> bool:
    """Whether what was asked for must go on without us: it comes over SSH, or is a server's, or a person said so."""
    return (wished or on_server or our_client() is not None) and DETACHED not in os.environ


def detach_and_watch(app: str, lock_file: Path, *, is_left: bool, on_server: bool) -> NoReturn:
    """Do what was asked for in a process of its own; show what it says and end as it ends.

    On a server that is a unit of systemd, which recovers the app should it be killed.

    With `is_left` only until the deployment has a number. When nobody reads any more what we say, we end, and it goes
    on. Raises RecoveryNeeded when that process was killed.
    """
    # Files without a name: they need no reader, and are gone with the last process that has them open.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
        _receive(given)
        child = _begin_unit(app, given, said, errors) if on_server else _begin(given, said, errors)
        shown = (_Shown(said, sys.stdout.fileno()), _Shown(errors, sys.stderr.fileno()))
        if is_left and (number := _wait_for_number(child, lock_file)) is not None:
            _tell_number(number)
            sys.exit(0)
        while (status := child.status()) is None:
            _show(shown)
            time.sleep(_POLL_SECONDS)
        _show(shown)
    if status < 0:
        raise RecoveryNeeded(
            "deployer-killed",
            "the process of the deployment was killed; what it began is finished or undone by itself",
            hint="bulletproof status",
        )
    sys.exit(status)


class _Shown:
    """What a file without a name has got, passed on as it comes."""

    def __init__(self, file: IO[bytes], descriptor: int) -> None:
        self._file = file.fileno()
        self._descriptor = descriptor
        self._offset = 0

    def go_on(self) -> None:
        """Pass on what is new. Raises BrokenPipeError."""
        while chunk := os.pread(self._file, _CHUNK_BYTES, self._offset):
            self._offset += os.write(self._descriptor, chunk)

    def is_read(self) -> bool:
        """Whether somebody may still read it."""
        return not is_gone(self._descriptor)


def _show(both: tuple[_Shown, _Shown]) -> None:
    try:
        for one in both:
            one.go_on()
    except BrokenPipeError:
        sys.exit(_GONE)
    if not all(one.is_read() for one in both):
        sys.exit(_GONE)


def _receive(given: IO[bytes]) -> None:
    """Take over all that the client sends, so that nobody needs the connection any more."""
    if our_client() is None:
        return
    size = 0
    with room_for("what was sent"):
        while chunk := sys.stdin.buffer.read(_CHUNK_BYTES):
            size += len(chunk)
            if size > LARGEST_BUNDLE:
                raise bomb(f"it has more than {LARGEST_BUNDLE >> 20} MiB")
            given.write(chunk)
        given.seek(0)


def _begin(given: IO[bytes], said: IO[bytes], errors: IO[bytes]) -> Running:
    """Start ourselves again, as one that outlives us."""
    os.environ[DETACHED] = "1"
    return detach(_OURSELVES, given=given, said=said, errors=errors)


def _begin_unit(app: str, given: IO[bytes], said: IO[bytes], errors: IO[bytes]) -> TransientUnit:
    os.environ[DETACHED] = "1"
    recovery = f"bulletproof-recover@{app}.service"
    return begin_unit(app, _OURSELVES, given=given, said=said, errors=errors, on_failure=recovery)


def _wait_for_number(child: Running | TransientUnit, lock_file: Path) -> int | None:
    """The number of its deployment, once the lock tells; None when it ended without."""
    while child.status() is None:
        holder = lock.peek(lock_file)
        if holder is not None and holder.pid == child.pid and holder.deployment is not None:
            return holder.deployment
        time.sleep(_POLL_SECONDS)
    return None


def _tell_number(number: int) -> None:
    if "--json" in sys.argv:
        click.echo(json.dumps({"event": "detached", "number": number}))
        return
    click.echo(f"deployment {number} has begun, and goes on by itself", err=True)
    click.echo(f"  to see it:   {typed_there('bulletproof attach')}", err=True)
    click.echo(f"  to undo it:  {typed_there('bulletproof abort')}", err=True)
