"""Files into a backup and out of it: each is digested as it passes, packed if that is wished, and never trusted."""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import stat
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import IO, cast

import msgspec

from bulletproof.domain.account import Account
from bulletproof.domain.backup import Part
from bulletproof.effects.ownership import acting_as
from bulletproof.effects.tree import modest
from bulletproof.errors import StepFailed

_CHUNK = 1 << 20
_LEVEL = 3
"""Of zstd; level 6 made files 2 % smaller in twice the time (measured)."""


_MOST_TOLD = 1000
"""Of what was left out; a manifest is no log."""
_MISPLACED = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
"""What laying an archive meets that has a name twice, or one below what is no folder."""


class Mismatch(Exception):
    """Something is not what the manifest says."""


class Archived(msgspec.Struct, frozen=True, kw_only=True):
    """What went into an archive."""

    part: Part
    folders: tuple[str, ...]
    files: int
    left_out: tuple[str, ...]
    """Sockets, pipes and devices, and what could not be read, in words."""


class _Meter(io.RawIOBase):
    """A file that digests and counts what is written into it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, content: object, /) -> int:
        data = bytes(cast("bytes", content))
        self._file.write(data)
        self.digest.update(data)
        self.size += len(data)
        return len(data)


def _zstd() -> ModuleType:
    """Python's own from 3.14 on; 8 ms that only a packed backup costs."""
    return importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


@contextmanager
def _packed(meter: _Meter, *, compress: bool) -> Iterator[IO[bytes]]:
    """What packs into the meter."""
    if not compress:
        yield cast("IO[bytes]", meter)
        return
    with _zstd().ZstdFile(meter, "wb", level=_LEVEL) as file:
        yield cast("IO[bytes]", file)


def pack_file(source: Path, folder: Path, name: str, *, compress: bool) -> Part:
    """Copy a file, which nobody writes to, into a folder under that name, packed with `.zst` behind it."""
    with source.open("rb") as file, _written(folder, name, compress=compress) as (meter, packed):
        unpacked = 0
        while chunk := file.read(_CHUNK):
            packed.write(chunk)
            unpacked += len(chunk)
    return _part(_named(name, compress=compress), meter, unpacked)


def describe_file(file: Path) -> Part:
    """A file that lies in a backup already, as it is."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    size = file.stat().st_size
    return Part(name=file.name, size=size, sha256=digest, unpacked=size)


def pack_folders(
    folders: Mapping[str, Path], folder: Path, name: str, *, compress: bool, reader: Account | None = None
) -> Archived:
    """Put folders, which may be written to meanwhile, into one tar file: regular files, folders and symlinks.

    As root they are read with the rights of `reader`, who writes to them: no link of its making leads to anything else.
    A file that grows or shrinks meanwhile has the size that it had when it was begun; one that vanishes is left out.
    """
    left_out: list[str] = []
    count = 0
    with _written(folder, name, compress=compress) as (meter, packed):
        counter = _Counter(packed)
        packing = tarfile.open(fileobj=cast("IO[bytes]", counter), mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        with packing as tar, acting_as(reader):
            for title, place in folders.items():
                top = place.resolve()
                for path in _below(top, title, left_out):
                    count += _add(tar, path, f"{title}/{path.relative_to(top)}".removesuffix("/."), left_out)
    part = _part(_named(name, compress=compress), meter, counter.size)
    return Archived(part=part, folders=tuple(folders), files=count, left_out=tuple(left_out[:_MOST_TOLD]))


def unpack_file(folder: Path, part: Part, target: Path) -> None:
    """Lay what is in a part at `target`, which is not there yet. Raises Mismatch; what is half laid is the caller's."""
    with target.open("xb") as file:
        target.chmod(0o600)
        for chunk in _contents(folder, part):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def unpack_folders(folder: Path, part: Part, scratch: Path, target: Path, names: tuple[str, ...]) -> int:
    """Lay the folders of an archive in the folder `target`, and say how many files they have. Raises Mismatch.

    `scratch` is a file that is not there yet, for what is compressed. Nothing is made but regular files, folders and
    symlinks below the `names`, and the symlinks last, so that nothing is written through one.
    """
    plain = scratch if part.is_packed else folder / part.name
    if part.is_packed:
        unpack_file(folder, part, scratch)
    else:
        check_file(folder, part)
    try:
        with modest(plain) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            return _lay(tar, target, names)
    except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError, *_MISPLACED) as error:
        raise Mismatch(f"{part.name} is no archive of ours: {error}") from error


