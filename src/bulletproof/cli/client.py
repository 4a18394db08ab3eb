"""Who gives the orders when they come over SSH: the command line on another machine, and how it calls this host."""

from __future__ import annotations

import base64
import os
import re
from typing import Annotated

import click
import msgspec
from msgspec import Meta

from bulletproof import __version__
from bulletproof.domain.errand import CLIENT
from bulletproof.domain.versions import fit, is_older
from bulletproof.errors import UsageError

_Plain = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)", max_length=300)]

_COMMAND = re.compile(r"\bbulletproof (?=[a-z])")


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """A command line on another machine."""

    version: Annotated[str, Meta(pattern=r"^[0-9][0-9A-Za-z.+]{0,60}$(?!\n)")]
    host: _Plain
    """How it calls this host."""
    is_live: bool = False
    """Whether its person looks at a terminal."""
    is_in_actions: bool = False
    """Whether what we say goes into the log of GitHub Actions."""
    has_summary: bool = False
    """Whether our standard output goes into the summary of a job there."""
    by: _Plain = ""
    """Whom it works for, as it says."""
    run: _Plain = ""
    """The address of the run that it is part of, as it says."""


def our_client() -> Client | None:
    """The client that we work for; None when a person typed the command on this very machine.

    Raises UsageError `client-odd` when what it says of itself cannot be understood.
    """
    told = os.environ.get(CLIENT)
    return client_in(told) if told else None


def as_word(client: Client) -> str:
    """What a client says of itself, as a word in which no shell finds anything to change."""
    return base64.urlsafe_b64encode(msgspec.json.encode(client)).decode().rstrip("=")


def client_in(word: str) -> Client:
    """The client that a word of `as_word` tells of. Raises UsageError `client-odd`."""
    try:
        told = base64.urlsafe_b64decode(word + "=" * (-len(word) % 4))
        return msgspec.json.decode(told, type=Client)
    except (msgspec.MsgspecError, ValueError) as error:
        raise UsageError("client-odd", f"the other machine's command line cannot be understood: {error}") from error


def admit(context: click.Context) -> None:
    """Let in a client that fits, and show it colours when its person looks at a terminal. Raises UsageError."""
    client = our_client()
    if client is not None:
        require_fit(client)
        context.color = client.is_live or None


def require_fit(client: Client) -> None:
    """Raise UsageError `engine-older` or `engine-newer` when this engine and the client cannot work together."""
    if fit(client.version, __version__):
        return
    both = f"the engine on {client.host} is {__version__}, and this command line is {client.version}"
    if is_older(__version__, client.version):
        raise UsageError("engine-older", f"{both}; they do not fit", hint="bulletproof setup")
    hint = f"uv tool install 'bulletproof=={__version__}' (or pip install), then again"
    raise UsageError("engine-newer", f"{both}; they do not fit", hint=hint)


def typed_there(hint: str) -> str:
    """A hint as the client's person has to type it."""
    client = our_client()
    return _COMMAND.sub(f"bulletproof --to {client.host} ", hint) if client else hint
