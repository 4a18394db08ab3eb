"""A verb with `--to` reaches the host with the words that were typed, whichever verb it is."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
from click.core import ParameterSource
from hypothesis import given, settings
from hypothesis import strategies as st

from bulletproof.cli.afar import words_of
from bulletproof.cli.client import Client, as_word, require_fit, typed_there
from bulletproof.cli.main import VERBS, bulletproof
from bulletproof.domain.versions import fit
from bulletproof.effects.ssh import _for_shell
from bulletproof.errors import UsageError


def _parsed(words: list[str]) -> click.Context:
    """The context in which a verb would be called, without calling it."""
    context = bulletproof.make_context("bulletproof", list(words))
    command: click.Command = bulletproof
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        command, context = found, found.make_context(name, rest, parent=context)
    return context


def _typed(context: click.Context) -> dict[str, Any]:
    return {
        name: value
        for name, value in context.params.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


@pytest.mark.parametrize(
    "line",
    [
        "status --json",
        "rollback 3-abc --allow-data-loss --wait 3 --json",
        "rollback",
        "restart --detach --wait=0.5",
        "deploy v1 --worktree --database /srv/app.db --allow-data-loss",
        "logs web -f -n 3 --access",
        "logs --deployments",
        "releases --all",
        "env unset A B --json",
        "attach 7",
        "abort --json",
        "destroy --yes",
        "run -- python -c print(1) --to x --json",
        "run -- -x -- y",
    ],
)
def test_the_words_mean_the_same_again(line: str) -> None:
    """What is sent is understood as what was typed."""
    context = _parsed(line.split())

    again = _parsed(list(words_of(context)))

    assert again.command is context.command
    assert _typed(again) == _typed(context)
    assert _typed(context) or line == "rollback"


def test_root_app_and_host_are_not_among_the_words() -> None:
    """Which app on which root is decided once, and the host does not need its own name."""
    context = _parsed(["--root", "/a", "status", "--to", "prod", "--app", "shop", "--root", "/b", "--json"])

    assert words_of(context) == ("status", "--json")


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_takes_a_host_or_says_that_it_does_not(name: str) -> None:
    """No verb is quietly done here when a host was named."""
    command = bulletproof.get_command(click.Context(bulletproof), name)
    assert command is not None
    leaves = command.commands.values() if isinstance(command, click.Group) else [command]
    for leaf in leaves:
        takes = any("--to" in parameter.opts for parameter in leaf.params)
        assert takes or name in {"init", "demo", "serve", "handout", "ci", "dev"}


def test_a_verb_of_this_machine_refuses_a_host() -> None:
    """`init` looks at a folder that lies here."""
    with pytest.raises(click.UsageError, match="init is done here only"):
        bulletproof(["--to", "prod", "init"], standalone_mode=False)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_a_shell_changes_no_word(words: list[str]) -> None:
    """Quotes, blanks, dollars, line ends and stars arrive as they were typed."""
    line = _for_shell(["printf", "%s\\0", *words])

    said = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=True).stdout

    assert said.decode().split("\0")[:-1] == words


@pytest.mark.parametrize(
    ("one", "other", "does"),
    [("1.2.3", "1.2.9", True), ("1.2.0", "1.3.0", False), ("1.2", "2.2", False), ("0.1.0", "0.1.0.dev1", True)],
)
def test_versions_fit_by_their_first_two_numbers(one: str, other: str, does: bool) -> None:  # noqa: FBT001
    """A correction never needs a set-up."""
    assert fit(one, other) is does


@pytest.mark.parametrize(
    ("version", "reference", "hint"),
    [("0.0.9", "engine-newer", "pip install"), ("9.0.0", "engine-older", "bulletproof setup")],
)
def test_a_client_that_does_not_fit_is_told_what_helps(version: str, reference: str, hint: str) -> None:
    """Both versions, and the command that brings the older one to the newer."""
    with pytest.raises(UsageError) as refused:
        require_fit(Client(version=version, host="prod"))

    assert refused.value.reference == reference
    assert version in refused.value.message
    assert hint in refused.value.hint


def test_hints_name_the_host_where_the_client_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an engine says is typed on another machine."""
    assert typed_there("bulletproof status") == "bulletproof status"
    monkeypatch.setenv("BULLETPROOF_CLIENT", as_word(Client(version="0.1.0", host="prod")))
    assert typed_there("correct that, then: bulletproof deploy") == "correct that, then: bulletproof --to prod deploy"
    assert typed_there(f"look at {Path('/x')}") == "look at /x"
