"""A bundle is laid whole and as it was packed, or refused in words with nothing laid."""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import workshop
from bulletproof.cli.main import bulletproof
from bulletproof.domain.bundle import FORMAT, BundleManifest
from bulletproof.domain.config import AppConfig
from bulletproof.domain.source import Source
from bulletproof.effects import bundle as bundles
from bulletproof.effects.bundle import Bundle, pack, unpack
from bulletproof.effects.source import lay_source, resolve
from bulletproof.errors import BulletproofError, UsageError

_CONFIG = AppConfig(name="shop")
_REVISION = "a" * 40
Member = tuple[tarfile.TarInfo, bytes]


@pytest.fixture
def packed(tmp_path: Path) -> Bundle:
    """An honest bundle of a commit."""
    folder = tmp_path / "project"
    workshop.commit(folder, {"app.py": "app = 1\n", "deep/er/file": "x" * 5000, ".env": "SECRET=1"}, "A title")
    (folder / "link").symlink_to("app.py")
    workshop.commit(folder, {}, "A title")
    return pack(resolve(folder), _CONFIG, {"KEY": "value"}, _new(tmp_path / "packing"))


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _unpack(content: bytes, digest: str, folder: Path) -> bundles.Unpacked:
    return unpack(io.BytesIO(content), digest, _new(folder))


def _crafted(
    members: list[Member], claims: Mapping[str, object] | None = None, *, plain: bytes | None = None
) -> tuple[bytes, str]:
    """A bundle as an enemy would make it, its digests right, and the digest that announces it."""
    if plain is None:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": _REVISION}) as tar:
            for info, content in members:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        plain = raw.getvalue()
    files = gzip.compress(plain, 1)
    manifest = {
        "format": FORMAT,
        "made_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "revision": _REVISION,
        "title": "",
        "files": max(1, sum(not info.isdir() for info, _ in members)),
        "size": len(files),
        "unpacked": len(plain),
        "sha256": hashlib.sha256(files).hexdigest(),
        "config": {"name": "shop"},
        "settings": {},
        **(claims or {}),
    }
    line = msgspec.json.encode(manifest) + b"\n"
    return line + files, hashlib.sha256(line).hexdigest()


def _file(name: str, content: bytes = b"x") -> Member:
    return tarfile.TarInfo(name), content


