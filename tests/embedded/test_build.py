"""Building releases with real uv: locked, isolated from one another, and cached so that a code change is quick."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

import workshop
from bulletproof.adapters.releases import BuiltReleases
from bulletproof.domain.config import App, AppConfig, Server
from bulletproof.effects.requirements import locked
from bulletproof.errors import StepFailed
from bulletproof.ports import Source

PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this test process keeps its downloads and the warm cache."""
    return tmp_path_factory.getbasetemp()


@pytest.fixture
def releases(tmp_path: Path, base: Path) -> BuiltReleases:
    """An empty host whose cache knows the small app's packages."""
    return workshop.shop(tmp_path / "root", base=base)


@pytest.fixture
def cold(tmp_path: Path, base: Path) -> BuiltReleases:
    """An empty host without a cache, but for uv's downloads."""
    return workshop.shop(tmp_path / "root", base=base, is_warm=False)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A small app with one requirement."""
    return workshop.write(tmp_path / "app", workshop.APP_FILES)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network for uv."""
    monkeypatch.setenv("UV_OFFLINE", "1")


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


# --- a release stands alone


def test_a_release_runs_from_its_place(releases: BuiltReleases, app: Path) -> None:
    """Built in one folder and renamed into another, its programs, its Python and the app's modules work."""
    built = workshop.release(releases, "1-aaa", app)
    assert "gunicorn (version" in run(built / "venv" / "bin" / "gunicorn", "--version", folder=built / "source")
    run(built / "venv" / "bin" / "gunicorn", "--check-config", "app:app", folder=built / "source")
    prefix = run(built / "venv" / "bin" / "python", "-c", "import sys; print(sys.prefix)", folder=built / "source")
    assert prefix.strip() == str(built / "venv")
    shebangs = [file.read_bytes() for file in (built / "venv" / "bin").iterdir() if not file.is_symlink()]
    assert not [text for text in shebangs if b".bp-" in text]


def test_no_release_can_alter_another(releases: BuiltReleases, app: Path) -> None:
    """A line appended to a module in one release is neither in another nor in one that is built afterwards."""
    first, second = workshop.release(releases, "1-aaa", app), workshop.release(releases, "2-bbb", app)
    append(site(first) / "itsdangerous" / "__init__.py", "\nPLANTED = True\n")
    third = workshop.release(releases, "3-ccc", app)
    assert "PLANTED" in (site(first) / "itsdangerous" / "__init__.py").read_text()
    for other in (second, third):
        assert "PLANTED" not in (site(other) / "itsdangerous" / "__init__.py").read_text()


