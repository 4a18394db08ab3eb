"""Settings: changed by a deployment of the live release, so that they take effect without a dropped request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TextIO

import msgspec

from bulletproof.domain.deployment import Kind
from bulletproof.domain.settings import RESERVED, changed
from bulletproof.errors import UsageError
from bulletproof.operations.activate import Result, Session, activate, nothing_to_do, recover
from bulletproof.operations.attempt import Order

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def change_settings(session: Session, values: Mapping[str, str], removed: tuple[str, ...]) -> Result:
    """Set and unset settings; an app that serves gets new processes with them, a stopped one gets them at its start.

    Raises UsageError for a name that is not set.
    """
    recover(session)
    store = session.host.settings
    today = store.today()
    unknown = [name for name in removed if name not in today]
    if unknown:
        raise UsageError("setting-unknown", f"{', '.join(unknown)} is not set", hint="bulletproof env list")
    live = session.journal.live()
    if live is not None and session.journal.wants_running():
        return activate(session, Order(kind=Kind.SETTINGS, set_values=values, unset_names=removed))
    store.write(changed(today, values, removed))
    if live is not None and removed:
        # The next start must not miss what a person took away on purpose.
        store.freeze(live.number, changed(store.frozen(live.number), {}, removed))
    return nothing_to_do(None, "stored; the next start takes it")


def read_assignments(assignments: tuple[str, ...], stdin: TextIO) -> dict[str, str]:
    """NAME=VALUE words as settings; the value `-` is read from standard input.

    Raises UsageError, which never tells a value.
    """
    if not assignments:
        raise UsageError("setting-malformed", "no setting is named", hint="bulletproof env set NAME=VALUE")
    values = {}
    for assignment in assignments:
        name, separator, value = assignment.partition("=")
        if not separator or not _NAME.fullmatch(name):
            raise UsageError(
                "setting-malformed",
                f"{name if _NAME.fullmatch(name) else 'an argument'} is not of the form NAME=VALUE",
                hint="bulletproof env set NAME=VALUE",
            )
        values[name] = stdin.read().removesuffix("\n") if value == "-" else value
    return _checked(values)


def read_values(stdin: TextIO) -> dict[str, str]:
    """Settings as a command line on another machine sends them: a JSON object. Raises UsageError as above."""
    try:
        values = msgspec.json.decode(stdin.read(), type=dict[str, str])
    except msgspec.MsgspecError as error:
        raise UsageError("setting-malformed", "the settings did not arrive whole; nothing was set") from error
    if not values or not all(map(_NAME.fullmatch, values)):
        raise UsageError("setting-malformed", "what arrived is no list of settings; nothing was set")
    return _checked(values)


def _checked(values: dict[str, str]) -> dict[str, str]:
    for name, value in values.items():
        if name.startswith(RESERVED):
            raise UsageError("setting-reserved", f"names that begin with {RESERVED} are Bulletproof's own")
        if "\0" in value:
            raise UsageError("setting-malformed", f"the value of {name} holds a zero byte")
    return values
