"""A verb with `--to`: not done here, but handed as it was typed to the engine on the host, over the person's ssh."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

import click
import msgspec
from click.core import ParameterSource

from bulletproof import __version__
from bulletproof.cli.actions import SUMMARISED, is_in_actions, summary_file, summary_output
from bulletproof.cli.client import Client, as_word
from bulletproof.cli.unwatched import connection_lost, tell_silent, tell_stopped
from bulletproof.cli.whence import account
from bulletproof.domain.address import find_address
from bulletproof.domain.config import AppConfig
from bulletproof.domain.errand import CLIENT, ENGINE, ERRANDS
from bulletproof.domain.origin import claims
from bulletproof.effects.interrupts import Interrupted, Interrupts
from bulletproof.effects.project import find_project
from bulletproof.effects.ssh import SshHost
from bulletproof.errors import Refused, UsageError

TO = "bulletproof.to"
"""Where the chosen host is kept in click's context, whether it was named before or behind the verb."""

_PLACES = frozenset({"verb_root", "app_name"})
"""Parameters that say which app on which root; what is sent of them is decided here."""
_INTERRUPTED = 130
_BELONGS_TO_HOST = "wait_seconds"
"""The parameter of every verb that takes the deployment lock."""


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """What is handed to the host of a verb."""

    words: tuple[str, ...]
    """The verb, its options and arguments, without those that name the app and the root."""
    given: IO[bytes] | None = None
    """Its standard input."""
    in_terminal: bool = False
    """Whether it talks with the person itself."""
    app: str = ""
    """The app, when it is in the parcel already and need not be named."""


Packing = Callable[[click.Context], AbstractContextManager[Parcel]]


def remember_host(context: click.Context, _: click.Parameter, value: str | None) -> None:
    """Keep `--to` for the verb."""
    if value is not None:
        context.meta[TO] = value


def host_of(context: click.Context) -> SshHost | None:
    """The host that `--to` names, None for this machine. Raises UsageError `host-malformed`."""
    wish = context.meta.get(TO)
    if wish is None:
        return None
    config = _config()
    return SshHost(find_address(wish, config.hosts if config else {}))


def hand_over(context: click.Context, host: SshHost, packing: Packing | None) -> NoReturn:
    """Let the host do the verb, show what it says, and end with its exit code.

    Raises Refused in words when the host cannot be reached, or the connection breaks.
    """
    _connect(host)
    is_sent, verb, summary = False, context.info_name or "", _summary_of(context)
    try:
        with Interrupts(), (packing or as_typed)(context) as parcel, summary_output(summary) as said:
            is_sent = True
            argv = (*engine_words(host, has_summary=said is not None), *_place(context, parcel))
            status = host.run(argv, given=parcel.given, said=said, in_terminal=parcel.in_terminal)
            if said is not None and status != 0 and os.fstat(said.fileno()).st_size == said.tell():
                tell_silent(host.address.called, verb, status)
    except Interrupted:
        if is_sent and _BELONGS_TO_HOST in context.params:
            tell_stopped(host.address.called, verb)
        else:
            click.echo("\ninterrupted; nothing was changed by this command", err=True)
        sys.exit(_INTERRUPTED)
    except Refused as error:
        if error.reference == "connection-lost" and _BELONGS_TO_HOST in context.params:
            raise connection_lost(host.address.called, error, verb) from error
        raise
    sys.exit(status)


def _connect(host: SshHost) -> None:
    """Be connected. Raises Refused in words that tell that nothing was begun there."""
    try:
        host.connect()
    except Refused as error:
        words = f"{error.message}; nothing was begun there, and what serves is what served before"
        raise Refused(error.reference, words, hint=error.hint, context=error.context) from error


@contextmanager
def as_typed(context: click.Context) -> Iterator[Parcel]:
    """The verb with the words that were typed; in a terminal when we are in one and it may talk with the person."""
    is_terminal = all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
    is_talk = context.info_name not in ERRANDS and _BELONGS_TO_HOST not in context.params
    yield Parcel(words=words_of(context), in_terminal=is_terminal and is_talk)


def words_of(context: click.Context, *, without: Collection[str] = ()) -> tuple[str, ...]:
    """The verb and what was typed with it, again as words, but for the parameters `without`.

    What has its default is left out, since the host's may differ.
    """
    options: list[str] = []
    arguments: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        is_typed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if not is_typed or name in _PLACES or name in without or not parameter.expose_value:
            continue
        value = context.params[name]
        if isinstance(parameter, click.Option):
            options += _option_words(parameter, value)
        else:
            arguments += map(str, value) if parameter.nargs != 1 else [str(value)]
    return (*_names(context), *options, *(("--", *arguments) if arguments else ()))


@contextmanager
def in_memory(content: bytes) -> Iterator[IO[bytes]]:
    """A standard input of this content, which has no name on any disk."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        yield file


def _option_words(option: click.Option, value: Any) -> list[str]:  # noqa: ANN401  whatever its type makes of it
    name = max(option.opts, key=len)
    if option.is_flag:
        if value == (True if option.is_bool_flag else option.flag_value):
            return [name]
        return [option.secondary_opts[0]] if option.secondary_opts and value is False else []
    if option.count:
        return [name] * int(value)
    values = value if option.multiple else [value]
    return [word for one in values for word in (name, *(map(str, one) if option.nargs != 1 else [str(one)]))]


def _names(context: click.Context) -> list[str]:
    """The words that lead to the command: `env set`."""
    names: list[str] = []
    here: click.Context | None = context
    while here is not None and here.parent is not None:
        names.insert(0, here.info_name or "")
        here = here.parent
    return names


def _place(context: click.Context, parcel: Parcel) -> tuple[str, ...]:
    """The words with the root, when one was typed, and the app behind the verb's names."""
    names = len(_names(context))
    app = context.params.get("app_name") or ""
    if not app and not parcel.app:
        config = _config()
        app = config.name if config else find_project(Path.cwd()).config.name
    return (*root_words(context), *parcel.words[:names], *(("--app", app) if app else ()), *parcel.words[names:])


def root_words(context: click.Context) -> tuple[str, ...]:
    """The root on the host, which is typed; ours from the environment is none of its business."""
    typed = context.params.get("verb_root")
    top = context.find_root()
    if typed is None and top.get_parameter_source("root") is ParameterSource.COMMANDLINE:
        typed = top.params.get("root")
    return ("--root", str(typed)) if typed else ()


def _summary_of(context: click.Context) -> Path | None:
    """Where the standard output of the verb goes when it is a summary, and no data for whoever called us."""
    is_data = context.info_name not in SUMMARISED or context.params.get("as_json")
    return None if is_data else summary_file()


def engine_words(host: SshHost, *, has_summary: bool = False) -> tuple[str, ...]:
    """The engine there, told who gives the order."""
    by, run = claims(os.environ, account())
    client = Client(
        version=__version__,
        host=host.address.called,
        is_live=sys.stderr.isatty() and not is_in_actions(),
        is_in_actions=is_in_actions(),
        has_summary=has_summary,
        by=by,
        run=run,
    )
    return ("env", f"{CLIENT}={as_word(client)}", ENGINE)


def _config() -> AppConfig | None:
    """The configuration of the project that we stand in, None where there is none. Raises UsageError for a bad one."""
    try:
        return find_project(Path.cwd()).config
    except UsageError as error:
        if error.reference == "config-missing":
            return None
        raise
