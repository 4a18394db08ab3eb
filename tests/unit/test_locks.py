"""What other tools' locks and lists say: read from locks that the tools really made, and from lines of larger ones."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from bulletproof.domain import locks, wishes
from bulletproof.domain.locks import Index, Lock, LockUnusableError, read_pipfile_lock, read_poetry_lock, read_pylock

LOCKS = Path(__file__).parents[1] / "locks"
PYTHON = {"python_version": "3.11", "python_full_version": "3.11.7"}
HASHES = (
    "--hash=sha256:c6242fc49e35958c8b15141343aa660db5fc54d4f13a1db01a3f5891b98700ef",
    "--hash=sha256:e0050c0b7da1eea53ffaf149c0cfbb5c6e2e2b69c4bef22c81fa6eb73e5f6173",
)


def lines(lock: Lock) -> list[str]:
    """What a Python 3.11 needs of a lock."""
    return [one.line for one in lock.needed(PYTHON)]


@pytest.mark.parametrize("tool", ["pylock", "poetry", "pipenv"])
def test_a_lock_that_a_tool_made_becomes_hashed_lines(tool: str) -> None:
    """Of each tool's real lock exactly the packages for production remain, each with all its hashes."""
    if tool == "pipenv":
        lock = read_pipfile_lock(json.loads((LOCKS / "pipenv" / "Pipfile.lock").read_text()))
    elif tool == "poetry":
        lock = read_poetry_lock(tomllib.loads((LOCKS / "poetry" / "poetry.lock").read_text()))
    else:
        lock = read_pylock(tomllib.loads((LOCKS / "pylock" / "pylock.toml").read_text()))
    (line,) = lines(lock)
    assert line.split()[0] == "itsdangerous==2.2.0"
    assert set(line.split()[1:]) == set(HASHES)
    assert lock.requires_python == ("==3.11.*" if tool == "pipenv" else ">=3.11")
    assert lock.indexes == ()


def test_an_older_poetry_lock_is_refused() -> None:
    """Before Poetry 2 a lock does not say what is for development only, and guessing would install too much."""
    with pytest.raises(LockUnusableError, match=r"Poetry before 2\.0"):
        read_poetry_lock(tomllib.loads((LOCKS / "poetry-1" / "poetry.lock").read_text()))


def test_packages_from_elsewhere_keep_their_place() -> None:
    """Repositories are pinned to their commit, archives to their hash; folders of the source are named as such."""
    pipfile = {
        "_meta": {"sources": [{"name": "corp", "url": "https://${USER}:${KEY}@corp.example/simple/"}]},
        "default": {
            "one": {"git": "https://git.example/one.git", "ref": "abc", "subdirectory": "py"},
            "two": {"path": "./lib", "editable": True},
            "three": {"file": "https://files.example/three.zip", "hashes": ["sha256:1"]},
            "four": {"version": "==1.0", "hashes": ["sha256:2"], "markers": "python_version < '3'"},
        },
    }
    lock = read_pipfile_lock(pipfile)
    assert [one.line for one in lock.pinned if not one.place] == [
        "one @ git+https://git.example/one.git@abc#subdirectory=py",
        "three @ https://files.example/three.zip --hash=sha256:1",
        "four==1.0 --hash=sha256:2",
    ]
    assert [one.place for one in lock.needed(PYTHON)] == ["", "./lib", ""]
    assert lock.indexes == (Index(name="corp", url="https://${USER}:${KEY}@corp.example/simple"),)


def test_poetry_sources_and_markers_of_groups_are_understood() -> None:
    """The group `main` counts: its marker where a package has one for each group, and its sources of each kind."""
    source = {"type": "git", "url": "https://git.example/a.git", "reference": "main", "resolved_reference": "abc"}
    package = {"version": "1.0", "groups": ["main"], "files": [{"file": "x", "hash": "sha256:1"}]}
    lock = read_poetry_lock(
        {
            "metadata": {"lock-version": "2.1", "python-versions": "^3.11"},
            "package": [
                {**package, "name": "a", "source": source},
                {**package, "name": "b", "source": {"type": "directory", "url": "lib"}},
                {**package, "name": "c", "groups": ["dev", "main"], "markers": {"main": "python_version < '3'"}},
                {
                    **package,
                    "name": "d",
                    "source": {"type": "legacy", "url": "https://c.example/simple/", "reference": "corp"},
                },
                {**package, "name": "e", "optional": True},
                {**package, "name": "f", "groups": ["dev"]},
            ],
        }
    )
    assert lines(lock) == ["a @ git+https://git.example/a.git@abc", "b==", "d==1.0 --hash=sha256:1"]
    assert lock.requires_python == ">=3.11,<4"
    assert lock.indexes == (Index(name="corp", url="https://c.example/simple"),)


