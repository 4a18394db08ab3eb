"""What is deployed: commits, working trees and plain folders, found by real git."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import workshop
from bulletproof.domain.history import comes_after
from bulletproof.domain.source import Source
from bulletproof.effects.source import has_changes, resolve
from bulletproof.errors import StepFailed, UsageError


@pytest.fixture(autouse=True)
def _git_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Git as it is without anybody's configuration."""
    for name, value in workshop.GIT_VARIABLES.items():
        monkeypatch.setenv(name, value)


def test_head_is_deployed_by_default(tmp_path: Path) -> None:
    """Without a wish it is the last commit, by its full id and its subject, which steers no terminal."""
    first = workshop.commit(tmp_path / "app", {"a": "1"})
    commit = workshop.commit(tmp_path / "app", {"a": "2"}, "Grüße\n\nBody")
    found = resolve(tmp_path / "app")
    assert found == Source(folder=tmp_path / "app", revision=commit, title="Grüße", history=found.history)
    assert comes_after(found.history, first)
    workshop.commit(tmp_path / "app", {"a": "3"}, "\x1b[2J\x07Red")
    assert resolve(tmp_path / "app").title == "[2JRed"


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
    assert workshop.laid(source, tmp_path / "out") == {"a": b"1"}


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
    workshop.laid(resolve(app), tmp_path / "one")
    workshop.laid(resolve(app, worktree=True), tmp_path / "two")
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(
    ("fault", "words"), [("error=EIO", ("Input/output error",)), ("error=ENOSPC", ("disk",)), ("signal=KILL", ())]
)
@pytest.mark.parametrize("asked", ["--is-inside", "{commit}", "./"])
def test_a_git_that_cannot_answer_does_not_answer_no(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, fault: str, words: tuple[str, ...]
) -> None:
    """Found by an EIO at git's write: a commit was said not to have the folder, though nobody had looked."""
    workshop.commit(tmp_path / "app", {"a": "1"})
    git, traced = shutil.which("git"), tmp_path / "bin" / "git"
    traced.parent.mkdir()
    order = f"strace -qq -o /dev/null -e inject=write:{fault}:when=1"
    traced.write_text(f'#!/bin/sh\ncase "$*" in *"{asked}"*) exec {order} {git} "$@";; esac\nexec {git} "$@"\n')
    traced.chmod(0o755)
    monkeypatch.setenv("PATH", str(traced.parent), prepend=":")
    with pytest.raises(StepFailed) as caught:
        resolve(tmp_path / "app")
    assert caught.value.reference == ("disk-full" if "ENOSPC" in fault else "git-failed")
    assert all(word in str((caught.value.message, caught.value.context)) for word in words)
