"""Bundles: a source packed for its way to a host, and there laid again, after everything in it has been doubted."""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO

import msgspec
from msgspec.structs import replace

from bulletproof.domain.bundle import FORMAT, BundleManifest, altered, bomb, read_manifest, truncated
from bulletproof.domain.config import AppConfig
from bulletproof.domain.source import Source
from bulletproof.effects import tree
from bulletproof.effects.scratch import room_for
from bulletproof.effects.source import lay_source

LARGEST_MANIFEST = 4 << 20
LARGEST_BUNDLE = 2 << 30
"""Bytes of a whole bundle; larger sources are not refused for their sake but for the disk's."""

_CHUNK_BYTES = 1 << 20
_HARMLESS_BYTES = 64 << 20
_HIGHEST_RATIO = 100
"""Of the unpacked bytes to the packed ones, beyond what is harmless; source code has 3 to 10, zeros have 1000."""
_COMMENT = "comment"
"""The pax header in which git archive, too, keeps the commit (git-get-tar-commit-id(1))."""


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """A packed source: a file that begins with its manifest."""

    file: Path
    digest: str
    """sha256 of the manifest, told beside the bundle, so that no other one can come in its place."""


class Unpacked(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle that was laid as a folder."""

    source: Source
    config: AppConfig
    settings: Mapping[str, str]


def pack(
    source: Source, config: AppConfig, settings: Mapping[str, str], scratch: Path, *, outside: Collection[Path] = ()
) -> Bundle:
    """Pack a source's files, without their history, into a file in the folder `scratch`.

    Raises StepFailed as `lay_source` does.
    """
    laid, archive, file = scratch / "laid", scratch / "files.tar.gz", scratch / "bundle"
    count = lay_source(source, laid, outside=outside)
    unpacked = _compress(laid, archive, source.revision)
    manifest = BundleManifest(
        format=FORMAT,
        made_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        revision=source.revision,
        title=source.title,
        files=count,
        size=archive.stat().st_size,
        unpacked=unpacked,
        sha256=_sha256(archive),
        config=replace(config, hosts={}),  # which hosts there are is none of a host's business
        history=source.history,
        settings=dict(settings),
    )
    line = msgspec.json.encode(manifest) + b"\n"
    with file.open("xb") as whole, archive.open("rb") as files:
        whole.write(line)
        for chunk in _chunks(files):
            whole.write(chunk)
    return Bundle(file=file, digest=hashlib.sha256(line).hexdigest())


def unpack(bundle: IO[bytes], digest: str, scratch: Path) -> Unpacked:
    """Lay a bundle, which nobody vouches for, as a folder in `scratch`; nothing else is made.

    Raises Refused in words when it is truncated, altered, another than the one announced by `digest`, old, of an
    unknown format or too large, and StepFailed for what no source may contain, as `tree.lay` does.
    """
    line = bundle.readline(LARGEST_MANIFEST + 1)
    if not line.endswith(b"\n"):
        raise truncated() if len(line) <= LARGEST_MANIFEST else altered("it does not begin as a bundle does")
    if hashlib.sha256(line).hexdigest() != digest:
        raise altered("it is another one than was announced")
    manifest = read_manifest(line, dt.datetime.now(dt.UTC))
    packed, plain, folder = scratch / "files.tar.gz", scratch / "files.tar", scratch / "source"
    with room_for("the files of the bundle"):
        _receive(bundle, packed, manifest)
        _decompress(packed, plain, manifest)
    _require_revision(plain, manifest)
    count = tree.lay_archive(plain, folder, is_wanted=lambda _: True)
    if count != manifest.files:
        raise altered(f"it has {count} files, and says {manifest.files}")
    source = Source(
        folder=folder, revision=manifest.revision, title=manifest.title, history=manifest.history, is_laid=True
    )
    return Unpacked(source=source, config=manifest.config, settings=manifest.settings)


def _compress(laid: Path, archive: Path, revision: str) -> int:
    """The files of a folder as a tar with no more of this machine in it than they need; returns its plain bytes."""
    plain = archive.with_suffix("")
    with tarfile.open(plain, "x:", format=tarfile.PAX_FORMAT, pax_headers={_COMMENT: revision}) as tar:
        for path in sorted(laid.rglob("*")):
            tar.add(path, path.relative_to(laid).as_posix(), recursive=False, filter=_without_owner)
    with plain.open("rb") as files, archive.open("xb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
        for chunk in _chunks(files):
            packed.write(chunk)
    return plain.stat().st_size


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = int(member.mtime)
    return member


def _receive(bundle: IO[bytes], packed: Path, manifest: BundleManifest) -> None:
    """Keep what follows the manifest, if it is what that says."""
    if manifest.size > LARGEST_BUNDLE:
        raise bomb(f"it has {manifest.size >> 20} MiB, more than {LARGEST_BUNDLE >> 20}")
    found, size = hashlib.sha256(), 0
    with packed.open("xb") as file:
        for chunk in _chunks(bundle):
            size += len(chunk)
            if size > manifest.size:
                raise altered(f"it is longer than the {manifest.size} bytes that it says")
            found.update(chunk)
            file.write(chunk)
    if size < manifest.size:
        raise truncated()
    if found.hexdigest() != manifest.sha256:
        raise altered("its files have another digest than it says")


def _decompress(packed: Path, plain: Path, manifest: BundleManifest) -> None:
    """Unpack as much as it says there is, and never more than a disk or our patience can bear."""
    largest = min(manifest.unpacked, tree.MOST_BYTES, max(_HARMLESS_BYTES, manifest.size * _HIGHEST_RATIO))
    size = 0
    try:
        with packed.open("rb") as raw, gzip.GzipFile(fileobj=raw) as files, plain.open("xb") as file:
            for chunk in _chunks(files):
                size += len(chunk)
                if size > largest:
                    raise bomb(f"{manifest.size} bytes unpack to more than {largest} bytes")
                file.write(chunk)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise altered(f"its files are damaged: {error}") from error
    if size != manifest.unpacked:
        raise altered(f"its files have {size} bytes, and it says {manifest.unpacked}")


def _require_revision(plain: Path, manifest: BundleManifest) -> None:
    """Raise Refused when the files are of another revision, such as an older one, than the bundle claims."""
    try:
        with tree.modest(plain) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            found = tar.pax_headers.get(_COMMENT, "")
    except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError) as error:
        raise altered(f"its files are damaged: {error}") from error
    if found != manifest.revision:
        raise altered(f"its files are of revision {found[:12] or 'none'}, and it claims {manifest.revision[:12]}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _chunks(file: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
