"""Where a command comes from, by what sshd and the system say."""

from __future__ import annotations

import ipaddress
import os


def peer_address() -> str:
    """The address of the machine whose SSH session this is (ssh(1), SSH_CONNECTION); empty when it is none."""
    first = os.environ.get("SSH_CONNECTION", "").split(" ")[0]
    try:
        return str(ipaddress.ip_address(first.partition("%")[0]))
    except ValueError:
        return ""
