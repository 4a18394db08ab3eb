"""This very Bulletproof and all that it needs as wheels, made of what is installed here and not downloaded."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import io
import os
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import Distribution
from pathlib import Path
from typing import IO

import msgspec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import bulletproof
from bulletproof.errors import StepFailed

NAME = "bulletproof"

_LEFT_OUT = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json"})
"""What an installer writes and the next one writes anew (PEP 376, PEP 610)."""
_CODE = frozenset({".pyc", ".pyo"})
_EXAMPLE = "demo/datacharted"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
_PACK_LEVEL = 1
"""Twice as fast as the usual 6, for 46 instead of 44 MB over the line."""


class Wheel(msgspec.Struct, frozen=True, kw_only=True):
    """An installed distribution as a wheel that can be written."""

    distribution: Distribution
    files: tuple[tuple[str, Path], ...]
    """Each file by its name in the wheel."""

    @property
    def name(self) -> str:
        """The name of the distribution."""
        return canonicalize_name(self.distribution.name)

    @property
    def version(self) -> str:
        """Its version."""
        return self.distribution.version

    @property
    def tags(self) -> tuple[str, ...]:
        """What it runs on, such as `cp311-cp311-manylinux_2_17_x86_64` (PEP 425)."""
        lines = (self.distribution.read_text("WHEEL") or "").splitlines()
        return tuple(line.partition(":")[2].strip() for line in lines if line.startswith("Tag:"))

    @property
    def file_name(self) -> str:
        """The wheel's name, with all of its tags."""
        parts = zip(*(tag.split("-") for tag in self.tags), strict=True)
        tags = "-".join(".".join(dict.fromkeys(part)) for part in parts)
        return f"{self.name.replace('-', '_')}-{self.version}-{tags}.whl"

    def digest(self) -> str:
        """sha256 of the names and contents of its files."""
        lines = (f"{name} {_sha256(path).hex()}\n" for name, path in sorted(self.files))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def write(self, folder: Path) -> Path:
        """Write it into the folder, and return its file."""
        info = f"{self.distribution.name.replace('-', '_')}-{self.version}.dist-info"
        info = next((name.partition("/")[0] for name, _ in self.files if name.endswith(".dist-info/METADATA")), info)
        record = io.StringIO()
        lines = csv.writer(record, lineterminator="\n")
        file = folder / self.file_name
        with zipfile.ZipFile(file, "x", zipfile.ZIP_DEFLATED, compresslevel=_PACK_LEVEL) as archive:
            for name, path in self.files:
                content = _as_shipped(name, path)
                entry = zipfile.ZipInfo(name, _LONG_AGO)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = (0o100755 if os.access(path, os.X_OK) else 0o100644) << 16
                archive.writestr(entry, content, compresslevel=_PACK_LEVEL)
                digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
                lines.writerow((name, f"sha256={digest}", len(content)))
            lines.writerow((f"{info}/RECORD", "", ""))
            archive.writestr(zipfile.ZipInfo(f"{info}/RECORD", _LONG_AGO), record.getvalue())
        return file


def wheels_of_here() -> tuple[Wheel, ...]:
    """This Bulletproof and all that it needs, in the very versions that run here."""
    return tuple(_wheel(one, Path(sys.prefix)) for one in _closure(NAME))


def wheels_in(folder: Path) -> tuple[Wheel, ...]:
    """The distributions that were installed into a folder of their own, and this Bulletproof, which is in no index."""
    others = importlib.metadata.distributions(path=[str(folder)])
    ours = importlib.metadata.distribution(NAME)
    return (_wheel(ours, Path(sys.prefix)), *(_wheel(one, folder) for one in others if one.name != NAME))


