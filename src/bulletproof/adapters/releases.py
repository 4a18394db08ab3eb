"""Releases built on this machine: source, locked virtual environment and bytecode in one folder, sealed by a rename."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from bulletproof.domain.account import Account
from bulletproof.domain.config import AppConfig, Server
from bulletproof.domain.layout import Layout
from bulletproof.domain.ownership import ROOT
from bulletproof.domain.source import Source
from bulletproof.domain.static_files import Collected, public_path
from bulletproof.domain.web import surroundings
from bulletproof.effects import durable, tree
from bulletproof.effects.cache import BuildCache, Use
from bulletproof.effects.data_links import DataLinks
from bulletproof.effects.dependencies import Dependencies, read_dependencies
from bulletproof.effects.exchange import exchange
from bulletproof.effects.interpreter import Interpreter, choose_interpreter
from bulletproof.effects.local_packages import Need, install_local, need_of
from bulletproof.effects.ownership import close_to_others, give, hand_tree
from bulletproof.effects.requirements import locked, pins
from bulletproof.effects.source import lay_source
from bulletproof.effects.source_tree import find_static_folders
from bulletproof.effects.uv import Uv, find_uv
from bulletproof.effects.venv import (
    Blueprint,
    add_server,
    compile_bytecode,
    has_module,
    lay_environment,
    make_lock,
    places_of,
    remarks,
    site_packages,
    versions,
    with_lent_downloads,
)
from bulletproof.errors import StepFailed
from bulletproof.ports import NO_SETTINGS, Manifest

LOCK = "requirements.lock"
_MANIFEST = "release.json"
_HISTORY = "history"
_HEADER = "# made from "
_INPUTS = re.compile(rf"{_HEADER}([0-9a-f]{{64}})\n")
"""The first line of a release's lock: the digest of what it was made from."""

