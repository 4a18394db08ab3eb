"""What is to be deployed: a commit, a working tree or a plain folder, found by git and laid as a source tree."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterable
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from bulletproof.domain.history import LONGEST, packed
from bulletproof.domain.source import Source
from bulletproof.effects import durable, tree
from bulletproof.effects.process import Completed, last_lines, run
from bulletproof.errors import StepFailed, UsageError

_GIT = (
    *("git", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"),  # nothing of the repository is run
    *("-c", "core.autocrlf=false", "-c", "core.eol=lf", "-c", "core.quotePath=false"),  # files as they were committed
)

_REPOSITORY_VARIABLES = frozenset(
    {
        *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_DIR", "GIT_GRAFT_FILE", "GIT_IMPLICIT_WORK_TREE"),
        *("GIT_INDEX_FILE", "GIT_INTERNAL_SUPER_PREFIX", "GIT_NAMESPACE", "GIT_NO_REPLACE_OBJECTS", "GIT_PREFIX"),
        *("GIT_OBJECT_DIRECTORY", "GIT_REPLACE_REF_BASE", "GIT_SHALLOW_FILE", "GIT_WORK_TREE"),
    }
)
"""Set inside a git hook, where they name another repository than the folder's (`git rev-parse --local-env-vars`)."""

_NOT_FOUND = 1
"""How `rev-parse --quiet` ends when there is no such thing; any other failure is 128, or a signal's."""
_WRITE_FAILURE = "write failure on standard output"
"""What git says when its answer could not be written: then the answer is not that there is none."""
_COMMIT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SUBMODULE = "160000"
"""The mode of a submodule's entry (git-fast-import(1))."""
_ARCHIVE = "source.tar"

_SETTINGS_FILES = ".env*"
"""Secrets, and settings of another machine; a release gets its settings from outside."""
_LEFT_OUT_FOLDERS = frozenset(
    {
        *(".git", ".hg", ".svn", "__pycache__", "node_modules", ".cache", ".tox", ".nox", ".mypy_cache"),
        *(".pytest_cache", ".ruff_cache", ".hypothesis", ".ipynb_checkpoints", ".idea", ".vscode", "htmlcov"),
    }
)
_LEFT_OUT_FILES = (
    *("*.pyc", "*.pyo", ".DS_Store", ".coverage", "*.swp"),
    *("*.db", "*.sqlite", "*.sqlite3", "*-wal", "*-shm", "*-journal"),
)


