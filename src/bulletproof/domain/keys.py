"""Keys that may do little: each an entry of authorized_keys with a command that is forced upon it (sshd(8))."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import shlex
from collections.abc import Sequence

import msgspec

from bulletproof.domain.errand import Right
from bulletproof.errors import Refused, UsageError

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_MARK = "bulletproof:"
"""How the comment of an entry of ours begins; the key's name follows."""
_KINDS = (
    *("ssh-ed25519", "sk-ssh-ed25519@openssh.com", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384"),
    *("ecdsa-sha2-nistp521", "sk-ecdsa-sha2-nistp256@openssh.com", "ssh-rsa"),
)
_UNFIT = re.compile(r"[\"\\\n\r\0]")
"""What sshd and the shell would read in two ways inside the quotes of an option."""


class PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    """A public key without its comment."""

    kind: str
    blob: str

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen -l shows it."""
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key of ours: its name, and what it may do."""

    name: str
    rights: frozenset[Right]
    app: str
    root: str
    """The root of the embedded host; empty for the account's own."""
    public: PublicKey


def read_rights(text: str) -> frozenset[Right]:
    """The rights in a list with commas. Raises UsageError `right-unknown`."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in words if word not in set(Right)]
    if unknown or not words:
        what = f"`{unknown[0]}` is no right" if unknown else "no right was given"
        raise UsageError("right-unknown", f"{what}; there are: {', '.join(Right)}")
    return frozenset(map(Right, words))


def check_name(name: str) -> str:
    """The name, if a key may have it. Raises UsageError `key-name-unfit`."""
    if not _NAME.fullmatch(name):
        words = "a key's name has up to 31 lower case letters, digits and dashes, a letter first"
        raise UsageError("key-name-unfit", words)
    return name


def read_public(text: str) -> PublicKey:
    """The one public key in a text, as ssh-keygen writes it into a .pub file. Raises UsageError `not-a-public-key`."""
    if "PRIVATE KEY" in text:
        raise _no_key("this is a private key, which belongs to nobody but its owner; give the .pub file")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    if len(lines) != 1:
        raise _no_key(f"one public key is wanted, and there are {len(lines)} lines")
    words = lines[0].split()
    if len(words) < 2 or words[0] not in _KINDS:  # noqa: PLR2004  the kind and the key
        raise _no_key("it does not begin as a public key does, such as ssh-ed25519 AAAA…")
    key = PublicKey(kind=words[0], blob=words[1])
    if _kind_inside(key.blob) != key.kind:
        raise _no_key("it is damaged: what it contains is no key of the kind that it names")
    return key


def line_of(key: Key, engine: Sequence[str]) -> str:
    """The entry in authorized_keys; `engine` is the command line of the engine on this host.

    Raises Refused `path-unfit` where sshd could not be told of it safely.
    """
    words = [*engine, *(("--root", key.root) if key.root else ())]
    words += ["serve", "--key", key.name, "--app", key.app, "--can", ",".join(sorted(key.rights))]
    command = shlex.join(words)
    if _UNFIT.search(command):
        raise Refused("path-unfit", "the folder of the engine or of the root has a quote or a backslash in its name")
    return f'command="{command}",restrict {key.public.kind} {key.public.blob} {_MARK}{key.name}'


def key_of(line: str) -> Key | None:
    """The key of ours that an entry is about; None for any other line."""
    entry = re.fullmatch(r'command="([^"\\]*)",restrict (\S+) (\S+) ' + _MARK + r"(\S+)\s*", line)
    if entry is None:
        return None
    try:
        words = shlex.split(entry[1])
    except ValueError:
        return None
    if "serve" not in words:
        return None
    at = words.index("serve")
    told = dict(zip(words[at + 1 :: 2], words[at + 2 :: 2], strict=False))
    root = words[words.index("--root") + 1] if "--root" in words[:at] else ""
    return Key(
        name=entry[4],
        rights=frozenset(Right(word) for word in told.get("--can", "").split(",") if word in set(Right)),
        app=told.get("--app", ""),
        root=root,
        public=PublicKey(kind=entry[2], blob=entry[3]),
    )


def keys_of(text: str) -> tuple[Key, ...]:
    """All keys of ours in a file."""
    return tuple(key for line in text.splitlines() if (key := key_of(line)) is not None)


def with_key(text: str, key: Key, engine: Sequence[str]) -> str:
    """The file with the key in it; its other lines are as they were.

    Raises Refused when the name is taken by another key, or this key stands there already for something else: sshd
    takes the first entry that it finds, so ours would not hold.
    """
    fresh = line_of(key, engine)
    kept: list[str] = []
    is_there = False
    for line in text.splitlines(keepends=True):
        known = key_of(line.rstrip("\r\n"))
        if known is not None and known.name == key.name:
            if known.public != key.public:
                words = f"there is another key named {key.name}: {known.public.fingerprint}"
                raise Refused("key-exists", words, hint=f"bulletproof keys revoke {key.name}")
            kept += [] if is_there else [f"{fresh}\n"]
            is_there = True
            continue
        _refuse_twice(line, known, key)
        kept.append(line)
    before = "".join(kept)
    if is_there:
        return before
    return f"{before}{'' if not before or before.endswith(chr(10)) else chr(10)}{fresh}\n"


def without_key(text: str, name: str) -> str:
    """The file without the key of that name. Raises UsageError `key-unknown`."""
    lines = text.splitlines(keepends=True)
    kept = [line for line in lines if (key := key_of(line.rstrip("\r\n"))) is None or key.name != name]
    if len(kept) == len(lines):
        raise UsageError("key-unknown", f"there is no key named {name}", hint="bulletproof keys list")
    return "".join(kept)


def others(text: str) -> int:
    """How many entries of the file are none of ours."""
    lines = [line.strip() for line in text.splitlines()]
    return sum(1 for line in lines if line and not line.startswith("#") and key_of(line) is None)


def _refuse_twice(line: str, known: Key | None, key: Key) -> None:
    if line.lstrip().startswith("#") or key.public.blob not in line.split():
        return
    if known is not None:
        words = f"this key is there already, named {known.name}"
        raise Refused("key-in-use", words, hint=f"bulletproof keys revoke {known.name}")
    how = "with options of another's" if "restrict" in line or "command=" in line else "with no restriction"
    raise Refused(
        "key-in-use",
        f"this key is in authorized_keys already, {how}, so it may do more than is asked for here",
        hint="make a new one: bulletproof keys add NAME --new, or take that line out",
    )


def _kind_inside(blob: str) -> str:
    """The kind that a key itself says it is of (RFC 4253, 6.6); empty when it is none."""
    try:
        raw = base64.b64decode(blob, validate=True)
    except (binascii.Error, ValueError):
        return ""
    size = int.from_bytes(raw[:4], "big")
    return raw[4 : 4 + size].decode("ascii", errors="replace") if len(raw) > 4 + size else ""


def _no_key(why: str) -> UsageError:
    return UsageError("not-a-public-key", why, hint="ssh-keygen -t ed25519 makes a pair; the public half ends in .pub")
