"""Reading on in logs: what came since the last time, through rotations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bulletproof.domain.process import is_start_line
from bulletproof.domain.runs import Logged, Position

_MOST_BYTES = 32 << 20
"""Of more only the end is read: a check must be quick."""
_SERVER_ERRORS = range(500, 600)
_ERROR = re.compile(r"\b(?:ERROR|CRITICAL|FATAL)\b")
_CAUSED = ("During handling of the above exception", "The above exception was the direct cause")
"""What stands between two tracebacks of one error."""
_COMPLAINT = 200


class _Request(msgspec.Struct):
    status: int = 0


def read_on(access: Path, printed: Path, known: dict[str, Position]) -> Logged:
    """What the proxy's log and the app's own tell since the positions that are known; the first time, from their ends.

    Raises OSError.
    """
    requests, access_at = _new_lines(access, known.get("access"), rotated=f"{access.stem}-*{access.suffix}")
    words, printed_at = _new_lines(printed, known.get("printed"), rotated="")
    statuses = [status for line in requests if (status := _status_in(line))]
    complaints = list(_complaints(line.decode(errors="replace") for line in words))
    positions = {"access": access_at, "printed": printed_at}
    return Logged(
        requests=len(statuses),
        errors=sum(status in _SERVER_ERRORS for status in statuses),
        complaints=len(complaints),
        complaint=complaints[-1][:_COMPLAINT] if complaints else "",
        positions={name: place for name, place in positions.items() if place is not None},
    )


def _new_lines(log: Path, known: Position | None, *, rotated: str) -> tuple[list[bytes], Position | None]:
    """The whole lines that came since, and where reading ended; a log that is not there has none."""
    try:
        inode, size = log.stat().st_ino, log.stat().st_size
    except FileNotFoundError:
        return [], None
    if known is None:
        return [], (inode, size)
    if known[0] == inode:
        # One that became shorter was emptied, and a copy of its end lies beside it.
        lines, end = _lines_from(log, known[1] if known[1] <= size else 0)
        return lines, (inode, end)
    older = (
        next((path for path in log.parent.glob(rotated) if path.stat().st_ino == known[0]), None) if rotated else None
    )
    before = _lines_from(older, known[1])[0] if older else []
    lines, end = _lines_from(log, 0)
    return [*before, *lines], (inode, end)


def _lines_from(log: Path, offset: int) -> tuple[list[bytes], int]:
    with log.open("rb") as file:
        begin = max(offset, log.stat().st_size - _MOST_BYTES)
        file.seek(begin)
        content = file.read(_MOST_BYTES)
    whole = content[: content.rfind(b"\n") + 1]
    return whole.splitlines(), begin + len(whole)


def _status_in(line: bytes) -> int:
    try:
        return msgspec.json.decode(line, type=_Request).status
    except msgspec.MsgspecError:
        return 0  # the first line may be cut off


def _complaints(lines: Iterator[str]) -> Iterator[str]:
    """Each error once: a traceback by what was raised at its end, with the line that announces it; others by a line."""
    pending, is_inside = "", False
    for line in lines:
        if is_start_line(line):
            is_inside = False  # whoever died in the middle of a traceback has not said what was raised
        elif line.startswith("Traceback "):
            pending, is_inside = "a traceback", True
        elif is_inside and line[:1].strip():
            pending, is_inside = line, False
        elif line.startswith(_CAUSED):
            pending = ""
        elif not is_inside and line.strip():
            if pending:
                yield pending
            pending = line if _ERROR.search(line) else ""
    if pending:
        yield pending
