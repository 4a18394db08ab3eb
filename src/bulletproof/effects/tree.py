"""Trees of files in scratch folders: laid from hostile or harmless entries, copied, compared, sealed read-only."""

# Nothing here is durable or whole by itself: a tree is laid under a temporary name, and `durable.sync_tree` and
# `durable.rename` make it a thing that exists. Until then it is scratch, so the raw calls are allowed here.
# ruff: noqa: PTH101, PTH102, PTH115, PTH117, PTH118, PTH123, PTH211 (the os functions say which system call is made)

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec

from bulletproof.errors import StepFailed

MOST_ENTRIES = 200_000
MOST_BYTES = 4 << 30
"""More than any app's source, and less than what fills a disk."""

_CHUNK_BYTES = 1 << 20
_MOST_AT_ONCE = 2 << 20
_FICLONE = 0x40049409
"""ioctl_ficlone(2): share the blocks of a file until one of the two is written (btrfs, XFS)."""

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""How a pointer file begins, by the Git LFS specification, which also limits it to 1024 bytes."""
_LFS_POINTER_BYTES = 1024

_LATEST_MTIME = (1 << 32) - 1
"""A .pyc keeps 32 bits of its source's time (PEP 552)."""


class Kind(Enum):
    """What an entry is."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "symlink"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a tree is to contain, by its path in the tree."""

    path: PurePosixPath
    kind: Kind
    size: int = 0
    mtime: int = 0
    is_executable: bool = False
    target: str = ""
    """Where a symlink leads, as written in it."""
    open: Callable[[], IO[bytes]] | None = None
    """A file's content."""


class _Laid(msgspec.Struct):
    """What was laid until now."""

    folders: set[PurePosixPath] = msgspec.field(default_factory=set)
    named_folders: set[PurePosixPath] = msgspec.field(default_factory=set)
    others: dict[PurePosixPath, Kind] = msgspec.field(default_factory=dict)
    size: int = 0


def lay(entries: Iterable[Entry], destination: Path, *, is_wanted: Callable[[PurePosixPath], bool]) -> int:
    """Create the folder `destination` of the entries that are wanted, and say how many files it has.

    Nothing is written but regular files (0644 or 0755), folders, and relative symlinks that stay in the tree. Raises
    StepFailed for a name that is absolute, has `..`, occurs twice or leads through a symlink, for what is only a Git
    LFS pointer, and beyond MOST_ENTRIES or MOST_BYTES; the half-laid tree is the caller's to remove.
    """
    laid = _Laid()
    os.mkdir(destination, 0o755)
    for entry in entries:
        if is_wanted(entry.path):
            _admit(entry, laid)
            try:
                _make_parents(entry, destination, laid)
                _make(entry, destination / entry.path)
            except OSError as error:
                if error.errno not in {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}:
                    raise
                raise unsafe(entry.path, "has a name that this disk cannot hold") from error
    _refuse_links_that_leave(destination, laid)
    return len(laid.others)


def lay_archive(archive: Path, destination: Path, *, is_wanted: Callable[[PurePosixPath], bool]) -> int:
    """Lay the wanted entries of a tar file, which nobody vouches for, as `lay` does and with its errors."""
    try:
        with modest(archive) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            return lay(_members(tar), destination, is_wanted=is_wanted)
    except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError) as error:
        raise StepFailed("source-unsafe", f"the archive of the source is damaged: {error}") from error


class _Modest(io.BufferedReader):
    """A file that nobody reads much of at once: a header that claims to be huge would be read into memory whole."""

    def read(self, size: int | None = -1, /) -> bytes:
        """So many bytes. Raises tarfile.ReadError for more than any header has."""
        if size is None or not 0 <= size <= _MOST_AT_ONCE:
            raise tarfile.ReadError(f"a header claims to have {size} bytes")
        return super().read(size)


def modest(archive: Path) -> IO[bytes]:
    """A tar file that nobody vouches for, opened for `tarfile`, which it keeps from reading too much at once."""
    return _Modest(io.FileIO(archive))


def listed(folder: Path, paths: Iterable[PurePosixPath]) -> Iterator[Entry]:
    """The entries of a folder that `paths` name; what is gone, or is no file, folder or symlink, is left out."""
    for path in paths:
        found = _lstat(folder, path)
        if found is not None:
            yield from _of_file(folder, path, found)


def walked(folder: Path, *, is_entered: Callable[[Path], bool]) -> Iterator[PurePosixPath]:
    """The paths of all that is in a folder and in those of its folders that are entered, sorted."""
    for parent, folders, files in os.walk(folder, onerror=_raise):
        here = Path(parent)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = sorted(name for name in folders if name not in links and is_entered(here / name))
        for name in sorted(files + links):
            yield PurePosixPath((here / name).relative_to(folder).as_posix())


