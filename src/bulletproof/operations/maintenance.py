"""Maintenance: close the app to the public, or open it; deployments go on either way."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from bulletproof.domain.deployment import Live
from bulletproof.domain.maintenance import Maintenance
from bulletproof.engine.journal import utc_now
from bulletproof.errors import StepFailed, UsageError
from bulletproof.ports import Host


def close(host: Host, live: Live | None, message: str, allowed: tuple[str, ...]) -> Maintenance:
    """The public gets a page from one instant on, but for these addresses. Raises UsageError, StepFailed."""
    before = host.proxy.maintenance()
    wish = Maintenance(
        message=message,
        allowed=tuple(map(_address, allowed)),
        since=before.since if before else utc_now()[:16].replace("T", " ") + " UTC",
        page=_page(host, live),
    )
    host.proxy.maintain(wish)
    return wish


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        hint = "bulletproof maintenance on --allow 203.0.113.7"
        raise UsageError("address-malformed", f"{text!r} is not the address of one machine", hint=hint) from error


def _page(host: Host, live: Live | None) -> str:
    """The page of the live release, if it has one of its own."""
    if live is None:
        return ""
    manifest = host.releases.manifest(live.release)
    name = manifest.config.proxy.maintenance_page
    if name is None:
        return ""
    file = host.layout.source(live.release) / name
    try:
        return _inside(file, host.layout.source(live.release)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        words = f"[proxy] maintenance_page: {file} cannot be read: {error}"
        raise StepFailed("maintenance-page-unreadable", words, hint="correct it, deploy, and repeat this") from error


def _inside(file: Path, source: Path) -> Path:
    """The file, if no link leads out of the source: whatever it is would be shown to everybody."""
    if not file.resolve().is_relative_to(source.resolve()):
        raise PermissionError(f"it leads out of the source, to {file.resolve()}")
    return file
