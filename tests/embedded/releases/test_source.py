"""Laying sources with real git: exactly the files that are meant."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

import workshop
from bulletproof.domain.source import Source
from bulletproof.effects.source import lay_source, resolve
from bulletproof.errors import StepFailed


@pytest.fixture(autouse=True)
def _git_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Git as it is without anybody's configuration."""
    for name, value in workshop.GIT_VARIABLES.items():
        monkeypatch.setenv(name, value)


def source_of(folder: Path, kind: str) -> Source:
    """The folder as a source of one of the three kinds."""
    return Source(folder=folder, revision="files") if kind == "files" else resolve(folder, worktree=kind == "worktree")


def test_a_commit_is_laid_as_it_was_committed(tmp_path: Path) -> None:
    """Every committed file is there, byte for byte, whatever its name; nothing else is."""
    files = {
        "app.py": b"x = 1\r\n",
        "static/a b.txt": b"space",
        "static/\u00fc\u4f60.bin": bytes(range(256)),
        "deep/" * 20 + "x" * 100: b"long",
        "tracked.db": b"seed",
        "-rf": b"",
        "new\nline": b"n",
    }
    workshop.commit(tmp_path / "app", files)
    source = resolve(tmp_path / "app")
    workshop.write(tmp_path / "app", {"app.py": "changed", "untracked": "no"})
    assert workshop.laid(source, tmp_path / "out") == files


def test_line_ends_are_the_committed_ones(tmp_path: Path) -> None:
    """A person's autocrlf does not change what is deployed."""
    workshop.commit(tmp_path / "app", {"a.txt": "one\ntwo\n"})
    workshop.git(tmp_path / "app", "config", "core.autocrlf", "true")
    assert workshop.laid(resolve(tmp_path / "app"), tmp_path / "out") == {"a.txt": b"one\ntwo\n"}


def test_export_attributes_are_honoured(tmp_path: Path) -> None:
    """What .gitattributes keeps out of archives is not deployed, and a `$Format$` tells the commit."""
    files = {".gitattributes": "tests export-ignore\nversion.txt export-subst\n", "version.txt": "$Format:%H$"}
    commit = workshop.commit(tmp_path / "app", {**files, "tests/test_a.py": ""})
    found = workshop.laid(resolve(tmp_path / "app"), tmp_path / "out")
    assert sorted(found) == [".gitattributes", "version.txt"]
    assert found["version.txt"] == commit.encode()


@pytest.mark.parametrize("kind", ["commit", "worktree", "files"])
def test_only_the_subfolder_is_taken(tmp_path: Path, kind: str) -> None:
    """In a repository of several apps the app's folder alone is deployed."""
    workshop.commit(
        tmp_path / "mono", {"shop one/app.py": "1", "shop one/sub/b.py": "2", "other/app.py": "3", "top": "4"}
    )
    folder = tmp_path / "mono" / "shop one"
    source = source_of(folder, kind)
    assert workshop.laid(source, tmp_path / "out") == {"app.py": b"1", "sub/b.py": b"2"}


def test_the_worktree_is_tracked_and_new_files_as_they_are(tmp_path: Path) -> None:
    """Uncommitted edits and new files come along, deleted and ignored ones do not, nor what no source consists of."""
    app = tmp_path / "app"
    workshop.commit(app, {"a": "1", "gone": "1", "seed.db": "tracked", ".gitignore": "*.log\n"})
    (app / "gone").unlink()
    workshop.write(app, {"a": "2", "new \u00fc": "n", "x.log": "", "new.db": "", "v/pyvenv.cfg": "", "v/lib/m.py": ""})
    workshop.write(app, {"node_modules/x.js": "", "__pycache__/a.pyc": ""})
    found = workshop.laid(resolve(app, worktree=True), tmp_path / "out")
    assert found == {"a": b"2", "new \u00fc": b"n", "seed.db": b"tracked", ".gitignore": b"*.log\n"}


