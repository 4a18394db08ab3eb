"""OSV, the public database of vulnerabilities: asked for all packages of a release in one request."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from bulletproof.errors import StepFailed

OSV = "https://api.osv.dev/v1/querybatch"
_SECONDS = 20.0
_OK = 200
_MOST_BYTES = 16 << 20


class _Vulnerability(msgspec.Struct):
    id: str


class _Result(msgspec.Struct):
    vulns: list[_Vulnerability] = []


class _Answer(msgspec.Struct):
    results: list[_Result]


def ask(address: str, packages: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The ids of what is known of each package in its version; only of those of which anything is.

    Names and versions are all that is sent. Raises StepFailed `osv-not-asked`.
    """
    names = list(packages)
    queries = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": packages[name]} for name in names]
    content = _post(address, msgspec.json.encode({"queries": queries}))
    try:
        results = msgspec.json.decode(content, type=_Answer).results
    except msgspec.MsgspecError as error:
        raise _not_asked(address, f"its answer cannot be read: {error}") from error
    if len(results) != len(names):
        raise _not_asked(address, f"it answered for {len(results)} of {len(names)} packages")
    found = {name: tuple(one.id for one in result.vulns) for name, result in zip(names, results, strict=True)}
    return {name: ids for name, ids in found.items() if ids}


def _post(address: str, content: bytes) -> bytes:
    parts = urlsplit(address)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_SECONDS)
    try:
        connection.request("POST", parts.path, content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        told = answer.read(_MOST_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _not_asked(address, str(error)) from error
    finally:
        connection.close()
    if answer.status != _OK:
        raise _not_asked(address, f"it answered {answer.status}")
    return told


def _not_asked(address: str, why: str) -> StepFailed:
    return StepFailed("osv-not-asked", f"known vulnerabilities are not known: {address}: {why}", hint="try again later")