_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class BuiltReleases(msgspec.Struct, frozen=True):
    """The releases below `layout`, implementing ports.Releases.

    A release is built in a folder beside, named after it, and appears by one rename. `find_entry` tells the app's
    `module:object` from its source when the configuration does not. `downloads` is uv's cache, when it is to be shared;
    `lent` another cache of builds, read and never written. `collect_static` lets the app's framework collect its static
    files in the folder that is built.
    """

    layout: Layout
    find_entry: Callable[[Path, Server], str]
    downloads: Path | None = None
    lent: Path | None = None
    collect_static: Callable[[Path, Manifest, Mapping[str, str]], Collected] = lambda *_: Collected()
    builder: Account | None = None
    """As whom everything runs that packages and the framework do in a build, when we are root."""
    user: Account | None = None
    """Whose what users made is, when we are root."""

    def fetch(self, release: str, source: Source, config: AppConfig) -> Manifest:
        """Lay the source tree of a new release; whole or not at all. Raises StepFailed in words."""
        with _in_words(f"the source of release {release} could not be laid"):
            if self.layout.release(release).exists():
                raise StepFailed("release-exists", f"there is a release {release} already")
            self.discard(release)
            beginning = self._beginning(release)
            durable.make_folder(beginning)
            lay_source(source, beginning / "source", outside=self._outside())
            manifest = Manifest(
                release=release,
                revision=source.revision,
                title=source.title,
                config=config,
                entry=config.app.entry or self.find_entry(beginning / "source", config.app.server),
            )
            _write(beginning, manifest)
            durable.write_file(beginning / _HISTORY, source.history)
            # Not synced: a release that a power cut finds unsealed is undone, whatever is in it.
            durable.rename(beginning, self._unsealed(release))
        return manifest

    def build(self, release: str, settings: Mapping[str, str] = NO_SETTINGS) -> Manifest:
        """Make its virtual environment and bytecode, then seal it. Raises StepFailed with the builder's last lines.

        Of the settings those count that lead to packages, such as UV_INDEX_URL; no value is kept or told.
        """
        if self.layout.release(release).exists():
            return self.manifest(release)
        with _in_words(f"release {release} could not be built"):
            folder = self._unsealed(release)
            manifest = self._install(release, _read(folder, release), settings)
            _require_entry(folder, manifest.entry)
            self._links.lay(folder / "source", manifest.config, self._moving(release))
            manifest = self._lay_public(folder, manifest, settings)
            compile_bytecode(_interpreter(folder), folder / "source")
            _write(folder, manifest)
            tree.seal(folder)
            close_to_others(folder, self.user)
            durable.sync_tree(folder)
            durable.rename(folder, self.layout.release(release))
        return manifest

    def discard(self, release: str) -> None:
        """Make it so that the release is not; also what a killed fetch or build left of it."""
        _require_name(release)
        for link in (self.layout.current, self.layout.former):
            if link.is_symlink() and link.readlink().name == release:
                durable.remove(link)
        leftovers = (self._beginning(release), self._unsealed(release), self._moving(release))
        for path in (self.layout.release(release), *leftovers, self._cache.scratch(release)):
            durable.remove_tree(path)

    def manifest(self, release: str) -> Manifest:
        """What the release is. Raises StepFailed `release-damaged` when it is missing or not whole."""
        manifest = _read(self.layout.release(release), release)
        if not manifest.is_built or not self.layout.source(release).is_dir():
            raise _damaged(release, "it is not whole")
        if not (self.layout.venv(release) / "bin" / "python").exists():
            raise _damaged(release, f"the Python {manifest.python} that it was built with is gone from this machine")
        return manifest

    def history(self, release: str) -> str:
        """The commits that its own comes after; empty when nobody knows, as for a release of an older Bulletproof."""
        try:
            return (self.layout.release(release) / _HISTORY).read_text()
        except (OSError, UnicodeDecodeError):
            return ""

    def recorded(self, release: str) -> Manifest:
        """What was written of it when it was built. Raises StepFailed `release-damaged` when that cannot be read."""
        return _read(self.layout.release(release), release)

    def rebuild(self, release: str, number: int, settings: Mapping[str, str] = NO_SETTINGS) -> Manifest:
        """Build it anew from its own source and lock, beside it and named after deployment `number`.

        Raises StepFailed with the builder's last lines, and when what was built is not whole either.
        """
        with _in_words(f"release {release} could not be built anew"):
            self.discard_rebuilt(release, number)
            folder, source = self._unsealed(release), self.layout.source(release)
            durable.make_folder(folder)
            tree.copy_tree(source, folder / "source")
            manifest = self._install(release, self.recorded(release), settings)
            _require_entry(folder, manifest.entry)
            manifest = self._lay_public(folder, manifest, settings)
            compile_bytecode(_interpreter(folder), folder / "source")
            manifest = replace(manifest, remarks=(*manifest.remarks, _rebuilt_by(number)))
            _write(folder, manifest)
            if known := self.history(release):
                durable.write_file(folder / _HISTORY, known)
            tree.seal(folder)
            close_to_others(folder, self.user)
            durable.sync_tree(folder)
            durable.rename(folder, self._rebuilt(release, number))
        return manifest

    def exchange(self, release: str, number: int) -> None:
        """What deployment `number` rebuilt is the release, from one instant on; the former one stays. Idempotent."""
        if not self._is_exchanged(release, number):
            exchange(self._rebuilt(release, number), self.layout.release(release))

    def exchange_back(self, release: str, number: int) -> None:
        """The release is what it was before deployment `number`; idempotent."""
        if self._rebuilt(release, number).is_dir() and self._is_exchanged(release, number):
            exchange(self._rebuilt(release, number), self.layout.release(release))

    def discard_rebuilt(self, release: str, number: int) -> None:
        """Nothing is left beside the release of what deployment `number` rebuilt or replaced; idempotent."""
        _require_name(release)
        for place in (self._unsealed(release), self._cache.scratch(release), self._rebuilt(release, number)):
            durable.remove_tree(place)

    def _is_exchanged(self, release: str, number: int) -> bool:
        """What replaces a release tells it itself: no note beside it could be ahead of it, or behind."""
        return _rebuilt_by(number) in self.recorded(release).remarks

    def existing(self) -> tuple[str, ...]:
        """The ids of all releases that are on disk and built, by their numbers."""
        if not self.layout.releases.is_dir():
            return ()
        names = [path.parent.name for path in self.layout.releases.glob(f"*/{_MANIFEST}")]
        return tuple(sorted((name for name in names if not name.startswith(".")), key=_by_number))

    def point_current_at(self, release: str, former: str | None) -> None:
        """Let `current` name the live release, and `former` the one before, unless that was pruned."""
        _require_name(release)
        if former is not None and self.layout.release(former).is_dir():
            durable.replace_symlink(self.layout.former, Path("releases") / former)
        durable.replace_symlink(self.layout.current, Path("releases") / release)

    def has_program(self, release: str, program: str) -> bool:
        """Whether a command of the built release would find it: in its packages, its source, or on the machine."""
        source = self.layout.source(release)
        if "/" in program or program.endswith(".py"):
            return (source / program).exists()
        path = surroundings(source, self.layout.venv(release), self.layout.data)["PATH"]
        return shutil.which(program, path=path) is not None

    def packages(self, release: str) -> dict[str, str]:
        """The versions of its packages by their names, as it is locked. Raises StepFailed when it is missing."""
        return pins(_lock_in(self.layout.release(release)))

    def notes(self, release: str) -> tuple[str, ...]:
        """What a person should know of how the release was built: its lock's remarks, such as an added server."""
        return remarks(_INPUTS.sub("", _lock_in(self.layout.release(release))))

    def prune_cache(self, *, keep: int = 3) -> int:
        """Remove the locks and environments but those of the last `keep` builds; say how many entries went."""
        return self._cache.prune(keep) if self._cache.environments.is_dir() else 0

    def empty_cache(self) -> None:
        """Remove the locks, the environments and the downloads; a build that is at work makes them again."""
        for place in (self._cache.environments, self._cache.folder / "locks", self._cache.folder / "uv"):
            durable.remove_tree(place)

    def cache_bytes(self) -> int:
        """What the cache takes of the disk, the downloads in it included."""
        return self._cache.size()

    def _install(self, release: str, manifest: Manifest, settings: Mapping[str, str]) -> Manifest:
        """Lay the release's lock and environment, and say in its manifest what is in them."""
        folder, cache, scratch = self._unsealed(release), self._cache, self._cache.scratch(release)
        cache.prepare()
        for leftover in (folder / "venv", scratch):
            durable.remove_tree(leftover)
        downloads = self.downloads or cache.folder / "uv"
        for place in (scratch, downloads):
            durable.make_folder(place)
            give(place, self.builder)
        dependencies = read_dependencies(folder / "source")
        uv = dataclasses.replace(
            find_uv(downloads),
            account=self.builder,
            settings=settings,
            variables=dependencies.variables,
            indexes=dependencies.indexes,
        )
        python = choose_interpreter(uv, folder / "source", dependencies.pythons)
        dependencies.require_match(python.markers)
        lock = self._lock(uv, python, manifest, dependencies)
        options = tuple(dependencies.requirements.options)
        blueprint = Blueprint(python=python, lock=_INPUTS.sub("", lock), options=options)
        cache.note(Use(lock=_inputs(lock), environment=blueprint.key))
        lay_environment(uv, cache, blueprint, folder / "venv", scratch)
        built = self._install_local(uv, python, manifest, lock)
        durable.remove_tree(scratch)
        installed = versions(folder / "venv")
        return replace(
            manifest,
            python=python.version,
            lock=hashlib.sha256(lock.encode()).hexdigest(),
            packages=len(installed),
            dependencies=dependencies.file,
            remarks=(*built, *(f"{name} is not used" for name in dependencies.unused)),
            gunicorn=installed.get("gunicorn", ""),
            is_built=True,
        )

    def _install_local(self, uv: Uv, python: Interpreter, manifest: Manifest, lock: str) -> tuple[str, ...]:
        """Install what the source itself has of packages, and say what it was."""
        folder, scratch = self._unsealed(manifest.release), self._cache.scratch(manifest.release)
        need = need_of(folder / "source", manifest.entry)
        places = tuple(dict.fromkeys((*places_of(lock), *((".",) if need is Need.HARD else ()))))
        uv = with_lent_downloads(uv, self._cache) if places or need is Need.SOFT else uv
        told = install_local(uv, python, folder, places, scratch) if places else ()
        if need is not Need.SOFT or "." in places:
            return told
        try:
            return (*told, *install_local(uv, python, folder, (".",), scratch))
        except StepFailed as error:
            if error.reference != "local-package-failed":
                raise
            return (*told, "the project itself could not be built, so it is not installed as a package")

    def _lock(self, uv: Uv, python: Interpreter, manifest: Manifest, dependencies: Dependencies) -> str:
        """The release's lock.

        It is the one that was made before from the same list, Python and platform, if there is one: packages change
        when their list does, and never with the code alone.
        """
        folder, scratch = self._unsealed(manifest.release), self._cache.scratch(manifest.release)
        server = manifest.config.app.server.value
        inputs = dependencies.digest(python.tag, server)
        lock = self._cache.lock(inputs) or self._lock_of_earlier(inputs)
        if lock is None:
            uv = with_lent_downloads(uv, self._cache)
            made = make_lock(uv, python, folder / "source", dependencies, scratch)
            if server not in locked(made):
                made = add_server(uv, python, made, server, scratch, dependencies=dependencies)
            lock = f"{_HEADER}{inputs}\n{made}"
        if self._cache.lock(inputs) is None:
            self._cache.keep_lock(inputs, lock)
        durable.write_file(folder / LOCK, lock)
        return lock

    def _lock_of_earlier(self, inputs: str) -> str | None:
        locks = (_lock_in(self.layout.release(release)) for release in reversed(self.existing()))
        return next((lock for lock in locks if _inputs(lock) == inputs), None)

    def _lay_public(self, folder: Path, manifest: Manifest, settings: Mapping[str, str]) -> Manifest:
        """Make the folder that the proxy gives out: a link to each folder of static files, at the path of its URL."""
        collected = self._collect(folder, manifest, settings)
        found = {path: f"source/{below}" for path, below in find_static_folders(folder / "source").items()}
        if path := public_path(collected.url):
            found[path] = os.path.relpath(collected.folder, folder.resolve())
        public = folder / self.layout.public(manifest.release).name
        wanted = sorted(found) if manifest.config.proxy.static_files else ()
        laid = [path for path in wanted if _link(public, path, found[path])]
        words = (f"{', '.join(laid)} given out by the proxy" if laid else "", collected.words)
        return replace(manifest, remarks=(*manifest.remarks, *filter(None, words)))

    def _collect(self, folder: Path, manifest: Manifest, settings: Mapping[str, str]) -> Collected:
        """Let the framework write in the release as long as it collects."""
        if self.builder is None:
            return self.collect_static(folder, manifest, settings)
        hand_tree(folder, self.builder)
        try:
            return self.collect_static(folder, manifest, settings)
        finally:
            hand_tree(folder, ROOT)
            tree.refuse_links_that_leave(folder, besides=self.layout.data)

    @property
    def _links(self) -> DataLinks:
        return DataLinks(layout=self.layout, user=self.user)

    @property
    def _cache(self) -> BuildCache:
        return BuildCache(folder=self.layout.cache, app=self.layout.app, lent=self.lent)

    def _beginning(self, release: str) -> Path:
        return self.layout.releases / f".bp-fetch-{release}"

    def _unsealed(self, release: str) -> Path:
        return self.layout.releases / f".bp-build-{release}"

    def _rebuilt(self, release: str, number: int) -> Path:
        return self.layout.releases / f".rebuilt-{number}-{release}"

    def _moving(self, release: str) -> Path:
        return self.layout.persistent / f".bp-build-{release}"

    def _outside(self) -> frozenset[Path]:
        """Our own folders, should they lie in the folder that is deployed."""
        return frozenset(path.resolve() for path in self.layout.folders)


