"""Finding and laying sources with real git: exactly the files that are meant, and nothing hostile."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workshop
from bulletproof.effects import tree
from bulletproof.effects.source import has_changes, lay_source, resolve
from bulletproof.errors import StepFailed, UsageError
from bulletproof.ports import Source


@pytest.fixture(autouse=True)
def _git_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Git as it is without anybody's configuration."""
    for name, value in workshop.GIT_VARIABLES.items():
        monkeypatch.setenv(name, value)


def laid(source: Source, destination: Path) -> dict[str, bytes | str]:
    """Lay a source, and tell each file's content and each symlink's target by name."""
    lay_source(source, destination)
    found = (path for path in destination.rglob("*") if path.is_symlink() or path.is_file())
    return {
        path.relative_to(destination).as_posix(): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in found
    }


def source_of(folder: Path, kind: str) -> Source:
    """The folder as a source of one of the three kinds."""
    return Source(folder=folder, revision="files") if kind == "files" else resolve(folder, worktree=kind == "worktree")


# --- resolve


def test_head_is_deployed_by_default(tmp_path: Path) -> None:
    """Without a wish it is the last commit, by its full id and with its subject."""
    workshop.commit(tmp_path / "app", {"a": "1"})
    commit = workshop.commit(tmp_path / "app", {"a": "2"}, "Grüße\n\nBody")
    assert resolve(tmp_path / "app") == Source(folder=tmp_path / "app", revision=commit, title="Grüße")


@pytest.mark.parametrize("wish", ["main~1", "v1", "annotated", "short", "full", "HEAD^"])
def test_whatever_git_makes_a_commit_of_can_be_wished(tmp_path: Path, wish: str) -> None:
    """Branches, tags of both kinds, ids and expressions lead to the commit."""
    app = tmp_path / "app"
    first = workshop.commit(app, {"a": "1"})
    workshop.git(app, "tag", "v1")
    workshop.git(app, "tag", "--annotate", "--message", "One", "annotated")
    workshop.commit(app, {"a": "2"})
    words = {"short": first[:8], "full": first}
    assert resolve(app, words.get(wish, wish)).revision == first


@pytest.mark.parametrize(
    "wish", ["nosuch", "", "--all", "-h", "--upload-pack=touch x", "HEAD:a", "HEAD~9", "HEAD^{tree}"]
)
def test_what_is_no_commit_is_refused_in_words(tmp_path: Path, wish: str) -> None:
    """An unknown revision, also one that looks like an option, names itself and the next command."""
    workshop.commit(tmp_path / "app", {"a": "1"})
    with pytest.raises(UsageError) as caught:
        resolve(tmp_path / "app", wish)
    assert caught.value.reference == "revision-unknown"
    assert f"`{wish}`" in caught.value.message
    assert caught.value.hint.startswith("git log")


def test_a_folder_without_git_is_taken_whole(tmp_path: Path) -> None:
    """No git means all files; a wish for a revision is then refused."""
    workshop.write(tmp_path, {"a": "1"})
    assert resolve(tmp_path).revision == "files"
    assert resolve(tmp_path, worktree=True).revision == "files"
    with pytest.raises(UsageError, match="no-repository"):
        resolve(tmp_path, "HEAD")
    with pytest.raises(UsageError, match="folder-missing"):
        resolve(tmp_path / "nosuch")


def test_worktree_and_a_revision_exclude_each_other(tmp_path: Path) -> None:
    """Asked for both, nothing is guessed."""
    commit = workshop.commit(tmp_path, {"a": "1"})
    assert resolve(tmp_path, worktree=True).revision == "worktree"
    with pytest.raises(UsageError, match="exclude each other"):
        resolve(tmp_path, commit, worktree=True)


def test_a_repository_without_commits_says_so(tmp_path: Path) -> None:
    """An empty repository is told what to do first."""
    workshop.git(tmp_path, "init", "--quiet")
    with pytest.raises(UsageError) as caught:
        resolve(tmp_path)
    assert caught.value.reference == "no-commits"
    assert "git commit" in caught.value.hint


def test_a_folder_that_is_not_in_the_commit_says_so(tmp_path: Path) -> None:
    """A new subfolder that was never committed is not deployed as an empty app."""
    workshop.commit(tmp_path, {"a": "1"})
    workshop.write(tmp_path / "new", {"app.py": ""})
    with pytest.raises(UsageError, match="does not have the folder new"):
        resolve(tmp_path / "new")


