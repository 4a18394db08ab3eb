"""Packages with known vulnerabilities, as OSV knows them; it is asked only when a person says so."""

from __future__ import annotations

from collections.abc import Iterator

from bulletproof.domain.doctor import Ill
from bulletproof.effects.osv import ask
from bulletproof.operations.checks.ground import Ground

_MOST = 4


def vulnerabilities(ground: Ground, address: str) -> Iterator[Ill]:
    """Those of the live release. Raises StepFailed when the service cannot be asked."""
    packages = ground.host.releases.packages(ground.manifest.release)
    for name, found in ask(address, packages).items():
        more = f" and {len(found) - _MOST} more" if len(found) > _MOST else ""
        yield Ill(
            words=f"{name} {packages[name]} has {len(found)} known vulnerabilities: {', '.join(found[:_MOST])}{more}",
            command=f"raise {name} in the project's list, lock it anew, then bulletproof deploy",
        )
