"""Read a .env file as python-dotenv does, but say in words what it would skip."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from dotenv.parser import parse_stream

from bulletproof.domain.settings import Settings
from bulletproof.errors import UsageError


def read_dotenv(path: Path) -> Settings:
    """The settings in a .env file, `${…}` taken as it is written; a name without `=` is no setting.

    Raises UsageError, which never quotes a line, when the file cannot be read or has a line that is no setting.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError("dotenv-not-readable", f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UsageError("dotenv-not-readable", f"{path} is not text in UTF-8") from None
    settings: Settings = {}
    for line in parse_stream(StringIO(text)):
        if line.error:
            raise UsageError(
                "dotenv-damaged",
                f"{path}, line {line.original.line}: this is not of the form NAME=value",
                hint=f"$EDITOR +{line.original.line} {path}",
            )
        if line.key is not None and line.value is not None:
            settings[line.key] = line.value
    return settings
