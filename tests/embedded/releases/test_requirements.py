"""What gets into an environment: locked once, guarded by hashes, and refused in words."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import workshop
from bulletproof.adapters.releases import BuiltReleases
from bulletproof.domain.config import App, AppConfig, Server
from bulletproof.effects.requirements import locked
from bulletproof.errors import StepFailed


@pytest.mark.usefixtures("offline")
def test_a_code_change_keeps_packages_and_needs_no_network(
    releases: BuiltReleases, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With unchanged requirements the lock and the environment are those of before, and uv has nothing to do."""
    monkeypatch.setattr("bulletproof.effects.uv.find_uv_bin", lambda: "/nonexistent")
    first = workshop.release(releases, "1-aaa", app)
    workshop.write(app, {"app.py": f"{workshop.APP}# changed\n"})
    second = workshop.release(releases, "2-bbb", app)
    assert (first / "requirements.lock").read_bytes() == (second / "requirements.lock").read_bytes()
    assert releases.manifest("1-aaa").lock == releases.manifest("2-bbb").lock
    assert "# changed" in (second / "source" / "app.py").read_text()


@pytest.mark.usefixtures("offline")
def test_a_lost_cache_does_not_change_packages(cold: BuiltReleases, app: Path, base: Path) -> None:
    """The lock of a release that is there serves when the cache is gone: packages change with their list alone."""
    pinned = "itsdangerous==2.1.2\n"
    lock = next(line for line in _warm_lock(base).splitlines() if line.startswith("# made from"))
    earlier = cold.layout.release("1-aaa")
    text = _warm_lock(base).replace(f"{lock}\n", "")
    workshop.write(earlier, {"requirements.lock": f"{lock}\n# kept\n{text}", "release.json": "{}"})
    assert pinned not in text
    built = workshop.release(cold, "2-bbb", app)
    assert "# kept" in (built / "requirements.lock").read_text()
    assert cold.notes("2-bbb")[0] == "kept"


def _warm_lock(base: Path) -> str:
    warm = workshop.shop(base / "elsewhere", base=base, is_warm=False)
    (lock,) = (base / "warm" / "opt" / "shop" / "releases" / "1-warm").glob("requirements.lock")
    assert not warm.existing()
    return lock.read_text()


def test_the_lock_pins_everything_by_hash_and_tells_what_was_added(releases: BuiltReleases, app: Path) -> None:
    """Gunicorn is added to requirements that do not lead to it, and the release says so."""
    built = workshop.release(releases, "1-aaa", app)
    entries = locked((built / "requirements.lock").read_text())
    assert set(entries) == {"itsdangerous", "gunicorn"}
    assert all("--hash=sha256:" in entry for entry in entries.values())
    assert releases.notes("1-aaa") == ("gunicorn was added: requirements.txt does not lead to it",)
    assert releases.manifest("1-aaa").gunicorn in entries["gunicorn"]


def test_requirements_that_are_a_lock_are_not_locked_anew(cold: BuiltReleases, app: Path, base: Path) -> None:
    """Hashes that the app brings along are the ones that count; only the server is added, to fit them."""
    hashed = locked(_warm_lock(base))["itsdangerous"]
    workshop.write(app, {"requirements.txt": f"# by hand\n{hashed}"})
    built = workshop.release(cold, "1-aaa", app)
    entries = locked((built / "requirements.lock").read_text())
    assert set(entries) == {"itsdangerous", "gunicorn"}
    ours = re.findall(r"--hash=\S+", entries["itsdangerous"])
    assert ours == re.findall(r"--hash=\S+", hashed)


def test_a_package_that_is_not_what_its_hash_says_is_refused(cold: BuiltReleases, app: Path) -> None:
    """A file that differs from the app's own lock is never installed."""
    workshop.make_wheel(app / "wheels")
    workshop.write(app, {"requirements.txt": f"--find-links ./wheels\ntiny==1.0 --hash=sha256:{'0' * 64}\n"})
    with pytest.raises(StepFailed) as caught:
        workshop.release(cold, "1-aaa", app)
    assert caught.value.reference == "dependencies-failed"
    assert "tiny==1.0" in caught.value.message
    workshop.assert_nothing_left(cold, "1-aaa")


