"""Why a program ended, in one sentence, from the last lines that it printed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import msgspec

_KINDS = "Error|Exception|Exit|Interrupt|Warning|NotFound|Configured"
_RAISED = re.compile(rf"^(?:[A-Za-z_][\w.]*\.)?([A-Z]\w*(?:{_KINDS})): ?(.*)")
_SYSTEM = re.compile(r"\[Errno \d+\] (.+)")
_MOST = 240
_KNOWN: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (
        r"(?:ModuleNotFoundError|ImportError): No module named '([^']+)'",
        lambda found: f"the module {found[1]} is missing: no package of its list brings it, or a file of it is gone",
    ),
    (r"SyntaxError: (.+)", lambda found: f"its code cannot be read: {found[1]}"),
    (r"KeyError: '([A-Z][A-Z0-9_]+)'", lambda found: f"the setting {found[1]} is not set"),
    (r"unable to open database file", lambda _: "it cannot open its database: not there, or not its to write"),
    (r"attempt to write a readonly database", lambda _: "it may not write its database"),
    (r"database is locked", lambda _: "its database is locked by another program"),
    (r"database disk image is malformed", lambda _: "its database is damaged"),
    (r"No space left on device", lambda _: "the disk is full"),
    (r"Address already in use", lambda _: "another program listens where it wants to"),
    (r"no such (?:table|column): (\S+)", lambda found: f"its database lacks {found[1]}: a migration is missing"),
    (r"Worker \(pid:\d+\) was sent SIGKILL", lambda _: "a worker was killed: mostly the machine had no memory left"),
    (r"Killed process \d+ \((\S+)\)", lambda found: f"the kernel killed {found[1]}, since no memory was left"),
    (r"Permission denied: '([^']+)'", lambda found: f"it may not use {found[1]}"),
)
"""What programs say, and what that means; the first that is found counts."""

_WRONG = frozenset({"error", "panic", "fatal"})


class _Told(msgspec.Struct):
    """A line of a log in JSON, as zap writes it."""

    level: str = ""
    msg: str = ""
    error: str = ""


def reason_in(lines: Sequence[str]) -> str:
    """The reason that these lines tell, the last of them first; empty when there are none."""
    said = [told for line in lines if (told := _without_json(line.strip()))]
    raised = [line for line in said if _RAISED.match(line)]
    for pattern, meaning in _KNOWN:
        for line in reversed(raised or said):
            if found := re.search(pattern, line):
                return meaning(found)
    if raised:
        return _sentence(raised[-1])
    return _sentence(said[-1]) if said else ""


def _without_json(line: str) -> str:
    """Of a line as Caddy writes them, what went wrong; empty for one that tells of nothing wrong."""
    if not line.startswith("{"):
        return line
    try:
        told = msgspec.json.decode(line, type=_Told)
    except msgspec.MsgspecError:
        return line
    return ": ".join(filter(None, (told.msg, told.error))) if told.level in _WRONG else ""


def _sentence(line: str) -> str:
    found = _RAISED.match(line)
    if found is None:
        return line[:_MOST]
    words = _SYSTEM.sub(r"\1", found[2])
    return f"{found[1]}: {words}"[:_MOST] if words else found[1]
