"""What the locks of other tools pin, as lines that pip and uv understand: pylock.toml, Pipfile.lock and poetry.lock."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import msgspec

PYPI = ("https://pypi.org/simple", "https://pypi.python.org/simple", "https://pypi.org/pypi")
_HASHES = ("sha256", "sha384", "sha512")
_POETRY_WITH_GROUPS = (2, 1)
"""The lock version since which poetry.lock says which packages are for development only (Poetry 2.0)."""


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """A package index besides PyPI; settings such as UV_INDEX_<NAME>_PASSWORD belong to it by its name."""

    name: str
    url: str


class Pinned(msgspec.Struct, frozen=True, kw_only=True):
    """A package as a lock pins it."""

    name: str
    version: str = ""
    """Empty when it comes from a repository, an archive or a folder."""
    hashes: tuple[str, ...] = ()
    """Such as `sha256:1f2e…`; any of them will do."""
    address: str = ""
    """Of an archive, or `git+https://…@COMMIT`."""
    place: str = ""
    """The folder or file of the source that it is."""
    marker: str = ""
    """When it is needed; always, when empty."""

    @property
    def line(self) -> str:
        """The requirement in one line, without its marker."""
        pinned = f"{self.name} @ {self.address}" if self.address else f"{self.name}=={self.version}"
        return " ".join((pinned, *(f"--hash={one}" for one in self.hashes)))


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """What a lock says."""

    pinned: tuple[Pinned, ...]
    requires_python: str = ""
    """The Pythons that it was made for, as PEP 440 writes them; empty when it does not say so."""
    indexes: tuple[Index, ...] = ()
    groups: tuple[str, ...] = ()
    """The dependency groups that are installed without being asked for."""

    def needed(self, python: Mapping[str, str]) -> Iterator[Pinned]:
        """What a Python needs of it, whose values for markers are given where they differ from this one's."""
        from packaging.markers import Marker  # noqa: PLC0415 (20 ms, which only a build should pay)

        groups = {"extras": frozenset[str](), "dependency_groups": frozenset(self.groups)}
        for one in self.pinned:
            if not one.marker or Marker(one.marker).evaluate({**python, **groups}, context="lock_file"):
                yield one


class LockUnusableError(ValueError):
    """A lock that cannot be converted, in words."""


# --- pylock.toml (PEP 751)


class _File(msgspec.Struct, frozen=True):
    hashes: dict[str, str] = {}
    url: str = ""
    path: str = ""
    subdirectory: str = ""


class _Repository(msgspec.Struct, frozen=True, rename="kebab"):
    type: str
    commit_id: str
    url: str = ""
    subdirectory: str = ""


class _PylockPackage(msgspec.Struct, frozen=True):
    name: str
    version: str = ""
    marker: str = ""
    index: str = ""
    vcs: _Repository | None = None
    directory: _File | None = None
    archive: _File | None = None
    sdist: _File | None = None
    wheels: list[_File] = []


class _Pylock(msgspec.Struct, frozen=True, rename="kebab"):
    lock_version: str
    packages: list[_PylockPackage]
    requires_python: str = ""
    default_groups: list[str] = []


def read_pylock(document: object) -> Lock:
    """What a pylock.toml says. Raises ValueError in words when it is none that can be used."""
    found = msgspec.convert(document, _Pylock)
    if not found.lock_version.startswith("1."):
        raise LockUnusableError(f"its version {found.lock_version} is newer than what is known here")
    urls = (package.index.rstrip("/") for package in found.packages)
    return Lock(
        pinned=tuple(map(_of_pylock, found.packages)),
        requires_python=found.requires_python,
        indexes=_indexes((f"pylock-{number}", url) for number, url in enumerate(dict.fromkeys(urls))),
        groups=tuple(found.default_groups),
    )


def _of_pylock(package: _PylockPackage) -> Pinned:
    name, marker = package.name, package.marker
    if package.vcs:
        vcs = package.vcs
        address = _repository(f"{vcs.type}+{vcs.url}", vcs.commit_id, vcs.subdirectory)
        return Pinned(name=name, address=address, marker=marker)
    if package.directory:
        return Pinned(name=name, place=package.directory.path, marker=marker)
    if package.archive:
        archive = package.archive
        if archive.path:
            return Pinned(name=name, place=archive.path, marker=marker)
        return Pinned(name=name, address=archive.url, hashes=_hashes([archive]), marker=marker)
    files = [*package.wheels, *([package.sdist] if package.sdist else [])]
    return Pinned(name=name, version=package.version, hashes=_hashes(files), marker=marker)


def _hashes(files: list[_File]) -> tuple[str, ...]:
    pairs = (pair for file in files for pair in file.hashes.items())
    return tuple(f"{kind}:{digest}" for kind, digest in pairs if kind in _HASHES)


# --- Pipfile.lock


class _PipfilePackage(msgspec.Struct, frozen=True):
    version: str = ""
    hashes: list[str] = []
    markers: str = ""
    git: str = ""
    ref: str = ""
    subdirectory: str = ""
    file: str = ""
    path: str = ""


class _PipfileSource(msgspec.Struct, frozen=True):
    name: str
    url: str


class _PipfileMeta(msgspec.Struct, frozen=True):
    sources: list[_PipfileSource] = []
    requires: dict[str, str] = {}


class _PipfileLock(msgspec.Struct, frozen=True):
    default: dict[str, _PipfilePackage]
    meta: _PipfileMeta = msgspec.field(name="_meta", default_factory=_PipfileMeta)


