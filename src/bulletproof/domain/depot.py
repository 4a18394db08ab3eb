"""Where backups are put off site: what a person writes as its address, and which names files can have there."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import msgspec

from bulletproof.domain.address import ADDRESS
from bulletproof.errors import UsageError

OURS = ".bp-"
"""What a name begins with that is not finished; no file of a person's can have one."""

_FORMS = "s3://BUCKET/PREFIX, sftp://USER@HOST:PORT/FOLDER or file:///FOLDER"
_URL = re.compile(r"(?P<kind>[a-z0-9]+)://(?P<host>[^/]*)(?P<path>/.*)?")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_ODD = re.compile(r"[\\\"'`*?\[\]{}<>|^%#]|[^\S ]")
"""What a batch of sftp, a URL or a program that shows it could take for something else."""
_LONGEST_PART = 200
_LONGEST = 500
"""In bytes of UTF-8: two such names and a command are one line of sftp, and one is a key of S3."""


class DepotUrl(msgspec.Struct, frozen=True, kw_only=True):
    """A place off site."""

    kind: str
    """`s3`, `sftp` or `file`."""
    host: str
    """The bucket, or [USER@]HOST[:PORT]; empty for a folder."""
    folder: str
    """Below which all files lie: absolute, except in a bucket and below the home folder of an sftp user."""


def read_depot_url(text: str) -> DepotUrl:
    """The place that a person means; `sftp://HOST/~/FOLDER` lies below the home folder.

    Raises UsageError `offsite-url-odd`, whose words repeat no password.
    """
    found = _URL.fullmatch(text)
    if found is None or found["kind"] not in {"s3", "sftp", "file"}:
        raise _odd(text, f"is none of {_FORMS}")
    kind, host, path = found["kind"], found["host"], (found["path"] or "").rstrip("/")
    if "@" in host and ":" in host.rpartition("@")[0]:
        raise _odd(text, "has a password in it, which everybody could read: use a key of ssh")
    if why := _why_not(kind, host) or _why_odd(path.strip("/"), is_name=False):
        raise _odd(text, why)
    return DepotUrl(kind=kind, host=host, folder=_folder(kind, path))


def check_name(name: str) -> str:
    """The name, when a file off site can have it: parts between slashes, such as `shop/12/database.db.zst.age`.

    Raises UsageError `offsite-name-odd`.
    """
    if why := _why_odd(name, is_name=True):
        raise UsageError(
            "offsite-name-odd",
            f"`{_shown(name)}` can be no name off site: it {why}",
            hint="use letters, digits, blanks and . - _ + = , @ ( ) between single slashes",
        )
    return name


def check_prefix(prefix: str) -> str:
    """The folder whose names are asked for, without a slash at its end; empty for all. Raises as `check_name` does."""
    folder = prefix.rstrip("/")
    return check_name(folder) if folder else ""


def parents(name: str) -> tuple[str, ...]:
    """The folders that a name lies in, outermost first."""
    return tuple(str(folder) for folder in reversed(PurePosixPath(name).parents[:-1]))


def _why_not(kind: str, host: str) -> str:
    """Why there is no such host or bucket; empty when there can be."""
    if kind == "s3":
        return "" if _BUCKET.fullmatch(host) else "names no bucket: write s3://BUCKET/PREFIX"
    if kind == "sftp":
        return "" if re.fullmatch(ADDRESS, host) else "names no host: write sftp://USER@HOST:PORT/FOLDER"
    return "names a host, which a folder has none of: write file:///FOLDER" if host else ""


def _folder(kind: str, path: str) -> str:
    if kind == "s3":
        return path.strip("/")
    if kind == "sftp" and (path == "/~" or path.startswith("/~/")):
        return path.removeprefix("/~").strip("/") or "."
    return path or "/"


def _why_odd(text: str, *, is_name: bool) -> str:
    """Why this can be no path; empty when it can be, as no path at all can where it is no name."""
    if not text:
        return "is empty" if is_name else ""
    if found := _ODD.search(text):
        return f"has {_shown(found[0])!r} in it, which is taken for something else on the way"
    if not text.isprintable():
        return "has signs in it that cannot be seen"
    if len(text.encode()) > _LONGEST or any(len(part.encode()) > _LONGEST_PART for part in text.split("/")):
        return f"is longer than {_LONGEST} bytes, or than {_LONGEST_PART} between two slashes"
    if any(part in {"", ".", ".."} or part != part.strip() or part.startswith(OURS) for part in text.split("/")):
        return f"has a part that is empty, is . or .., begins with {OURS}, or begins or ends with a blank"
    return ""


def _odd(text: str, why: str) -> UsageError:
    shown = f"{text.partition('://')[0]}://...@{text.rpartition('@')[2]}" if "@" in text else text
    return UsageError("offsite-url-odd", f"`{_shown(shown)}` {why}", hint=f"write it as {_FORMS}")


def _shown(text: str) -> str:
    return "".join(filter(str.isprintable, text))