@contextmanager
def packed(wheels: Sequence[Wheel], own_uv: Path) -> Iterator[IO[bytes]]:
    """The wheels and the uv that installs them, as a tar without a name; `own_uv` runs here."""
    with tempfile.TemporaryDirectory(prefix="bulletproof-wheels-") as scratch, tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for wheel in wheels:
                tar.add(wheel.write(Path(scratch)), wheel.file_name)
            tar.add(_program(wheels, "uv") or own_uv, "uv")
        file.seek(0)
        yield file


def _program(wheels: Iterable[Wheel], name: str) -> Path | None:
    """A program that one of the wheels brings, which runs where they are installed."""
    files = (file for wheel in wheels for file in wheel.files)
    return next((path for told, path in files if told.endswith(f".data/scripts/{name}")), None)


def digest_of(wheels: Iterable[Wheel]) -> str:
    """sha256 of all that the wheels hold."""
    return hashlib.sha256("\n".join(sorted(one.digest() for one in wheels)).encode()).hexdigest()


def _closure(name: str) -> Iterator[Distribution]:
    waiting, seen = [name], set[str]()
    while waiting:
        here = canonicalize_name(waiting.pop())
        if here in seen:
            continue
        seen.add(here)
        distribution = importlib.metadata.distribution(here)
        yield distribution
        wishes = map(Requirement, distribution.requires or ())
        waiting += [wish.name for wish in wishes if wish.marker is None or wish.marker.evaluate({"extra": ""})]


def _wheel(distribution: Distribution, prefix: Path) -> Wheel:
    files = dict(_installed(distribution, prefix))
    if distribution.name == NAME and not _is_installed():
        files |= dict(_of_checkout())
    return Wheel(distribution=distribution, files=tuple(files.items()))


def _is_installed() -> bool:
    """Whether this package lies where packages are installed, and is not used from a checkout of the project."""
    site = Path(str(importlib.metadata.distribution(NAME).locate_file("")))
    return Path(bulletproof.__file__).is_relative_to(site)


def _of_checkout() -> Iterator[tuple[str, Path]]:
    package = Path(bulletproof.__file__).parent
    yield from ((f"{NAME}/{name}", path) for name, path in _below(package))
    example = package.parents[1] / "examples" / "datacharted"
    yield from ((f"{NAME}/{_EXAMPLE}/{name}", path) for name, path in _below(example))


def _below(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix not in _CODE and ".pytest_cache" not in path.parts:
            yield path.relative_to(folder).as_posix(), path


def _installed(distribution: Distribution, prefix: Path) -> Iterator[tuple[str, Path]]:
    """What its RECORD names, but for what the next installer makes itself."""
    site = Path(str(distribution.locate_file("")))
    scripts = {entry.name for entry in distribution.entry_points if entry.group in {"console_scripts", "gui_scripts"}}
    data = f"{distribution.name.replace('-', '_')}-{distribution.version}.data"
    if distribution.files is None:
        words = f"{distribution.name} is installed here in a way that does not tell its files"
        raise StepFailed("engine-not-made", words, hint="install Bulletproof with pip, uv or pipx")
    for file in distribution.files:
        path = Path(os.path.normpath(site / file))
        is_left_out = path.suffix in _CODE or (path.parent.suffix == ".dist-info" and path.name in _LEFT_OUT)
        if is_left_out or path.suffix == ".pth" or not path.is_file():
            continue
        if path.parent == prefix / "bin":
            if path.name not in scripts:
                yield f"{data}/scripts/{path.name}", path
        elif path.is_relative_to(site):
            yield path.relative_to(site).as_posix(), path
        elif path.is_relative_to(prefix):
            yield f"{data}/data/{path.relative_to(prefix).as_posix()}", path


def _as_shipped(name: str, path: Path) -> bytes:
    """The file's bytes; a script is given its interpreter by whoever installs it (PEP 427)."""
    content = path.read_bytes()
    if ".data/scripts/" in name and content.startswith(b"#!") and b"python" in content.partition(b"\n")[0]:
        return b"#!python\n" + content.partition(b"\n")[2]
    return content


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
