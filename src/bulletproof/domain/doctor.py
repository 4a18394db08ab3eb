"""What `doctor` says: what is wrong, why, and what mends it, by us or by a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from bulletproof.domain.check import State
from bulletproof.domain.repair import Change, Repairs


class Remedy(msgspec.Struct, frozen=True, kw_only=True):
    """What `doctor --fix` does about something; nothing where only a person can."""

    words: str = ""
    """In a few words, after "would"; empty when a person has to do it."""
    changes: tuple[Change, ...] = ()
    rebuilds: tuple[str, ...] = ()
    releases: tuple[str, ...] = ()
    has_cache: bool = False
    logs: tuple[str, ...] = ()
    set_values: Mapping[str, str] = msgspec.field(default_factory=dict)
    unset_names: tuple[str, ...] = ()
    recovers: bool = False
    restarts: bool = False
    """Whether the live release gets new processes, or is started."""
    backs_up: bool = False


NOBODY = Remedy()
"""A person has to do it."""


class Ill(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is not as it should be."""

    words: str
    """In one sentence."""
    why: str = ""
    """The reason, as far as it can be told."""
    state: State | None = None
    """When it is not the diagnosis' own."""
    remedy: Remedy = NOBODY
    command: str = ""
    """What a person types."""
    more: tuple[str, ...] = ()
    """Lines to look at, such as what takes how much of the disk."""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """An ill, by the name of what it was found by."""

    name: str
    state: State
    ill: Ill


class Treatment(msgspec.Struct, frozen=True, kw_only=True):
    """All remedies together, in the order in which they are done: as few deployments as possible."""

    recovers: bool
    repairs: Repairs
    set_values: Mapping[str, str]
    unset_names: tuple[str, ...]
    restarts: bool
    """Not needed where settings change: that gives new processes as well."""
    backs_up: bool

    @property
    def changes_settings(self) -> bool:
        """Whether a deployment with other settings is needed."""
        return bool(self.set_values or self.unset_names)


def treatment(remedies: Sequence[Remedy]) -> Treatment:
    """What is done about all of them."""
    return Treatment(
        recovers=any(one.recovers for one in remedies),
        repairs=Repairs(
            changes=tuple(dict.fromkeys(change for one in remedies for change in one.changes)),
            rebuilds=_once(one.rebuilds for one in remedies),
            releases=_once(one.releases for one in remedies),
            has_cache=any(one.has_cache for one in remedies),
            logs=_once(one.logs for one in remedies),
        ),
        set_values={name: value for one in remedies for name, value in one.set_values.items()},
        unset_names=_once(one.unset_names for one in remedies),
        restarts=any(one.restarts for one in remedies),
        backs_up=any(one.backs_up for one in remedies),
    )


def _once(names: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for some in names for name in some))


NEEDS_PERSON = 4


def exit_code(left: Sequence[Diagnosis], *, was_mended: bool) -> int:
    """0 when all is well; otherwise as `check` has it, and 4 when we tried and what is critical needs a person."""
    states = {one.state for one in left}
    if was_mended and any(one.state is State.CRITICAL and not one.ill.remedy.words for one in left):
        return NEEDS_PERSON
    for state in (State.CRITICAL, State.WARNING, State.UNKNOWN):
        if state in states:
            return int(state)
    return 0