def check_file(folder: Path, part: Part) -> None:
    """Read a part to its end. Raises Mismatch when a byte of it is not what it was."""
    for _ in _contents(folder, part):
        pass


def _contents(folder: Path, part: Part) -> Iterator[bytes]:
    """What is in a part, chunk by chunk; whoever uses it waits for the end, when its digest is known."""
    with _opened(folder / part.name, part) as file:
        reading = _Reading(file)
        unpacked = 0
        for chunk in _unpacked(reading, part):
            unpacked += len(chunk)
            if unpacked > part.unpacked:
                raise Mismatch(f"{part.name} holds more than the {part.unpacked} bytes that the manifest says")
            yield chunk
    if reading.digest.hexdigest() != part.sha256:
        raise Mismatch(f"{part.name} has another digest than the manifest says")
    if unpacked != part.unpacked:
        raise Mismatch(f"{part.name} holds {unpacked} bytes, not {part.unpacked}")


@contextmanager
def _opened(path: Path, part: Part) -> Iterator[io.FileIO]:
    try:
        file = path.open("rb", buffering=0)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise Mismatch(f"{part.name} is not there") from error
    with file:
        size = os.fstat(file.fileno()).st_size
        if size != part.size:
            raise Mismatch(f"{part.name} has {size} bytes, not {part.size}")
        yield file


class _Reading(io.RawIOBase):
    """A file that is digested as it is read."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object, /) -> int:
        count = self._file.readinto(cast("bytearray", buffer))
        self.digest.update(memoryview(cast("bytearray", buffer))[:count])
        return count


def _unpacked(reading: _Reading, part: Part) -> Iterator[bytes]:
    buffered = io.BufferedReader(reading, _CHUNK)
    if not part.is_packed:
        while chunk := buffered.read(_CHUNK):
            yield chunk
        return
    zstd = _zstd()
    try:
        with zstd.ZstdFile(cast("IO[bytes]", buffered), "rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except (zstd.ZstdError, EOFError) as error:
        raise Mismatch(f"{part.name} cannot be unpacked: {error}") from error


class _Counter:
    """What `tarfile` writes into, counted."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = 0

    def write(self, content: bytes) -> int:
        self.size += len(content)
        self._file.write(content)
        return len(content)


