"""The supervisors that run real processes, each with a place for what it runs."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bulletproof.adapters.embedded.policy import Policy
from bulletproof.adapters.systemd import SystemdSupervisor
from bulletproof.domain.process import ProcessSpec
from bulletproof.domain.units import Patience
from bulletproof.ports import Supervisor
from embedded.places import new_place

CRASHES = 3
"""In a row, and a supervisor of these tests gives up."""
IS_SYSTEMD_HERE = Path("/run/systemd/system").is_dir() and os.geteuid() == 0
"""Whether systemd takes orders from us: tests/hosts runs these tests where it does."""
KINDS = ("embedded", *(("systemd",) if IS_SYSTEMD_HERE else ()))


@dataclass(frozen=True, slots=True)
class Real:
    """A supervisor of real processes, and a folder of theirs."""

    supervisor: Supervisor
    folder: Path
    runtime: Path
    """Where it may make runtime folders."""

    def shell(self, text: str, name: str = "web-1") -> ProcessSpec:
        """A process that is a shell script."""
        return ProcessSpec(
            name=name,
            argv=("/bin/sh", "-c", text),
            folder=self.folder,
            log=self.folder / "log",
            environment={"PLACE": str(self.folder), "PATH": os.defpath},
            stop_seconds=5.0,
        )


@contextmanager
def real(kind: str) -> Iterator[Real]:
    """A supervisor that does not run yet; nothing of it runs afterwards."""
    with new_place() as place:
        if kind == "embedded":
            policy = Policy(first_pause_seconds=0.01, crashes=CRASHES)
            yield Real(place.supervisor(policy=policy), place.root, place.root / "runtime")
            return
        name = f"demo-{secrets.token_hex(2)}"
        supervisor = SystemdSupervisor(name, Patience(restart_seconds=0.1, crashes=CRASHES))
        try:
            yield Real(supervisor, place.root, Path("/run") / name)
        finally:
            supervisor.shutdown()
            shutil.rmtree(Path("/run") / name, ignore_errors=True)
