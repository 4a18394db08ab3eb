"""Which packages of a release its index has newer versions of; the same ways lead there as when it was built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import msgspec

from bulletproof.domain.account import Account
from bulletproof.effects.dependencies import read_dependencies
from bulletproof.effects.uv import expanded, find_uv
from bulletproof.errors import StepFailed

_WAYS = {
    "--index-url": "UV_DEFAULT_INDEX",
    "-i": "UV_DEFAULT_INDEX",
    "--extra-index-url": "UV_EXTRA_INDEX_URL",
    "--find-links": "UV_FIND_LINKS",
}
"""In a list of packages, and as a variable: a password in an address is not to be on a command line."""
_NOWHERE = Path("/nonexistent")
"""Nothing is kept of what the index says."""


class _Package(msgspec.Struct):
    name: str
    version: str
    latest_version: str


def newer_versions(release: Path, settings: Mapping[str, str], account: Account | None) -> dict[str, tuple[str, str]]:
    """Of each package that the index has a newer final version of, the version that there is and the newest.

    `account` is as whom the index is asked when we are root. Raises StepFailed `index-not-asked`.
    """
    dependencies = read_dependencies(release / "source")
    uv = replace(
        find_uv(_NOWHERE),
        account=account,
        settings={**settings, **_ways(dependencies.requirements.options, settings)},
        variables=dependencies.variables,
        indexes=dependencies.indexes,
    )
    words = ("pip", "list", "--outdated", "--format", "json", "--no-cache", "--python", release / "venv/bin/python")
    done = uv.run(*words, folder=Path("/"))
    if done.status != 0:
        lines = [line.strip() for line in uv.without_secrets(done.errors).splitlines() if "cause:" in line]
        why = lines[0].removeprefix("cause: ") if lines else f"uv ended with status {done.status}"
        hint = "check the network, then: bulletproof doctor --online"
        raise StepFailed("index-not-asked", f"newer versions of packages are not known: {why}", hint=hint)
    found = msgspec.json.decode(done.output, type=list[_Package])
    return {one.name: (one.version, one.latest_version) for one in found}


def _ways(options: Iterable[str], settings: Mapping[str, str]) -> dict[str, str]:
    """What a list says of indexes, as uv's variables."""
    found: dict[str, str] = {}
    for option in options:
        name, _, value = option.replace("=", " ", 1).partition(" ")
        if variable := _WAYS.get(name):
            address = expanded(value.strip(), settings)
            is_more = variable in found and variable != "UV_DEFAULT_INDEX"
            found[variable] = f"{found[variable]} {address}" if is_more else address
    return found
