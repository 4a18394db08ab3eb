"""What the verbs about backups share: the app as it runs, and a folder for trials that is gone afterwards."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

import click
import msgspec

from bulletproof.cli.target import Target
from bulletproof.cli.wording import size
from bulletproof.domain.backup import Backup, Proof
from bulletproof.domain.config import AppConfig
from bulletproof.domain.deployment import Live
from bulletproof.domain.layout import PlannedLayout, runtime_folder
from bulletproof.effects import durable
from bulletproof.effects.interrupts import Interrupts
from bulletproof.effects.scratch import scratch_folder
from bulletproof.engine.journal import Journal
from bulletproof.errors import UsageError
from bulletproof.operations.backups import prove_backup
from bulletproof.ports import Host
from bulletproof.wiring import config_of, connect, connect_bench, known_config


def prove(target: Target, backup: Backup) -> Proof:
    """Try a backup in a folder that is gone afterwards."""
    with closing_journal(target) as journal:
        live, number = journal.live(), journal.entries()[-1].deployment.number + 1
    with Interrupts(), scratch(target, number) as layout:
        config = config_of(target.layout, backup.manifest.release) or config_for(target, live)
        file = layout.root / "restored" / config.database.file
        return prove_backup(connect_live(target), connect_bench(layout, config, file), file, number, backup, live)


@contextmanager
def closing_journal(target: Target) -> Iterator[Journal]:
    """The app's journal, for reading."""
    with contextlib.closing(target.journal()) as journal:
        yield journal


@contextmanager
def scratch(target: Target, number: int) -> Iterator[PlannedLayout]:
    """A layout in a folder of its own, for what is tried; it is gone afterwards."""
    with scratch_folder(f"bulletproof-backup-{target.app}-") as folder:
        layout = PlannedLayout(
            root=folder,
            app=target.app,
            runtime=runtime_folder(folder, os.getuid()),
            live=target.layout,
            release_made="",
            number=number,
        )
        try:
            yield layout
        finally:
            durable.remove_tree(layout.runtime)


def connect_live(target: Target) -> Host:
    """The host, with the configuration of the live release."""
    with closing_journal(target) as journal:
        live = journal.live()
    return connect(target.root, target.app, config_for(target, live))


def config_for(target: Target, live: Live | None) -> AppConfig:
    """The live release's, as it runs."""
    return known_config(target.layout, (live,) if live else (), target.config)


def require_live(target: Target, journal: Journal) -> Live:
    """What is live. Raises UsageError when nothing is."""
    live = journal.live()
    if live is None:
        raise UsageError("nothing-deployed", f"no release of {target.app} is live", hint="bulletproof deploy")
    return live


def show_proof(backup: Backup, proof: Proof, *, as_json: bool) -> None:
    """Say what a trial found."""
    if as_json:
        click.echo(json.dumps({"name": backup.name, **msgspec.to_builtins(proof)}))
    elif proof.trouble:
        click.echo(f"{click.style('✗', fg='red')} {backup.name} cannot be restored: {proof.trouble}")
    else:
        trial = f"restored for a trial in {proof.seconds:.1f} s: {proof.words}"
        click.echo(f"{click.style('✓', fg='green')} {backup.name}, {size(backup.manifest.size)}, {trial}")
