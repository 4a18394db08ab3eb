"""Reading logs: the last lines of a file, and its new lines as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

_BLOCK_BYTES = 64 * 1024


def tail(path: Path, count: int) -> tuple[str, ...]:
    """The last lines of a log that say something; none when there is no log. Reads at most its last 64 KiB."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _BLOCK_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ()
    return tuple([line.rstrip() for line in text.splitlines() if line.strip()][-count:])


def follow(current: Callable[[], Path | None], pause: Callable[[], None], *, lines: int) -> Iterator[str]:
    """The last lines of the current log, then each new one; goes on with another file when `current` names one.

    A file that became shorter was rotated and is read from its beginning. Never ends by itself.
    """
    path, offset = current(), 0
    if path is not None:
        yield from tail(path, lines)
        offset = _size(path)
    while True:
        if path is not None:
            size = _size(path)
            offset = 0 if size < offset else offset
            if size > offset:
                fresh, offset = _read_lines(path, offset)
                yield from fresh
                continue
        following = current()
        if following != path:
            path, offset = following, 0
            continue
        pause()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _read_lines(path: Path, offset: int) -> tuple[list[str], int]:
    """What was appended since `offset`, and where reading ended: after the last whole line, or a long one's end."""
    with path.open("rb") as file:
        file.seek(offset)
        block = file.read(_BLOCK_BYTES)
    whole = block.rfind(b"\n") + 1 or len(block)
    return block[:whole].decode(errors="replace").splitlines(), offset + whole
