"""The cache of builds: spoilt entries are noticed, two builders get along, and the last few are kept."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import msgspec
import pytest

import workshop
from bulletproof.adapters.releases import BuiltReleases
from bulletproof.domain.layout import Layout
from bulletproof.effects import durable, tree, venv

PATIENCE_SECONDS = 60.0


@pytest.mark.parametrize("mishap", ["altered", "added", "touched", "half"])
def test_a_spoilt_environment_is_noticed_and_made_again(releases: BuiltReleases, app: Path, mishap: str) -> None:
    """Whatever happened to the pristine environment in the cache, the release gets what the lock says."""
    reference = workshop.release(releases, "1-aaa", app)
    (entry,) = (path for path in (releases.layout.cache / "venvs").iterdir() if not path.name.startswith("."))
    for folder in (entry / "venv", *(path for path in (entry / "venv").rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    module = next((entry / "venv").glob("lib/*/site-packages/itsdangerous/__init__.py"))
    if mishap == "altered":
        workshop.append(module, "PLANTED = True\n")
    elif mishap == "added":
        workshop.write(module.parent.parent, {"sitecustomize.py": "PLANTED = True\n"})
    elif mishap == "touched":
        os.utime(module, (0, 0))
    else:
        durable.remove_tree(entry / "venv")
    built = workshop.release(releases, "2-bbb", app)
    compared = {"venv/.lock", "venv/pyvenv.cfg"}
    expected = {name for name in workshop.names_below(reference) if not name.endswith(".pyc")} - compared
    assert {name for name in workshop.names_below(built) if not name.endswith(".pyc")} - compared == expected
    assert (workshop.site(built) / "itsdangerous" / "__init__.py").read_text() == (
        workshop.site(reference) / "itsdangerous" / "__init__.py"
    ).read_text()
    workshop.run(built / "venv" / "bin" / "gunicorn", "--check-config", "app:app", folder=built / "source")


def test_a_spoilt_download_is_noticed(cold: BuiltReleases, app: Path, tmp_path: Path) -> None:
    """Uv installs what lies unpacked in its cache without looking at it; we compare with the package's own hashes."""
    spoiling = BuiltReleases(cold.layout, cold.find_entry, tmp_path / "downloads")
    first = workshop.release(spoiling, "1-aaa", app)
    unpacked = [path for path in (tmp_path / "downloads").rglob("serializer.py") if path.parent.name == "itsdangerous"]
    assert unpacked
    for file in unpacked:
        workshop.append(file, "PLANTED = True\n")
    durable.remove_tree(cold.layout.cache / "venvs")
    second = workshop.release(spoiling, "2-bbb", app)
    module = Path("itsdangerous") / "serializer.py"
    assert (workshop.site(second) / module).read_bytes() == (workshop.site(first) / module).read_bytes()


def test_a_build_that_was_slower_than_another_leaves_its_environment(tmp_path: Path) -> None:
    """A whole environment that is there already is taken, for another build may be reading it; a spoilt one is not."""
    for name, content in (("made", "ours"), ("entry", "theirs")):
        workshop.write(tmp_path / name, {"venv/module.py": content})
        workshop.write(tmp_path / name, {"digest": tree.tree_digest(tmp_path / name / "venv")})
    venv._place(tmp_path / "made", tmp_path / "entry")
    assert (tmp_path / "entry" / "venv" / "module.py").read_text() == "theirs"
    workshop.write(tmp_path / "entry", {"venv/module.py": "spoilt"})
    venv._place(tmp_path / "made", tmp_path / "entry")
    assert (tmp_path / "entry" / "venv" / "module.py").read_text() == "ours"


def test_two_apps_may_build_the_same_environment_at_once(tmp_path: Path, base: Path, app: Path) -> None:
    """Two builders of one cache do not disturb each other: both releases are whole."""
    one = workshop.shop(tmp_path / "root", base=base, is_warm=False)
    other = BuiltReleases(type(one.layout)(one.layout.root, "other", one.layout.runtime), one.find_entry, one.downloads)
    failures: list[BaseException] = []

    def build(releases: BuiltReleases) -> None:
        try:
            workshop.release(releases, "1-aaa", app)
        except BaseException as error:  # noqa: BLE001 (told below)
            failures.append(error)

    threads = [threading.Thread(target=build, args=(releases,)) for releases in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert failures == []
    for releases in (one, other):
        built = releases.layout.release("1-aaa")
        workshop.run(built / "venv" / "bin" / "gunicorn", "--check-config", "app:app", folder=built / "source")
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
    workshop.release(releases, "6-aaa", app)
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


@pytest.mark.parametrize("has_environment", [True, False])
def test_a_lent_cache_is_read_and_never_written(
    cold: BuiltReleases, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_environment: bool
) -> None:
    """A build that nothing may be left of takes lock and environment, or else the downloads, from another cache."""
    first = workshop.release(BuiltReleases(cold.layout, cold.find_entry), "1-aaa", app)
    lent = cold.layout.cache
    if not has_environment:
        durable.remove_tree(lent / "venvs")
    before = tree.tree_digest(lent)
    monkeypatch.setenv("UV_OFFLINE", "1")
    layout = Layout(root=tmp_path / "plan", app=cold.layout.app, runtime=tmp_path / "plan" / "run")

    second = workshop.release(BuiltReleases(layout, cold.find_entry, lent=lent), "2-bbb", app)

    assert tree.tree_digest(lent) == before
    assert (second / "requirements.lock").read_text() == (first / "requirements.lock").read_text()
    assert (layout.cache / "uv-lent").exists() != has_environment