def test_groups_and_extras_of_a_pylock_are_those_it_installs_by_itself() -> None:
    """A marker over groups asks for the default ones, over extras for none; a newer format is refused."""
    base = {"version": "1", "wheels": [{"url": "https://x/x.whl", "hashes": {"sha256": "1", "md5": "2"}}]}
    document = {
        "lock-version": "1.0",
        "default-groups": ["web"],
        "packages": [
            {**base, "name": "a", "marker": "'web' in dependency_groups"},
            {**base, "name": "b", "marker": "'dev' in dependency_groups"},
            {**base, "name": "c", "marker": "'fast' in extras"},
            {"name": "d", "vcs": {"type": "git", "url": "https://git.example/d", "commit-id": "abc"}},
            {"name": "e", "directory": {"path": "lib"}},
            {"name": "f", "archive": {"url": "https://x/f.zip", "hashes": {"sha256": "3"}}},
        ],
    }
    assert lines(read_pylock(document)) == [
        "a==1 --hash=sha256:1",
        "d @ git+https://git.example/d@abc",
        "e==",
        "f @ https://x/f.zip --hash=sha256:3",
    ]
    with pytest.raises(LockUnusableError):
        read_pylock({**document, "lock-version": "2.0"})


@pytest.mark.parametrize(
    ("constraint", "specifier"),
    [
        ("^3.11", ">=3.11,<4"),
        ("^0.3.2", ">=0.3.2,<0.4"),
        ("^0.0.3", ">=0.0.3,<0.0.4"),
        ("^1", ">=1,<2"),
        ("~1.2.3", ">=1.2.3,<1.3"),
        ("~1", ">=1,<2"),
        ("~=1.2", "~=1.2"),
        (">=3.11, <4.0", ">=3.11,<4.0"),
        ("1.2", "==1.2"),
        ("2.*", "==2.*"),
        ("*", ""),
        ("", ""),
        ("^2 || ^3", ""),
    ],
)
def test_poetrys_constraints_are_spelled_as_others_do(constraint: str, specifier: str) -> None:
    """What `^` and `~` mean by Poetry's own documentation."""
    assert locks.specifier_of(constraint) == specifier


def test_a_lock_must_give_what_the_list_asks_for() -> None:
    """A package that is missing or has another version is named; a wish for another Python is none."""
    pins = {"flask": ("3.1.0",), "own-lib": ("",), "twice": ("1.0", "2.0")}
    asked = ["Flask>=3", "own_lib", "twice<2", "tomli; python_version < '3.11'", "flask>=3.2", "gone", "twice>2"]
    assert wishes.unmet(asked, pins, PYTHON) == ["flask>=3.2", "gone", "twice>2"]


def test_what_a_project_asks_for_is_read_in_each_tools_way() -> None:
    """Tables of Poetry and pipenv as requirements; one with a condition may be missing, so it is left out."""
    poetry = {"python": "^3.11", "flask": "^3", "own": {"path": "lib"}, "old": {"version": "1", "markers": "x"}}
    assert wishes.poetry_dependencies({"tool": {"poetry": {"dependencies": poetry}}}) == ["flask>=3,<4", "own"]
    packages = {"flask": "*", "a": {"version": ">=1", "extras": ["x"]}, "b": {"version": "*", "markers": "x"}}
    assert wishes.pipfile_dependencies({"packages": packages}) == ["flask", "a>=1"]


@pytest.mark.parametrize(
    ("text", "version"), [("python-3.11.4\n", "3.11.4"), ("3.12", "3.12"), ("pypy3", ""), ("", "")]
)
def test_a_runtime_names_a_python(text: str, version: str) -> None:
    """As Heroku wrote it; what it does not understand names none."""
    assert wishes.python_of_runtime(text) == version
