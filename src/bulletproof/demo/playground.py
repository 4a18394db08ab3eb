"""A project with releases to play with: DataCharted in a git repository, one tag per release, good and broken."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import msgspec

from bulletproof.effects import durable
from bulletproof.effects.process import run_checked
from bulletproof.errors import UsageError

_CONFIG = """\
name = "datacharted"

# A demonstration does not wait as long as a person would.
[health]
deadline_seconds = {deadline}
timeout_seconds = 2

[drain]
stop_seconds = 2

[hold]
seconds = {hold}
"""
_SLOW = {"deadline": 30, "hold": 30}
"""Until it is known how fast this machine boots the app."""
_GROWTH = {
    "v3": "Charts know how many numbers they have",
    "v4-expand": "Users get a display name beside the username",
    "v4-contract": "Users have a display name alone",
    "destructive": "Charts forget when they were made",
}
"""What comes after v2, each on the one before, with a migration each."""
_IDENTITY = ("-c", "user.name=Bulletproof", "-c", "user.email=demo@localhost", "-c", "commit.gpgsign=false")


def example() -> Path:
    """The folder of DataCharted: inside the installed package, or in a checkout of the project."""
    here = Path(__file__).parent
    for folder in (here / "datacharted", here.parents[2] / "examples" / "datacharted"):
        if (folder / "run.py").exists():
            return folder
    raise UsageError("example-missing", "the example app is not part of this installation")


class Playground(msgspec.Struct, frozen=True, kw_only=True):
    """The project's folder; each release is a tag."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Playground:
        """Lay the project: tag v1, then each patch as a tag of its own."""
        shutil.copytree(example(), folder, ignore=shutil.ignore_patterns("__pycache__", "*.db*", ".pytest_cache"))
        durable.write_file(folder / "bulletproof.toml", _CONFIG.format(**_SLOW))
        durable.write_file(folder / ".env", "SECRET_KEY=only-for-the-demonstration\n", mode=0o600)
        durable.write_file(folder / ".gitignore", ".env\n")
        playground = cls(folder=folder)
        playground._git("init", "--quiet", "--initial-branch=main")
        playground._commit("v1", "The first release")
        playground._release("v2", Path("releases/v2.patch"), "Charts get a page and a CSV export")
        for patch in sorted((folder / "releases" / "broken").glob("*.patch")):
            playground._git("checkout", "--quiet", "v2")
            playground._release(patch.stem, patch.relative_to(folder), patch.stem.replace("-", " ").capitalize())
        playground._git("checkout", "--quiet", "v2")
        for tag, title in _GROWTH.items():
            playground._release(tag, Path(f"releases/{tag}.patch"), title)
        playground._git("checkout", "--quiet", "v2")
        return playground

    def adapt(self, boot_seconds: float) -> None:
        """Wait no longer for what never comes than a machine that boots the app in so many seconds must."""
        deadline = min(30, max(5, math.ceil(3 * boot_seconds)))
        hold = min(30, math.ceil(8 + 5 * boot_seconds))
        durable.write_file(self.folder / "bulletproof.toml", _CONFIG.format(deadline=deadline, hold=hold))

    def revision(self, tag: str) -> str:
        """The short revision of a tag, as it stands in the ids of releases."""
        return self._git("rev-parse", "--short=7", tag).strip()

    def _release(self, tag: str, patch: Path, title: str) -> None:
        self._git("apply", str(patch))
        self._commit(tag, title)

    def _commit(self, tag: str, title: str) -> None:
        self._git("add", "--all")
        self._git("commit", "--quiet", "-m", title)
        self._git("tag", tag)

    def _git(self, *words: str) -> str:
        return run_checked(
            ("git", *_IDENTITY, *words),
            folder=self.folder,
            reference="demo-not-prepared",
            failure=f"git {words[0]} failed while the demonstration was prepared",
        ).output
