"""Makes one database file equal to another by writing only what differs, or tells whether they are equal. Stand-alone.

`python -I -S sqlite_pages.py refresh|compare SOURCE COPY`. For files that nobody writes to meanwhile, their -wal empty.
It is a process of its own so that it can be ended at any moment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

_CHUNK = 1 << 20
_IGNORED = (slice(18, 20), slice(24, 28), slice(40, 44), slice(92, 100))
"""Of the header: the journal mode, and counters that say nothing of what is kept (sqlite.org/fileformat2.html, 1.3).

One of them counts changes of the schema, and SQLite's backup raises it: what was put back would never be the same.
"""


def refresh(source: int, copy: int) -> None:
    """Make the copy equal to the source, on disk."""
    for offset, content in _differing(source, copy):
        _write(copy, content, offset)
    os.ftruncate(copy, os.fstat(source).st_size)
    os.fsync(copy)


def is_same(source: int, copy: int) -> bool:
    """Whether both hold the same database."""
    if os.fstat(source).st_size != os.fstat(copy).st_size:
        return False
    return all(
        offset == 0 and _kept(content) == _kept(os.pread(copy, _CHUNK, 0))
        for offset, content in _differing(source, copy)
    )


def _differing(source: int, copy: int) -> Iterator[tuple[int, bytes]]:
    """The parts of the source that the copy has otherwise."""
    for offset in range(0, os.fstat(source).st_size, _CHUNK):
        content = os.pread(source, _CHUNK, offset)
        if content != os.pread(copy, _CHUNK, offset):
            yield offset, content


def _write(file: int, content: bytes, offset: int) -> None:
    """All of it: a disk that fills up takes a part first, and says so only when asked for the rest."""
    while content:
        written = os.pwrite(file, content, offset)
        content, offset = content[written:], offset + written


def _kept(content: bytes) -> bytes:
    kept = bytearray(content)
    for part in _IGNORED:
        kept[part] = bytes(part.stop - part.start)
    return bytes(kept)


def main(what: str, source_path: str, copy_path: str) -> int:
    """Returns 0, or 1 when they differ and only that was asked."""
    try:
        return _act(what, source_path, copy_path)
    except OSError as error:
        sys.exit(error.strerror)


def _act(what: str, source_path: str, copy_path: str) -> int:
    source = os.open(source_path, os.O_RDONLY | os.O_CLOEXEC)
    if what == "compare":
        return 0 if is_same(source, os.open(copy_path, os.O_RDONLY | os.O_CLOEXEC)) else 1
    refresh(source, os.open(copy_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    os.fsync(os.open(os.path.dirname(copy_path), os.O_RDONLY))  # noqa: PTH120  Path takes a third of the time until it begins
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
