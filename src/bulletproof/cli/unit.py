"""What `systemctl start|stop|restart APP` means on a server: called by the app's unit, and by nobody else."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

from bulletproof.cli.deployments import carry_out
from bulletproof.cli.target import Target
from bulletproof.domain.deployment import Kind
from bulletproof.effects import durable
from bulletproof.effects.unit_jobs import job_of, machine_state
from bulletproof.engine.journal import Journal
from bulletproof.operations.activate import activate, stop
from bulletproof.operations.attempt import Order

_PATIENCE_SECONDS = 900.0
"""For another deployment: the unit is started by the first one, which it has to wait out."""
_NOTHING_TO_RUN, _NOT_DONE = 1, 255
"""As ExecCondition has it (systemd.service(5)): the first skips the unit, the second lets it fail."""


def start_unit(target: Target) -> None:
    """Bring up what was live, or, in the middle of a `systemctl restart`, replace its processes without a gap."""
    is_restart = _flag(target).exists()
    durable.remove(_flag(target))
    if not _is_to_run(target):
        sys.exit(_NOTHING_TO_RUN)
    kind = Kind.RESTART if is_restart else Kind.START
    try:
        carry_out(target, kind, lambda session: activate(session, Order(kind=kind)), wait_seconds=_PATIENCE_SECONDS)
    except SystemExit as ended:
        sys.exit(_NOT_DONE if ended.code else 0)


def stop_unit(target: Target) -> None:
    """Stop the app when that is what was asked for; not at a shutdown, after which it is to come up again."""
    job = job_of(f"{target.app}.service")
    if machine_state() == "stopping" or job not in {"stop", "restart"}:
        return
    if job == "restart":
        durable.make_folder(_flag(target).parent)
        durable.write_file(_flag(target), "")
        return
    with closing(target.journal()) as journal:
        is_stopped = not journal.wants_running()
    if not is_stopped:
        carry_out(target, "stop", lambda session: stop(session, Kind.STOP), wait_seconds=_PATIENCE_SECONDS)


def _is_to_run(target: Target) -> bool:
    """Whether there is something to bring up: at a boot not what a person stopped."""
    journal = Journal.read(target.layout.journal)
    if journal is None:
        return False
    with closing(journal):
        is_at_boot = machine_state() in {"initializing", "starting"}
        return journal.live() is not None and (journal.wants_running() or not is_at_boot)


def _flag(target: Target) -> Path:
    return target.layout.sockets / "restart"