def copy_tree(source: Path, destination: Path) -> str:
    """Copy a folder byte by byte (or by reflink), modes' execute bits and times with it, and digest what was copied.

    The result is the `tree_digest` of the copy. Never a hard link: no write to the copy can reach the original.
    """
    os.mkdir(destination, 0o755)
    lines = []
    for name, found in _all_below(source):
        content = _copy(os.path.join(source, name), os.path.join(destination, name), found)
        lines.append(_digest_line(name, found, content))
    return _digest(lines)


def tree_digest(folder: Path) -> str:
    """sha256 over every name, content, symlink, execute bit and time (to the second) below the folder."""
    contents = ((name, found, _content(os.path.join(folder, name), found)) for name, found in _all_below(folder))
    return _digest([_digest_line(*line) for line in contents])


def seal(folder: Path) -> None:
    """Make all of a tree read-only, for everyone to read: 0444 or 0555, whatever the umask was."""
    for name, found in _all_below(folder):
        if not stat.S_ISLNK(found.st_mode):
            is_open = stat.S_ISDIR(found.st_mode) or found.st_mode & 0o100
            os.chmod(os.path.join(folder, name), 0o555 if is_open else 0o444)
    os.chmod(folder, 0o555)  # noqa: S103 (and the app runs as another user than its owner)


def refuse_links_that_leave(folder: Path, *, besides: Path) -> None:
    """Raise StepFailed `source-unsafe` for a symlink below the folder that leads out of it, but into `besides`.

    A virtual environment's own links to the machine's Python are let be.
    """
    for name, found in _all_below(folder):
        if not stat.S_ISLNK(found.st_mode) or name.startswith("venv/"):
            continue
        where = Path(os.path.realpath(os.path.join(folder, name)))
        if not (where.is_relative_to(folder.resolve()) or where.is_relative_to(besides)):
            raise unsafe(name, f"is a symlink that leaves the release: it leads to {where}")


def unsafe(path: PurePosixPath | str, why: str) -> StepFailed:
    """The error for an entry that no release may contain."""
    return StepFailed("source-unsafe", f"`{path}` {why}", hint="take it out of the source, then: bulletproof deploy")


def _members(tar: tarfile.TarFile) -> Iterator[Entry]:
    for member in tar:
        if PurePosixPath(member.name) != PurePosixPath():
            yield _of_member(tar, member)


def _of_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Entry:
    path = _safe_path(member.name)
    if member.isdir():
        return Entry(path=path, kind=Kind.FOLDER)
    if member.issym():
        return Entry(path=path, kind=Kind.LINK, target=member.linkname)
    if member.type not in {tarfile.REGTYPE, tarfile.AREGTYPE} or member.issparse() or member.size < 0:
        raise unsafe(path, "is neither a regular file nor a folder nor a symlink")

    def content() -> IO[bytes]:
        opened = tar.extractfile(member)
        if opened is None:
            raise tarfile.ReadError(f"{member.name} has no content")
        return opened

    return Entry(
        path=path,
        kind=Kind.FILE,
        size=member.size,
        mtime=int(member.mtime),
        is_executable=bool(member.mode & 0o100),
        open=content,
    )