def test_releases_share_no_file(releases: BuiltReleases, app: Path) -> None:
    """No file of a release has a second name anywhere: nothing is a hard link into a cache."""
    built = workshop.release(releases, "1-aaa", app)
    files = [path for path in built.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 100
    assert {path.stat().st_nlink for path in files} == {1}


def test_a_release_is_read_only(releases: BuiltReleases, app: Path) -> None:
    """Once sealed nobody may write into it, and everybody may read it, whatever the umask was."""
    umask = os.umask(0o077)
    try:
        built = workshop.release(releases, "1-aaa", app)
    finally:
        os.umask(umask)
    modes = {stat.S_IMODE(path.lstat().st_mode) for path in (built, *built.rglob("*")) if not path.is_symlink()}
    assert modes == {0o444, 0o555}
    assert releases.manifest("1-aaa").is_built


def test_bytecode_is_there_and_used(releases: BuiltReleases, app: Path) -> None:
    """Running a release compiles nothing and writes nothing: app and packages load from the .pyc made at build."""
    workshop.write(app, {"pkg/__init__.py": "", "pkg/mod.py": "import logging.config\n", "broken.py": "def :\n"})
    workshop.write(app, {"app.py": f"import pkg.mod\n{workshop.APP}"})
    built = workshop.release(releases, "1-aaa", app)
    before = names_below(built)
    python = built / "venv" / "bin" / "python"
    said = run(python, "-v", "-c", "import app, gunicorn.app.wsgiapp", folder=built / "source")
    loaded = re.findall(rf"# code object from '?({re.escape(str(built))}[^'\n]+)", said)
    assert len(loaded) > 10
    assert [path for path in loaded if not path.endswith(".pyc")] == []
    assert {"source/__pycache__", "source/pkg/__pycache__"} <= before
    assert names_below(built) == before


# --- the lock


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
    _nothing_is_left(cold, "1-aaa")


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
    assert (site(built) / "tiny.py").is_file()


@pytest.mark.parametrize(
    ("requirements", "words"),
    [
        ("flask\n-e .\n", "requirements.txt, line 2: `-e .`"),
        ("./lib\n", "requirements.txt, line 1: `./lib`"),
        ("lib/tool\n", "line 1: `lib/tool`"),
        ("# one\nflask \\\n  >3\ntiny-1.0-py3-none-any.whl\n", "line 4: `tiny-1.0-py3-none-any.whl`"),
        ("tiny @ file:///tmp/tiny\n", "line 1: `tiny @ file:///tmp/tiny`"),
        ("-r https://example.org/r.txt\n", "behind a URL"),
        ("-r ../other.txt\n", "other.txt: is not a file of the source"),
        ("-r nosuch.txt\n", "nosuch.txt: is not a file of the source"),
        (b"caf\xe9\n", "is not UTF-8 text"),
    ],
)
def test_what_no_hash_can_guard_is_refused_in_words(
    releases: BuiltReleases, app: Path, requirements: str | bytes, words: str
) -> None:
    """A folder or file of the source, or a list from elsewhere, is named with its line."""
    workshop.write(app, {"requirements.txt": requirements, "../other.txt": ""})
    with pytest.raises(StepFailed, match="requirements-unusable") as caught:
        workshop.release(releases, "1-aaa", app)
    assert words in caught.value.message


def test_an_app_without_requirements_is_told_how_to_get_them(releases: BuiltReleases, app: Path) -> None:
    """No requirements.txt: the hint writes one."""
    (app / "requirements.txt").unlink()
    with pytest.raises(StepFailed, match="requirements-missing") as caught:
        workshop.release(releases, "1-aaa", app)
    assert "pip freeze" in caught.value.hint


# --- failures in words


@pytest.mark.parametrize(
    ("requirement", "words"),
    [
        ("bulletproof-no-such-package-x9", "requirement `bulletproof-no-such-package-x9` does not exist"),
        ("itsdangerous==99.0", "nothing that fits requirement `itsdangerous==99.0`"),
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
    _nothing_is_left(releases, "1-aaa")


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
        _nothing_is_left(releases, "1-aaa")
        assert shutil.disk_usage(disk).used < 200_000
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# --- Python and entry


@pytest.mark.parametrize("wish", ["{0}.{1}", "{0}.{1}.{2}", "# ours\n{0}.{1}\n", "cpython-{0}.{1}", ">={0}.{1}"])
def test_the_python_that_the_app_pins_is_taken(releases: BuiltReleases, app: Path, wish: str) -> None:
    """.python-version decides, in every form that uv understands."""
    workshop.write(app, {".python-version": wish.format(*sys.version_info)})
    workshop.release(releases, "1-aaa", app)
    version = releases.manifest("1-aaa").python
    assert version.startswith(f"{sys.version_info[0]}.")
    assert wish.startswith(">") or version.startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({".python-version": "3.99"}, "asks for Python 3.99 (.python-version), and this machine has none"),
        ({"pyproject.toml": '[project]\nrequires-python = ">=3.99"'}, ">=3.99 (requires-python"),
        (
            {".python-version": "3", "pyproject.toml": '[project]\nrequires-python = ">=3.99"'},
            ".python-version asks for Python 3, and pyproject.toml requires >=3.99",
        ),
    ],
)
def test_a_python_that_is_not_here_is_named(
    releases: BuiltReleases, app: Path, files: dict[str, str], words: str
) -> None:
    """The wish, where it stands, and that nothing was downloaded for it."""
    workshop.write(app, files)
    with pytest.raises(StepFailed, match="python-missing") as caught:
        workshop.release(releases, "1-aaa", app)
    assert words in caught.value.message


def test_a_pyproject_that_cannot_be_read_is_told(releases: BuiltReleases, app: Path) -> None:
    """A syntax error or nonsense in pyproject.toml is no reason to guess a Python."""
    for nonsense in (
        "[project",
        'project = "x"',
        '[project]\nrequires-python = "new"',
        "[project]\nrequires-python = 3",
    ):
        workshop.write(app, {"pyproject.toml": nonsense})
        with pytest.raises(StepFailed, match="pyproject-unusable"):
            workshop.release(releases, "1-aaa", app)


def test_the_entry_is_found_when_it_is_not_configured(releases: BuiltReleases, app: Path) -> None:
    """Without an entry in the configuration the source is asked."""
    asked: list[Path] = []

    def find(source: Path) -> str:
        asked.append(source)
        assert (source / "app.py").is_file()
        return "app:found"

    finding = BuiltReleases(releases.layout, find, releases.downloads)
    manifest = finding.fetch("1-aaa", Source(folder=app, revision="files"), AppConfig(name="shop"))
    assert manifest.entry == finding.build("1-aaa").entry == finding.manifest("1-aaa").entry == "app:found"
    assert len(asked) == 1


def test_an_entry_that_is_not_there_is_refused(releases: BuiltReleases, app: Path) -> None:
    """A configured module must be in the source or in its packages."""
    for entry in ("itsdangerous.serializer:app", "app:app"):
        config = AppConfig(name="shop", app=App(entry=entry))
        workshop.release(releases, f"1-{entry.partition('.')[0].partition(':')[0]}", app, config)
    with pytest.raises(StepFailed, match="entry-missing") as caught:
        workshop.release(releases, "2-bbb", app, AppConfig(name="shop", app=App(entry="wsgi:app")))
    assert "`wsgi:app` names the module wsgi" in caught.value.message


def test_the_apps_own_uv_configuration_is_not_ours(cold: BuiltReleases, app: Path, tmp_path: Path) -> None:
    """A uv.toml or [tool.uv] that the source brings along, or that lies above it, aims our uv nowhere."""
    evil = f'index-url = "http://127.0.0.1:9/"\ncache-dir = "{tmp_path}/evil"\n'
    workshop.write(app, {"uv.toml": evil, "pyproject.toml": f"[tool.uv]\n{evil}"})
    workshop.write(tmp_path / "root", {"uv.toml": evil})
    workshop.release(cold, "1-aaa", app)
    assert not (tmp_path / "evil").exists()


# --- persistent folders


def test_persistent_folders_live_in_the_data(releases: BuiltReleases, app: Path) -> None:
    """What the first release ships goes into the data once; afterwards users' files are the ones that count."""
    data = releases.layout.data
    config = AppConfig(name="shop", app=App(entry="app:app", persistent=("uploads", "var/cache dir")))
    workshop.write(app, {"uploads/welcome.txt": "v1"})
    first = workshop.release(releases, "1-aaa", app, config)
    (first / "source" / "uploads" / "users.txt").write_text("mine")
    assert (data / "uploads" / "welcome.txt").read_text() == "v1"
    (data / "uploads" / "welcome.txt").write_text("edited")
    workshop.write(app, {"uploads/welcome.txt": "v2"})
    second = workshop.release(releases, "2-bbb", app, config)
    assert (second / "source" / "uploads").readlink() == data / "uploads"
    assert (second / "source" / "var" / "cache dir").readlink() == data / "var" / "cache dir"
    assert {path.name: path.read_text() for path in (data / "uploads").iterdir()} == {
        "welcome.txt": "edited",
        "users.txt": "mine",
    }
    releases.discard("1-aaa")
    assert (data / "uploads" / "users.txt").read_text() == "mine"
    assert not list(data.glob(".bp-*"))


@pytest.mark.parametrize("name", ["app.py", "app.py/x", "link", "link/x"])
def test_a_persistent_folder_that_cannot_be_one_is_refused(releases: BuiltReleases, app: Path, name: str) -> None:
    """A file or a symlink of the source is no persistent folder; the data stays untouched."""
    workshop.write(app, {"sub/a": ""})
    (app / "link").symlink_to("sub")
    config = AppConfig(name="shop", app=App(entry="app:app", persistent=(name,)))
    with pytest.raises(StepFailed, match="persistent-unusable"):
        workshop.release(releases, "1-aaa", app, config)
    assert not releases.layout.data.exists()


def test_one_persistent_folder_cannot_lie_in_another(releases: BuiltReleases, app: Path) -> None:
    """Two that overlap are refused."""
    config = AppConfig(name="shop", app=App(entry="app:app", persistent=("a/b", "a")))
    with pytest.raises(StepFailed, match="persistent-unusable"):
        workshop.release(releases, "1-aaa", app, config)


# --- the cache


@pytest.mark.parametrize("mishap", ["altered", "added", "touched", "half"])
def test_a_spoilt_environment_is_noticed_and_made_again(releases: BuiltReleases, app: Path, mishap: str) -> None:
    """Whatever happened to the pristine environment in the cache, the release gets what the lock says."""
    reference = workshop.release(releases, "1-aaa", app)
    (entry,) = (path for path in (releases.layout.cache / "venvs").iterdir() if not path.name.startswith("."))
    for folder in (entry / "venv", *(path for path in (entry / "venv").rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    module = next((entry / "venv").glob("lib/*/site-packages/itsdangerous/__init__.py"))
    if mishap == "altered":
        append(module, "PLANTED = True\n")
    elif mishap == "added":
        workshop.write(module.parent.parent, {"sitecustomize.py": "PLANTED = True\n"})
    elif mishap == "touched":
        os.utime(module, (0, 0))
    else:
        shutil.rmtree(entry / "venv")
    built = workshop.release(releases, "2-bbb", app)
    compared = {"venv/.lock", "venv/pyvenv.cfg"}
    expected = {name for name in names_below(reference) if not name.endswith(".pyc")} - compared
    assert {name for name in names_below(built) if not name.endswith(".pyc")} - compared == expected
    assert (site(built) / "itsdangerous" / "__init__.py").read_text() == (
        site(reference) / "itsdangerous" / "__init__.py"
    ).read_text()
    run(built / "venv" / "bin" / "gunicorn", "--check-config", "app:app", folder=built / "source")


def test_a_spoilt_download_is_noticed(cold: BuiltReleases, app: Path, tmp_path: Path) -> None:
    """Uv installs what lies unpacked in its cache without looking at it; we compare with the package's own hashes."""
    workshop.make_wheel(app / "wheels")
    workshop.write(app, {"requirements.txt": "--find-links ./wheels\ntiny\n"})
    cached = BuiltReleases(cold.layout, cold.find_entry, tmp_path / "downloads")
    workshop.release(cached, "1-aaa", app)
    spoilt = list((tmp_path / "downloads").rglob("tiny.py"))
    assert spoilt
    for file in spoilt:
        append(file, "PLANTED = True\n")
    shutil.rmtree(cached.layout.cache / "venvs")
    second = workshop.release(cached, "2-bbb", app)
    assert (site(second) / "tiny.py").read_text() == "VERSION = '1.0'\n"


def test_two_apps_may_build_the_same_environment_at_once(tmp_path: Path, base: Path, app: Path) -> None:
    """Two builders of one cache do not disturb each other: both releases are whole."""
    one = workshop.shop(tmp_path / "root", base=base, is_warm=False)
    other = BuiltReleases(type(one.layout)(one.layout.root, "other", one.layout.runtime), one.find_entry, one.downloads)
    failures: list[BaseException] = []

    def build(releases: BuiltReleases) -> None:
        try:
            workshop.release(releases, "1-aaa", app)
        except BaseException as error:  # noqa: BLE001  told below
            failures.append(error)

    threads = [threading.Thread(target=build, args=(releases,)) for releases in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert failures == []
    for releases in (one, other):
        built = releases.layout.release("1-aaa")
        run(built / "venv" / "bin" / "gunicorn", "--check-config", "app:app", folder=built / "source")
    assert not list((one.layout.cache / "venvs").glob(".bp-*"))


def test_the_cache_keeps_the_last_few(releases: BuiltReleases, app: Path) -> None:
    """Pruning keeps what the last builds used, in the order of the builds, and what another app still uses."""
    cache = releases.layout.cache
    other = cache / "recent" / "other.json"
    for number in range(4):
        workshop.write(app, {"requirements.txt": f"itsdangerous\n# {number}\n"})
        workshop.release(releases, f"{number}-aaa", app)
        if number == 0:
            uses = msgspec.json.decode((cache / "recent" / "shop.json").read_bytes())
            other.write_bytes(msgspec.json.encode(uses[-1:]))
    workshop.write(app, {"requirements.txt": "itsdangerous\n# 1\n"})
    workshop.release(releases, "5-aaa", app)
    (cache / "venvs" / "old").mkdir()
    before = releases.cache_bytes()
    assert len(list((cache / "locks").iterdir())) == 5
    assert releases.prune_cache(keep=2) == 3
    remarks = {line for lock in (cache / "locks").iterdir() for line in lock.read_text().splitlines()[:1]}
    recent = msgspec.json.decode((cache / "recent" / "shop.json").read_bytes())
    assert remarks == {f"# made from {use['lock']}" for use in (*recent, uses[-1])}
    assert len(recent) == 2
    assert [path.name for path in (cache / "venvs").iterdir()] == [recent[0]["environment"]]
    assert releases.cache_bytes() <= before


# --- kill -9

_DEPLOYER = """
import sys
from pathlib import Path
import workshop
base, root, app = map(Path, sys.argv[1:4])
releases = workshop.shop(root, base=base, is_warm=False)
config = workshop.AppConfig(name="shop", app=workshop.App(entry="app:app", persistent=("uploads",)))
workshop.release(releases, "1-aaa", app, config)
"""


@pytest.fixture
def deployer(tmp_path: Path, base: Path, app: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts a process that fetches and builds, and kills it at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-c", _DEPLOYER, str(base), str(tmp_path / "root"), str(app)]
        paths = {"PYTHONPATH": str(Path(workshop.__file__).parent)}
        started.append(subprocess.Popen(argv, env=os.environ | paths, stderr=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "moment",
    [
        "opt/shop/releases/.bp-fetch-1-aaa/source",
        "opt/shop/releases/.bp-build-1-aaa",
        "var/cache/bulletproof/venvs/.bp-build-shop-1-aaa/entry/venv/lib/*/site-packages/gunicorn/app",
        "opt/shop/releases/.bp-build-1-aaa/venv/bin",
        "var/lib/shop/.bp-build-1-aaa/*",
    ],
)
def test_a_killed_build_leaves_nothing(
    cold: BuiltReleases, app: Path, deployer: Callable[[], subprocess.Popen[bytes]], moment: str
) -> None:
    """Kill -9 at any moment: no release appears, what it started dies with it, and discarding leaves no trace."""
    workshop.write(app, {"wide/" + f"f{n}": "x" for n in range(300)})
    workshop.write(app, {"uploads/" + f"f{n}": "x" for n in range(300)})
    process = deployer()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not list(cold.layout.root.glob(moment)):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1].decode()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert cold.existing() == ()
    _nothing_runs(str(cold.layout.root))
    _nothing_is_left(cold, "1-aaa")


def test_what_was_killed_and_discarded_can_be_built(
    cold: BuiltReleases, app: Path, deployer: Callable[[], subprocess.Popen[bytes]]
) -> None:
    """A release of the same name builds after a killed one, discarded or not, and the cache is whole."""
    process = deployer()
    while not list(cold.layout.root.glob("opt/shop/releases/.bp-build-1-aaa/venv/bin")):
        assert process.poll() is None, process.communicate()[1].decode()
    process.kill()
    process.wait()
    built = workshop.release(cold, "1-aaa", app)
    run(built / "venv" / "bin" / "gunicorn", "--check-config", "app:app", folder=built / "source")
    assert not list(cold.layout.cache.rglob(".bp-*"))


def _nothing_runs(words: str) -> None:
    """Within a second no process has `words` in its command line."""
    deadline = time.monotonic() + 1.0
    while found := [process for process in psutil.process_iter(["cmdline"]) if words in str(process.info["cmdline"])]:
        mine = [process for process in found if process.pid != os.getpid()]
        if not mine:
            return
        assert time.monotonic() < deadline, mine
        time.sleep(0.02)


def _nothing_is_left(releases: BuiltReleases, release: str) -> None:
    """After discarding the release nothing of it is anywhere, and nothing comes back."""
    releases.discard(release)
    root = releases.layout.root
    for _ in range(2):
        time.sleep(0.05)
        assert [name for name in names_below(root) if ".bp-" in name or release in name] == []
    assert releases.existing() == ()


# --- what is on disk


def test_a_damaged_release_is_told(releases: BuiltReleases, app: Path) -> None:
    """A manifest that is gone, cannot be read, tells of another release or lacks its Python is no release."""
    built = workshop.release(releases, "1-aaa", app)
    for folder in (built, built / "venv" / "bin"):
        folder.chmod(0o755)
    file, python = built / "release.json", built / "venv" / "bin" / "python"
    whole = file.read_bytes()
    for damaged in (b"", b"{}", whole[:-20], whole.replace(b'"1-aaa"', b'"2-bbb"'), whole.replace(b"true", b"false")):
        file.chmod(0o644)
        file.write_bytes(damaged)
        with pytest.raises(StepFailed, match="release-damaged"):
            releases.manifest("1-aaa")
    file.write_bytes(whole)
    assert releases.manifest("1-aaa").is_built
    python.unlink()
    python.symlink_to("/nonexistent/python3")
    with pytest.raises(StepFailed, match=r"the Python 3\S+ that it was built with is gone"):
        releases.manifest("1-aaa")
    file.unlink()
    with pytest.raises(StepFailed, match="it is not there"):
        releases.manifest("1-aaa")


@pytest.mark.parametrize("name", ["", "..", ".bp-x", "a/b", "../x", "-x"])
def test_only_ids_of_releases_are_discarded(releases: BuiltReleases, name: str) -> None:
    """A name that is no release's id reaches no file."""
    with pytest.raises(StepFailed, match="release-unknown"):
        releases.discard(name)
    with pytest.raises(StepFailed, match="release-unknown"):
        releases.point_current_at(name)


def test_a_code_change_builds_within_two_seconds(releases: BuiltReleases, app: Path) -> None:
    """The cached way is quick: the best of three builds."""
    seconds = []
    for number in range(3):
        begun = time.monotonic()
        workshop.release(releases, f"{number}-aaa", app)
        seconds.append(time.monotonic() - begun)
    assert min(seconds) < 2.0