def resolve(folder: Path, wish: str | None = None, *, worktree: bool = False) -> Source:
    """Find what is to be deployed from a folder, which may be a part of a repository.

    `wish` is anything that git can make a commit of, HEAD when None; with `worktree` the files are taken as they lie
    there; a folder without git is taken whole. Raises UsageError when there is no such thing.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        raise UsageError("folder-missing", f"there is no folder {folder}")
    if worktree and wish is not None:
        raise UsageError("revision-unknown", "a revision and --worktree exclude each other", hint="leave one out")
    if not _is_repository(folder):
        if wish is not None:
            raise UsageError(
                "no-repository",
                f"{folder} is not in a git repository, so there is no commit `{wish}`",
                hint="bulletproof deploy  (without a revision it takes the files as they are)",
            )
        return Source(folder=folder, revision="files")
    if worktree:
        return Source(folder=folder, revision="worktree")
    return _commit(folder, wish)


def repository_of(folder: Path) -> Path:
    """The top folder of the repository that the folder is in. Raises UsageError `no-repository`."""
    if not _is_repository(folder.resolve()):
        raise UsageError("no-repository", f"{folder} is not in a git repository", hint="git init")
    return Path(_git_checked(folder, "rev-parse", "--show-toplevel").output.rstrip("\n"))


def has_changes(folder: Path) -> bool:
    """Whether the folder has tracked or new files that differ from HEAD; False where there is no git."""
    folder = folder.resolve()
    if not _is_repository(folder):
        return False
    return bool(_git_checked(folder, "status", "--porcelain", "-z", "--untracked-files=normal", "--", ".").output)


def lay_source(source: Source, destination: Path, *, outside: Collection[Path] = ()) -> int:
    """Lay the source's files as the new folder `destination`, and say how many they are.

    Never taken: `.env*`, and of files that git does not track also caches, virtual environments and databases.
    `outside` are folders that belong to no source though they may lie in its folder. Raises StepFailed in words for a
    submodule, a Git LFS pointer, a symlink that leaves the tree, or an empty source; what was laid is scratch.
    """
    if source.is_commit:
        count = _lay_commit(source, destination)
    else:
        paths = _paths(source, outside)
        count = tree.lay(tree.listed(source.folder, paths), destination, is_wanted=_is_no_secret)
    if count == 0:
        raise StepFailed("source-empty", f"{source.folder} has no files to deploy", hint="git status")
    return count


def _is_repository(folder: Path) -> bool:
    marker = next((parent / ".git" for parent in (folder, *folder.parents) if (parent / ".git").exists()), None)
    if shutil.which("git") is None:
        if marker is not None:
            raise UsageError("git-missing", "the folder is in a git repository, and git is not installed")
        return False
    asked = _git(folder, "rev-parse", "--is-inside-work-tree")
    if asked.status == 0:
        return asked.output.strip() == "true"
    if _could_not_answer(asked):
        raise _failed(folder, asked)
    if "dubious ownership" in asked.errors:
        raise _not_trusted(folder, asked)
    if "not a git repository" in asked.errors and marker is None:
        return False
    raise UsageError("repository-damaged", f"git cannot read the repository of {folder}", context=_said(asked))


def _not_trusted(folder: Path, asked: Completed) -> UsageError:
    command = re.search(r"git config --global --add safe\.directory .+", asked.errors)
    return UsageError(
        "repository-not-trusted",
        f"{folder} belongs to another user, so git does not read it",
        hint=command.group() if command else f"git config --global --add safe.directory '{folder}'",
    )


def _commit(folder: Path, wish: str | None) -> Source:
    asked = _git(folder, "rev-parse", "--verify", "--end-of-options", f"{wish or 'HEAD'}^{{commit}}")
    commit = asked.output.strip()
    if _could_not_answer(asked):
        raise _failed(folder, asked)
    if wish == "" or asked.status != 0 or not _COMMIT_ID.fullmatch(commit):
        raise _unknown(wish, asked)
    found = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}:./")
    if found.status not in {0, _NOT_FOUND}:
        raise _failed(folder, found)
    if found.status == _NOT_FOUND:
        raise UsageError(
            "revision-without-folder",
            f"commit {commit[:7]} does not have the folder {folder.name}",
            hint="git add the folder and commit it, or: bulletproof deploy --worktree",
        )
    title = _git_checked(folder, "log", "-1", "--no-show-signature", "--format=%s", commit, "--").output.strip()
    plain = "".join(filter(str.isprintable, title))
    return Source(folder=folder, revision=commit, title=plain, history=_history(folder, commit))


def _history(folder: Path, commit: str) -> str:
    """The commits that this one comes after; in a shallow clone those that are there."""
    listed = _git_checked(folder, "rev-list", f"--max-count={LONGEST}", commit, "--").output.split()
    return packed(one for one in listed if one != commit)


def _unknown(wish: str | None, asked: Completed) -> UsageError:
    if wish is None:
        return UsageError(
            "no-commits",
            "the repository has no commit yet",
            hint="git add -A && git commit -m 'First release', or: bulletproof deploy --worktree",
        )
    if "ambiguous" in asked.errors:
        return UsageError("revision-unknown", f"`{wish}` may mean several commits", hint="write more of its letters")
    return UsageError("revision-unknown", f"the repository has no commit `{wish}`", hint="git log --oneline --all")


def _lay_commit(source: Source, destination: Path) -> int:
    if not _COMMIT_ID.fullmatch(source.revision):
        raise StepFailed("revision-unknown", f"`{source.revision}` is no full commit id")
    listing = _git_checked(source.folder, "ls-tree", "-r", "-z", "--end-of-options", source.revision).output
    _refuse_submodules(line.partition("\t") for line in listing.split("\0"))
    archive = destination.with_name(_ARCHIVE)
    _git_checked(
        *(source.folder, "-c", "tar.umask=0022", "archive", "--format=tar", "-o", str(archive)),
        *("--end-of-options", source.revision),
    )
    count = tree.lay_archive(archive, destination, is_wanted=_is_no_secret)
    durable.remove(archive)
    return count


def _paths(source: Source, outside: Collection[Path]) -> Iterable[PurePosixPath]:
    if source.is_laid:
        return tree.walked(source.folder, is_entered=lambda _: True)
    return _files(source, outside) if source.revision == "files" else _worktree(source, outside)


def _worktree(source: Source, outside: Collection[Path]) -> list[PurePosixPath]:
    staged = _git_checked(source.folder, "ls-files", "--stage", "-z").output.split("\0")
    others = _git_checked(source.folder, "ls-files", "--others", "--exclude-standard", "-z").output.split("\0")
    _refuse_submodules(line.partition("\t") for line in staged)
    tracked = {PurePosixPath(line.partition("\t")[2]) for line in staged if line}
    new = [name for name in others if name and _is_source(source.folder, PurePosixPath(name), outside)]
    for name in new:
        if name.endswith("/"):  # so git tells of an untracked folder that is a repository itself
            raise _nested(name)
    return sorted(tracked.union(map(PurePosixPath, new)))


def _files(source: Source, outside: Collection[Path]) -> list[PurePosixPath]:
    paths = tree.walked(source.folder, is_entered=lambda folder: _is_source_folder(folder, outside))
    return [path for path in paths if _is_source_file(path.name)]


def _is_source(folder: Path, path: PurePosixPath, outside: Collection[Path]) -> bool:
    parents = [folder / parent for parent in path.parents][:-1]
    return _is_source_file(path.name) and all(_is_source_folder(parent, outside) for parent in parents)


def _is_source_file(name: str) -> bool:
    return name not in _LEFT_OUT_FOLDERS and not any(fnmatch(name, pattern) for pattern in _LEFT_OUT_FILES)


def _is_source_folder(folder: Path, outside: Collection[Path]) -> bool:
    is_environment = (folder / "pyvenv.cfg").exists()
    return folder.name not in _LEFT_OUT_FOLDERS and not is_environment and folder not in outside


def _is_no_secret(path: PurePosixPath) -> bool:
    return not any(fnmatch(part, _SETTINGS_FILES) for part in path.parts)


def _refuse_submodules(entries: Iterable[tuple[str, str, str]]) -> None:
    for mode, _, name in entries:
        if mode.startswith(_SUBMODULE):
            raise _nested(name)
        if "\N{REPLACEMENT CHARACTER}" in name:
            raise StepFailed("source-unsafe", f"the name `{name}` is not UTF-8", hint="rename it with git mv")


def _nested(name: str) -> StepFailed:
    return StepFailed(
        "source-incomplete",
        f"`{name}` is a git repository of its own (a submodule), whose files would be missing",
        hint="commit its files to this repository, or name it as a package in requirements.txt",
    )


def _git(folder: Path, *words: str) -> Completed:
    return run((*_GIT, *words), folder=folder, environment=_environment())


def _git_checked(folder: Path, *words: str) -> Completed:
    completed = _git(folder, *words)
    if completed.status == 0:
        return completed
    raise _failed(folder, completed)


def _could_not_answer(completed: Completed) -> bool:
    return completed.status < 0 or _WRITE_FAILURE in completed.errors


def _failed(folder: Path, completed: Completed) -> StepFailed:
    if "No space left on device" in completed.errors:
        return StepFailed("disk-full", "the disk is full", context=_said(completed), hint="df -h")
    return StepFailed("git-failed", f"git could not read {folder}", context=_said(completed), hint="git status")


def _environment() -> dict[str, str]:
    """Ours without what names another repository; in English, asking nothing and writing nothing."""
    kept = {name: value for name, value in os.environ.items() if name not in _REPOSITORY_VARIABLES}
    return kept | {"LC_ALL": "C.UTF-8", "LANGUAGE": "", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}


def _said(completed: Completed) -> tuple[str, ...]:
    return last_lines(completed.errors or completed.output)
