"""A replica in memory: the process that would send the changes, wished for or not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bulletproof.domain.process import ProcessSpec, replica_name
from bulletproof.errors import BulletproofError


@dataclass
class FakeReplica:
    """ports.Replica; `mark` tells apart what it does, and is empty when nobody wishes one."""

    mark: str = "model"
    trouble: BulletproofError | None = None
    """Why it cannot be."""

    def process(self) -> ProcessSpec | None:
        """It, if it is wished for."""
        if self.trouble is not None:
            raise self.trouble
        if not self.mark:
            return None
        return ProcessSpec(name=replica_name(self.mark), argv=("replica",), folder=Path("/"), log=Path("/dev/null"))
