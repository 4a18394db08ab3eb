"""Packages that are known to be vulnerable, or are behind; others are asked only when a person says so."""

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
        count = "a known vulnerability" if len(found) == 1 else f"{len(found)} known vulnerabilities"
        more = f" and {len(found) - _MOST} more" if len(found) > _MOST else ""
        yield Ill(
            words=f"{name} {packages[name]} has {count}: {', '.join(found[:_MOST])}{more}",
            command=f"raise {name} in the project's list, lock it anew, then bulletproof deploy",
        )


def outdated(ground: Ground) -> Iterator[Ill]:
    """Packages of the live release that have newer versions. Raises StepFailed when their index cannot be asked."""
    release = ground.manifest.release
    known = ground.host.releases.packages(release)
    behind = {name: found for name, found in ground.host.newer(release).items() if name in known}
    if behind:
        have = "has a newer version" if len(behind) == 1 else "have newer versions"
        yield Ill(
            words=f"{len(behind)} of the {len(known)} packages of {release} {have}",
            why="what is far behind gets no more repairs, and is the harder to raise the longer it waits",
            command="raise them in the project's list, lock it anew, bulletproof plan, then bulletproof deploy",
            more=tuple(f"{name} {there}: {newest} is there" for name, (there, newest) in sorted(behind.items())),
        )
