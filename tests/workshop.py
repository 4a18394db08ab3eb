"""Small apps, git repositories and wheels of our own, and a cache of builds that a test process warms once."""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from bulletproof.adapters.releases import BuiltReleases
from bulletproof.domain.config import App, AppConfig
from bulletproof.domain.layout import Layout
from bulletproof.domain.source import Source
from bulletproof.effects.source import lay_source
from bulletproof.operations.sweep import sweep

APP = """\
import itsdangerous


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [itsdangerous.__name__.encode()]
"""
APP_FILES = {"app.py": APP, "requirements.txt": "itsdangerous\n"}
GIT_VARIABLES = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}
CONFIG = AppConfig(name="shop", app=App(entry="app:app"))


def git(folder: Path, *words: str) -> str:
    """Run git, whatever the person's own configuration is."""
    environment = os.environ | GIT_VARIABLES
    return subprocess.run(
        ["git", *words],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write files by their relative names, and return the folder."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def commit(folder: Path, files: Mapping[str, str | bytes], title: str = "A commit") -> str:
    """Commit files in a repository, which is made if need be; returns the commit's id."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ".git").exists():
        git(folder, "init", "--quiet", "--initial-branch=main")
    write(folder, files)
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", title)
    return git(folder, "rev-parse", "HEAD")


def make_wheel(folder: Path, name: str = "tiny", version: str = "1.0", *, needs: tuple[str, ...] = ()) -> Path:
    """A wheel of one module of the same name, which knows its version."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": "\n".join(
            [
                "Metadata-Version: 2.1",
                f"Name: {name}",
                f"Version: {version}",
                *(f"Requires-Dist: {one}" for one in needs),
            ]
        ),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    module = hashlib.sha256(files[f"{name}.py"].encode()).digest()
    hashes = {f"{name}.py": f"sha256={base64.urlsafe_b64encode(module).decode().rstrip('=')}"}
    record = "".join(f"{file},{hashes.get(file, '')},\n" for file in [*files, f"{info}/RECORD"])
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, content in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(zipfile.ZipInfo(file), content)
    return wheel


def shop(root: Path, *, base: Path, is_warm: bool = True) -> BuiltReleases:
    """The releases of an empty host below `root`; when warm, its cache is a copy of one that knows `APP_FILES`."""
    layout = Layout(root=root, app="shop", runtime=root / "run")
    if is_warm:
        layout.cache.parent.mkdir(parents=True)
        shutil.copytree(_warm_cache(base), layout.cache, symlinks=True)
    return BuiltReleases(layout, lambda *_: "app:app", base / "downloads")


def release(releases: BuiltReleases, name: str, folder: Path, config: AppConfig = CONFIG) -> Path:
    """Fetch and build a folder as a release; returns the release's folder."""
    releases.fetch(name, Source(folder=folder, revision="files"), config)
    releases.build(name)
    return releases.layout.release(name)


def run(*words: str | Path, folder: Path) -> str:
    """Run a program of a release in its source, and return what it printed."""
    done = subprocess.run(list(map(str, words)), cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def site(release: Path) -> Path:
    """A release's installed packages."""
    return next((release / "venv").glob("lib/*/site-packages"))


def names_below(folder: Path) -> set[str]:
    """Everything in a folder by name."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def append(file: Path, line: str) -> None:
    """Alter a file that is read-only, as a mishap would."""
    file.chmod(0o644)
    with file.open("a") as opened:
        opened.write(line)


def assert_nothing_left(releases: BuiltReleases, release: str) -> None:
    """After discarding the release, as a recovery does, nothing of it is anywhere, and nothing comes back."""
    releases.discard(release)
    sweep(releases.layout)
    for _ in range(2):
        time.sleep(0.05)
        left = [name for name in names_below(releases.layout.root) if ".bp-" in name or release in name]
        assert not left, left
    assert releases.existing() == ()


def laid(source: Source, destination: Path) -> dict[str, bytes | str]:
    """Lay a source, and tell each file's content and each symlink's target by name."""
    lay_source(source, destination)
    found = (path for path in destination.rglob("*") if path.is_symlink() or path.is_file())
    return {
        path.relative_to(destination).as_posix(): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in found
    }


@functools.cache
def _warm_cache(base: Path) -> Path:
    releases = shop(base / "warm", base=base, is_warm=False)
    release(releases, "1-warm", write(base / "warm-app", APP_FILES))
    return releases.layout.cache


@contextmanager
def small_disk(*, mebibytes: int) -> Iterator[Path]:
    """A file system of that size, gone afterwards; skips the test where we may not mount one."""
    folder = Path(tempfile.mkdtemp(prefix="bp-disk-"))
    argv = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    mounted = subprocess.run(argv, check=False, capture_output=True, text=True)
    if mounted.returncode != 0:
        folder.rmdir()
        pytest.skip(f"a small file system needs the right to mount one: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()
