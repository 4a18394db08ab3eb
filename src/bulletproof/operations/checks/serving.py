"""Whether the app serves: its processes, its answers, its errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec

from bulletproof.domain.check import Seen, Severity
from bulletproof.domain.config import Server
from bulletproof.domain.health import Answer, falls_back_to_root
from bulletproof.domain.process import Phase
from bulletproof.domain.runs import Run
from bulletproof.effects.health_record import read_record
from bulletproof.effects.local_time import local_zone
from bulletproof.effects.log_reading import read_on
from bulletproof.effects.logs import tail
from bulletproof.operations.checks.ground import MIB, STOPPED, Ground
from bulletproof.operations.workers import is_in_trouble

_ANSWER_SECONDS, _LEAST_SECONDS = 4.5, 0.2
"""For all answers together, and for the last of them: an app that is silent is broken, which is known in time."""
_LINES = 1000
_LAST_BYTES = 1 << 16
"""Enough for the last line of the record, which tells how far the logs were read."""


def service(ground: Ground) -> Seen:
    """What should run runs: the supervisor, the app, the proxy and the relay, and none of them crashes."""
    status = ground.status
    if not status.wants_running:
        return STOPPED
    if not status.is_supervised:
        return Seen(words="the supervisor does not run", is_good=False, hint="bulletproof start")
    for name, state in (("app", status.web), ("proxy", status.proxy), ("relay", status.relay)):
        if state.phase is not Phase.RUNNING:
            return Seen(words=f"the {name} is {state.phase}: {state.words}", is_good=False, hint="bulletproof restart")
    crashes = status.web.restarts
    if crashes:
        words = f"the app crashed {crashes} times since it was started: {status.web.words}"
        return Seen(words=words, is_good=False, hint="bulletproof logs", severity=Severity.WANTED)
    return Seen(words="supervisor, app, proxy and relay run")


def processes(ground: Ground) -> Seen:
    """As many processes as the configuration says."""
    status, config = ground.status, ground.config
    if not status.wants_running:
        return STOPPED
    if status.family is None:
        return Seen(words="the app has no process", is_good=False, hint="bulletproof restart")
    wanted = 1 + config.app.workers if config.app.server is Server.GUNICORN or config.app.workers > 1 else 1
    memory = status.family.memory / MIB
    if status.family.count < wanted:
        words = f"{status.family.count} processes, not {wanted} (1 + {config.app.workers} workers)"
        return Seen(words=words, is_good=False, hint="bulletproof logs")
    return Seen(words=f"{status.family.count} (1 + {config.app.workers} workers), {memory:.0f} MiB")


def memory(ground: Ground) -> Seen:
    """No process uses more than it may, and a deployment has room."""
    free, least = ground.host.resources().free_memory // MIB, ground.config.require.free_memory_mib
    if free < least:
        words = f"{free} MiB of the machine are free, and a deployment needs {least}"
        return Seen(words=words, is_good=False, hint="ps -eo rss,pid,args --sort -rss | head")
    family = ground.status.family
    if family is None:
        return Seen(words=f"{free} MiB of the machine are free")
    largest, most = family.largest // MIB, ground.config.check.memory_mib
    if most is not None and largest > most:
        words = f"a process of the app uses {largest} MiB, and may use {most}"
        return Seen(words=words, is_good=False, hint="bulletproof restart")
    return Seen(words=f"{largest} MiB for the largest process, {free} MiB of the machine are free")


def public(ground: Ground) -> Seen:
    """The public gets the app: no maintenance, and certificates that browsers trust."""
    if not ground.status.wants_running:
        return STOPPED
    if notes := ground.status.notes:
        hint = "bulletproof maintenance off" if ground.host.proxy.maintenance() else "bulletproof logs proxy"
        return Seen(words="; ".join(notes), is_good=False, hint=hint)
    return Seen(words=f"open at {ground.status.address}")


def background(ground: Ground) -> Seen:
    """Workers and timers run."""
    states = ground.status.background
    bad = [name for name, some in states.items() if any(map(is_in_trouble, some))]
    if bad:
        words = f"{', '.join(bad)}: {states[bad[0]][0].words}"
        return Seen(words=words, is_good=False, hint=f"bulletproof logs {bad[0]}")
    return Seen(words=f"{len(states)} run" if states else "the app has none")


def response(ground: Ground) -> Seen:
    """The app answers its health checks, on its own socket and through the proxy."""
    if not ground.status.wants_running or ground.status.live is None:
        return STOPPED
    health, number = ground.config.health, ground.status.live.number
    asks: Mapping[str, Callable[[str, float], Answer]] = {
        "its socket": lambda path, seconds: ground.host.ask_instance(number, path, seconds),
        "the proxy": ground.host.ask_public,
    }
    slowest, until = 0.0, time.monotonic() + _ANSWER_SECONDS
    for where, ask in asks.items():
        for path in health.paths or ("/up",):
            answer = ask(path, max(_LEAST_SECONDS, until - time.monotonic()))
            if falls_back_to_root(health.paths, answer):
                answer = ask("/", max(_LEAST_SECONDS, until - time.monotonic()))
            if not answer.is_healthy:
                words = answer.to(f"{path} through {where}")
                return Seen(words=words, is_good=False, hint="bulletproof logs")
            slowest = max(slowest, answer.seconds)
    return _in_time(slowest * 1000, ground.config.check.latency_ms)


def _in_time(took: float, most: int | None) -> Seen:
    measures = {"latency_ms": round(took, 1)}
    words = f"healthy on its socket and through the proxy, {took:.0f} ms"
    if most is not None and took > most:
        words = f"{words}, and it may take {most} ms"
        severity = Severity.WANTED
        return Seen(words=words, is_good=False, hint="bulletproof history", severity=severity, measures=measures)
    return Seen(words=words, measures=measures)


def errors(ground: Ground) -> Seen:
    """Of the last requests only few were answered with an error of the app's; what is new in its log is told."""
    statuses = [status for line in tail(ground.host.layout.access_log, _LINES) if (status := _status_in(line))]
    bad = sum(500 <= status < 600 for status in statuses)  # noqa: PLR2004  as HTTP has it
    words = f"{bad} of the last {len(statuses)} requests were answered with 5xx{_complaints(ground)}"
    is_good = not statuses or bad / len(statuses) * 100 <= ground.config.check.errors_percent
    return Seen(words=words, is_good=is_good, hint="bulletproof logs")


def _complaints(ground: Ground) -> str:
    """What the app wrote of errors since the last run by the clock."""
    layout = ground.host.layout
    last = last_run(ground)
    if last is None:
        return ""
    new = read_on(layout.access_log, layout.web_log(ground.number), last.logged.positions)
    if not new.complaints:
        return ""
    since = datetime.fromtimestamp(last.at, local_zone())
    return f"; {new.complaints} new errors in its log since {since:%H:%M}, the last: {new.complaint}"


def last_run(ground: Ground) -> Run | None:
    """What was noted last by the clock."""
    runs = read_record(ground.host.layout.health, last_bytes=_LAST_BYTES).runs
    return runs[-1] if runs else None


def _status_in(line: str) -> int:
    try:
        return msgspec.json.decode(line, type=_Request).status
    except msgspec.MsgspecError:
        return 0  # the first line may be cut off


class _Request(msgspec.Struct):
    status: int = 0