def test_a_plain_folder_is_taken_without_its_litter(tmp_path: Path) -> None:
    """Of a folder without git all is taken but caches, environments, databases, sockets and other tools' folders."""
    taken = {"app.py": b"1", "static/x y.css": b"2", "migrations/versions/1.py": b"3", "data.csv": b"4"}
    litter = [
        "a.pyc",
        "app.db",
        "app.db-wal",
        "app.db-shm",
        "app.db-journal",
        "x.sqlite3",
        ".git/HEAD",
        ".mypy_cache/x",
    ]
    litter += ["env/pyvenv.cfg", "env/lib/m.py", "sub/__pycache__/m.pyc", "web/node_modules/p/i.js", ".idea/w.xml"]
    app = workshop.write(tmp_path / "app", {**taken, **dict.fromkeys(litter, b"")})
    os.mkfifo(app / "pipe")
    assert workshop.laid(Source(folder=app, revision="files"), tmp_path / "out") == taken


@pytest.mark.parametrize("kind", ["commit", "worktree", "files"])
def test_settings_files_are_never_taken(tmp_path: Path, kind: str) -> None:
    """No `.env` gets into a release, not even a committed one, by whatever way."""
    secrets = [".env", ".env.production", "sub/.env", ".envs/.django", ".envrc"]
    workshop.commit(tmp_path / "app", {"app.py": "1", **dict.fromkeys(secrets, "SECRET=1")})
    source = source_of(tmp_path / "app", kind)
    assert workshop.laid(source, tmp_path / "out") == {"app.py": b"1"}


