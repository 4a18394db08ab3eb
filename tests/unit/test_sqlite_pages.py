"""Copies that are made equal by writing only what differs, against a plain comparison byte by byte."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulletproof.effects import sqlite_pages

_PAGE = 512
_IGNORED = {18, 19, *range(24, 28), *range(40, 44), *range(92, 100)}
"""What of a header says nothing of what a database keeps: journal mode, three counters, the version of SQLite."""


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few pages be many chunks."""
    monkeypatch.setattr(sqlite_pages, "_CHUNK", 2 * _PAGE)


@contextmanager
def two_files(one: bytes, other: bytes) -> Iterator[tuple[int, int]]:
    """Two open files of this content."""
    with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second:
        for file, content in ((first, one), (second, other)):
            file.write(content)
            file.flush()
        yield first.fileno(), second.fileno()


def content_of(file: int) -> bytes:
    """All of it."""
    return os.pread(file, os.fstat(file).st_size + 1, 0)


PAGES = st.lists(st.sampled_from([b"\0", b"a", b"b"]).map(lambda letter: letter * _PAGE), max_size=9)
EDITS = st.lists(st.tuples(st.integers(0, 9 * _PAGE - 1), st.binary(min_size=1, max_size=4)), max_size=4)
SIZES = st.none() | st.integers(0, 9 * _PAGE)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A database, and what some edits, growth or shrinking made of it."""
    one = b"".join(draw(PAGES))
    other = bytearray(one)
    for offset, change in draw(EDITS):
        if offset < len(other):
            other[offset : offset + len(change)] = change[: len(other) - offset]
    size = draw(SIZES)
    if size is not None:
        other = other[:size] + bytes(max(0, size - len(other)))
    return one, bytes(other)


@settings(deadline=None)  # it syncs
@given(pairs())
def test_refreshed_is_equal(pair: tuple[bytes, bytes]) -> None:
    """Whatever the copy was before, it is the source afterwards, and the source is untouched."""
    with two_files(*pair) as (source, copy):
        sqlite_pages.refresh(source, copy)

        assert content_of(copy) == content_of(source) == pair[0]
        assert sqlite_pages.is_same(source, copy)


@settings(deadline=None)  # it syncs
@given(pairs())
def test_same_is_what_a_plain_comparison_says(pair: tuple[bytes, bytes]) -> None:
    """Two files are the same when all bytes are but those of the counters in the header; in both directions."""
    one, other = pair
    is_same = len(one) == len(other) and all(
        a == b for index, (a, b) in enumerate(zip(one, other, strict=True)) if index not in _IGNORED
    )
    with two_files(one, other) as (first, second):
        assert sqlite_pages.is_same(first, second) == is_same
        assert sqlite_pages.is_same(second, first) == is_same


@pytest.mark.parametrize("index", [0, *sorted(_IGNORED), 17, 20, 28, 44, 91, 100, _PAGE + 18, 3 * _PAGE + 24])
def test_each_byte_of_the_header(index: int) -> None:
    """A change of a counter is none, a change of any other byte is one, also at the same place of a later page."""
    one = bytes(4 * _PAGE)
    other = one[:index] + b"\1" + one[index + 1 :]
    with two_files(one, other) as (first, second):
        assert sqlite_pages.is_same(first, second) == (index in _IGNORED)


def test_only_what_differs_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large database of which little changed costs little."""
    written: list[int] = []
    write = os.pwrite

    def noting(file: int, content: bytes, offset: int) -> int:
        written.append(offset)
        return write(file, content, offset)

    monkeypatch.setattr(os, "pwrite", noting)
    one = bytes(40 * _PAGE)
    with two_files(one[: 5 * _PAGE] + b"x" + one[5 * _PAGE + 1 :], one) as (source, copy):
        sqlite_pages.refresh(source, copy)

    assert written == [4 * _PAGE]


def test_a_write_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system writes only in part is written to its end: the rest would be a hole full of zeros."""
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, content, offset: write(file, content[:100], offset))
    with two_files(os.urandom(3 * _PAGE), b"") as (source, copy):
        sqlite_pages.refresh(source, copy)

        assert content_of(copy) == content_of(source)


def test_trouble_is_told_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that cannot be opened is named as the system does, and is no answer to whether two are the same."""
    with pytest.raises(SystemExit) as caught:
        sqlite_pages.main("compare", str(tmp_path / "none"), str(tmp_path / "neither"))

    assert caught.value.code == "No such file or directory"
    assert not capsys.readouterr().out
