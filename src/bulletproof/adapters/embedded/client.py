"""The Supervisor port over the embedded supervisor's control socket; it starts the supervisor where there is none."""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time
from pathlib import Path

from bulletproof.adapters.embedded import table, wire
from bulletproof.adapters.embedded.policy import Policy
from bulletproof.adapters.embedded.runtime import make_private_runtime
from bulletproof.adapters.embedded.wire import STOPPING_REFERENCE, Answer, Request, Verb
from bulletproof.domain.layout import Layout
from bulletproof.domain.process import Phase, ProcessSpec, ProcessState
from bulletproof.effects.logs import tail
from bulletproof.effects.process import last_lines, run
from bulletproof.errors import Refused, StepFailed

_START_SECONDS = 30.0
_SILENCE_SECONDS = 10.0
"""A supervisor that says nothing for so long hangs: it answers within milliseconds, and a long stop is asked about."""
_PATIENCE_SECONDS = 5.0
"""After so long without an answer to an order that may take its time, we ask whether the supervisor is well."""
_POLL_SECONDS = 0.05
_ATTEMPTS = 3
_LOG_LINES = 15
_SLOW = {Verb.START, Verb.STOP, Verb.SHUTDOWN}


class EmbeddedSupervisor:
    """The supervisor of one app below one root."""

    def __init__(self, layout: Layout, policy: Policy | None = None) -> None:
        self._layout = layout
        self._policy = policy or Policy()

    def ensure_running(self) -> None:
        """A supervisor answers when this returns, and there is never more than one.

        Raises StepFailed with the end of its log when it cannot be started, and Refused when the folder for its socket
        is not surely our own.
        """
        make_private_runtime(self._layout)
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            answer = self._try(Request(verb=Verb.PING))
            if answer is not None and answer.reference != STOPPING_REFERENCE:
                return
            if answer is None:
                self._launch()
            else:
                deadline = time.monotonic() + _START_SECONDS  # it ends in its own time, which is bounded
                time.sleep(_POLL_SECONDS)
        raise self._not_started(f"it did not answer within {_START_SECONDS:.0f} seconds")

    def shutdown(self) -> None:
        """Stop every process, then the supervisor; its process and its files are gone when this returns.

        What a killed supervisor left behind is stopped as well. Raises StepFailed when something cannot be ended.
        """
        for _ in range(_ATTEMPTS):
            if self.pid() is None and not self._has_left_something():
                return
            self._end_once()
        raise StepFailed("supervisor-not-ended", "the supervisor came back each time that it was ended")

    def is_running(self) -> bool:
        """Whether the supervisor answers, and is not about to end."""
        try:
            answer = self._try(Request(verb=Verb.PING))
        except StepFailed:
            return False
        return answer is not None and not answer.reference

    def start(self, process: ProcessSpec) -> None:
        """Run it, and run it again whenever it crashes; idempotent by name. Raises StepFailed in words."""
        for _ in range(_ATTEMPTS):
            answer = self._try(Request(verb=Verb.START, process=process))
            if answer is not None and answer.reference != STOPPING_REFERENCE:
                _require_accepted(answer)
                return
            self.ensure_running()
        raise self._lost()

    def stop(self, name: str) -> None:
        """Returns when nothing of it is left; idempotent. Raises StepFailed when it cannot be ended."""
        for _ in range(_ATTEMPTS):
            answer = self._try(Request(verb=Verb.STOP, name=name))
            if answer is not None:
                _require_accepted(answer)
                return
            if not self._has_left_something():
                return
            self.ensure_running()
        raise self._lost()

    def ask_to_stop(self, name: str) -> None:
        """Begin to stop it, and do not wait; idempotent."""
        self._try(Request(verb=Verb.ASK_TO_STOP, name=name))

    def state(self, name: str) -> ProcessState:
        """What is known of the process; phase ABSENT also when no supervisor runs."""
        answer = self._try(Request(verb=Verb.STATE, name=name))
        known = answer.state if answer else None
        return known or ProcessState(name=name, phase=Phase.ABSENT)

    def names(self) -> tuple[str, ...]:
        """The processes that it was asked to run; none when no supervisor runs."""
        answer = self._try(Request(verb=Verb.NAMES))
        return answer.names if answer else ()

    def pid(self) -> int | None:
        """The supervisor's own process, None when none listens."""
        connection = self._connect()
        if connection is None:
            return None
        with connection:
            return _peer(connection)

    def _end_once(self) -> None:
        if self.pid() is None:
            self.ensure_running()
        pid = self.pid()
        if pid is None:
            return
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            answer = self._try(Request(verb=Verb.SHUTDOWN))
            if answer is not None:
                _require_accepted(answer)
            _wait_for_end(process)
        finally:
            os.close(process)

    def _has_left_something(self) -> bool:
        return table.path(self._layout).exists()

    def _launch(self) -> None:
        make_private_runtime(self._layout)
        done = run(self._argv(), folder=Path("/"), environment=_clean_environment(), timeout_seconds=_START_SECONDS)
        if done.status != 0:
            raise self._not_started("it ended at once", last_lines(done.errors))

    def _argv(self) -> tuple[str, ...]:
        layout = self._layout
        module = (sys.executable, "-P", "-m", "bulletproof.adapters.embedded.supervisor")
        place = ("--root", str(layout.root), "--app", layout.app, "--runtime", str(layout.runtime))
        patience = () if self._policy == Policy() else ("--policy", wire.encode(self._policy).decode().strip())
        return (*module, *place, *patience)

    def _try(self, request: Request) -> Answer | None:
        """The answer; None when nobody listens, or the supervisor ended before it answered."""
        connection = self._connect()
        if connection is None:
            return None
        with connection:
            try:
                connection.sendall(wire.encode(request))
                line = self._read_line(connection, takes_its_time=request.verb in _SLOW)
            except ConnectionError:
                return None
        return wire.decode(line, Answer) if line else None

    def _connect(self) -> socket.socket | None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_SILENCE_SECONDS)
        try:
            connection.connect(str(self._layout.supervisor_socket))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            return None
        except OSError as error:
            connection.close()
            raise StepFailed("supervisor-not-reached", f"the supervisor could not be asked: {error}") from error
        if (owner := _credentials(connection)[1]) != os.geteuid():
            connection.close()
            raise Refused(
                "supervisor-foreign",
                f"{self._layout.supervisor_socket} is answered by the user with number {owner}, whom we do not obey",
                hint=f"look at who made {self._layout.runtime}",
            )
        return connection

    def _read_line(self, connection: socket.socket, *, takes_its_time: bool) -> bytes:
        """The answer's line; empty when the supervisor ended instead."""
        connection.settimeout(_PATIENCE_SECONDS if takes_its_time else _SILENCE_SECONDS)
        received = b""
        while not received.endswith(b"\n"):
            try:
                more = connection.recv(1 << 16)
            except TimeoutError as error:
                if not takes_its_time:
                    raise _silent(_peer(connection)) from error
                self._try(Request(verb=Verb.PING))  # raises when it hangs
                continue
            if not more:
                return b""
            received += more
        return received

    def _not_started(self, words: str, context: tuple[str, ...] = ()) -> StepFailed:
        log = self._layout.logs / "supervisor.log"
        return StepFailed(
            "supervisor-not-started",
            f"the supervisor of {self._layout.app} could not be started: {words}",
            context=(*context, *tail(log, _LOG_LINES)),
            hint=f"look at {log}",
        )

    def _lost(self) -> StepFailed:
        log = self._layout.logs / "supervisor.log"
        words = f"the supervisor of {self._layout.app} ended {_ATTEMPTS} times before it answered"
        return StepFailed("supervisor-lost", words, context=tail(log, _LOG_LINES), hint=f"look at {log}")


def _clean_environment() -> dict[str, str]:
    """Nothing of the caller's but what every program may rely upon; the interpreter itself knows its packages."""
    return {"PATH": os.defpath} | {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ") if name in os.environ
    }


def _require_accepted(answer: Answer) -> None:
    if answer.reference:
        raise StepFailed(answer.reference, answer.message)


def _wait_for_end(process: int) -> None:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    if not poll.poll(_SILENCE_SECONDS * 1000):
        raise StepFailed("supervisor-not-ended", f"the supervisor did not end within {_SILENCE_SECONDS:.0f} seconds")


def _peer(connection: socket.socket) -> int:
    return _credentials(connection)[0]


def _credentials(connection: socket.socket) -> tuple[int, int]:
    """The process and the user that answer, as the kernel says."""
    pid, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, user


def _silent(pid: int) -> StepFailed:
    return StepFailed(
        "supervisor-silent",
        f"the supervisor (pid {pid}) did not answer within {_SILENCE_SECONDS:.0f} seconds",
        hint=f"kill -9 {pid}, then: bulletproof start",
    )
