"""Whom this command is done for."""

from __future__ import annotations

import os

from bulletproof.cli.client import our_client
from bulletproof.domain.origin import KEY, Origin, plain
from bulletproof.effects import lock
from bulletproof.effects.surroundings import peer_address


def account() -> str:
    """Whose process this is, and on which machine."""
    return f"{lock.user_name()}@{os.uname().nodename}"


def our_origin() -> Origin:
    """Where the order that we carry out came from: what sshd and `serve` say is known, what the client says claimed."""
    client = our_client()
    return Origin(
        account=account(),
        key=os.environ.get(KEY, ""),
        address=peer_address(),
        claimed_by=plain(client.by) if client else "",
        claimed_run=plain(client.run) if client else "",
    )
