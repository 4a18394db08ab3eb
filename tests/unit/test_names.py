"""Names of apps become parts of paths, and no app's path lies in another's or in Bulletproof's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulletproof.domain.layout import SOCKET_PATH_BYTES, Layout, runtime_folder
from bulletproof.domain.toml import parse
from bulletproof.errors import UsageError


@pytest.mark.parametrize("name", ["bulletproof", "bulletproof-set-aside", "a", "-a", "a-", "A", "a/b", "..", "a" * 33])
def test_a_name_that_could_harm_is_refused(name: str) -> None:
    """Bulletproof's own names, and all that is no plain word of at most 32 characters."""
    with pytest.raises(UsageError):
        parse(f"name = {name!r}", "bulletproof.toml")


@pytest.mark.parametrize("name", ["ab", "shop-2", "bulletproof-shop", "a" * 32])
def test_a_plain_name_is_taken(name: str) -> None:
    """Letters, digits and dashes."""
    assert parse(f"name = {name!r}", "bulletproof.toml").name == name


def test_no_folder_of_an_app_holds_another_app() -> None:
    """What is removed or set aside with one app is nobody else's."""
    one, two = (Layout(Path("/r"), name, Path("/r/run/bulletproof")) for name in ("one", "one-more"))
    for mine in (one.home, one.data, one.state, one.logs, one.sockets, one.environment.parent):
        for others in (two.home, two.data, two.state, two.logs, two.sockets, two.environment, one.set_aside, one.cache):
            assert not others.is_relative_to(mine)


@pytest.mark.parametrize("length", [1, 40, 60, 80, 200, 1000])
def test_sockets_can_be_bound_below_any_root(length: int) -> None:
    """However long the root, the longest path of a socket fits; and each root has a folder of its own."""
    root = Path("/" + "r" * length)
    layout = Layout(root, "a" * 32, runtime_folder(root, 4294967295))

    assert len(bytes(layout.web_socket(9999999))) <= SOCKET_PATH_BYTES
    assert len(bytes(layout.supervisor_socket)) <= SOCKET_PATH_BYTES
    assert runtime_folder(root, 1) != runtime_folder(Path(f"{root}x"), 1)
