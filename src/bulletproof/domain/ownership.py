"""Who owns what on a server, and who may read it: the folders that an app's users and ours have in common.

The data folder is ours, and sticky: the app may make files in it and remove its own, but neither the database nor a
folder of uploads, which are ours as well, can be exchanged by it for a link that leads us elsewhere.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from bulletproof.domain.account import Account, Accounts
from bulletproof.domain.layout import Layout

ROOT = Account(name="root", user=0, group=0)


class Owned(msgspec.Struct, frozen=True, kw_only=True):
    """A file or a folder, whose it is, and its mode."""

    path: Path
    owner: Account = ROOT
    group: Account = ROOT
    mode: int
    is_folder: bool = True
    is_made: bool = True
    """Whether it is made when it is missing; otherwise it counts when it is there."""

    gives_way: bool = False
    """Whether a link, a folder or a pipe in its place, which the app may have laid there, is moved out of the way."""

    @property
    def commands(self) -> tuple[str, ...]:
        """What a person would type to make it so."""
        path = shlex.quote(str(self.path))
        return (f"chown --no-dereference {self.owner.name}:{self.group.name} {path}", f"chmod {self.mode:o} {path}")


def owned(layout: Layout, accounts: Accounts, persistent: tuple[str, ...], database: str) -> tuple[Owned, ...]:
    """All of an app's, each folder before what is in it."""
    app, proxy = accounts.app, accounts.proxy
    return (
        # Who builds finds its way to what it builds, and sees nothing else: a release is closed to others itself.
        Owned(path=layout.home, group=app, mode=0o751),
        Owned(path=layout.releases, group=app, mode=0o751),
        Owned(path=layout.data, group=app, mode=0o1770),
        *(Owned(path=layout.data / name, group=app, mode=0o1770, is_made=False) for name in _with_parents(persistent)),
        Owned(path=layout.data / database, group=app, mode=0o660, is_folder=False, is_made=False),
        Owned(path=layout.state.parent, mode=0o700),
        Owned(path=layout.state, mode=0o700),
        Owned(path=layout.environment.parent, mode=0o700),
        Owned(path=layout.environment, mode=0o600, is_folder=False, is_made=False),
        Owned(path=layout.logs, mode=0o755),
        Owned(path=layout.access_log, owner=proxy, group=proxy, mode=0o640, is_folder=False),
        Owned(path=layout.deployment_log, mode=0o640, is_folder=False),
        Owned(path=layout.health_log, mode=0o640, is_folder=False),
        Owned(path=layout.runtime, mode=0o755),
        Owned(path=layout.sockets, mode=0o755),
        Owned(path=layout.proxy_home.parent, mode=0o755),
        Owned(path=layout.proxy_home, group=proxy, mode=0o750),
        Owned(path=layout.proxy_storage, owner=proxy, group=proxy, mode=0o700),
    )


def beside_database(layout: Layout, accounts: Accounts, database: str) -> tuple[Owned, ...]:
    """What SQLite lays beside the database, for whoever opens it first.

    It makes them with the database's mode of that instant, and when root opens them gives them to the database's owner,
    whatever their mode is: one that was made before the database had its own would be closed to the app from then on.
    """
    return tuple(
        Owned(
            path=layout.data / f"{database}{end}",
            group=accounts.app,
            mode=0o660,
            is_folder=False,
            is_made=False,
            gives_way=True,
        )
        for end in ("-wal", "-shm", "-journal")
    )


SET_ASIDE = "set-aside-"
"""How what a destroyed app left in its data folder begins, where that is a disk of its own."""
_OF_HOME = re.compile(r"releases|current|former")
_OF_LOGS = re.compile(
    r"(access|backup|deployment|error|health|proxy|relay|replica|(rehearsal|timer|web|worker)-.+)\.log.*"
)
_OF_ANY = re.compile(rf"\.bp-.*|lost\+found|{SET_ASIDE}.*")


def strangers(
    layout: Layout, persistent: tuple[str, ...], database: str, found: Mapping[Path, Iterable[str]]
) -> tuple[Path, ...]:
    """What lies in an app's folders before its first deployment, and neither it nor Bulletproof can have put there.

    `found` has the names that are in each. An app may be called like a program of the machine, such as `nginx`: its
    data folder would be that one's. A folder with the app's database in it is the app's, from before Bulletproof.
    """
    of_data = re.compile("|".join(re.escape(Path(name).parts[0]) for name in persistent) or "(?!)")
    ours = {layout.home: _OF_HOME, layout.data: of_data, layout.logs: _OF_LOGS}
    return tuple(
        folder / name
        for folder, names in found.items()
        if not (folder == layout.data and database in names)
        for name in sorted(names)
        if not (ours[folder].fullmatch(name) or _OF_ANY.fullmatch(name))
    )


def _with_parents(names: tuple[str, ...]) -> tuple[str, ...]:
    """Each folder, and before it those that it lies in."""
    paths = [Path(name) for name in names]
    return tuple(dict.fromkeys(str(one) for path in paths for one in (*reversed(path.parents[:-1]), path)))