def test_requirements_may_include_others(cold: BuiltReleases, app: Path) -> None:
    """Included lists and constraints count, wheels of the source are found, and the server asked for is added."""
    for name, version in (("tiny", "1.0"), ("tiny", "2.0"), ("small", "1.0")):
        workshop.make_wheel(app / "wheels", name, version, needs=("tiny",) if name == "small" else ())
    files = {
        "requirements.txt": "--find-links ./wheels  # ours\n-r lists/base.txt\n",
        "lists/base.txt": "small>=1.0\n-c ../constraints.txt\n",
        "constraints.txt": "tiny<2\n",
    }
    workshop.write(app, files)
    config = AppConfig(name="shop", app=App(entry="app:app", server=Server.UVICORN))
    built = workshop.release(cold, "1-aaa", app, config)
    entries = locked((built / "requirements.lock").read_text())
    assert entries["tiny"].startswith("tiny==1.0")
    assert {"small", "tiny", "uvicorn"} <= set(entries)
    assert "gunicorn" not in entries
    assert cold.manifest("1-aaa").gunicorn == ""
    workshop.write(app, {"constraints.txt": "tiny<3\n"})
    built = workshop.release(cold, "2-bbb", app, config)
    assert locked((built / "requirements.lock").read_text())["tiny"].startswith("tiny==2.0")


def test_a_package_from_a_git_repository_is_pinned_to_its_commit(
    cold: BuiltReleases, app: Path, tmp_path: Path
) -> None:
    """`git+...` is locked to the commit that its branch has now; the other packages are still guarded by hashes."""
    backend = (
        "import sys\nsys.path.insert(0, 'tests')\n"
        "def build_wheel(folder, *_):\n    import shutil\n"
        "    shutil.copy('tiny-1.0-py3-none-any.whl', folder)\n    return 'tiny-1.0-py3-none-any.whl'\n"
    )
    package = tmp_path / "package"
    workshop.make_wheel(package)
    project = (
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "tiny"\nversion = "1.0"\n'
    )
    commit = workshop.commit(package, {"pyproject.toml": project, "backend.py": backend})
    workshop.write(app, {"requirements.txt": f"tiny @ git+file://{package}@main\nitsdangerous\n"})
    built = workshop.release(cold, "1-aaa", app)
    entries = locked((built / "requirements.lock").read_text())
    assert f"@{commit}" in entries["tiny"]
    assert "--hash" in entries["itsdangerous"]
    assert (workshop.site(built) / "tiny.py").is_file()


@pytest.mark.parametrize(
    ("requirements", "words"),
    [
        ("flask\n-e .\n", "requirements.txt, line 2: `.`"),
        ("./lib\n", "requirements.txt, line 1: `./lib`"),
        ("lib/tool[fast]\n", "line 1: `lib/tool`"),
        ("-e ../lib\n", "line 1: `../lib`"),
        ("# one\nflask \\\n  >3\ntiny-1.0-py3-none-any.whl\n", "line 4: `tiny-1.0-py3-none-any.whl`"),
        ("tiny @ file:///tmp/tiny\n", "line 1: `/tmp/tiny`"),
        ("-r https://example.org/r.txt\n", "behind a URL"),
        ("-r ../other.txt\n", "other.txt: is not a file of the source"),
        ("-r nosuch.txt\n", "nosuch.txt: is not a file of the source"),
        (b"caf\xe9\n", "is not UTF-8 text"),
    ],
)
def test_what_is_not_in_the_source_is_refused_in_words(
    releases: BuiltReleases, app: Path, requirements: str | bytes, words: str
) -> None:
    """A package that the source does not have, or a list from elsewhere, is named with its line."""
    workshop.write(app, {"requirements.txt": requirements, "../other.txt": "", "../lib/setup.py": "", "lib/a.py": ""})
    with pytest.raises(StepFailed, match="requirements-unusable") as caught:
        workshop.release(releases, "1-aaa", app)
    assert words in caught.value.message


