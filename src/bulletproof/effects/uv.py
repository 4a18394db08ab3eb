"""uv as a program: what of the person's environment it may see, and its failures in plain words."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from uv import find_uv_bin

from bulletproof.domain.account import Account
from bulletproof.domain.locks import Index
from bulletproof.domain.ownership import ROOT
from bulletproof.domain.settings import is_for_build
from bulletproof.domain.system_libraries import missing_library
from bulletproof.effects.bound import run_bound
from bulletproof.effects.ownership import hand_tree
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

_TRANSLATED = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "UV_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST": "UV_INSECURE_HOST",
    "PIP_NO_INDEX": "UV_NO_INDEX",
    "PIP_CERT": "SSL_CERT_FILE",
}

_NONE: Mapping[str, str] = MappingProxyType({})
_USER = re.compile(r"(?<=://)[^/@\s`'\"]+@")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
_SHORTEST_SECRET = 4
"""A shorter text would be found in every other word."""
_SHORTEST_TOKEN = 12
"""A part of an address that is as long may be one: some indexes have it in the path."""

_CORRECT = "correct the list of packages and commit it, then: bulletproof deploy"
_CONNECT = "check the network and the package index, then: bulletproof deploy"
_NO_NETWORK = r"error sending request|dns error|[Nn]etwork (?:was|connectivity is) disabled"
_CAUSES = (
    (_NO_NETWORK, "the package index is not reachable", _CONNECT),
    (
        r"An index URL \((\S+)\) could not be queried due to a lack of valid authentication credentials \((40[13])\b",
        "the package index {} does not know us (status {})",
        "bulletproof env set PIP_EXTRA_INDEX_URL=-, with a user and a password in the address; or in a first .env",
    ),
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
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The app's; of them it gets those that lead to packages, and `variables`."""
    variables: frozenset[str] = frozenset()
    """Settings that the app's list of packages names as `${NAME}`."""
    indexes: tuple[Index, ...] = ()
    """Package indexes that the app's list names."""
    account: Account | None = None
    """As whom it runs when we are root, since it runs what packages do when they are built."""

    def lend(self, *places: Path) -> None:
        """Let what uv runs write in these trees of ours, which nobody else can enter by another name."""
        if self.account is not None:
            for place in places:
                hand_tree(place, self.account)

    def take_back(self, *places: Path) -> None:
        """Only we may write there again; nothing that uv ran is left, as its processes end with it."""
        if self.account is not None:
            for place in places:
                hand_tree(place, ROOT)

    def run(self, *words: str | Path, folder: Path, input_text: str | None = None) -> Completed:
        """Run a command of uv in a folder whose configuration it does not read; its status is the caller's to judge.

        It is killed with us, also by a kill -9. Raises StepFailed when it cannot be started.
        """
        argv = (self.program, *_configuration(os.environ), *words)
        return run_bound(
            self.account.argv_alone(argv) if self.account else argv,
            folder=folder,
            environment=self._environment(),
            timeout_seconds=_BUILD_SECONDS,
            input_text=input_text,
        )

    def run_checked(self, *words: str | Path, folder: Path, input_text: str | None = None) -> Completed:
        """Run a command of uv that must succeed; raises StepFailed `dependencies-failed` or `disk-full` in words."""
        completed = self.run(*words, folder=folder, input_text=input_text)
        if completed.status != 0:
            raise failure(self.without_secrets(completed.errors or completed.output))
        return completed

    def without_secrets(self, text: str) -> str:
        """The text without what the settings hold in secret, and without users and passwords in addresses."""
        for secret in sorted(_secrets(self._from_settings().values()), key=len, reverse=True):
            text = text.replace(secret, "****")
        return _USER.sub("****@", text)

    def _environment(self) -> dict[str, str]:
        found = environment(os.environ, self.settings) | self._from_settings() | {"UV_CACHE_DIR": str(self.cache)}
        named = [f"{_index_name(one.name)}={expanded(one.url, self.settings)}" for one in self.indexes]
        if self.account is not None:
            found["HOME"] = str(self.cache)
        return found | ({"UV_INDEX": " ".join([*found.get("UV_INDEX", "").split(), *named])} if named else {})

    def _from_settings(self) -> dict[str, str]:
        variables = {name: self.settings[name] for name in self.variables & self.settings.keys()}
        return variables | _ways({name: value for name, value in self.settings.items() if is_for_build(name)})


def find_uv(cache: Path) -> Uv:
    """The uv that was installed with us. Raises StepFailed when it is gone."""
    try:
        return Uv(program=find_uv_bin(), cache=cache)
    except FileNotFoundError as error:
        raise StepFailed(
            "uv-missing", "the program uv, which builds releases, is not installed", hint="pip install uv"
        ) from error


def environment(ours: Mapping[str, str], settings: Mapping[str, str] = _NONE) -> dict[str, str]:
    """What uv gets of our environment: the ways to the network and to the person's package indexes, pip's included.

    What the app's settings say of indexes comes before what our environment says.
    """
    told = {name: value for name, value in settings.items() if is_for_build(name)}
    return _ways(ours) | _ways(told) | {"NO_COLOR": "1", "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}


def _ways(variables: Mapping[str, str]) -> dict[str, str]:
    passed = {name: value for name, value in variables.items() if _is_passed_on(name)}
    for other, name in _TRANSLATED.items():
        if other in variables:
            passed.setdefault(name, variables[other])
    passed.pop("UV_INDEX_URL", None)
    links = [link for link in variables.get("PIP_FIND_LINKS", "").split() if "://" in link or Path(link).is_dir()]
    if links:
        passed.setdefault("UV_FIND_LINKS", ",".join(links))
    return passed


def _index_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)


def expanded(text: str, settings: Mapping[str, str]) -> str:
    """An address with the settings that it names as `${NAME}`; a name that is not set stays."""
    return _VARIABLE.sub(lambda found: settings.get(found.group(1), found.group(0)), text)


def _secrets(values: Collection[str]) -> Iterator[str]:
    """What must not be told of such values: of an address the user, the password and tokens, of anything else all."""
    for value in (word for text in values for word in text.split()):
        address = urllib.parse.urlsplit(value.partition("=")[2] if "=" in value.partition("://")[0] else value)
        is_address = bool(address.scheme and address.netloc)
        tokens = [part for part in address.path.split("/") if len(part) >= _SHORTEST_TOKEN]
        for part in filter(None, (address.username, address.password, *tokens) if is_address else (value,)):
            yield from {one for one in (part, urllib.parse.unquote(part)) if len(one) >= _SHORTEST_SECRET}


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
    message = message.format(*found.groups())
    if "could not be built" in message and (library := missing_library(said)):
        message, hint = f"{message}: {library.words}", f"{library.command}, then: bulletproof deploy"
    return StepFailed("dependencies-failed", message, context=context, hint=hint)


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