@pytest.mark.parametrize("kind", ["commit", "worktree", "files"])
def test_execute_bits_are_kept_and_others_are_not(tmp_path: Path, kind: str) -> None:
    """A script stays executable; a setuid bit or a private mode does not get into the tree."""
    app = tmp_path / "app"
    workshop.write(app, {"run.sh": "#!/bin/sh\n", "plain": ""})
    (app / "run.sh").chmod(0o755)
    workshop.commit(app, {})
    (app / "run.sh").chmod(0o6700)
    (app / "plain").chmod(0o600)
    source = source_of(app, kind)
    umask = os.umask(0o077)
    try:
        lay_source(source, tmp_path / "out")
    finally:
        os.umask(umask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert modes == {"run.sh": 0o755, "plain": 0o644}


@pytest.mark.parametrize("kind", ["commit", "worktree", "files"])
def test_a_symlink_inside_the_tree_is_kept(tmp_path: Path, kind: str) -> None:
    """Relative symlinks to files and folders of the source stay symlinks."""
    app = workshop.write(tmp_path / "app", {"a": "1", "sub/b": "2"})
    (app / "link").symlink_to("a")
    (app / "sub" / "up").symlink_to("../a")
    (app / "folder").symlink_to("sub")
    (app / "sub" / "top").symlink_to("..")
    workshop.commit(app, {})
    source = source_of(app, kind)
    found = workshop.laid(source, tmp_path / "out")
    assert found == {"a": b"1", "sub/b": b"2", "link": "a", "sub/up": "../a", "folder": "sub", "sub/top": ".."}


@pytest.mark.parametrize("kind", ["commit", "worktree", "files"])
@pytest.mark.parametrize("target", ["../../etc/passwd", "/etc/passwd", "../hop/../../x"])
def test_a_symlink_that_leaves_the_tree_is_refused(tmp_path: Path, kind: str, target: str) -> None:
    """A symlink out of the source, also by way of another, is named in words with where it leads."""
    app = workshop.write(tmp_path / "app", {"sub/b": "2"})
    (app / "hop").symlink_to("sub")
    (app / "sub" / "link").symlink_to(target)
    workshop.commit(app, {})
    with pytest.raises(StepFailed) as caught:
        lay_source(source_of(app, kind), tmp_path / "out")
    assert caught.value.reference == "source-unsafe"
    assert caught.value.message == f"`sub/link` is a symlink that leaves the source: it leads to {target}"


def test_a_submodule_is_refused_in_words(tmp_path: Path) -> None:
    """A submodule's files are not in the commit, so the release would not be whole."""
    app = tmp_path / "app"
    commit = workshop.commit(app, {"a": "1"})
    workshop.git(app, "update-index", "--add", "--cacheinfo", f"160000,{commit},lib/sub")
    workshop.git(app, "commit", "--quiet", "--message", "With a submodule")
    for source in (resolve(app), resolve(app, worktree=True)):
        with pytest.raises(StepFailed, match="`lib/sub` is a git repository of its own"):
            lay_source(source, tmp_path / source.revision)


def test_a_repository_in_the_worktree_is_refused_in_words(tmp_path: Path) -> None:
    """Git does not look into a repository inside the app's; what it has would be missing."""
    workshop.commit(tmp_path / "app", {"a": "1"})
    workshop.commit(tmp_path / "app" / "nested", {"b": "1"})
    with pytest.raises(StepFailed, match="`nested/` is a git repository of its own"):
        lay_source(resolve(tmp_path / "app", worktree=True), tmp_path / "out")


@pytest.mark.parametrize("kind", ["commit", "worktree", "files"])
def test_an_lfs_pointer_is_refused_in_words(tmp_path: Path, kind: str) -> None:
    """A pointer instead of a file is told by name; a text that only speaks of pointers is not one."""
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    app = tmp_path / "app"
    workshop.commit(app, {"about.md": f"# LFS\n{pointer}", "logo.png": pointer})
    source = source_of(app, kind)
    with pytest.raises(StepFailed, match=r"`logo\.png` is a Git LFS pointer"):
        lay_source(source, tmp_path / "out")


def test_a_name_that_is_not_utf8_is_refused_in_words(tmp_path: Path) -> None:
    """What cannot be named cannot be laid; it is not left out silently."""
    workshop.commit(tmp_path / "app", {"a": "1"})
    Path(os.fsdecode(os.fsencode(tmp_path / "app") + b"/caf\xe9")).write_text("x")
    workshop.git(tmp_path / "app", "add", "--all")
    with pytest.raises(StepFailed, match="is not UTF-8"):
        lay_source(resolve(tmp_path / "app", worktree=True), tmp_path / "out")


def test_an_empty_source_is_refused_in_words(tmp_path: Path) -> None:
    """Nothing to deploy is an error."""
    (tmp_path / "app").mkdir()
    with pytest.raises(StepFailed, match="source-empty"):
        lay_source(Source(folder=tmp_path / "app", revision="files"), tmp_path / "out")


@pytest.mark.parametrize("kind", ["worktree", "files"])
def test_our_own_folders_are_no_source(tmp_path: Path, kind: str) -> None:
    """A host that lies in the app's folder is not deployed with the app."""
    app = tmp_path / "app"
    workshop.commit(app, {"a": "1"})
    workshop.write(app, {"host/opt/shop/x": "", "b": "2"})
    lay_source(Source(folder=app, revision=kind), tmp_path / "out", outside=[app / "host"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b"]


def test_a_file_behind_a_replaced_folder_is_left_out(tmp_path: Path) -> None:
    """A tracked folder that became a symlink to elsewhere does not let files of elsewhere in."""
    app = tmp_path / "app"
    workshop.commit(app, {"a": "1", "sub/b": "mine"})
    workshop.write(tmp_path / "elsewhere", {"b": "not mine"})
    (app / "sub" / "b").unlink()
    (app / "sub").rmdir()
    (app / "sub").symlink_to(tmp_path / "elsewhere")
    workshop.git(app, "update-index", "--assume-unchanged", "sub/b")
    with pytest.raises(StepFailed, match="`sub` is a symlink that leaves"):
        lay_source(resolve(app, worktree=True), tmp_path / "out")
    (app / ".gitignore").write_text("sub\n")
    assert workshop.laid(resolve(app, worktree=True), tmp_path / "out2") == {"a": b"1", ".gitignore": b"sub\n"}
