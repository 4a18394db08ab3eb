"""What uv is told of a person's environment, and what its failures are in plain words."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulletproof.domain.settings import for_app
from bulletproof.effects.uv import Uv, environment, failure


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            "error: No solution found\n  cause: Because nosuch was not found in the package registry and you require",
            "requirement `nosuch` does not exist in the package index",
        ),
        (
            "  x No solution found:\n  ╰─▶ Because there is no version of\n      flask==99 and you",
            "the package index has no version of `flask==99`",
        ),
        (
            "Because only flask<=3.1 is available and you require flask>9, we can",
            "the package index has no version of `flask>9`",
        ),
        ("error: Failed to fetch: `https://x/`\n cause: error sending request", "the package index is not reachable"),
        (
            "Because x was not found in the cache\nhint: the network was disabled. When the network is disabled",
            "the package index is not reachable",
        ),
        (
            "error: Failed to fetch: `https://x/`\n  HTTP status client error (401 Unauthorized) for url",
            "the package index refused us with status 401",
        ),
        (
            "error: Failed to download `a==1`\n cause: Hash mismatch for `a==1`",
            "requirement `a==1` is not what its hash says",
        ),
        ("  x Failed to build `lxml==5`\n  ├─▶ The build backend returned", "requirement `lxml==5` could not be built"),
        ("  x Failed to download and build `lxml==5`", "requirement `lxml==5` could not be built"),
        ("error: Failed to install: `a==1`", "requirement `a==1` could not be installed"),
        (
            "error: Couldn't parse requirement in `requirements.txt` at",
            "`requirements.txt` has a line that is no requirement",
        ),
        ("error: something new", "the app's packages could not be installed"),
    ],
)
def test_a_failure_of_uv_names_its_cause(said: str, message: str) -> None:
    """Each kind of failure is one sentence; uv's own words are the context, whatever they are."""
    error = failure(said)
    assert (error.reference, error.message) == ("dependencies-failed", message)
    assert error.context == tuple(line.rstrip() for line in said.splitlines())
    is_network = message in {"the package index is not reachable", "the package index refused us with status 401"}
    assert ("network" in error.hint) == is_network


@pytest.mark.parametrize(
    "said", ["cause: No space left on device (os error 28)", "Disk quota\nexceeded (os error 122)"]
)
def test_a_full_disk_is_no_fault_of_the_requirements(said: str) -> None:
    """A full disk is told as such, whatever uv was doing."""
    assert failure(f"error: Failed to install: `a==1`\n{said}").reference == "disk-full"


def test_the_ways_to_packages_are_passed_on_and_nothing_else(tmp_path: Path) -> None:
    """Proxies, certificates and indexes count, pip's too; what aims at another environment or Python does not."""
    kept = {"PATH": "/bin", "https_proxy": "http://p", "SSL_CERT_FILE": "/c", "UV_INDEX_MINE_PASSWORD": "x"}
    dropped = {"VIRTUAL_ENV": "/v", "UV_PYTHON": "3.8", "UV_CACHE_DIR": "/e", "PYTHONPATH": "/e", "SECRET_KEY": "s"}
    pip = {"PIP_INDEX_URL": "https://i", "PIP_EXTRA_INDEX_URL": "https://j", "PIP_CERT": "/other"}
    links = {"PIP_FIND_LINKS": f"{tmp_path} /nonexistent https://w"}
    assert environment({**kept, **dropped, **pip, **links}) == {
        **kept,
        "UV_DEFAULT_INDEX": "https://i",
        "UV_EXTRA_INDEX_URL": "https://j",
        "UV_FIND_LINKS": f"{tmp_path},https://w",
        "NO_COLOR": "1",
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
    }
    assert environment({"UV_DEFAULT_INDEX": "https://u", **pip})["UV_DEFAULT_INDEX"] == "https://u"


def test_settings_of_the_app_that_lead_to_packages_come_before_our_environment() -> None:
    """An index from the settings counts, in pip's words too; uv gets nothing else of them, and the app not those."""
    ours = {"UV_DEFAULT_INDEX": "https://theirs", "UV_INDEX_CORP_PASSWORD": "old"}
    settings = {"PIP_INDEX_URL": "https://app", "UV_INDEX_CORP_PASSWORD": "new", "SECRET_KEY": "s", "PATH": "/evil"}
    found = environment(ours, settings)
    assert (found["UV_DEFAULT_INDEX"], found["UV_INDEX_CORP_PASSWORD"]) == ("https://app", "new")
    assert not {"SECRET_KEY", "PATH", "PIP_INDEX_URL"} & found.keys()
    assert environment(ours, {"UV_INDEX_URL": "https://app"})["UV_DEFAULT_INDEX"] == "https://app"
    assert for_app(settings) == {"SECRET_KEY": "s", "PATH": "/evil"}


def test_what_the_settings_hold_in_secret_is_taken_out_of_uvs_words(tmp_path: Path) -> None:
    """Passwords, users, tokens in a path, and the variables that the list names; also any user in any address."""
    settings = {
        "PIP_EXTRA_INDEX_URL": "https://joe-user:p%40ssword@corp.example/simple https://corp.example/a1b2c3d4e5f6/simple",
        "UV_INDEX_CORP_PASSWORD": "hunter2hunter2",
        "TOKEN": "t0ken-value",
        "OTHER": "is-no-business-of-uv",
    }
    uv = Uv(program="uv", cache=tmp_path, settings=settings, variables=frozenset({"TOKEN"}))
    said = (
        "failed: https://joe-user:p%40ssword@corp.example/simple/x p@ssword https://corp.example/a1b2c3d4e5f6/simple/x "
        "hunter2hunter2 t0ken-value http://me:mine@elsewhere/"
    )
    told = uv.without_secrets(said)
    for secret in ("joe-user", "p%40ssword", "p@ssword", "a1b2c3d4e5f6", "hunter2", "t0ken", "me:mine"):
        assert secret not in told
    assert "corp.example" in told
    assert "simple/x" in told
    assert "hunter2" not in repr(uv)
