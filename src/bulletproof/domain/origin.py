"""Origin: whom a deployment comes from; what the host knows of it, and apart from that what is only claimed."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

KEY = "BULLETPROOF_KEY"
"""The environment variable by which `serve` tells a verb which key it is done for."""
_LONGEST = 300


class Origin(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the order for a deployment came from."""

    account: str
    """Known: the account on the host, as `deploy@server`."""
    key: str = ""
    """Known: the key of `keys add` that let it in; empty for a person with a shell of their own."""
    address: str = ""
    """Known: where the SSH connection came from."""
    claimed_by: str = ""
    """Claimed by the other machine: the person there, such as the actor of a workflow."""
    claimed_run: str = ""
    """Claimed by the other machine: the address of the run."""

    @property
    def known(self) -> str:
        """What the host knows, in words."""
        who = f'key "{self.key}"' if self.key else self.account
        return f"{who} from {self.address}" if self.address else who

    @property
    def words(self) -> str:
        """All of it; what is claimed is said to be."""
        claimed = ", ".join(filter(None, (self.claimed_by, self.claimed_run)))
        return f"{self.known}, who claims to be {claimed}" if claimed else self.known

    @property
    def short(self) -> str:
        """Who it was, for a line that has no room."""
        who = f"key {self.key}" if self.key else self.account
        return f"{who} ({self.claimed_by}?)" if self.claimed_by else who


def claims(environment: Mapping[str, str], account: str) -> tuple[str, str]:
    """Whom this machine says it works for: a person, and in GitHub Actions the address of the run."""
    if environment.get("GITHUB_ACTIONS") != "true":
        return plain(account), ""
    actor = environment.get("GITHUB_TRIGGERING_ACTOR") or environment.get("GITHUB_ACTOR", "")
    server, repository = environment.get("GITHUB_SERVER_URL", ""), environment.get("GITHUB_REPOSITORY", "")
    run = f"{server}/{repository}/actions/runs/{environment.get('GITHUB_RUN_ID', '')}"
    attempt = environment.get("GITHUB_RUN_ATTEMPT", "1")
    return plain(actor), plain(f"{run}/attempts/{attempt}" if attempt not in {"", "1"} else run)


def plain(text: str) -> str:
    """A text that comes from elsewhere, without what could move a cursor or begin a line."""
    return "".join(filter(str.isprintable, text))[:_LONGEST]