def _safe_path(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise unsafe(name, "is no name inside the source tree")
    return path


def _lstat(folder: Path, path: PurePosixPath) -> os.stat_result | None:
    """What is at the path, None when nothing is, or when it can only be reached through a symlink."""
    if any((folder / parent).is_symlink() for parent in path.parents):
        return None
    try:
        return os.lstat(folder / path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _of_file(folder: Path, path: PurePosixPath, found: os.stat_result) -> Iterator[Entry]:
    full = folder / path
    if stat.S_ISLNK(found.st_mode):
        yield Entry(path=path, kind=Kind.LINK, target=os.readlink(full))
    elif stat.S_ISREG(found.st_mode):
        yield Entry(
            path=path,
            kind=Kind.FILE,
            size=found.st_size,
            mtime=int(found.st_mtime),
            is_executable=bool(found.st_mode & 0o100),
            open=lambda: full.open("rb"),
        )


def _admit(entry: Entry, laid: _Laid) -> None:
    path = entry.path
    is_again = path in laid.others or path in laid.named_folders
    if is_again or (entry.kind is not Kind.FOLDER and path in laid.folders):
        raise unsafe(path, "occurs twice in the source")
    for parent in path.parents:
        if parent in laid.others:
            raise unsafe(path, f"lies below `{parent}`, which is a {laid.others[parent].value}")
    laid.size += max(entry.size, 0)
    if laid.size > MOST_BYTES or len(laid.others) + len(laid.folders) >= MOST_ENTRIES:
        raise unsafe(path, f"makes the source larger than {MOST_ENTRIES} entries or {MOST_BYTES >> 30} GiB")
    if entry.kind is Kind.FOLDER:
        laid.named_folders.add(path)
    else:
        laid.others[path] = entry.kind


def _make_parents(entry: Entry, destination: Path, laid: _Laid) -> None:
    wanted = [*reversed(entry.path.parents)][1:] + ([entry.path] if entry.kind is Kind.FOLDER else [])
    for path in wanted:
        if path not in laid.folders:
            os.mkdir(destination / path, 0o755)
            laid.folders.add(path)


def _make(entry: Entry, full: Path) -> None:
    if entry.kind is Kind.LINK:
        if "\0" in entry.target or not entry.target:
            raise unsafe(entry.path, "is a symlink to nothing")
        os.symlink(entry.target, full)
    elif entry.open is not None:
        with entry.open() as content:
            _write(entry, content, full)


def _write(entry: Entry, content: IO[bytes], full: Path) -> None:
    written = 0
    with open(os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        while chunk := content.read(_CHUNK_BYTES):
            if not written and entry.size < _LFS_POINTER_BYTES and chunk.startswith(_LFS_POINTER):
                raise _only_a_pointer(entry.path)
            written += file.write(chunk)
            if written > MOST_BYTES:
                raise unsafe(entry.path, f"has more than {MOST_BYTES >> 30} GiB")
        os.fchmod(file.fileno(), 0o755 if entry.is_executable else 0o644)
    time = min(max(entry.mtime, 0), _LATEST_MTIME)
    os.utime(full, (time, time))


def _only_a_pointer(path: PurePosixPath) -> StepFailed:
    return StepFailed(
        "source-incomplete",
        f"`{path}` is a Git LFS pointer, not the file itself",
        hint="git lfs install && git lfs pull, then: bulletproof deploy",
    )


def _refuse_links_that_leave(destination: Path, laid: _Laid) -> None:
    """Look where each symlink really leads; asked when all is laid, since one may lead through another."""
    root = os.path.realpath(destination)
    for path, kind in laid.others.items():
        if kind is not Kind.LINK:
            continue
        target = os.readlink(destination / path)
        where = os.path.realpath(destination / path)
        if os.path.isabs(target) or not (where == root or where.startswith(f"{root}{os.sep}")):
            raise unsafe(path, f"is a symlink that leaves the source: it leads to {target}")


def _all_below(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Everything in a folder by its name there, each folder before what is in it, in an order that never changes."""
    waiting = [""]
    while waiting:
        here = waiting.pop()
        with os.scandir(os.path.join(folder, here)) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            name = os.path.join(here, entry.name)
            yield name, entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(name)


def _copy(source: str, destination: str, found: os.stat_result) -> str:
    """Copy one thing and return what its digest line says of its content."""
    if stat.S_ISDIR(found.st_mode):
        os.mkdir(destination, 0o755)
        return ""
    if stat.S_ISLNK(found.st_mode):
        target = os.readlink(source)
        os.symlink(target, destination)
        return target
    return _copy_file(source, destination, found)


def _copy_file(source: str, destination: str, found: os.stat_result) -> str:
    digest = hashlib.sha256()
    with (
        open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb", buffering=0) as reading,
        open(os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0) as writing,
    ):
        is_cloned = _clone(reading.fileno(), writing.fileno())
        while chunk := reading.read(_CHUNK_BYTES):
            digest.update(chunk)
            if not is_cloned:
                _write_all(writing, chunk)
        os.fchmod(writing.fileno(), 0o755 if found.st_mode & 0o100 else 0o644)
        os.utime(writing.fileno(), ns=(found.st_mtime_ns, found.st_mtime_ns))
    return digest.hexdigest()


def _clone(reading: int, writing: int) -> bool:
    try:
        fcntl.ioctl(writing, _FICLONE, reading)
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM}:
            return False
        raise
    return True


def _write_all(file: IO[bytes], content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _content(path: str, found: os.stat_result) -> str:
    if stat.S_ISLNK(found.st_mode):
        return os.readlink(path)
    if not stat.S_ISREG(found.st_mode):
        return ""
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_line(name: str, found: os.stat_result, content: str) -> bytes:
    kind = stat.S_IFMT(found.st_mode)
    is_file = stat.S_ISREG(found.st_mode)
    detail = f"{bool(found.st_mode & 0o100)} {int(found.st_mtime)}" if is_file else ""
    return b"%o %s %s\0%s\0" % (kind, detail.encode(), os.fsencode(content), os.fsencode(name))


def _digest(lines: list[bytes]) -> str:
    return hashlib.sha256(b"\n".join(sorted(lines))).hexdigest()


def _raise(error: OSError) -> None:
    raise error
