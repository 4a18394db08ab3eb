"""The one door for state on disk: no power cut undoes what a function here has done; until then the old is whole."""

# The os functions say which system call is made, and take the descriptor of a folder.
# ruff: noqa: PTH101, PTH102, PTH104, PTH108, PTH116, PTH208, PTH211

# Three facts carry this module (8 power cuts each of ext4 and xfs; tests/crash/test_power_cut.py repeats them on ext4):
# a renamed file whose folder was not fsynced is the old one afterwards, one that was itself not fsynced has length 0,
# and with both it is always the new one, complete. So everything is built under a temporary name, fsynced, renamed, and
# the folder is fsynced, also when there seems nothing to do: an earlier call may have been killed just before that.
#
# All that a killed call can leave is a `.bp-` name: `.bp-new-` is not finished, `.bp-gone-` is not wanted any more.

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LEFTOVER_PREFIX = ".bp-"
_NEW = f"{LEFTOVER_PREFIX}new-"
_GONE = f"{LEFTOVER_PREFIX}gone-"

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_CHUNK_BYTES = 1 << 20
_FIRST_KERNEL_WHOSE_SYNCFS_REPORTS_ERRORS = (5, 8)  # syncfs(2), VERSIONS; an older one says 0 over a lost write


def write_file(path: Path, content: bytes | str, *, mode: int = 0o644) -> None:
    """Make `path` a file of exactly this content and mode, whole or not at all; text is stored as UTF-8.

    A symlink at `path` is replaced, not followed. Raises OSError, the disk being full for one; the old file stays then.
    """
    with new_file(path, mode) as file:
        _write_all(file, content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def new_file(path: Path, mode: int) -> Iterator[int]:
    """Yield the descriptor of an empty file, which is `path` and durable when the block has ended well.

    Where it fails the old file stays. Raises OSError.
    """
    with _temporary_beside(path) as temporary:
        with _opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as file:
            os.fchmod(file, mode)
            yield file
            os.fsync(file)
        os.rename(temporary, path)
    sync_folder(path.parent)


def copy_file(source: Path, destination: Path, *, mode: int = 0o644) -> None:
    """Make `destination` a copy of the file `source`, whole or not at all; raises OSError as `write_file` does."""
    with _opened(source, os.O_RDONLY) as reading, new_file(destination, mode) as file:
        while chunk := os.read(reading, _CHUNK_BYTES):
            _write_all(file, chunk)


def append_line(path: Path, line: str, *, mode: int = 0o644) -> None:
    """Add one line to the end of a file, which is created with `mode` if it is not there.

    The newline is what makes a line count: an end without one was never acknowledged, so readers leave it out, and the
    next call cuts it off. Raises ValueError for a line of several lines, and OSError when the line could not be added.
    """
    if "\n" in line:
        raise ValueError("one line at a time: a half-written second one could not be told from a whole one")
    with _opened(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # so that nobody takes the line that another is writing for a torn one
        size = os.fstat(file).st_size
        end = _end_of_last_line(file, size)
        if end < size:
            os.ftruncate(file, end)
        if end == 0:
            # Before the first line, not after: then a file with a line in it has a durable name, whoever was killed.
            os.fchmod(file, mode)
            sync_folder(path.parent)
        _append_whole(file, f"{line}\n".encode(), end)
        os.fsync(file)


def replace_symlink(link: Path, target: str | Path) -> None:
    """Point the symlink `link` at `target`, stored exactly as given; it is created if it is not there.

    At every instant `link` is the old one or the new one. Raises OSError, IsADirectoryError where a folder stands.
    """
    with _temporary_beside(link) as temporary:
        os.symlink(target, temporary)
        os.rename(temporary, link)
    sync_folder(link.parent)


def make_folder(path: Path, *, mode: int = 0o755) -> None:
    """Make sure that `path` is a folder; it and those parents that are missing appear one after the other with `mode`.

    The mode is exact whatever the umask; folders that exist keep theirs. Raises NotADirectoryError where a file stands.
    """
    missing = _missing_folders(path)
    existing = missing[0].parent if missing else path
    # Its parents last, since each was made durable before anything was made in it. Where we may not write, no call of
    # ours can have made it.
    if os.access(existing.parent, os.W_OK, effective_ids=True):
        sync_folder(existing.parent)
    for folder in missing:
        _make_one_folder(folder, mode)


@contextlib.contextmanager
def new_folder(path: Path, *, mode: int = 0o755) -> Iterator[Path]:
    """Yield an empty folder which, when the block ends well, is `path`, and durable with all that was put into it.

    Where it fails nothing is left. Raises OSError: ENOTEMPTY when there is a folder with something in it already.
    """
    with _temporary_beside(path) as temporary:
        os.mkdir(temporary, 0o700)
        yield temporary
        os.chmod(temporary, mode)
        _sync_each(temporary)
        os.rename(temporary, path)
    # The name is durable once its folder is, as that of a file.
    sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file or symlink; nothing happens when it is not there. Raises IsADirectoryError for a folder."""
    if _is_folder(path.parent):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        sync_folder(path.parent)


def remove_tree(path: Path) -> None:
    """Remove a folder with all that is in it (or a file, or a symlink but not where it points to); idempotent.

    It is gone in one instant, and only then deleted. Read-only folders are no obstacle; what killed calls have left
    beside it is deleted as well. Raises OSError, EBUSY when something is mounted in it.
    """
    if path.name in {"", ".."}:
        raise ValueError(f"{path} has no name of its own in a folder, so it cannot be moved out of the way")
    if not _is_folder(path.parent):
        return
    with _opened(path.parent) as parent:
        with contextlib.suppress(FileNotFoundError):
            os.rename(path.name, _gone_name(), src_dir_fd=parent, dst_dir_fd=parent)
        os.fsync(parent)
        for name in os.listdir(parent):
            if name.startswith(_GONE):
                _delete(name, parent)
        os.fsync(parent)


def rename(source: Path, destination: Path) -> None:
    """Move a file, symlink or folder within a file system; a file at `destination` is replaced.

    What is inside a folder must be durable already (`sync_tree`). Whoever finds it done by a call that was killed makes
    it last with `sync_folder` on both parents. Raises OSError: ENOTEMPTY when `destination` is a folder with something
    in it, EXDEV across file systems; nothing has changed then.
    """
    _sync_content(source)
    os.rename(source, destination)
    sync_folder(destination.parent)
    if source.parent != destination.parent:
        sync_folder(source.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable, such as that of a file which another program has made and fsynced."""
    with _opened(folder) as descriptor:
        os.fsync(descriptor)


def sync_tree(folder: Path) -> None:
    """Make all that other programs have written below `folder` durable. Raises OSError when a write was lost.

    It syncs the whole file system once: 0.35 s for a virtual environment of 4,810 files on ext4, where an fsync of
    each took 1.55 s. That slower way is taken where the kernel has no syncfs(2), or one that hides lost writes.
    """
    with _opened(folder) as descriptor:
        try:
            _syncfs(descriptor)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            _sync_each(folder)
    sync_folder(folder.parent)


def sweep(folder: Path) -> list[str]:
    """Delete what killed calls have left in `folder` (not below it) and return those names.

    What a living process is writing at this moment stays. A folder that does not exist has nothing to sweep.
    """
    if not _is_folder(folder):
        return []
    with _opened(folder) as descriptor:
        leftovers = sorted(name for name in os.listdir(descriptor) if _is_leftover(name))
        for name in leftovers:
            _delete(name, descriptor)
        os.fsync(descriptor)
    return leftovers


@contextlib.contextmanager
def _opened(path: Path | str, flags: int = _FOLDER, *, dir_fd: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o600, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _temporary_beside(path: Path) -> Iterator[Path]:
    """Yield a free name in the folder of `path`; whatever stands there is deleted when the block fails."""
    temporary = path.with_name(f"{_NEW}{_maker(os.getpid())}.{os.urandom(4).hex()}")
    try:
        yield temporary
    except BaseException as failure:
        if isinstance(failure, OSError) and failure.filename is None:
            failure.filename = str(path)  # a full disk is easier to find with a name on it
        _discard(temporary, failure)
        raise


def _discard(temporary: Path, failure: BaseException) -> None:
    try:
        with contextlib.suppress(FileNotFoundError), _opened(temporary.parent) as parent:
            _delete(temporary.name, parent)
    except OSError as error:
        failure.add_note(f"{temporary} could not be deleted either: {error}")


def _write_all(file: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]


def _append_whole(file: int, content: bytes, end: int) -> None:
    """Append with one write, or not at all: a disk that fills up in the middle takes the first half back."""
    if os.write(file, content) < len(content):
        os.ftruncate(file, end)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _end_of_last_line(file: int, size: int) -> int:
    """Return the offset behind the last newline in the file, 0 when there is none."""
    end = size
    while end:
        start = max(0, end - 4096)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _is_folder(path: Path) -> bool:
    """Tell whether `path` is a folder or leads to one; raises NotADirectoryError where something else stands."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    return True


def _missing_folders(path: Path) -> list[Path]:
    missing: list[Path] = []
    while not _is_folder(path):
        if path.name == "..":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        missing.insert(0, path)
        path = path.parent
    return missing


def _make_one_folder(path: Path, mode: int) -> None:
    with _opened(path.parent) as parent:
        fcntl.flock(parent, fcntl.LOCK_EX)  # or of two makers the second would replace the first one's, still empty
        if not _is_folder(path):
            with _temporary_beside(path) as temporary:
                os.mkdir(temporary, 0o700)
                with _opened(temporary) as descriptor:
                    os.fchmod(descriptor, mode)
                    os.fsync(descriptor)
                os.rename(temporary, path)
        os.fsync(parent)


def _sync_content(path: Path) -> None:
    kind = os.lstat(path).st_mode
    if stat.S_ISREG(kind) or stat.S_ISDIR(kind):
        with _opened(path, os.O_RDONLY | os.O_NOFOLLOW) as descriptor:
            os.fsync(descriptor)


def _syncfs(descriptor: int) -> None:
    """Call syncfs(2), which Python does not offer; raises OSError, ENOSYS when it cannot be relied upon."""
    import ctypes  # noqa: PLC0415 (it costs 11 ms, which only a build should pay)

    if not hasattr(ctypes.CDLL(None), "syncfs") or _kernel() < _FIRST_KERNEL_WHOSE_SYNCFS_REPORTS_ERRORS:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _kernel() -> tuple[int, int]:
    numbers = re.findall(r"\d+", os.uname().release)
    return int(numbers[0]), int(numbers[1])


def _sync_each(folder: Path) -> None:
    for _, _, names, descriptor in os.fwalk(folder, topdown=False, onerror=_raise):
        for name in names:
            if stat.S_ISREG(os.lstat(name, dir_fd=descriptor).st_mode):
                with _opened(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=descriptor) as file:
                    os.fsync(file)
        os.fsync(descriptor)


def _raise(error: OSError) -> None:
    raise error


def _gone_name() -> str:
    return f"{_GONE}{os.urandom(8).hex()}"


def _delete(name: str, parent: int) -> None:
    """Delete what is called `name` in the folder `parent`, without following a symlink even if one is slipped in.

    A folder's own folders are first moved out of it, beside it: so depth costs neither stack nor descriptors, and one
    that something is mounted on refuses to move (EBUSY) before anything in it was touched.
    """
    doomed = [name]
    while doomed:
        name = doomed.pop()
        with contextlib.suppress(FileNotFoundError):  # somebody else may be deleting it as well
            try:
                os.unlink(name, dir_fd=parent)
            except IsADirectoryError:
                doomed += _empty(name, parent)
                os.rmdir(name, dir_fd=parent)


def _empty(name: str, parent: int) -> list[str]:
    """Delete the files of a folder, move its folders out into `parent`, and return their new names."""
    moved = []
    _make_writable(name, parent)
    with _opened(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent) as folder:
        for entry in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                try:
                    os.unlink(entry, dir_fd=folder)
                except IsADirectoryError:
                    _make_writable(entry, folder)  # without that its `..` cannot be changed, so it cannot move
                    moved.append(_gone_name())
                    os.rename(entry, moved[-1], src_dir_fd=folder, dst_dir_fd=parent)
    return moved


def _make_writable(name: str, parent: int) -> None:
    """Give us all rights in a folder of ours, whatever its mode, and never in what a symlink leads to."""
    with _opened(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent) as handle:
        if os.fstat(handle).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(f"/proc/self/fd/{handle}", stat.S_IRWXU)  # fchmod(2) takes no handle that only names


def _is_leftover(name: str) -> bool:
    if name.startswith(_NEW):
        pid, ticks, *_ = f"{name.removeprefix(_NEW)}..".split(".")
        return not (pid.isdecimal() and ticks and _maker(int(pid)) == f"{pid}.{ticks}")
    return name.startswith(_GONE)


def _maker(pid: int) -> str:
    """Name a process so that no later one with its number can be taken for it: `PID.TICKS`, or `PID.` when it is dead.

    The ticks are its start, counted from boot (proc_pid_stat(5), field 22).
    """
    try:
        after_command = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return f"{pid}."
    return f"{pid}." if after_command[0] in {b"Z", b"X"} else f"{pid}.{after_command[19].decode()}"
