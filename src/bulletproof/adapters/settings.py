"""The settings as JSON files that only their owner can read, outside every release."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import msgspec

from bulletproof.domain.layout import Layout
from bulletproof.domain.settings import Settings
from bulletproof.effects import durable
from bulletproof.errors import UsageError

_COPY = re.compile(r"([1-9][0-9]*)\.json")
_PRIVATE_FILE = 0o600
_PRIVATE_FOLDER = 0o700
_NO_FOLLOW = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class FileSettings:
    """The port SettingsStore over files: one for the next deployment, and one for each deployment.

    No error and no repr tells a value. Damage raises UsageError `settings-damaged`, a setting that no process
    could be given `setting-not-usable`.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def today(self) -> Settings:
        """What the next deployment takes; empty when nothing was ever set."""
        return _read(self._layout.environment)

    def write(self, settings: Settings) -> None:
        """Replace what the next deployment takes."""
        _write(self._layout.environment, settings)

    def freeze(self, number: int, settings: Settings) -> None:
        """Write deployment `number`'s own copy."""
        _write(self._layout.settings(number), settings)

    def frozen(self, number: int) -> Settings:
        """Deployment `number`'s own copy; empty when there is none."""
        return _read(self._layout.settings(number))

    def discard(self, number: int) -> None:
        """Make it so that the copy is not."""
        durable.remove(self._layout.settings(number))

    def numbers(self) -> tuple[int, ...]:
        """The deployments that have a copy, in their order."""
        folder = self._layout.frozen_settings
        names = (_COPY.fullmatch(path.name) for path in folder.iterdir()) if folder.is_dir() else ()
        return tuple(sorted(int(name[1]) for name in names if name))


def _write(file: Path, settings: Settings) -> None:
    for name, value in settings.items():
        if not _is_text(name) or not _is_name(name):
            raise UsageError("setting-not-usable", f"{name!r} cannot be the name of a setting")
        if not _is_text(value):
            raise UsageError("setting-not-usable", f"the value of {name} has a NUL in it or is not text in UTF-8")
    durable.make_folder(file.parent, mode=_PRIVATE_FOLDER)
    durable.write_file(file, msgspec.json.format(msgspec.json.encode(settings, order="sorted")), mode=_PRIVATE_FILE)


def _read(file: Path) -> Settings:
    try:
        descriptor = os.open(file, _NO_FOLLOW)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _damaged(file, "is a symlink" if file.is_symlink() else f"cannot be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as opened:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        settings = _decoded(opened.read()) if is_file else None
    if settings is None:
        raise _damaged(file, "is not a JSON object of names and texts" if is_file else "is no regular file")
    return settings


def _decoded(content: bytes) -> Settings | None:
    """The settings, or None; the decoder's error could quote a value, so it is not raised."""
    try:
        settings = msgspec.json.decode(content, type=Settings)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    is_usable = all(_is_text(name) and _is_name(name) and _is_text(value) for name, value in settings.items())
    return settings if is_usable else None


def _is_name(text: str) -> bool:
    return text != "" and "=" not in text


def _is_text(text: str) -> bool:
    """Whether a process can be given it and a file can hold it: no NUL, and nothing that UTF-8 cannot say."""
    return not any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in text)


def _damaged(file: Path, words: str) -> UsageError:
    return UsageError("settings-damaged", f"{file} {words}", hint=f"put it right, or: mv {file} {file}.damaged")
