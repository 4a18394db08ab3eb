"""uv as a program: what of the person's environment it may see, and its failures in plain words."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from bulletproof.effects.bound import run_bound
from bulletproof.effects.process import Completed, last_lines
from bulletproof.errors import StepFailed

_BUILD_SECONDS = 1800.0
"""A package without a wheel may be compiled for as long."""

_PASSED_ON = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR", "NETRC", "SSH_AUTH_SOCK", "XDG_CONFIG_HOME"),
        *("XDG_DATA_HOME", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO"),
        *("GIT_SSH_COMMAND", "CC", "CXX", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "PKG_CONFIG_PATH"),
        *("UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX", "UV_OFFLINE", "UV_CONFIG_FILE"),
        *("UV_SYSTEM_CERTS", "UV_NATIVE_TLS", "UV_INSECURE_HOST", "UV_KEYRING_PROVIDER", "UV_EXCLUDE_NEWER"),
        *("UV_PYTHON_INSTALL_DIR", "UV_CREDENTIALS_DIR"),
    }
)
_PASSED_ON_PREFIXES = ("UV_INDEX", "UV_HTTP_", "UV_CONCURRENT_")
"""Ways to the packages. Not passed on is what would aim uv at another environment, Python or lock than ours."""

_FROM_PIP = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST": "UV_INSECURE_HOST",
    "PIP_NO_INDEX": "UV_NO_INDEX",
    "PIP_CERT": "SSL_CERT_FILE",
}

_CORRECT = "correct requirements.txt and commit it, then: bulletproof deploy"
_CONNECT = "check the network and the package index, then: bulletproof deploy"
_NO_NETWORK = r"error sending request|dns error|[Nn]etwork (?:was|connectivity is) disabled"
_CAUSES = (
    (_NO_NETWORK, "the package index is not reachable", _CONNECT),
    (r"HTTP status client error \((40[13])\b", "the package index refused us with status {}", _CONNECT),
    (r"Because (\S+) was not found in the ", "requirement `{}` does not exist in the package index", _CORRECT),
    (r"Because there (?:is|are) no versions? of (\S+?),? ", "the package index has no version of `{}`", _CORRECT),
    (r"Because only \S+ is available and you require (\S+?),? ", "the package index has no version of `{}`", _CORRECT),
    (r"Hash mismatch for `([^`]+)`", "requirement `{}` is not what its hash says", _CORRECT),
    (r"Failed to (?:download and )?build:? `([^`]+)`", "requirement `{}` could not be built", _CORRECT),
    (r"Failed to [a-z]+:? `([^`]+)`", "requirement `{}` could not be installed", _CORRECT),
    (r"Couldn't parse requirement in `([^`]+)`", "`{}` has a line that is no requirement", _CORRECT),
    (r"", "the app's packages could not be installed", _CORRECT),
)
"""What uv says, as a pattern over its words on one line; what it means; and what helps. The first that fits counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Uv:
    """The uv that belongs to this installation, with a cache of its own."""

    program: str
    cache: Path
    """Its downloads."""

    def run(self, *words: str | Path, folder: Path, input_text: str | None = None) -> Completed:
        """Run a command of uv in a folder whose configuration it does not read; its status is the caller's to judge.

        It is killed with us, also by a kill -9. Raises StepFailed when it cannot be started.
        """
        return run_bound(
            (self.program, *_configuration(os.environ), *words),
            folder=folder,
            environment=environment(os.environ) | {"UV_CACHE_DIR": str(self.cache)},
            timeout_seconds=_BUILD_SECONDS,
            input_text=input_text,
        )

    def run_checked(self, *words: str | Path, folder: Path, input_text: str | None = None) -> Completed:
        """Run a command of uv that must succeed; raises StepFailed `dependencies-failed` or `disk-full` in words."""
        completed = self.run(*words, folder=folder, input_text=input_text)
        if completed.status != 0:
            raise failure(completed.errors or completed.output)
        return completed


def find_uv(cache: Path) -> Uv:
    """The uv that was installed with us. Raises StepFailed when it is gone."""
    try:
        return Uv(program=find_uv_bin(), cache=cache)
    except FileNotFoundError as error:
        raise StepFailed(
            "uv-missing", "the program uv, which builds releases, is not installed", hint="pip install uv"
        ) from error


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """What uv gets of our environment: the ways to the network and to the person's package indexes, pip's included."""
    passed = {name: value for name, value in ours.items() if _is_passed_on(name)}
    for pip, name in _FROM_PIP.items():
        if pip in ours:
            passed.setdefault(name, ours[pip])
    links = [link for link in ours.get("PIP_FIND_LINKS", "").split() if "://" in link or Path(link).is_dir()]
    if links:
        passed.setdefault("UV_FIND_LINKS", ",".join(links))
    return passed | {"NO_COLOR": "1", "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}


def failure(said: str) -> StepFailed:
    """The error for what uv said when it failed, naming the requirement where that can be told."""
    words = " ".join(said.split())
    context = last_lines(said)
    if "No space left on device" in words or "Disk quota exceeded" in words:
        return StepFailed(
            "disk-full", "the disk filled up while packages were installed", context=context, hint="df -h"
        )
    found, message, hint = next(
        (found, message, hint) for pattern, message, hint in _CAUSES if (found := re.search(pattern, words))
    )
    return StepFailed("dependencies-failed", message.format(*found.groups()), context=context, hint=hint)


def _is_passed_on(name: str) -> bool:
    is_proxy = name.lower() in {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
    return is_proxy or name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)


def _configuration(ours: Mapping[str, str]) -> tuple[str, ...]:
    """The arguments that let uv read the person's or the machine's uv.toml, and never one that the app brings along."""
    if ours.get("UV_CONFIG_FILE"):
        return ()
    own = Path(ours.get("XDG_CONFIG_HOME") or Path(ours.get("HOME", "/")) / ".config") / "uv" / "uv.toml"
    for file in (own, Path("/etc/uv/uv.toml")):
        if file.is_file():
            return ("--config-file", str(file))
    return ("--no-config",)