def read_pipfile_lock(document: object) -> Lock:
    """What a Pipfile.lock says of the packages that are not for development. Raises ValueError in words."""
    found = msgspec.convert(document, _PipfileLock)
    requires = found.meta.requires
    wish = requires.get("python_full_version") or requires.get("python_version") or ""
    return Lock(
        pinned=tuple(_of_pipfile(name, package) for name, package in found.default.items()),
        requires_python=_series(wish),
        indexes=_indexes((source.name, source.url.rstrip("/")) for source in found.meta.sources),
    )


def _series(version: str) -> str:
    """`3.11` means each 3.11, and `3.11.4` that one."""
    return f"=={version}.*" if version.count(".") == 1 else f"=={version}" if version else ""


def _of_pipfile(name: str, package: _PipfilePackage) -> Pinned:
    marker, hashes = package.markers, tuple(package.hashes)
    if package.git:
        address = _repository(f"git+{package.git}", package.ref, package.subdirectory)
        return Pinned(name=name, address=address, marker=marker)
    if package.path or (package.file and "://" not in package.file):
        return Pinned(name=name, place=package.path or package.file, marker=marker)
    if package.file:
        return Pinned(name=name, address=package.file, hashes=hashes, marker=marker)
    return Pinned(name=name, version=package.version.removeprefix("=="), hashes=hashes, marker=marker)


# --- poetry.lock


class _PoetryFile(msgspec.Struct, frozen=True):
    hash: str


class _PoetrySource(msgspec.Struct, frozen=True):
    type: str
    url: str
    reference: str = ""
    resolved_reference: str = ""
    subdirectory: str = ""


class _PoetryPackage(msgspec.Struct, frozen=True):
    name: str
    version: str
    optional: bool = False
    groups: list[str] = []
    markers: str | dict[str, str] = ""
    files: list[_PoetryFile] = []
    source: _PoetrySource | None = None


class _PoetryMetadata(msgspec.Struct, frozen=True, rename="kebab"):
    lock_version: str
    python_versions: str = ""


class _PoetryLock(msgspec.Struct, frozen=True):
    metadata: _PoetryMetadata
    package: list[_PoetryPackage] = []


def read_poetry_lock(document: object) -> Lock:
    """What a poetry.lock says of the group `main`. Raises ValueError in words.

    Older locks than Poetry 2's do not tell what is for development only: those raise LockUnusableError.
    """
    found = msgspec.convert(document, _PoetryLock)
    version = tuple(int(part) for part in re.findall(r"\d+", found.metadata.lock_version))
    if version < _POETRY_WITH_GROUPS:
        raise LockUnusableError("it was made by a Poetry before 2.0, and does not say what is for development only")
    needed = [one for one in found.package if "main" in one.groups and not one.optional]
    sources = (one.source for one in needed if one.source and one.source.type == "legacy")
    return Lock(
        pinned=tuple(map(_of_poetry, needed)),
        requires_python=specifier_of(found.metadata.python_versions),
        indexes=_indexes((source.reference, source.url.rstrip("/")) for source in sources),
    )


def _of_poetry(package: _PoetryPackage) -> Pinned:
    name, source, markers = package.name, package.source, package.markers
    marker = markers.get("main", "") if isinstance(markers, dict) else markers
    hashes = tuple(file.hash for file in package.files)
    kind = source.type if source else ""
    if source and kind == "git":
        address = _repository(f"git+{source.url}", source.resolved_reference, source.subdirectory)
        return Pinned(name=name, address=address, marker=marker)
    if source and kind in {"directory", "file"}:
        return Pinned(name=name, place=source.url, marker=marker)
    if source and kind == "url":
        return Pinned(name=name, address=source.url, hashes=hashes, marker=marker)
    return Pinned(name=name, version=package.version, hashes=hashes, marker=marker)


def specifier_of(constraint: str) -> str:
    """What Poetry's `^1.2` and the like mean as PEP 440 writes it; empty for what allows all or cannot be said so."""
    if "|" in constraint or " or " in constraint:
        return ""
    parts = [part.strip() for part in constraint.split(",")]
    return ",".join(filter(None, map(_specifier_of_one, parts)))


def _specifier_of_one(constraint: str) -> str:
    sign, version = constraint[:1], constraint[1:].strip()
    if constraint in {"", "*"}:
        return ""
    if sign == "^":
        return f">={version},<{_next(version, _caret_place(version))}"
    if sign == "~" and not constraint.startswith("~="):
        return f">={version},<{_next(version, min(1, version.count('.')))}"
    return f"=={constraint}" if sign.isdigit() else constraint


def _caret_place(version: str) -> int:
    """The first number that is not zero may not change."""
    numbers = version.split(".")
    return next((place for place, number in enumerate(numbers) if number.strip("0")), len(numbers) - 1)


def _next(version: str, place: int) -> str:
    numbers = [re.sub(r"\D.*", "", number) or "0" for number in version.split(".")]
    return ".".join([*numbers[:place], str(int(numbers[place]) + 1)])


# --- shared


def _repository(address: str, commit: str, subdirectory: str) -> str:
    return f"{address}@{commit}{f'#subdirectory={subdirectory}' if subdirectory else ''}"


def _indexes(named: Iterator[tuple[str, str]]) -> tuple[Index, ...]:
    unique = dict.fromkeys((name, url) for name, url in named if url and url not in PYPI)
    return tuple(Index(name=name, url=url) for name, url in unique)