def _special(name: str, kind: bytes, target: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def test_what_was_packed_is_laid(packed: Bundle, tmp_path: Path) -> None:
    """Files, links, modes and times of the commit; no history, no .env; and what a first deployment needs besides."""
    folder = tmp_path / "project"
    unpacked = _unpack(packed.file.read_bytes(), packed.digest, tmp_path / "there")
    here, there = tmp_path / "here", tmp_path / "again"

    assert workshop.laid(resolve(folder), here) == workshop.laid(unpacked.source, there)
    assert workshop.names_below(here) == {"app.py", "deep", "deep/er", "deep/er/file", "link"}
    assert (here / "app.py").stat().st_mtime == (there / "app.py").stat().st_mtime
    assert unpacked.source.revision == workshop.git(folder, "rev-parse", "HEAD")
    assert (unpacked.source.title, unpacked.config, unpacked.settings) == ("A title", _CONFIG, {"KEY": "value"})


def test_a_worktree_is_packed_as_it_lies_there(tmp_path: Path) -> None:
    """Uncommitted files come along, databases and caches do not."""
    folder = tmp_path / "project"
    workshop.commit(folder, {"app.py": "1"})
    workshop.write(folder, {"new.py": "2", "app.db": "data", "__pycache__/x.pyc": "3"})
    made = pack(resolve(folder, worktree=True), _CONFIG, {}, _new(tmp_path / "packing"))
    unpacked = _unpack(made.file.read_bytes(), made.digest, tmp_path / "there")

    assert workshop.names_below(unpacked.source.folder) == {"app.py", "new.py"}
    assert unpacked.source.revision == "worktree"
    assert lay_source(unpacked.source, tmp_path / "again") == 2


def test_a_bundle_that_ends_too_early_is_truncated(packed: Bundle, tmp_path: Path) -> None:
    """Wherever it was cut off, and even when nothing came."""
    content = packed.file.read_bytes()
    for number, length in enumerate({0, 1, content.index(b"\n"), content.index(b"\n") + 1, len(content) - 1}):
        with pytest.raises(BulletproofError) as refused:
            _unpack(content[:length], packed.digest, tmp_path / f"there-{number}")
        assert refused.value.reference == "bundle-truncated"
        assert not (tmp_path / f"there-{number}" / "source").exists()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_no_altered_bundle_is_laid(
    packed: Bundle, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any change of any byte, any cut, anything behind its end: nothing of it is laid."""
    content = bytearray(packed.file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    match data.draw(st.sampled_from(["flip", "cut", "insert", "append"])):
        case "flip":
            content[place] ^= data.draw(st.integers(1, 255))
        case "cut":
            del content[place : place + data.draw(st.integers(1, 100))]
        case "insert":
            content[place:place] = data.draw(st.binary(min_size=1, max_size=10))
        case _:
            content += data.draw(st.binary(min_size=1, max_size=10))
    folder = tmp_path_factory.mktemp("altered") / "there"

    with pytest.raises(BulletproofError) as refused:
        _unpack(bytes(content), packed.digest, folder)

    assert refused.value.reference in {"bundle-altered", "bundle-truncated"}
    assert not (folder / "source").exists()


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_no_garbage_is_taken_for_a_bundle(
    tmp_path_factory: pytest.TempPathFactory,
    garbage: bytes,
    has_line: bool,  # noqa: FBT001
) -> None:
    """Bytes of which even the announced digest is right are refused in words."""
    content = garbage + b"\n" if has_line else garbage
    line = content.partition(b"\n")[0] + b"\n"
    folder = tmp_path_factory.mktemp("garbage") / "there"

    with pytest.raises(BulletproofError) as refused:
        _unpack(content, hashlib.sha256(line).hexdigest(), folder)

    assert refused.value.reference.startswith("bundle-")
    assert not (folder / "source").exists()


def test_another_bundle_than_was_announced_is_refused(packed: Bundle, tmp_path: Path) -> None:
    """An older bundle, whole in itself, cannot come in the place of the one that was meant."""
    older = pack(resolve(tmp_path / "project"), _CONFIG, {}, _new(tmp_path / "older"))

    with pytest.raises(BulletproofError, match="another one than was announced"):
        _unpack(older.file.read_bytes(), packed.digest, tmp_path / "there")


@pytest.mark.parametrize(
    ("claims", "reference", "words"),
    [
        ({"format": 2}, "bundle-format-unknown", "format 2, and this engine reads format 1"),
        ({"made_at": "2020-01-01T00:00:00+00:00"}, "bundle-outdated", "2020-01-01"),
        ({"made_at": "2999-01-01T00:00:00+00:00"}, "bundle-outdated", "one of the clocks is wrong"),
        ({"made_at": "yesterday"}, "bundle-altered", "cannot be read"),
        ({"made_at": "2026-01-01"}, "bundle-altered", "cannot be read"),
        ({"revision": "b" * 40}, "bundle-altered", "of revision aaaaaaaaaaaa, and it claims bbbbbbbbbbbb"),
        ({"revision": "../../etc"}, "bundle-altered", "cannot be read"),
        ({"files": 7}, "bundle-altered", "has 1 files, and says 7"),
        ({"sha256": "0" * 64}, "bundle-altered", "another digest"),
        ({"unpacked": 512}, "bundle-too-large", "unpack to more than 512"),
        ({"unpacked": 10**9}, "bundle-altered", "and it says 1000000000"),
        ({"size": 3 << 30}, "bundle-too-large", "3072 MiB"),
        ({"config": {"name": "../shop"}}, "bundle-altered", "cannot be read"),
        ({"config": {"name": "shop", "unknown": 1}}, "bundle-altered", "cannot be read"),
        ({"extra": 1}, "bundle-altered", "cannot be read"),
    ],
)
def test_a_bundle_that_lies_about_itself_is_refused(
    tmp_path: Path, claims: dict[str, object], reference: str, words: str
) -> None:
    """What it claims is held against what it is."""
    content, digest = _crafted([_file("app.py")], claims)

    with pytest.raises(BulletproofError, match=words) as refused:
        _unpack(content, digest, tmp_path / "there")

    assert refused.value.reference == reference


def test_a_manifest_without_end_is_not_read_into_memory(tmp_path: Path) -> None:
    """A first line that is longer than any manifest ends the matter."""
    with pytest.raises(BulletproofError, match="does not begin as a bundle does"):
        _unpack(b"{" * (bundles.LARGEST_MANIFEST + 2), "0" * 64, tmp_path / "there")


@pytest.mark.parametrize(
    "members",
    [
        [_file("/etc/passwd")],
        [_file("../outside")],
        [_file("a/../../outside")],
        [_special("link", tarfile.SYMTYPE, "../outside"), _file("app.py")],
        [_special("link", tarfile.SYMTYPE, "/etc"), _file("app.py")],
        [_special("link", tarfile.SYMTYPE, ".."), _file("link/outside")],
        [_special("hard", tarfile.LNKTYPE, "/etc/passwd")],
        [_special("device", tarfile.CHRTYPE)],
        [_special("disk", tarfile.BLKTYPE)],
        [_special("pipe", tarfile.FIFOTYPE)],
        [_file("app.py"), _file("app.py")],
        [_file("app.py"), _file("./app.py")],
        [_file("a"), _file("a/b")],
        [_file("a" * 300)],
    ],
)
def test_what_no_source_may_contain_is_refused(tmp_path: Path, members: list[Member]) -> None:
    """Names and links that leave it, devices, duplicates: nothing appears outside of the scratch folder."""
    content, digest = _crafted(members)
    outside = tmp_path / "outside"

    with pytest.raises(BulletproofError) as refused:
        _unpack(content, digest, tmp_path / "there")

    assert refused.value.reference == "source-unsafe"
    assert not outside.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"there"}


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """What unpacks to far more than it is ends long before the disk does."""
    plain = b"\0" * (bundles._HARMLESS_BYTES + (8 << 20))
    content, digest = _crafted([], plain=plain)
    assert len(content) * bundles._HIGHEST_RATIO < len(plain)

    with pytest.raises(BulletproofError) as refused:
        _unpack(content, digest, tmp_path / "there")

    assert refused.value.reference == "bundle-too-large"
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) <= bundles._HARMLESS_BYTES + (
        1 << 20
    )


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A count that no source has would use up the disk's inodes."""
    monkeypatch.setattr("bulletproof.effects.tree.MOST_ENTRIES", 10)
    content, digest = _crafted([_file(f"f{number}") for number in range(11)])

    with pytest.raises(BulletproofError, match="larger than 10 entries"):
        _unpack(content, digest, tmp_path / "there")


def test_a_header_that_claims_to_be_huge_is_not_read_into_memory(tmp_path: Path) -> None:
    """An extended header has a size of its own, which tarfile reads at once."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 40 << 20
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": _REVISION}) as tar:
        tar.addfile(_file("app.py")[0], io.BytesIO())
    first = raw.getvalue()[: 3 * 512]
    plain = first + header.tobuf(tarfile.USTAR_FORMAT) + b"\0" * header.size + b"\0" * 1024
    content, digest = _crafted([], plain=plain)

    with pytest.raises(BulletproofError, match="claims to have 41943040 bytes") as refused:
        _unpack(content, digest, tmp_path / "there")

    assert refused.value.reference == "source-unsafe"


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.sampled_from("ab./\\~ \0é"), min_size=1, max_size=8),
            st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]),
            st.text(st.sampled_from("ab./"), max_size=6),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_is_laid_lies_in_the_folder(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes, str]]
) -> None:
    """Of any mix of names, kinds and targets: refused in words, or laid with nothing that leads out."""
    base = tmp_path_factory.mktemp("mix")
    content, digest = _crafted([_special(name, kind, target) for name, kind, target in members])
    try:
        unpacked = _unpack(content, digest, base / "there")
    except BulletproofError as refused:
        assert refused.reference in {"source-unsafe", "bundle-altered"}  # noqa: PT017
    else:
        for path in unpacked.source.folder.rglob("*"):
            assert os.path.realpath(path).startswith(os.path.realpath(unpacked.source.folder))  # a loop leads nowhere
            assert path.is_symlink() or path.is_file() or path.is_dir()
    assert [path.name for path in base.iterdir()] == ["there"]


def test_settings_of_a_first_deployment_are_in_no_file(packed: Bundle, tmp_path: Path) -> None:
    """They are read from the bundle, which has no name on the host; what is laid does not have them."""
    unpacked = _unpack(packed.file.read_bytes(), packed.digest, tmp_path / "there")

    assert unpacked.settings == {"KEY": "value"}
    for file in (tmp_path / "there").rglob("*"):
        assert not (file.is_file() and b"KEY" in file.read_bytes())


def test_a_laid_source_is_no_commit() -> None:
    """Nobody looks for git where a bundle was laid."""
    assert not Source(folder=Path("/x"), revision=_REVISION, is_laid=True).is_commit
    assert BundleManifest.__struct_config__.forbid_unknown_fields


def test_a_name_of_an_app_leads_nowhere(tmp_path: Path) -> None:
    """What is received is unpacked in a folder that is named after the app, so that name is looked at first."""
    words = ["--root", str(tmp_path), "deploy", "--app", "../x", "--bundle", "0" * 64]
    done = CliRunner().invoke(bulletproof, words, input=b"")
    assert isinstance(done.exception, UsageError)
    assert done.exception.reference == "config-invalid"
    assert "--app" in done.exception.message
