"""The rule by which a server's logrotate keeps the logs of one app short."""

from __future__ import annotations

from pathlib import Path

_RULES = Path("/etc/logrotate.d")
OLD_RULE = _RULES / "bulletproof"
"""Of all apps at once, as it was before each had its own. It took in the logs of other programs: logrotate passes over
whatever two rules name, so neither theirs nor ours were rotated."""
_LOGS = ("access", "backup", "deployment", "health", "proxy", "relay", "replica", "timer-*", "web-*", "worker-*")


def rule_of(app: str) -> Path:
    """Where the rule of an app lies."""
    return _RULES / f"bulletproof-{app}"


def rule(app: str) -> str:
    """What it says."""
    logs = " ".join(f"/var/log/{app}/{name}.log" for name in _LOGS)
    return f"""\
# Written by bulletproof. Whoever writes a log has it open, so it is copied and emptied.
{logs} {{
	size 10M
	rotate 5
	compress
	delaycompress
	missingok
	notifempty
	copytruncate
}}
"""
