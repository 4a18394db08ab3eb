"""Destroy: the app is gone from the host, its data set aside."""

from __future__ import annotations

from bulletproof.domain.deployment import Kind
from bulletproof.effects import durable
from bulletproof.operations.activate import Result, Session, stop


def destroy(session: Session) -> Result:
    """Stop and remove the app; at last its journal and lock, when all that they guard is gone."""
    result = stop(session, Kind.DESTROY)
    durable.remove_tree(session.host.layout.state)
    return result
