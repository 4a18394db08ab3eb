"""Hostile archives: whatever they try, nothing gets out of the folder that they are laid in."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workshop
from bulletproof.effects import tree
from bulletproof.errors import StepFailed

_PARTS = st.sampled_from(["a", "b", "..", ".", "", "sub", "l", "ü", "x" * 300, ".env", "c\0d", "\udcff", "-"])
_NAMES = st.builds(
    lambda parts, start: start + "/".join(parts),
    st.lists(_PARTS, min_size=1, max_size=4),
    st.sampled_from(["", "/", "./"]),
)
_TYPES = st.sampled_from(
    [
        *(tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE),
        *(tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE),
    ]
)


@st.composite
def _members(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(draw(_NAMES))
    member.type = draw(_TYPES)
    member.linkname = draw(_NAMES)
    member.mode = draw(st.sampled_from([0o644, 0o755, 0o6777, 0]))
    member.mtime = draw(st.sampled_from([0, 1, 1 << 33]))
    content = draw(st.binary(max_size=20)) if member.type in {tarfile.REGTYPE, tarfile.AREGTYPE} else b""
    member.size = len(content)
    return member, content


def _archive(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _lay_hostile(archive: bytes) -> None:
    """Lay an archive beside a sentinel; whatever comes of it, only harmless things are in the tree, none elsewhere."""
    with tempfile.TemporaryDirectory() as folder:
        around = Path(folder)
        workshop.write(around, {"a": "sentinel", "sub/a": "sentinel", "in.tar": archive})
        destination = around / "deep" / "out"
        destination.parent.mkdir()
        try:
            tree.lay_archive(around / "in.tar", destination, is_wanted=lambda _: True)
        except StepFailed:
            is_whole = False
        else:
            is_whole = True
        outside = sorted(
            path.relative_to(around).as_posix() for path in around.rglob("*") if destination not in path.parents
        )
        assert set(outside) <= {"a", "deep", "deep/out", "in.tar", "sub", "sub/a"}
        assert (around / "a").read_text() == (around / "sub" / "a").read_text() == "sentinel"
        for path in destination.rglob("*") if destination.exists() else ():
            found = path.lstat()
            assert found.st_mode & 0o7022 == 0 or path.is_symlink()
            assert stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode)
            assert found.st_nlink == 1 or stat.S_ISDIR(found.st_mode)
            if is_whole:
                # A link may lead to itself, which goes nowhere: realpath tells of it without an error.
                assert Path(os.path.realpath(path)).is_relative_to(destination.resolve())


@settings(max_examples=150, deadline=None, database=None)
@given(st.lists(_members(), max_size=6))
def test_no_archive_gets_out_of_its_folder(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    """Whatever names, types and links an archive has, it is laid harmlessly or refused in words."""
    _lay_hostile(_archive(members))


@settings(max_examples=100, deadline=None, database=None)
@given(st.lists(_members(), min_size=1, max_size=4), st.data())
def test_no_damaged_archive_does_harm(members: list[tuple[tarfile.TarInfo, bytes]], data: st.DataObject) -> None:
    """An archive with bytes changed or cut off is laid harmlessly or refused in words."""
    archive = bytearray(_archive(members))
    for _ in range(data.draw(st.integers(1, 8))):
        archive[data.draw(st.integers(0, min(len(archive), 4096) - 1))] = data.draw(st.integers(0, 255))
    _lay_hostile(bytes(archive[: data.draw(st.integers(0, len(archive)))]))


def _regular(name: str, content: bytes = b"x", *, mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    return member, content


def _special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


@pytest.mark.parametrize(
    "members",
    [
        pytest.param([_regular("/abs")], id="absolute name"),
        pytest.param([_regular("sub/../../x")], id="name out of the tree"),
        pytest.param([_regular("a"), _regular("a")], id="the same name twice"),
        pytest.param([_regular("a"), _regular("./a")], id="the same name written twice"),
        pytest.param([_special("d", tarfile.DIRTYPE), _special("d", tarfile.DIRTYPE)], id="the same folder twice"),
        pytest.param([_regular("a"), _regular("a/b")], id="a file below a file"),
        pytest.param([_regular("a/b"), _regular("a")], id="a file where a folder is"),
        pytest.param([_special("l", tarfile.SYMTYPE, "."), _regular("l/x")], id="a file through a symlink"),
        pytest.param([_special("l", tarfile.SYMTYPE, "..")], id="symlink out of the tree"),
        pytest.param([_special("l", tarfile.SYMTYPE, "/etc")], id="absolute symlink"),
        pytest.param(
            [
                _special("d/up", tarfile.SYMTYPE, ".."),
                _regular("y/z"),
                _special("l", tarfile.SYMTYPE, "d/up/y/../../x"),
            ],
            id="symlink out of the tree by way of another",
        ),
        pytest.param([_regular("a"), _special("h", tarfile.LNKTYPE, "a")], id="hard link"),
        pytest.param([_special("c", tarfile.CHRTYPE)], id="device"),
        pytest.param([_special("p", tarfile.FIFOTYPE)], id="fifo"),
    ],
)
def test_hostile_entries_are_refused_in_words(tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    """Each known trick of an archive is refused, and nothing outside the folder is touched."""
    archive = workshop.write(tmp_path, {"in.tar": _archive(members)}) / "in.tar"
    with pytest.raises(StepFailed, match="source-unsafe"):
        tree.lay_archive(archive, tmp_path / "out", is_wanted=lambda _: True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.tar", "out"]


def test_a_harmless_archive_is_laid_without_special_bits(tmp_path: Path) -> None:
    """Regular files, folders and symlinks come through; setuid does not."""
    members = [
        _special("d", tarfile.DIRTYPE),
        _regular("d/run", b"#!", mode=0o6755),
        _special("d/l", tarfile.SYMTYPE, "run"),
    ]
    archive = workshop.write(tmp_path, {"in.tar": _archive(members)}) / "in.tar"
    assert tree.lay_archive(archive, tmp_path / "out", is_wanted=lambda _: True) == 2
    assert stat.S_IMODE((tmp_path / "out" / "d" / "run").stat().st_mode) == 0o755
    assert (tmp_path / "out" / "d" / "l").read_bytes() == b"#!"


def test_an_archive_of_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the number of entries nor their size can fill the disk."""
    archive = workshop.write(tmp_path, {"in.tar": _archive([_regular(str(n), b"12345") for n in range(4)])}) / "in.tar"
    for limit, value in (("MOST_ENTRIES", 3), ("MOST_BYTES", 19)):
        with monkeypatch.context() as patched:
            patched.setattr(tree, limit, value)
            with pytest.raises(StepFailed, match="makes the source larger"):
                tree.lay_archive(archive, tmp_path / limit, is_wanted=lambda _: True)
    assert tree.lay_archive(archive, tmp_path / "out", is_wanted=lambda _: True) == 4
