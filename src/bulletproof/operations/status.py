"""Status: what runs now and what happened before, read without changing anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from http import HTTPStatus

import msgspec

from bulletproof.domain.deployment import Live, earlier_release
from bulletproof.domain.process import PROXY, RELAY, Phase, ProcessState, web_name
from bulletproof.effects import lock
from bulletproof.effects.processes import Family, family_of
from bulletproof.engine.journal import Entry, Journal
from bulletproof.errors import StepFailed
from bulletproof.operations.workers import look
from bulletproof.ports import Host

_PATIENCE_SECONDS = 2.0
"""A site that takes longer to answer is not looked upon as serving."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """An app as it stands."""

    app: str
    live: Live | None
    """What the journal says is live."""
    wants_running: bool
    """False after a person stopped it."""
    is_supervised: bool
    web: ProcessState
    proxy: ProcessState
    relay: ProcessState
    family: Family | None
    target: int | None
    """The instance that the proxy routes to; None when requests are held or go nowhere."""
    address: str
    last: Entry | None
    unfinished: Entry | None
    holder: lock.Holder | None
    """Who holds the deployment lock, or died with it and left something to recover."""
    is_held: bool = False
    """Whether the holder is alive."""
    workers: int = 0
    """Of the web process."""
    background: Mapping[str, tuple[ProcessState, ...]] = msgspec.field(default_factory=dict)
    """The processes of each worker and timer."""
    earlier: str = ""
    """The release that `rollback` makes live; empty when there is none."""
    notes: tuple[str, ...] = ()
    """What a person should know of how the public gets the app."""
    is_answering: bool = False
    """Whether the site answers although no supervisor could be asked how it is."""

    @property
    def is_serving(self) -> bool:
        """Whether the live instance runs and gets the requests."""
        if self.live is None or self.target != self.live.number:
            return False
        runs = self.web.pid is not None and self.proxy.phase is Phase.RUNNING
        return runs if self.is_supervised else self.is_answering


def status(host: Host, journal: Journal) -> Status:
    """Read everything; changes nothing."""
    live = journal.live()
    web = host.supervisor.state(web_name(live.number if live else 0))
    entries = journal.entries()
    holder, unfinished = lock.peek(host.layout.lock), journal.unfinished()
    is_held = holder is not None and family_of(holder.pid) is not None
    is_supervised = host.supervisor.is_running()
    return Status(
        app=host.layout.app,
        live=live,
        wants_running=journal.wants_running(),
        is_supervised=is_supervised,
        is_answering=not is_supervised and live is not None and _answers(host),
        web=web,
        proxy=host.supervisor.state(PROXY),
        relay=host.supervisor.state(RELAY),
        family=family_of(web.pid) if web.pid else None,
        target=host.proxy.target(),
        address=host.proxy.public().address if journal.wants_running() else "",
        notes=host.proxy.notes() if journal.wants_running() else (),
        last=entries[-1] if entries else None,
        unfinished=unfinished,
        holder=holder if is_held or unfinished else None,  # of one that died when all was done, a note may stay
        is_held=is_held,
        workers=_workers(host, live),
        earlier=earlier_release(journal.lived()),
        background=look(host, live) if live is not None and journal.wants_running() else {},
    )


def stops(entries: Iterable[Entry]) -> tuple[tuple[float, float | None], ...]:
    """When the app was stopped by a person, and until when, in seconds since the epoch; None while it is."""
    found: list[tuple[float, float | None]] = []
    begin: float | None = None
    for entry in entries:
        if not entry.is_committed:
            continue
        moment = datetime.fromisoformat(entry.ended_at or entry.deployment.started_at).timestamp()
        if entry.deployment.kind.stops_app:
            begin = moment if begin is None else begin
        elif begin is not None and entry.deployment.kind.makes_live:
            found.append((begin, moment))
            begin = None
    return (*found, (begin, None)) if begin is not None else tuple(found)


def _workers(host: Host, live: Live | None) -> int:
    """How many workers the live release is configured with; 0 when it is damaged, which must not hide the rest."""
    try:
        return host.releases.manifest(live.release).config.app.workers if live else 0
    except StepFailed:
        return 0


def _answers(host: Host) -> bool:
    """Whether the site answers anything but an error: what a killed supervisor left serves on without it."""
    status = host.ask_public("/up", _PATIENCE_SECONDS).status  # one that is not found is an answer as well
    return 0 < status < HTTPStatus.INTERNAL_SERVER_ERROR
