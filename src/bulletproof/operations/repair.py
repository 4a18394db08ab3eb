"""The steps of a repair: what is changed can be taken back; what is removed goes only once all else is well."""

from __future__ import annotations

from bulletproof.domain.repair import Note, Repairs, Text
from bulletproof.errors import StepFailed
from bulletproof.operations.attempt import Attempt


def mend(attempt: Attempt) -> str:
    """Owners, modes and files are as they are to be; how they were is on disk before."""
    repairs, mender = attempt.ordered.repairs, attempt.host.mender
    mender.keep(attempt.number, Note(before=mender.found(repairs.changes), repairs=repairs))
    for change in repairs.changes:
        mender.make(change)
    if any(isinstance(change, Text) for change in repairs.changes):
        attempt.host.reread()
    return "\n".join(change.path for change in repairs.changes)


def unmend(attempt: Attempt) -> None:
    """They are as they were."""
    note = attempt.host.mender.kept(attempt.number)
    if note is None:
        return
    for change in reversed(note.before):
        attempt.host.mender.make(change)
    if any(isinstance(change, Text) for change in note.before):
        attempt.host.reread()
    attempt.host.mender.forget(attempt.number)


def rebuild(attempt: Attempt) -> str:
    """The damaged releases are built anew beside themselves, and whole."""
    host, names = attempt.host, attempt.ordered.repairs.rebuilds
    for name in names:
        host.releases.rebuild(name, attempt.number, host.settings.today())
    return ", ".join(names)


def discard_rebuilt(attempt: Attempt) -> None:
    """Nothing is left of them."""
    for name in _repairs(attempt).rebuilds:
        attempt.host.releases.discard_rebuilt(name, attempt.number)


def exchange(attempt: Attempt) -> str:
    """Each release is the one that was built anew, from one instant on."""
    names = attempt.ordered.repairs.rebuilds
    for name in names:
        attempt.host.releases.exchange(name, attempt.number)
        if bad := attempt.host.mender.damage(name):
            words = f"release {name} is not whole although it was built anew: {', '.join(bad[:3])}"
            raise StepFailed("release-damaged", words, hint="dmesg | tail, and smartctl -a: the disk may be failing")
    return ", ".join(names)


def exchange_back(attempt: Attempt) -> None:
    """Each is the one that it was."""
    for name in _repairs(attempt).rebuilds:
        attempt.host.releases.exchange_back(name, attempt.number)


def tidy(attempt: Attempt) -> str:
    """What was replaced, and what can be made again, is removed; long logs begin anew."""
    host, repairs = attempt.host, _repairs(attempt)
    for name in repairs.rebuilds:
        host.releases.discard_rebuilt(name, attempt.number)
    for name in repairs.releases:
        host.releases.discard(name)
    if repairs.has_cache:
        host.releases.empty_cache()
    for log in repairs.logs:
        host.mender.rotate(log)
    host.mender.forget(attempt.number)
    told = (*(f"{name} removed" for name in repairs.releases), *("cache emptied" for _ in range(repairs.has_cache)))
    return "\n".join((*told, *(f"{log} rotated" for log in repairs.logs)))


def _repairs(attempt: Attempt) -> Repairs:
    """What is repaired, by the note; nothing when it was not written yet, or is done."""
    note = attempt.host.mender.kept(attempt.number)
    return note.repairs if note else Repairs()
