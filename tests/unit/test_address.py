"""Where a host is, as a person writes it: never an option of ssh, and each part where it belongs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.domain.address import Address, find_address
from bulletproof.domain.toml import parse
from bulletproof.errors import UsageError

_HOSTS = {"prod": "deploy@example.org", "v6": "ada@[2001:db8::1]:2222"}


@pytest.mark.parametrize(
    ("wish", "host", "user", "port"),
    [
        ("example.org", "example.org", "", None),
        ("deploy@example.org", "example.org", "deploy", None),
        ("deploy@example.org:2222", "example.org", "deploy", 2222),
        ("an_alias", "an_alias", "", None),
        ("[::1]:22", "::1", "", 22),
        ("prod", "example.org", "deploy", None),
        ("v6", "2001:db8::1", "ada", 2222),
    ],
)
def test_an_address_has_its_parts(wish: str, host: str, user: str, port: int | None) -> None:
    """A name of [hosts] means its address; what was typed is kept for hints."""
    assert find_address(wish, _HOSTS) == Address(called=wish, host=host, user=user, port=port)


@pytest.mark.parametrize(
    "wish",
    [
        "",
        "-oProxyCommand=x",
        "a@-oProxyCommand=x",
        "-l@example.org",
        "a b",
        "a@b:0",
        "a@b:65536",
        "a@b:x",
        "a\n",
        "a@b@c",
    ],
)
def test_what_is_no_address_is_refused_with_the_names_that_are_known(wish: str) -> None:
    """Whatever ssh could take for something else is refused before ssh is asked."""
    with pytest.raises(UsageError) as refused:
        find_address(wish, _HOSTS)

    assert refused.value.reference == "host-malformed"
    assert "prod, v6" in refused.value.message


@given(st.text(max_size=40))
def test_no_text_becomes_an_option_of_ssh(wish: str) -> None:
    """Neither host nor user ever begins with a dash or has a blank in it."""
    try:
        found = find_address(wish, {})
    except UsageError:
        return
    for part in (found.host, found.user):
        assert not part.startswith("-")
        assert not any(sign.isspace() or not sign.isprintable() for sign in part)


def test_the_configuration_knows_hosts_by_name() -> None:
    """`[hosts]` is a table of names that a person chooses."""
    config = parse('name = "shop"\n[hosts]\nprod = "deploy@example.org"\n"eu.1" = "[::1]:22"\n')

    assert config.hosts == {"prod": "deploy@example.org", "eu.1": "[::1]:22"}


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ('prod = "-oProxyCommand=x"', ":3:8:", "must be [USER@]HOST[:PORT]"),
        ("prod = 3", ":3:8:", "must be [USER@]HOST[:PORT]"),
        ('"a b" = "example.org"', ":3:1:", "must be named with at most 63 letters"),
    ],
)
def test_a_bad_host_is_told_with_its_place(text: str, place: str, words: str) -> None:
    """Line and column, and what it must be."""
    with pytest.raises(UsageError) as refused:
        parse(f'name = "shop"\n[hosts]\n{text}\n')

    assert place in refused.value.message
    assert words in refused.value.message
