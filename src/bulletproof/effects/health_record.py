"""The record of the checks by the clock: a line for each run, on disk before the next begins, and bounded."""

# A power cut in the middle of a line leaves a torn one, which counts for nothing and which the next run cuts off. A
# line that is damaged otherwise is left out and counted; all others stay.

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bulletproof.domain.runs import Run, line_of, run_in, worth_keeping
from bulletproof.effects import durable

LARGEST_BYTES = 16 << 20
"""90 days of a run each quarter of an hour take 6 MiB; of more the older half goes."""
_OLD_SHARE = 32
"""Old lines are removed when they are one of so many: to write all anew for each would wear out a disk."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What the record holds."""

    runs: tuple[Run, ...] = ()
    """In the order in which they were written."""
    damaged: int = 0
    """Lines that cannot be read."""


def read_record(file: Path, *, last_bytes: int | None = None) -> Record:
    """All runs, or those in its last bytes; empty when there is no record yet. Raises OSError."""
    try:
        with file.open("rb") as record:
            size = os.fstat(record.fileno()).st_size
            begin = max(0, size - last_bytes) if last_bytes is not None else 0
            record.seek(begin)
            content = record.read()
    except FileNotFoundError:
        return Record()
    lines = content[: content.rfind(b"\n") + 1].split(b"\n")
    whole = [line for line in (lines[1:] if begin else lines) if line]
    runs = [run_in(line) for line in whole]
    good = tuple(run for run in runs if run is not None)
    return Record(runs=good, damaged=len(runs) - len(good))


def lock_of(file: Path) -> Path:
    """The file beside the record whose lock says that somebody writes it; it stays for as long as the app is there."""
    return file.with_name(f"{file.name}.lock")


@contextmanager
def alone(file: Path) -> Iterator[bool]:
    """Whether nobody else writes the record while the block runs."""
    durable.make_folder(file.parent, mode=0o700)
    lock = os.open(lock_of(file), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(lock)


def append_run(file: Path, run: Run, *, now: float) -> None:
    """Add a run, which is on disk then, and let go of what is too old or too much; only under `alone`.

    Raises OSError.
    """
    durable.append_line(file, line_of(run), mode=0o600)
    runs = read_record(file).runs
    kept = worth_keeping(runs, now)
    if file.stat().st_size > LARGEST_BYTES:
        kept = kept[len(kept) // 2 :]
    elif len(runs) - len(kept) <= len(runs) // _OLD_SHARE:
        return
    durable.write_file(file, "".join(f"{line_of(one)}\n" for one in kept), mode=0o600)
