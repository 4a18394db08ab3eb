"""What keys that may do little asked for: a log of its own, and the system's journal where there is one."""

from __future__ import annotations

import json
import os
import syslog
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from bulletproof.effects import durable

LARGEST_BYTES = 4 << 20
"""Then the log becomes `keys.log.1`; so what a key asks for can never fill the disk."""
_LONGEST_QUOTE = 300


def audit_log(root: Path) -> Path:
    """The log. No app can be called `bulletproof`, so its folder is nobody else's."""
    return root / "var" / "log" / "bulletproof" / "keys.log"


def note(log: Path, verdict: str, facts: Mapping[str, str], asked: bytes) -> None:
    """Write down a request, on disk when this returns: one line of JSON, with the beginning of what was asked for.

    Raises OSError when the log could not be written; the system's journal has it even then.
    """
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = json.dumps({"at": at, "verdict": verdict, **facts, "asked": quoted(asked)})
    syslog.openlog("bulletproof-key", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    syslog.syslog(syslog.LOG_NOTICE if verdict == "refused" else syslog.LOG_INFO, line)
    durable.make_folder(log.parent, mode=0o700)
    if log.exists() and log.stat().st_size > LARGEST_BYTES:
        durable.rename(log, log.with_name("keys.log.1"))
    durable.append_line(log, line, mode=0o600)


def quoted(asked: bytes) -> str:
    """The beginning of what was asked for, with nothing in it that could be taken for a line or for a colour."""
    text = asked[:_LONGEST_QUOTE].decode("ascii", errors="backslashreplace")
    shown = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    return f"{shown}… ({len(asked)} bytes)" if len(asked) > _LONGEST_QUOTE else shown


def asked_line() -> bytes:
    """What the client wants to be run, byte for byte (sshd(8), ORIGINAL COMMAND); empty for a shell."""
    return os.environb.get(b"SSH_ORIGINAL_COMMAND", b"")
