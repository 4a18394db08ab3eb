"""An errand: what a key that may do little asks for over SSH, read by an allow-list; what is not in it is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from bulletproof.errors import Refused

ENGINE_HOME = ".local/share/bulletproof/engine"
"""Where a host has its engines, from the home folder, in which sshd begins."""
ENGINE = f"{ENGINE_HOME}/current/bin/bulletproof"
CLIENT = "BULLETPROOF_CLIENT"
"""The environment variable by which a command line on another machine says who it is."""
GREETING = b"exec true"
"""What a client says to find out whether it is let in."""
LONGEST_LINE = 8192

_WORD = rb"[A-Za-z0-9@%+=:,./_-]+"
"""Characters that mean themselves to every shell; so no word of an errand is ever quoted."""
_LINE = re.compile(
    rb"exec env %s=([A-Za-z0-9_-]{1,4000}) %s((?: %s){1,40})" % (CLIENT.encode(), re.escape(ENGINE).encode(), _WORD)
)

_NUMBER = re.compile(r"[0-9]{1,7}")
_SECONDS = re.compile(r"[0-9]{1,5}(?:\.[0-9]{1,3})?")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,60}")
_PROCESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}")
_APP = re.compile(r"[a-z][a-z0-9-]{0,31}")


class Right(StrEnum):
    """What a key may be allowed to do."""

    DEPLOY = "deploy"
    PLAN = "plan"
    STATUS = "status"
    ROLLBACK = "rollback"


class _Form(msgspec.Struct, frozen=True, kw_only=True):
    """How a verb may be asked for."""

    rights: frozenset[Right]
    """Each of them is enough."""
    flags: frozenset[str] = frozenset()
    values: Mapping[str, re.Pattern[str]] = msgspec.field(default_factory=dict)
    """Options with a value, each at most once."""
    needed: frozenset[str] = frozenset({"--app"})
    argument: re.Pattern[str] | None = None
    """The one argument that it may have."""


def _form(
    *rights: Right,
    flags: Iterable[str] = (),
    values: Mapping[str, re.Pattern[str]] | None = None,
    needed: Iterable[str] = (),
    argument: re.Pattern[str] | None = None,
) -> _Form:
    return _Form(
        rights=frozenset(rights),
        flags=frozenset({"--json", *flags}),
        values={"--app": _APP, **(values or {})},
        needed=frozenset({"--app", *needed}),
        argument=argument,
    )


# Neither --root nor --database, which reach elsewhere on the host, nor --backup and --new-database, which decide over
# data; and a deployment is always of the bundle that is sent, never of a folder that lies there.
_FORMS: Mapping[str, _Form] = {
    "deploy": _form(
        Right.DEPLOY,
        flags=("--detach", "--allow-data-loss", "--allow-older"),
        values={"--bundle": _DIGEST, "--wait": _SECONDS},
        needed=("--bundle",),
    ),
    "plan": _form(
        Right.PLAN, flags=("--allow-data-loss", "--allow-older"), values={"--bundle": _DIGEST}, needed=("--bundle",)
    ),
    "rollback": _form(Right.ROLLBACK, flags=("--detach",), values={"--wait": _SECONDS}, argument=_RELEASE),
    "attach": _form(Right.DEPLOY, Right.ROLLBACK, argument=_NUMBER),
    "abort": _form(Right.DEPLOY, Right.ROLLBACK),
    "logs": _form(Right.DEPLOY, flags=("--follow", "--deployments"), values={"--lines": _NUMBER}, argument=_PROCESS),
    "status": _form(Right.STATUS),
    "releases": _form(Right.STATUS, flags=("--all",)),
    "check": _form(Right.STATUS, values={"--only": _PROCESS, "--format": re.compile(r"text|json|nagios|prometheus")}),
}


ERRANDS = frozenset(_FORMS)
"""Verbs that a key may be allowed. None of them needs a terminal, which such a key does not get."""


class Errand(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done."""

    client: str
    """What the command line on the other machine says of itself, as it came."""
    words: tuple[str, ...]
    """The verb, its options and its argument: all that it may be, and nothing else."""


def read_errand(line: bytes, rights: frozenset[Right], app: str) -> Errand:
    """The errand that a line of SSH asks for, for a key with these rights on this app.

    Raises Refused `key-refused` for everything else, in words that quote nothing of it.
    """
    if len(line) > LONGEST_LINE:
        raise refused(f"the command has more than {LONGEST_LINE} characters", rights, app)
    found = _LINE.fullmatch(line)
    if found is None:
        what = "a shell" if not line else "this command"
        raise refused(f"{what} is nothing that it may run", rights, app)
    words = tuple(found[2].decode("ascii").split())
    _judge(words, rights, app)
    return Errand(client=found[1].decode("ascii"), words=words)


def refused(why: str, rights: frozenset[Right], app: str) -> Refused:
    """The error for what a key may not do; it says what the key may do."""
    may = ", ".join(sorted(rights)) or "nothing"
    return Refused("key-refused", f"{why}; this key may: {may}, of {app}, by bulletproof --to")


def _judge(words: tuple[str, ...], rights: frozenset[Right], app: str) -> None:
    verb, *rest = words
    form = _FORMS.get(verb)
    if form is None or not form.rights & rights:
        raise refused("this verb is not among what it may do", rights, app)
    given: dict[str, str] = {}
    while rest and rest[0].startswith("-") and rest[0] != "--":
        name = rest.pop(0)
        if name in given or name not in {*form.flags, *form.values}:
            raise refused(f"{verb} was asked for with an option that it may not have", rights, app)
        given[name] = rest.pop(0) if name in form.values and rest else ""
        if name in form.values and not form.values[name].fullmatch(given[name]):
            raise refused(f"the value of {name} is not of the form that it may have", rights, app)
    _judge_argument(verb, rest, form, rights, app)
    if missing := form.needed - given.keys():
        raise refused(f"{verb} was asked for without {', '.join(sorted(missing))}", rights, app)
    if given["--app"] != app:
        raise refused("another app was named", rights, app)


def _judge_argument(verb: str, rest: list[str], form: _Form, rights: frozenset[Right], app: str) -> None:
    if not rest:
        return
    is_fit = len(rest) == 2 and rest[0] == "--" and form.argument and form.argument.fullmatch(rest[1])  # noqa: PLR2004
    if not is_fit:
        raise refused(f"{verb} was asked for with an argument that it may not have", rights, app)
