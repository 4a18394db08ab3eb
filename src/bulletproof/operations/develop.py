"""Develop: the app's processes side by side in a terminal, as they are configured, until a person has seen enough."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bulletproof.domain.command import graceful_signal, shell_argv
from bulletproof.domain.config import AppConfig, Server
from bulletproof.domain.web import without_control_socket
from bulletproof.effects.process import Streamed, stream
from bulletproof.effects.venv import versions

WEB = "web"
_LOOK_SECONDS = 0.1
_LONGEST_STOP_SECONDS = 10.0
"""A person waits for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One process."""

    name: str
    argv: tuple[str, ...]
    stop_signal: str = "SIGTERM"
    stop_seconds: float = _LONGEST_STOP_SECONDS


def tasks_of(config: AppConfig, entry: str, environment: Path, port: int) -> tuple[Task, ...]:
    """The web server, which loads changed code by itself, and one of each worker. Timers wait for a deployment."""
    web = Task(name=WEB, argv=(str(environment / "bin" / "python"), *_server(config, entry, environment, port)))
    workers = (
        Task(
            name=name,
            argv=shell_argv(worker.command),
            stop_signal=f"SIG{worker.stop_signal or graceful_signal(worker.command)}",
            stop_seconds=min(worker.stop_seconds, _LONGEST_STOP_SECONDS),
        )
        for name, worker in config.workers.items()
    )
    return (web, *workers)


def run_side_by_side(
    tasks: Sequence[Task], folder: Path, environment: Mapping[str, str], tell: Callable[[str, str], None]
) -> int:
    """Run them, and `tell` each line with the name of who printed it, until the web server ends; its exit status.

    However this ends, by an exception as well, nothing of them is left.
    """
    lines: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    running: dict[str, Streamed] = {}
    try:
        for task in tasks:
            running[task.name] = child = stream(task.argv, folder=folder, environment=environment)
            threading.Thread(target=_pass_on, args=(task.name, child, lines), daemon=True).start()
        return _watch(running, lines, tell)
    finally:
        for task in reversed(tasks):
            if task.name in running:
                running[task.name].end(patience_seconds=task.stop_seconds, stop_signal=task.stop_signal)
        _empty(lines, tell)


def _watch(
    running: Mapping[str, Streamed], lines: queue.SimpleQueue[tuple[str, str]], tell: Callable[[str, str], None]
) -> int:
    ended: set[str] = set()
    while True:
        _empty(lines, tell, patience_seconds=_LOOK_SECONDS)
        for name, child in running.items():
            status = child.status()
            if status is None or name in ended:
                continue
            ended.add(name)
            tell(name, f"ended with exit status {status}")
            if name == WEB:
                return status


def _pass_on(name: str, child: Streamed, lines: queue.SimpleQueue[tuple[str, str]]) -> None:
    for line in child.lines():
        lines.put((name, line))


def _empty(
    lines: queue.SimpleQueue[tuple[str, str]], tell: Callable[[str, str], None], *, patience_seconds: float = 0.0
) -> None:
    """Tell all lines that are there; wait so long for the first."""
    try:
        tell(*lines.get(timeout=patience_seconds or None, block=patience_seconds > 0))
        while True:
            tell(*lines.get_nowait())
    except queue.Empty:
        return


def _server(config: AppConfig, entry: str, environment: Path, port: int) -> tuple[str, ...]:
    where = ("127.0.0.1", str(port))
    if config.app.server is Server.UVICORN:
        factory = ("--factory",) if entry.endswith("()") else ()
        return ("-m", "uvicorn", "--reload", "--host", where[0], "--port", where[1], *factory, entry.removesuffix("()"))
    threads = ("--worker-class=gthread", f"--threads={config.app.threads}") if config.app.threads > 1 else ()
    return (
        *("-m", "gunicorn", "--reload", "--workers=1", *threads, f"--bind={':'.join(where)}"),
        *without_control_socket(versions(environment).get("gunicorn", "")),
        *("--access-logfile=-", f"--timeout={config.app.timeout_seconds:.0f}", entry),
    )
