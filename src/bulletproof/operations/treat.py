"""What `doctor --fix` does: the remedies of all diagnoses, by deployments of which each can be undone."""

from __future__ import annotations

from collections.abc import Callable

from bulletproof.domain.deployment import Kind, Outcome
from bulletproof.domain.doctor import Treatment
from bulletproof.operations.activate import Result, Session, activate, recover, repair, serving
from bulletproof.operations.attempt import Order
from bulletproof.operations.change_settings import change_settings


def treat(session: Session, wanted: Treatment, tell: Callable[[Result], None]) -> bool:
    """Do it, and tell of each deployment how it ended; whether all went well.

    What follows one that failed is left: a restart on what could not be mended would help nobody. Raises NeedsPerson
    when the host could not be made whole.
    """
    recover(session)
    for act in _acts(session, wanted):
        result = act(session)
        tell(result)
        if result.outcome is not Outcome.DEPLOYED:
            return False
    return True


def _acts(session: Session, wanted: Treatment) -> list[Callable[[Session], Result]]:
    acts: list[Callable[[Session], Result]] = []
    if not wanted.repairs.is_empty:
        acts.append(lambda one: repair(one, wanted.repairs))
    if wanted.changes_settings:
        acts.append(lambda one: change_settings(one, dict(wanted.set_values), wanted.unset_names))
    elif wanted.restarts and session.journal.wants_running():
        acts.append(_restart)
    return acts


def _restart(session: Session) -> Result:
    """New processes beside those that serve, or a start where none does."""
    is_served = serving(session.host, session.journal) is not None
    return activate(session, Order(kind=Kind.RESTART if is_served else Kind.START))
