"""requirements.txt as pip understands it, with the files that it includes; and the lock that is made of it."""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bulletproof.domain.wishes import normalised
from bulletproof.errors import StepFailed

REQUIREMENTS = "requirements.txt"

_INCLUDE = re.compile(r"(?:-r|--requirement|-c|--constraint)(?:\s*=?\s*|=)(.+)")
_EDITABLE = re.compile(r"(?:-e|--editable)(?:\s+|=)(.+)")
_LINKS = re.compile(r"(?:-f|--find-links)(?:\s+|=)(.+)")
_INDEX = re.compile(r"(?:-i|--index-url|--extra-index-url|--no-index|--no-binary|--only-binary)\b")
_LOCAL = re.compile(
    r"(?:\.{1,2}(?:[/\[;\s]|$)|/|~|file:)"  # ./folder, ., /folder, file:///folder
    r"|[\w.-]+/"  # folder/package
    r"|(?!\S*://)[^@;\s]+\.(?:whl|zip|tar\.\w+)(?:[\s;]|$)"  # package.whl
    r"|[^@;]+@\s*(?:\.|/|file:)"  # name @ file:///folder
)
_PROJECTS = ("pyproject.toml", "setup.py", "setup.cfg")
_NAMED = re.compile(r"[^@;]+@\s*(?=\.|/|file:)")
_PLACE = re.compile(r"(?:file:(?://)?)?([^\[;\s]+)")
_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(?:==|@)")
_COMMENT = re.compile(r"(^|\s)#.*$")
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


class Requirements(msgspec.Struct):
    """What the app says it needs."""

    contents: dict[str, bytes] = msgspec.field(default_factory=dict)
    """Each file's bytes by its name in the source."""
    entries: list[str] = msgspec.field(default_factory=list)
    """Each requirement on one line, without comments."""
    options: list[str] = msgspec.field(default_factory=list)
    """Where packages come from, such as `--index-url URL`, with folders made absolute."""
    places: list[str] = msgspec.field(default_factory=list)
    """Folders and files of the source that are packages themselves, such as `.` and `lib/tool`."""

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

    Raises StepFailed in words for what no release could be built from: a folder or file outside of the source, or a
    list behind a URL.
    """
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


def pins(lock: str) -> dict[str, str]:
    """The version of each package in a lock by its normalised name; of one from elsewhere, where it comes from."""
    return {name: _pin(block) for name, block in locked(lock).items()}


def without_places(compiled: str) -> tuple[str, list[str]]:
    """A lock as uv prints it without its folders and files of the source, with the remarks on them; and those lines."""
    kept: list[str] = []
    places: list[str] = []
    is_left_out = False
    for line in compiled.splitlines(keepends=True):
        if not line.startswith((" ", "#")):
            place = place_in(line.strip())
            is_left_out = place is not None
            places += [place] if place is not None else []
        kept += [] if is_left_out else [line]
    return "".join(kept), places


def place_in(requirement: str) -> str | None:
    """The folder or file that a requirement names (`-e ./lib[extra]`, `tool @ file:///lib`); None if it names none."""
    editable = _EDITABLE.match(requirement)
    if editable is None and not _LOCAL.match(requirement):
        return None
    words = _NAMED.sub("", editable.group(1) if editable else requirement, count=1)
    found = _PLACE.match(words)
    return found.group(1) if found and "://" not in found.group(1) else None


def inside(source: Path, folder: Path, place: str, *, where: str) -> str:
    """A package's place as a path from the source, where it is looked for first, or from `folder`.

    Raises StepFailed when it is none, or lies outside of the source.
    """
    for path in ((source / place).resolve(), (folder / place).resolve()):
        if path.is_relative_to(source) and (path.is_file() or any((path / name).is_file() for name in _PROJECTS)):
            return path.relative_to(source).as_posix()
    raise _unusable(where, f"`{place}` is no package in the source: nothing with a pyproject.toml or setup.py is there")


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
    elif (place := place_in(line)) is not None:
        found.places.append(inside(source, folder, place, where=where))
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
        hint="name packages of an index, or folders of the source, then: bulletproof deploy",
    )