@contextlib.contextmanager
def _in_words(failure: str) -> Iterator[None]:
    """Turn the system's errors into StepFailed."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StepFailed("disk-full", f"{failure}: the disk is full", hint="df -h") from error
        raise StepFailed("release-not-built", f"{failure}: {error}") from error


def _interpreter(folder: Path) -> Path:
    """The machine's Python that the release runs in. Raises StepFailed when a build has put one of its own there."""
    python = (folder / "venv" / "bin" / "python").resolve()
    if python.is_relative_to(folder.resolve()):
        raise StepFailed("release-not-built", "a package replaced the Python that the release runs in")
    return python


def _read(folder: Path, release: str) -> Manifest:
    try:
        manifest = msgspec.json.decode((folder / _MANIFEST).read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _damaged(release, "it is not there") from error
    except msgspec.DecodeError as error:
        raise _damaged(release, f"its {_MANIFEST} cannot be read: {error}") from error
    if manifest.release != release:
        raise _damaged(release, f"its {_MANIFEST} tells of release {manifest.release}")
    return manifest


def _write(folder: Path, manifest: Manifest) -> None:
    durable.write_file(folder / _MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def _damaged(release: str, why: str) -> StepFailed:
    return StepFailed("release-damaged", f"release {release} cannot be used: {why}", hint="bulletproof releases")


def _lock_in(folder: Path) -> str:
    try:
        return (folder / LOCK).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise _damaged(folder.name, f"its {LOCK} is not there") from error


def _inputs(lock: str) -> str:
    """The digest of what a lock was made from, as its first line says."""
    found = _INPUTS.match(lock)
    return found.group(1) if found else ""


def _rebuilt_by(number: int) -> str:
    return f"built anew by deployment {number}"


def _require_name(release: str) -> None:
    if not _RELEASE.fullmatch(release):
        raise StepFailed("release-unknown", f"`{release}` is no id of a release", hint="bulletproof releases")


def _require_entry(folder: Path, entry: str) -> None:
    module = entry.partition(":")[0]
    places = (folder / "source", folder / "source" / "src", site_packages(folder / "venv"))
    if not any(has_module(place, module) for place in places):
        raise StepFailed(
            "entry-missing",
            f"the entry `{entry}` names the module {module}, which neither the source nor its packages have",
            hint="correct `entry` in bulletproof.toml, then: bulletproof deploy",
        )


def _link(public: Path, path: str, target: str) -> bool:
    """Let the path lead to a folder of the release; not where there is none, nor below another such link."""
    link, folder = public / path.lstrip("/"), public.parent / target
    if not folder.is_dir() or any(one.is_symlink() for one in (link, *link.parents)):
        return False
    durable.make_folder(link.parent)
    durable.replace_symlink(link, Path(os.path.relpath(folder, link.parent)))
    return True


def _by_number(release: str) -> tuple[int, str]:
    number = release.partition("-")[0]
    return (int(number) if number.isdecimal() else 0, release)
