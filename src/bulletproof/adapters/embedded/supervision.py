"""The embedded supervisor's one loop: it watches processes, clients and the deployment lock, and waits for none."""

from __future__ import annotations

import functools
import math
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

from bulletproof.adapters.embedded import kernel, runtime, table
from bulletproof.adapters.embedded.child import Child
from bulletproof.adapters.embedded.control import Control, Reply
from bulletproof.adapters.embedded.diary import note
from bulletproof.adapters.embedded.policy import Policy
from bulletproof.adapters.embedded.recovery import Recovery
from bulletproof.adapters.embedded.timer import Timer
from bulletproof.adapters.embedded.wire import STOPPING_REFERENCE, Answer, Request, Verb
from bulletproof.domain.layout import Layout
from bulletproof.domain.process import PROXY, RELAY, Phase, ProcessSpec, ProcessState
from bulletproof.effects import rotation
from bulletproof.errors import BulletproofError, StepFailed

Waiter = Callable[[str], None]
"""Told that a process is gone, with no words, or with words that it cannot be ended."""


class Supervision:
    """All processes of one app, from the first order to the last one's end."""

    def __init__(self, layout: Layout, policy: Policy) -> None:
        self._layout = layout
        self._policy = policy
        self._table_file = table.path(layout)
        self._saved: table.Table | None = None
        self._boot = kernel.boot()
        self._children = {child.process.name: child for child in self._left_by_the_last_one()}
        self._save_if_possible()
        self._recovery = Recovery(layout, policy)
        self._waiters: dict[str, list[Waiter]] = {}
        self._farewells: list[Reply] = []
        self._is_closing = False
        self._next_look = self._next_log_look = 0.0
        self._woken, self._wake = socket.socketpair()
        self._catch_signals()
        self._control = Control(layout.supervisor_socket, self._handle)

    def run(self) -> None:
        """Supervise until told to end, by a client or by SIGTERM or SIGINT, and nothing runs any more."""
        note(f"supervising {self._layout.app} below {self._layout.root}")
        while self._children or not self._is_closing:
            self._control.serve(self._wait())
            self._tick(time.monotonic())
        table.remove(self._table_file)
        for reply in self._farewells:
            reply(Answer())
        self._control.close()
        note("ended")

    def _left_by_the_last_one(self) -> list[Child]:
        left = table.read(self._table_file)
        if left is None:
            return []
        if left.boot == self._boot:
            return [_kind(entry.process).adopted(entry, self._policy, time.monotonic()) for entry in left.entries]
        note("the machine was started anew: what ran before it waits for `bulletproof start`")
        for entry in left.entries:
            Child(entry.process, entry.token, self._policy).discard()
        return []

    def _catch_signals(self) -> None:
        for end in (self._woken, self._wake):
            end.settimeout(0)
        signal.set_wakeup_fd(self._wake.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        # A handler and not SIG_IGN, which the processes would inherit.
        signal.signal(signal.SIGHUP, lambda *_: None)
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        note(f"{signal.Signals(number).name}: stopping everything")
        self._is_closing = True

    def _wait(self) -> set[int]:
        """Wait for the next event or what is due next; the descriptors that have something to read."""
        children = self._children.values()
        processes = [child.pidfd for child in children if child.pidfd is not None]
        poll = select.poll()
        for descriptor in (self._woken.fileno(), *self._control.descriptors(), *processes):
            poll.register(descriptor, select.POLLIN)
        due = min([self._next_look, self._next_log_look, *(child.due for child in children)])
        ready = {number for number, _ in poll.poll(max(0, math.ceil((due - time.monotonic()) * 1000)))}
        if self._woken.fileno() in ready:
            self._woken.recv(1024)
        return ready

    def _tick(self, now: float) -> None:
        for child in list(self._children.values()):
            child.tick(now)
            self._settle(child, now)
        if self._is_closing:
            self._stop_further(now)
        if now >= self._next_look:
            self._next_look = now + self._policy.look_seconds
            self._look_around(now)
        if now >= self._next_log_look:
            self._next_log_look = now + self._policy.log_look_seconds
            self._tidy()
        kernel.reap_orphans({pid for pid in (*(c.pid for c in self._children.values()), self._recovery.pid) if pid})
        self._save_if_possible()

    def _settle(self, child: Child, now: float) -> None:
        """Tell those who wait for its end that it is gone, or that it will not go."""
        words = child.stuck(now)
        if not child.is_gone and not words:
            return
        if child.is_gone:
            del self._children[child.process.name]
            self._save_if_possible()  # before anybody builds on it
        for tell in self._waiters.pop(child.process.name, []):
            tell(words)
        if words and self._is_closing:
            self._stay(words)

    def _stay(self, words: str) -> None:
        """Take the order to end back: what cannot be ended must not be left alone."""
        note(f"not ended: {words}")
        self._is_closing = False
        for reply in self._farewells:
            reply(_refusal("process-not-ended", words))
        self._farewells = []

    def _stop_further(self, now: float) -> None:
        """Stop the proxy first, so that no request meets a dead app, and the relay last, which may hold some."""
        ranks = {name: {PROXY: 0, RELAY: 2}.get(name, 1) for name in self._children}
        for name, child in self._children.items():
            if ranks[name] == min(ranks.values()) and not child.is_stopping:
                child.stop(now)

    def _look_around(self, now: float) -> None:
        if self._is_closing:
            return
        self._recovery.look(now)
        if not self._layout.sockets.is_dir():
            note(f"{self._layout.sockets} was removed: nobody could reach what runs here, so it is stopped")
            self._is_closing = True
        elif not self._control.is_reachable():
            note("the control socket was removed: made again")
            self._control.listen_again()

    def _tidy(self) -> None:
        ours = {self._layout.logs / "supervisor.log", self._layout.logs / "recover.log"}
        try:
            for log in sorted(ours | {child.process.log for child in self._children.values()}):
                rotation.rotate(log, longest_bytes=self._policy.log_bytes)
            runtime.keep_fresh(self._layout)
        except OSError as error:
            note(f"not tidied: {error}")

    def _save(self) -> None:
        now = table.Table(boot=self._boot, entries=tuple(child.entry() for child in self._children.values()))
        if now != self._saved:
            table.write(self._table_file, now)
            self._saved = now

    def _save_if_possible(self) -> None:
        """Save it now or, when the disk is full, at the next tick: that must not keep a crashed app down."""
        try:
            self._save()
        except OSError as error:
            note(f"{self._table_file} could not be written, to be tried again: {error}")

    def _handle(self, request: Request, reply: Reply) -> None:
        try:
            self._obey(request, reply)
        except BulletproofError as error:
            reply(_refusal(error.reference, error.message))
        except OSError as error:
            reply(_refusal("supervisor-hindered", f"the supervisor could not do it: {error}"))

    def _obey(self, request: Request, reply: Reply) -> None:
        match request.verb:
            case Verb.PING:
                reply(self._greeting())
            case Verb.NAMES:
                reply(Answer(names=tuple(self._children)))
            case Verb.STATE:
                child = self._children.get(request.name)
                absent = ProcessState(name=request.name, phase=Phase.ABSENT)
                reply(Answer(state=child.state() if child else absent))
            case Verb.START:
                self._start(request, reply)
            case Verb.STOP:
                self._stop(request.name, reply)
            case Verb.ASK_TO_STOP:
                if child := self._children.get(request.name):
                    child.stop(time.monotonic())
                reply(Answer())
            case Verb.SHUTDOWN:
                self._is_closing = True
                self._farewells.append(reply)

    def _greeting(self) -> Answer:
        if self._is_closing:
            return _refusal(STOPPING_REFERENCE, "the supervisor is stopping everything, to end itself")
        return Answer()

    def _start(self, request: Request, reply: Reply) -> None:
        process = request.process
        if process is None:
            raise StepFailed("request-not-understood", "there is no process in the order to start one")
        child = self._children.get(process.name)
        if self._is_closing:
            reply(self._greeting())
            return
        if child is not None and child.is_stopping:
            self._wait_for_end(process.name, reply, then=functools.partial(self._handle, request, reply))
            return
        if child is None:
            self._begin(process)
        elif child.process != process:
            raise StepFailed("process-differs", f"{process.name} runs already, as something else; stop it first")
        elif child.is_failed:
            child.begin(time.monotonic())
        self._save_if_possible()  # before anybody builds on it
        reply(Answer())

    def _begin(self, process: ProcessSpec) -> None:
        child = _kind(process)(process, os.urandom(16).hex(), self._policy)
        self._children[process.name] = child
        try:
            self._save()  # before there is a process: should we be killed in between, its token finds it
            child.begin(time.monotonic())
        except (StepFailed, OSError):
            del self._children[process.name]
            child.discard()
            raise

    def _stop(self, name: str, reply: Reply) -> None:
        child = self._children.get(name)
        if child is None:
            reply(Answer())
            return
        child.stop(time.monotonic())
        self._wait_for_end(name, reply, then=functools.partial(reply, Answer()))

    def _wait_for_end(self, name: str, reply: Reply, *, then: Callable[[], None]) -> None:
        def tell(words: str) -> None:
            if words:
                reply(_refusal("process-not-ended", words))
            else:
                then()

        self._waiters.setdefault(name, []).append(tell)


def _kind(process: ProcessSpec) -> type[Child]:
    return Timer if process.schedule else Child


def _refusal(reference: str, message: str) -> Answer:
    return Answer(reference=reference, message=message)
