"""requirements.txt as pip understands it, with the files that it includes; and the lock that is made of it."""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bulletproof.errors import StepFailed

REQUIREMENTS = "requirements.txt"

_INCLUDE = re.compile(r"(?:-r|--requirement|-c|--constraint)(?:\s*=?\s*|=)(.+)")
_EDITABLE = re.compile(r"(?:-e|--editable)\b")
_LINKS = re.compile(r"(?:-f|--find-links)(?:\s+|=)(.+)")
_INDEX = re.compile(r"(?:-i|--index-url|--extra-index-url|--no-index|--no-binary|--only-binary)\b")
_LOCAL = re.compile(
    r"(?:\.{1,2}(?:[/\[;\s]|$)|/|~|file:)"  # ./folder, ., /folder, file:///folder
    r"|[\w.-]+/"  # folder/package
    r"|(?!\S*://)[^@;\s]+\.(?:whl|zip|tar\.\w+)(?:[\s;]|$)"  # package.whl
    r"|[^@;]+@\s*(?:\.|/|file:)"  # name @ file:///folder
)
_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(?:==|@)")
_COMMENT = re.compile(r"(^|\s)#.*$")
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


@dataclass(slots=True)
class Requirements:
    """What the app says it needs."""

    contents: dict[str, bytes] = field(default_factory=dict)
    """Each file's bytes by its name in the source."""
    entries: list[str] = field(default_factory=list)
    """Each requirement on one line, without comments."""
    options: list[str] = field(default_factory=list)
    """Where packages come from, such as `--index-url URL`, with folders made absolute."""

    @property
    def is_hashed(self) -> bool:
        """Whether it is a lock already: each requirement is pinned to hashes."""
        return bool(self.entries) and all("--hash" in entry for entry in self.entries)

    def digest(self, *others: str) -> str:
        """sha256 over the files' names and bytes, and over whatever else decides what a lock of them contains."""
        parts = [*others, *(f"{name}\0{content.hex()}" for name, content in sorted(self.contents.items()))]
        return hashlib.sha256("\0\0".join(parts).encode()).hexdigest()


def read_requirements(source: Path) -> Requirements:
    """Read requirements.txt of a source tree and all that it includes.

    Raises StepFailed when there is none, and in words for what cannot be locked by hash: a folder or file of the
    source (`-e .`, `./package`), or a list behind a URL.
    """
    if not (source / REQUIREMENTS).is_file():
        raise StepFailed(
            "requirements-missing",
            f"the source has no {REQUIREMENTS}, so nobody knows what the app needs",
            hint=f"pip freeze > {REQUIREMENTS}, commit it, then: bulletproof deploy",
        )
    found = Requirements()
    _read(source.resolve(), source / REQUIREMENTS, found, is_constraint=False)
    return found


def locked(lock: str) -> dict[str, str]:
    """A lock's entries with their comments, by the normalised name of the package."""
    blocks: dict[str, str] = {}
    name = ""
    for line in lock.splitlines():
        found = _NAME.match(line)
        if found:
            name = normalised(found.group(1))
        if name:
            blocks[name] = f"{blocks.get(name, '')}{line}\n"
    return blocks


def normalised(name: str) -> str:
    """A package's name as PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: str) -> dict[str, str]:
    """The version of each package in a lock by its normalised name; of one from elsewhere, where it comes from."""
    return {name: _pin(block) for name, block in locked(lock).items()}


def is_guarded(lock: str) -> bool:
    """Whether a hash guards every package of a lock; one from a git repository has none, its commit guards it."""
    return all("--hash" in block for block in locked(lock).values())


def _pin(block: str) -> str:
    """`flask==3.1.0 ; python_version > "3"  --hash=…` is 3.1.0, and `shop @ https://…` its address."""
    requirement = re.split(r"\s+--hash|\s*\\?\n", block, maxsplit=1)[0]
    found = _NAME.match(requirement)
    return re.split(r"\s*;|\s", requirement[found.end() :].strip(), maxsplit=1)[0] if found else ""


def _read(source: Path, file: Path, found: Requirements, *, is_constraint: bool) -> None:
    file = file.resolve()
    if not file.is_relative_to(source) or not file.is_file():
        raise _unusable(file.name, "is not a file of the source")
    name = file.relative_to(source).as_posix()
    if name in found.contents:
        return
    found.contents[name] = file.read_bytes()
    for number, line in _logical_lines(_text(name, found.contents[name])):
        _take(source, file.parent, line, found, where=f"{name}, line {number}", is_constraint=is_constraint)


def _take(source: Path, folder: Path, line: str, found: Requirements, *, where: str, is_constraint: bool) -> None:
    included = _INCLUDE.match(line)
    links = _LINKS.match(line)
    if included:
        if "://" in included.group(1):
            raise _unusable(where, "names a list behind a URL, which may be another one tomorrow")
        is_constraint = is_constraint or line.startswith(("-c", "--constraint"))
        _read(source, folder / included.group(1).strip(), found, is_constraint=is_constraint)
    elif links:
        found.options.append(f"--find-links {_absolute(folder, links.group(1).strip())}")
    elif _INDEX.match(line):
        found.options.append(line)
    elif _EDITABLE.match(line) or _LOCAL.match(line):
        raise _unusable(where, f"`{line}` is a folder or file of the source, which no hash guards")
    elif not line.startswith("-") and not is_constraint:
        found.entries.append(line)


def _absolute(folder: Path, link: str) -> str:
    return link if "://" in link or link.startswith("$") else str((folder / link).resolve())


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Each line with its number, continued lines joined as pip does it, without comments and empty ones."""
    begun, collected = 0, ""
    for number, raw in enumerate([*text.splitlines(), ""], start=1):
        line = _COMMENT.sub("", raw).rstrip()
        begun = number if not collected else begun
        collected += line.removesuffix("\\")
        if not line.endswith("\\"):
            if collected.strip():
                yield begun, " ".join(collected.split())
            collected = ""


def _text(name: str, content: bytes) -> str:
    encoding = next((encoding for mark, encoding in _BOMS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding).removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    except UnicodeDecodeError as error:
        raise _unusable(name, "is not UTF-8 text") from error


def _unusable(where: str, why: str) -> StepFailed:
    return StepFailed(
        "requirements-unusable",
        f"{where}: {why}",
        hint=f"name packages of an index in {REQUIREMENTS} (your own wheels by --find-links), then: bulletproof deploy",
    )