def test_an_app_without_requirements_is_told_how_to_get_them(releases: BuiltReleases, app: Path) -> None:
    """No requirements.txt: the hint writes one."""
    (app / "requirements.txt").unlink()
    with pytest.raises(StepFailed, match="requirements-missing") as caught:
        workshop.release(releases, "1-aaa", app)
    assert "pip freeze" in caught.value.hint


@pytest.mark.parametrize(
    ("requirement", "words"),
    [
        ("bulletproof-no-such-package-x9", "requirement `bulletproof-no-such-package-x9` does not exist"),
        ("itsdangerous==99.0", "no version of `itsdangerous==99.0`"),
    ],
)
def test_a_dependency_that_does_not_exist_is_named(
    releases: BuiltReleases, app: Path, requirement: str, words: str
) -> None:
    """The message names the requirement, the context has uv's own last lines, and nothing is left."""
    workshop.write(app, {"requirements.txt": f"{requirement}\n"})
    with pytest.raises(StepFailed) as caught:
        workshop.release(releases, "1-aaa", app)
    assert caught.value.reference == "dependencies-failed"
    assert words in caught.value.message
    assert any(requirement.partition("=")[0] in line for line in caught.value.context)
    workshop.assert_nothing_left(releases, "1-aaa")


def test_a_package_that_cannot_be_built_is_named(cold: BuiltReleases, app: Path, tmp_path: Path) -> None:
    """When a package's own build fails, the message names it and the context has what it printed."""
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    project += '[project]\nname = "tiny"\nversion = "1.0"\n'
    backend = "def build_wheel(*_):\n    raise SystemExit('no compiler here')\n"
    workshop.commit(tmp_path / "package", {"pyproject.toml": project, "backend.py": backend})
    workshop.write(app, {"requirements.txt": f"tiny @ git+file://{tmp_path}/package\n"})
    with pytest.raises(StepFailed) as caught:
        workshop.release(cold, "1-aaa", app)
    assert re.search("requirement `tiny[^`]*` could not be built", caught.value.message)
    assert any("no compiler here" in line for line in caught.value.context)


@pytest.mark.usefixtures("offline")
def test_without_a_network_new_requirements_are_refused_in_words(releases: BuiltReleases, app: Path) -> None:
    """A package that was never downloaded cannot be had offline, and that is what is said."""
    workshop.write(app, {"requirements.txt": "bulletproof-no-such-package-x9\n"})
    with pytest.raises(StepFailed, match="the package index is not reachable") as caught:
        workshop.release(releases, "1-aaa", app)
    assert "network" in caught.value.hint


@pytest.mark.root
@pytest.mark.parametrize("is_warm", [True, False])
def test_a_full_disk_is_told_and_leaves_nothing(app: Path, tmp_path: Path, base: Path, *, is_warm: bool) -> None:
    """Where the disk fills up, in uv's hands or in ours, `disk-full` is said and all space is given back."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    elsewhere = workshop.shop(tmp_path / "elsewhere", base=base)
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "bulletproof-test", str(disk)], check=True)
    try:
        releases = workshop.shop(disk / "root", base=base, is_warm=False)
        if is_warm:
            releases.layout.cache.parent.mkdir(parents=True)
            releases.layout.cache.symlink_to(elsewhere.layout.cache)
        with pytest.raises(StepFailed, match="disk-full"):
            workshop.release(releases, "1-aaa", app)
        workshop.assert_nothing_left(releases, "1-aaa")
        assert shutil.disk_usage(disk).used < 200_000
    finally:
        subprocess.run(["umount", str(disk)], check=True)
