"""`bulletproof handout`: a consistent copy of the data on standard output, for `dev --copy --host` elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bulletproof.cli.target import find_target
from bulletproof.effects.scratch import scratch_folder
from bulletproof.effects.sqlite_copy import copy_database
from bulletproof.errors import UsageError
from bulletproof.wiring import config_of

_CHUNK_BYTES = 1 << 20


@click.command("handout", hidden=True)
@click.option("--app", required=True)
@click.pass_obj
def handout_command(root: Path, *, app: str) -> None:
    """Copy, and write what was copied."""
    target = find_target(root, None, app)
    journal = target.journal()
    live = journal.live()
    journal.close()
    config = config_of(target.layout, live.release) if live else None
    if config is None:
        raise UsageError("nothing-deployed", f"no release of {app} is live", hint="bulletproof deploy")
    with scratch_folder(f"bulletproof-handout-{app}-") as scratch:
        copy_database(target.layout.data / config.database.file, scratch / "copy.db")
        with (scratch / "copy.db").open("rb") as copy:
            while chunk := copy.read(_CHUNK_BYTES):
                sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()
