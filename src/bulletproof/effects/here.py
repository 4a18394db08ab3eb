"""This machine, spoken to as a host that is reached by SSH is."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import IO

import msgspec

from bulletproof.domain.address import Address
from bulletproof.effects.process import NOTHING, Completed, attend

_ADDRESS = Address(called="this machine", host="localhost")


class HereHost(msgspec.Struct, frozen=True):
    """The machine that we run on."""

    address: Address = _ADDRESS

    def ask(self, command: Sequence[str], given: IO[bytes] | None = None) -> Completed:
        """Run a program to its end, quietly."""
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
            status = attend(tuple(command), given=given or NOTHING, said=said, errors=errors)
            for file in (said, errors):
                file.seek(0)
            texts = [file.read().decode(errors="replace") for file in (said, errors)]
        return Completed(argv=tuple(command), status=status, output=texts[0], errors=texts[1])
