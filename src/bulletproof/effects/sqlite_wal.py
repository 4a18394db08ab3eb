"""Writes what differs between two database files as one committed transaction of a write-ahead log. Stand-alone.

`python -I -S sqlite_wal.py SOURCE DATABASE LOG MOST` writes LOG. As the content of DATABASE-wal, it lets whoever opens
the database next find the pages of SOURCE: SQLite takes a log up whole, or not at all when its last frame is missing or
wrong. The format is public (sqlite.org/fileformat2.html, section 4). For a database in WAL mode that nobody else can
open meanwhile, its own log empty. LOG itself is a file of passage: `sqlite_keeper.py` lays it down, and syncs that.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator

TOO_MANY = 3
"""Exit status: more than MOST pages differ, and nothing was written."""

_MAGIC = 0x377F0682
"""Checksums over little-endian words."""
_FORMAT = 3007000
_LOCK_BYTE = 0x40000000
"""SQLite locks bytes here; the page they lie in is never used."""
_CHUNK = 1 << 20
_WORD = 0xFFFFFFFF
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


def page_size(header: bytes) -> int:
    """The size of a database's pages, from its first 18 bytes."""
    (size,) = struct.unpack_from(">H", header, 16)
    return 65536 if size == 1 else int(size)


def differing(source: int, database: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Number and content of each page of the source that the database has otherwise, or lacks."""
    for offset in range(0, os.fstat(source).st_size, _CHUNK):
        new, old = os.pread(source, _CHUNK, offset), os.pread(database, _CHUNK, offset)
        if new == old:
            continue
        for begin in range(0, len(new), size):
            page = new[begin : begin + size]
            if page != old[begin : begin + size] and not offset + begin <= _LOCK_BYTE < offset + begin + size:
                yield (offset + begin) // size + 1, page


def log(pages: list[tuple[int, bytes]], size: int, count: int, salt: bytes) -> Iterator[bytes]:
    """The bytes of a log with one transaction: these pages, in a database of `count` pages of `size` bytes."""
    header = struct.pack(">6I", _MAGIC, _FORMAT, size, 0, *struct.unpack(">2I", salt))
    sums = checksum(header, (0, 0))
    yield header + struct.pack(">2I", *sums)
    for index, (number, page) in enumerate(pages, 1):
        # The size stands in the last frame alone: it is what makes the transaction one that was committed.
        beginning = struct.pack(">2I", number, count if index == len(pages) else 0)
        sums = checksum(beginning + page, sums)
        yield beginning + salt + struct.pack(">2I", *sums) + page


def checksum(content: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    """The running checksum of a log, over an even number of 32-bit words."""
    one, two = sums
    for first, second in struct.iter_unpack("<2I", content):
        one = (one + first + two) & _WORD
        two = (two + second + one) & _WORD
    return one, two


def main(source_path: str, database_path: str, log_path: str, most: str) -> int:
    """Returns 0, or TOO_MANY when nothing was written."""
    try:
        return _act(source_path, database_path, log_path, int(most))
    except OSError as error:
        sys.exit(error.strerror)


def _act(source_path: str, database_path: str, log_path: str, most: int) -> int:
    source = os.open(source_path, os.O_RDONLY | os.O_CLOEXEC)
    database = os.open(database_path, os.O_RDONLY | os.O_CLOEXEC)
    size = page_size(os.pread(source, 18, 0))
    pages: list[tuple[int, bytes]] = []
    for page in differing(source, database, size):
        pages.append(page)
        if len(pages) > most:
            return TOO_MANY
    if not pages:
        # A file that only became shorter still needs one frame to say so.
        pages.append((1, os.pread(source, size, 0)))
    count = os.fstat(source).st_size // size
    with os.fdopen(os.open(log_path, _CREATE, 0o600), "wb") as stream:
        stream.writelines(log(pages, size, count, os.urandom(8)))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
