"""Who owns what on a server, and who may read it: the folders that an app's users and ours have in common.

The data folder is ours, and sticky: the app may make files in it and remove its own, but neither the database nor a
folder of uploads, which are ours as well, can be exchanged by it for a link that leads us elsewhere.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from bulletproof.domain.account import Account, Accounts
from bulletproof.domain.layout import Layout

ROOT = Account(name="root", user=0, group=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """A file or a folder, whose it is, and its mode."""

    path: Path
    owner: Account = ROOT
    group: Account = ROOT
    mode: int
    is_folder: bool = True
    is_made: bool = True
    """Whether it is made when it is missing; otherwise it counts when it is there."""

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
        Owned(path=layout.data / f"{database}{end}", group=accounts.app, mode=0o660, is_folder=False, is_made=False)
        for end in ("-wal", "-shm", "-journal")
    )


def _with_parents(names: tuple[str, ...]) -> tuple[str, ...]:
    """Each folder, and before it those that it lies in."""
    paths = [Path(name) for name in names]
    return tuple(dict.fromkeys(str(one) for path in paths for one in (*reversed(path.parents[:-1]), path)))