def test_a_repository_of_another_user_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where git speaks of dubious ownership, the hint is the command that trusts the folder."""
    workshop.commit(tmp_path, {"a": "1"})
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(UsageError) as caught:
        resolve(tmp_path)
    assert caught.value.reference == "repository-not-trusted"
    assert caught.value.hint == f"git config --global --add safe.directory {tmp_path}"


def test_a_damaged_repository_is_no_plain_folder(tmp_path: Path) -> None:
    """A `.git` that git cannot read is an error, and never a reason to deploy whatever lies there."""
    workshop.commit(tmp_path, {"a": "1"})
    (tmp_path / ".git" / "HEAD").unlink()
    with pytest.raises(UsageError, match="repository-damaged"):
        resolve(tmp_path)


def test_a_repository_without_the_program_git_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without git installed a plain folder can be deployed, a repository is refused in words."""
    workshop.commit(tmp_path / "app", {"a": "1"})
    workshop.write(tmp_path / "plain", {"a": "1"})
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert resolve(tmp_path / "plain").revision == "files"
    with pytest.raises(UsageError, match="git-missing"):
        resolve(tmp_path / "app")


def test_a_git_hook_does_not_lead_to_its_own_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Called from a hook, where GIT_DIR is set, it is still the folder's repository that counts."""
    commit = workshop.commit(tmp_path / "app", {"a": "1"}, "Mine")
    workshop.commit(tmp_path / "other", {"a": "2"}, "Other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    source = resolve(tmp_path / "app")
    assert (source.revision, source.title) == (commit, "Mine")
    assert laid(source, tmp_path / "out") == {"a": b"1"}


def test_changes_are_told(tmp_path: Path) -> None:
    """Edited, new and deleted files of the app's folder are changes; ignored ones and other folders' are not."""
    workshop.commit(tmp_path, {"app/a": "1", "app/b": "1", "other/c": "1", ".gitignore": "*.log\n"})
    app = tmp_path / "app"
    workshop.write(tmp_path, {"app/x.log": "", "other/c": "2", "other/new": ""})
    assert not has_changes(app)
    for change in ({"a": "2"}, {"new": "1"}):
        workshop.git(tmp_path, "stash", "--include-untracked", "--quiet")
        workshop.write(app, change)
        assert has_changes(app)
    workshop.git(tmp_path, "stash", "--include-untracked", "--quiet")
    (app / "b").unlink()
    assert has_changes(app)
    assert not has_changes(tmp_path.parent)


def test_asking_git_runs_nothing_of_the_repository(tmp_path: Path) -> None:
    """A repository's fsmonitor and hooks are programs of whoever made it; they are not run."""
    app = tmp_path / "app"
    workshop.commit(app, {"a": "1"})
    script = workshop.write(tmp_path, {"evil": f"#!/bin/sh\ntouch {tmp_path}/ran\n"}) / "evil"
    script.chmod(0o755)
    workshop.git(app, "config", "core.fsmonitor", str(script))
    workshop.git(app, "config", "core.hooksPath", str(tmp_path))
    has_changes(app)
    laid(resolve(app), tmp_path / "one")
    laid(resolve(app, worktree=True), tmp_path / "two")
    assert not (tmp_path / "ran").exists()


# --- what is laid


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
    assert laid(source, tmp_path / "out") == files


def test_line_ends_are_the_committed_ones(tmp_path: Path) -> None:
    """A person's autocrlf does not change what is deployed."""
    workshop.commit(tmp_path / "app", {"a.txt": "one\ntwo\n"})
    workshop.git(tmp_path / "app", "config", "core.autocrlf", "true")
    assert laid(resolve(tmp_path / "app"), tmp_path / "out") == {"a.txt": b"one\ntwo\n"}


def test_export_attributes_are_honoured(tmp_path: Path) -> None:
    """What .gitattributes keeps out of archives is not deployed, and a `$Format$` tells the commit."""
    files = {".gitattributes": "tests export-ignore\nversion.txt export-subst\n", "version.txt": "$Format:%H$"}
    commit = workshop.commit(tmp_path / "app", {**files, "tests/test_a.py": ""})
    found = laid(resolve(tmp_path / "app"), tmp_path / "out")
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
    assert laid(source, tmp_path / "out") == {"app.py": b"1", "sub/b.py": b"2"}


def test_the_worktree_is_tracked_and_new_files_as_they_are(tmp_path: Path) -> None:
    """Uncommitted edits and new files come along, deleted and ignored ones do not, nor what no source consists of."""
    app = tmp_path / "app"
    workshop.commit(app, {"a": "1", "gone": "1", "seed.db": "tracked", ".gitignore": "*.log\n"})
    (app / "gone").unlink()
    workshop.write(app, {"a": "2", "new \u00fc": "n", "x.log": "", "new.db": "", "v/pyvenv.cfg": "", "v/lib/m.py": ""})
    workshop.write(app, {"node_modules/x.js": "", "__pycache__/a.pyc": ""})
    found = laid(resolve(app, worktree=True), tmp_path / "out")
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
    assert laid(Source(folder=app, revision="files"), tmp_path / "out") == taken


@pytest.mark.parametrize("kind", ["commit", "worktree", "files"])
def test_settings_files_are_never_taken(tmp_path: Path, kind: str) -> None:
    """No `.env` gets into a release, not even a committed one, by whatever way."""
    secrets = [".env", ".env.production", "sub/.env", ".envs/.django", ".envrc"]
    workshop.commit(tmp_path / "app", {"app.py": "1", **dict.fromkeys(secrets, "SECRET=1")})
    source = source_of(tmp_path / "app", kind)
    assert laid(source, tmp_path / "out") == {"app.py": b"1"}


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
    found = laid(source, tmp_path / "out")
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
    assert laid(resolve(app, worktree=True), tmp_path / "out2") == {"a": b"1", ".gitignore": b"sub\n"}


# --- hostile archives

_PARTS = st.sampled_from(["a", "b", "..", ".", "", "sub", "l", "ü", "x" * 300, ".env", "c\0d", "\udcff", "-"])
_NAMES = st.builds(
    lambda parts, start: start + "/".join(parts),
    st.lists(_PARTS, min_size=1, max_size=4),
    st.sampled_from(["", "/", "./"]),
)
_TYPES = st.sampled_from(
    [
        *(tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE),
        *(tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE),
    ]
)


@st.composite
def _members(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(draw(_NAMES))
    member.type = draw(_TYPES)
    member.linkname = draw(_NAMES)
    member.mode = draw(st.sampled_from([0o644, 0o755, 0o6777, 0]))
    member.mtime = draw(st.sampled_from([0, 1, 1 << 33]))
    content = draw(st.binary(max_size=20)) if member.type in {tarfile.REGTYPE, tarfile.AREGTYPE} else b""
    member.size = len(content)
    return member, content


def _archive(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _lay_hostile(archive: bytes) -> None:
    """Lay an archive beside a sentinel; whatever comes of it, only harmless things are in the tree, none elsewhere."""
    with tempfile.TemporaryDirectory() as folder:
        around = Path(folder)
        workshop.write(around, {"a": "sentinel", "sub/a": "sentinel", "in.tar": archive})
        destination = around / "deep" / "out"
        destination.parent.mkdir()
        try:
            tree.lay_archive(around / "in.tar", destination, is_wanted=lambda _: True)
        except StepFailed as error:
            assert error.message  # noqa: PT017  either outcome is checked below
            is_whole = False
        else:
            is_whole = True
        outside = sorted(
            path.relative_to(around).as_posix() for path in around.rglob("*") if destination not in path.parents
        )
        assert set(outside) <= {"a", "deep", "deep/out", "in.tar", "sub", "sub/a"}
        assert (around / "a").read_text() == (around / "sub" / "a").read_text() == "sentinel"
        for path in destination.rglob("*") if destination.exists() else ():
            found = path.lstat()
            assert found.st_mode & 0o7022 == 0 or path.is_symlink()
            assert stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode)
            assert found.st_nlink == 1 or stat.S_ISDIR(found.st_mode)
            if is_whole:
                assert path.resolve().is_relative_to(destination.resolve())


@settings(max_examples=150, deadline=None)
@given(st.lists(_members(), max_size=6))
def test_no_archive_gets_out_of_its_folder(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    """Whatever names, types and links an archive has, it is laid harmlessly or refused in words."""
    _lay_hostile(_archive(members))


@settings(max_examples=100, deadline=None)
@given(st.lists(_members(), min_size=1, max_size=4), st.data())
def test_no_damaged_archive_does_harm(members: list[tuple[tarfile.TarInfo, bytes]], data: st.DataObject) -> None:
    """An archive with bytes changed or cut off is laid harmlessly or refused in words."""
    archive = bytearray(_archive(members))
    for _ in range(data.draw(st.integers(1, 8))):
        archive[data.draw(st.integers(0, min(len(archive), 4096) - 1))] = data.draw(st.integers(0, 255))
    _lay_hostile(bytes(archive[: data.draw(st.integers(0, len(archive)))]))


def _regular(name: str, content: bytes = b"x", *, mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    return member, content


def _special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


@pytest.mark.parametrize(
    "members",
    [
        pytest.param([_regular("/abs")], id="absolute name"),
        pytest.param([_regular("sub/../../x")], id="name out of the tree"),
        pytest.param([_regular("a"), _regular("a")], id="the same name twice"),
        pytest.param([_regular("a"), _regular("./a")], id="the same name written twice"),
        pytest.param([_special("d", tarfile.DIRTYPE), _special("d", tarfile.DIRTYPE)], id="the same folder twice"),
        pytest.param([_regular("a"), _regular("a/b")], id="a file below a file"),
        pytest.param([_regular("a/b"), _regular("a")], id="a file where a folder is"),
        pytest.param([_special("l", tarfile.SYMTYPE, "."), _regular("l/x")], id="a file through a symlink"),
        pytest.param([_special("l", tarfile.SYMTYPE, "..")], id="symlink out of the tree"),
        pytest.param([_special("l", tarfile.SYMTYPE, "/etc")], id="absolute symlink"),
        pytest.param(
            [
                _special("d/up", tarfile.SYMTYPE, ".."),
                _regular("y/z"),
                _special("l", tarfile.SYMTYPE, "d/up/y/../../x"),
            ],
            id="symlink out of the tree by way of another",
        ),
        pytest.param([_regular("a"), _special("h", tarfile.LNKTYPE, "a")], id="hard link"),
        pytest.param([_special("c", tarfile.CHRTYPE)], id="device"),
        pytest.param([_special("p", tarfile.FIFOTYPE)], id="fifo"),
    ],
)
def test_hostile_entries_are_refused_in_words(tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    """Each known trick of an archive is refused, and nothing outside the folder is touched."""
    archive = workshop.write(tmp_path, {"in.tar": _archive(members)}) / "in.tar"
    with pytest.raises(StepFailed, match="source-unsafe"):
        tree.lay_archive(archive, tmp_path / "out", is_wanted=lambda _: True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.tar", "out"]


def test_a_harmless_archive_is_laid_without_special_bits(tmp_path: Path) -> None:
    """Regular files, folders and symlinks come through; setuid does not."""
    members = [
        _special("d", tarfile.DIRTYPE),
        _regular("d/run", b"#!", mode=0o6755),
        _special("d/l", tarfile.SYMTYPE, "run"),
    ]
    archive = workshop.write(tmp_path, {"in.tar": _archive(members)}) / "in.tar"
    assert tree.lay_archive(archive, tmp_path / "out", is_wanted=lambda _: True) == 2
    assert stat.S_IMODE((tmp_path / "out" / "d" / "run").stat().st_mode) == 0o755
    assert (tmp_path / "out" / "d" / "l").read_bytes() == b"#!"


def test_an_archive_of_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the number of entries nor their size can fill the disk."""
    archive = workshop.write(tmp_path, {"in.tar": _archive([_regular(str(n), b"12345") for n in range(4)])}) / "in.tar"
    for limit, value in (("MOST_ENTRIES", 3), ("MOST_BYTES", 19)):
        with monkeypatch.context() as patched:
            patched.setattr(tree, limit, value)
            with pytest.raises(StepFailed, match="makes the source larger"):
                tree.lay_archive(archive, tmp_path / limit, is_wanted=lambda _: True)
    assert tree.lay_archive(archive, tmp_path / "out", is_wanted=lambda _: True) == 4