class _Padded(io.RawIOBase):
    """A file of a size that was promised, whatever became of it: cut, or filled up with zeros."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        content = self._file.read(wanted)
        content += bytes(wanted - len(content))
        self._left -= wanted
        return content


@contextmanager
def _written(folder: Path, name: str, *, compress: bool) -> Iterator[tuple[_Meter, IO[bytes]]]:
    path = folder / _named(name, compress=compress)
    with path.open("xb") as file:
        path.chmod(0o600)
        meter = _Meter(file)
        with _packed(meter, compress=compress) as packed:
            yield meter, packed


def _named(name: str, *, compress: bool) -> str:
    return f"{name}.zst" if compress else name


def _part(name: str, meter: _Meter, unpacked: int) -> Part:
    return Part(name=name, size=meter.size, sha256=meter.digest.hexdigest(), unpacked=unpacked)


def _below(folder: Path, title: str, left_out: list[str]) -> Iterator[Path]:
    """The folder and all that is in it, symlinks as such; what cannot be entered is told."""

    def tell(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            name = Path(str(error.filename)).relative_to(folder)
            left_out.append(f"{title}/{name} cannot be entered: {error.strerror}")

    yield folder
    for parent, folders, files in os.walk(folder, onerror=tell):
        folders.sort()
        yield from (Path(parent, name) for name in sorted([*folders, *files]))


def _add(tar: tarfile.TarFile, path: Path, name: str, left_out: list[str]) -> int:
    """Add one thing; 1 when it was a file that went in."""
    try:
        member = _member(name, path.lstat())
        if member is None:
            left_out.append(f"{name} is no file, folder or symlink")
        elif member.issym():
            member.linkname = str(path.readlink())
            tar.addfile(member)
        elif member.isdir():
            tar.addfile(member)
        else:
            with path.open("rb") as file:
                tar.addfile(member, cast("IO[bytes]", _Padded(file, member.size)))
            return 1
    except FileNotFoundError:
        pass  # it was removed since its folder was listed
    except PermissionError as error:
        left_out.append(f"{name} cannot be read: {error.strerror}")
    return 0


def _member(name: str, found: os.stat_result) -> tarfile.TarInfo | None:
    member = tarfile.TarInfo(name)
    member.mode = stat.S_IMODE(found.st_mode)
    member.mtime = int(found.st_mtime)
    if stat.S_ISREG(found.st_mode):
        member.size = found.st_size
    elif stat.S_ISDIR(found.st_mode):
        member.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(found.st_mode):
        member.type = tarfile.SYMTYPE
    else:
        return None
    return member


def _lay(tar: tarfile.TarFile, target: Path, names: tuple[str, ...]) -> int:
    count = 0
    links: list[tuple[Path, str]] = []
    folders: list[tuple[Path, tarfile.TarInfo]] = []
    for name in names:
        (target / name).mkdir(parents=True, exist_ok=True)
    for member in tar:
        path = target / _safe(member.name, names)
        if member.isdir():
            path.mkdir(exist_ok=True)
            folders.append((path, member))
        elif member.issym():
            links.append((path, member.linkname))
        elif member.type in {tarfile.REGTYPE, tarfile.AREGTYPE} and not member.issparse():
            _lay_file(tar, member, path)
            count += 1
        else:
            raise Mismatch(f"{member.name} is neither a file nor a folder nor a symlink")
    for path, leads_to in links:
        path.symlink_to(leads_to)
    for path, member in reversed(folders):
        _date(path, member)
    return count


def _lay_file(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    content = tar.extractfile(member)
    if content is None:
        raise Mismatch(f"{member.name} has no content")
    with path.open("xb") as file:
        left = member.size
        while left:
            chunk = content.read(min(_CHUNK, left))
            if not chunk:
                raise Mismatch(f"{member.name} ends too early")
            file.write(chunk)
            left -= len(chunk)
    _date(path, member)


def _date(path: Path, member: tarfile.TarInfo) -> None:
    """Mode and time as they were, without what would let a file run as its owner."""
    path.chmod(member.mode & 0o777)
    with suppress(OverflowError):
        os.utime(path, (member.mtime, member.mtime))


def _safe(name: str, names: tuple[str, ...]) -> PurePosixPath:
    path = PurePosixPath(name)
    is_below = any(path == PurePosixPath(one) or PurePosixPath(one) in path.parents for one in names)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not is_below:
        raise Mismatch(f"{name!r} lies in none of its folders")
    return path


def require_no_mount(folder: Path) -> None:
    """Raise StepFailed for a folder that cannot be exchanged by a rename: a symlink, or a disk of its own."""
    if folder.is_symlink() or folder.is_mount():
        what = "a symlink" if folder.is_symlink() else "a disk of its own"
        raise StepFailed(
            "folder-not-restorable",
            f"{folder} is {what}, so its files cannot be exchanged in one step",
            hint="bulletproof backup restore NAME --only-database, and copy the files by hand",
        )
