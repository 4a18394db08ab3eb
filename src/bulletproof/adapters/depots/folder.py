"""A depot in a folder: a mounted disk, or a place that another program carries away."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bulletproof.adapters.depots.trouble import Trouble, getting, listing, putting, removing, tried
from bulletproof.domain.depot import OURS, check_name, check_prefix, parents
from bulletproof.effects import durable, partial

_PRIVATE_FILE, _PRIVATE_FOLDER = 0o600, 0o700
_FULL = {errno.ENOSPC, errno.EDQUOT}
_MAY_PASS = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY}
"""What a disk that is reached over a network says of a moment's trouble."""


class FolderDepot(msgspec.Struct, frozen=True):
    """The port Depot in a folder, which must be there: one that is not is a disk that is not mounted."""

    folder: Path

    @property
    def called(self) -> str:
        """The folder."""
        return str(self.folder)

    def put(self, file: Path, name: str) -> None:
        """Copy it there; what a killed call has left in the same folder is deleted."""
        check_name(name)
        tried(putting(name, self.called), lambda: self._put(file, name))

    def get(self, name: str, file: Path) -> None:
        """Copy it from there."""
        check_name(name)
        tried(getting(name, self.called), lambda: self._get(name, file))

    def names(self, prefix: str) -> tuple[str, ...]:
        """All names below a folder."""
        folder = self.folder / check_prefix(prefix)
        return tried(listing(self.called), lambda: self._names(folder))

    def remove(self, name: str) -> None:
        """Delete it, and the folders that it leaves empty."""
        check_name(name)
        tried(removing(name, self.called), lambda: self._remove(name))

    def _put(self, file: Path, name: str) -> None:
        target = self.folder / name
        with self._in_words():
            durable.make_folder(target.parent, mode=_PRIVATE_FOLDER)
            durable.sweep(target.parent)
            durable.copy_file(file, target, mode=_PRIVATE_FILE)

    def _get(self, name: str, file: Path) -> None:
        source = self.folder / name
        with self._in_words():
            if not source.is_file():
                raise Trouble("there is no such file", hint=f"ls -l {shlex.quote(str(source.parent))}")
            with source.open("rb") as opened:
                found = os.fstat(opened.fileno())
                version = f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"
                partial.fetch(
                    file, version, found.st_size, lambda offset, length: os.pread(opened.fileno(), length, offset)
                )

    def _names(self, folder: Path) -> tuple[str, ...]:
        with self._in_words():
            return tuple(sorted(self._found(folder))) if folder.is_dir() else ()

    def _found(self, folder: Path) -> Iterator[str]:
        for path, folders, files in os.walk(folder, onerror=_raise):
            folders[:] = [name for name in folders if not name.startswith(OURS)]
            for name in files:
                if not name.startswith(OURS):
                    yield str(Path(path, name).relative_to(self.folder))

    def _remove(self, name: str) -> None:
        with self._in_words():
            durable.remove(self.folder / name)
            for parent in reversed(parents(name)):
                try:
                    (self.folder / parent).rmdir()
                except FileNotFoundError:
                    continue
                except OSError as error:
                    if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                        raise
                    return

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        """Say what is wrong with the disk, or with the one of the file here."""
        try:
            if not self.folder.is_dir():
                raise Trouble(f"the folder {self.folder} is not there; is its disk mounted?", hint="findmnt")
            yield
        except EOFError as error:
            raise Trouble(f"it changed while it was read: {error}", may_pass=True) from error
        except OSError as error:
            raise _trouble(error, self.folder) from error


def _trouble(error: OSError, folder: Path) -> Trouble:
    place = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else folder
    beside = shlex.quote(str(place.parent))
    if error.errno in _FULL:
        return Trouble(f"the disk of {place.parent} is full", hint=f"df -h {beside}")
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return Trouble(f"{place} may not be changed: {error.strerror}", hint=f"ls -ld {beside}")
    return Trouble(f"{place}: {error.strerror or error}", hint=f"ls -ld {beside}", may_pass=error.errno in _MAY_PASS)


def _raise(error: OSError) -> None:
    raise error
