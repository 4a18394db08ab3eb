"""`bulletproof serve`: what a key of `keys add` is made to run, whatever its owner asks for."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from bulletproof.cli.client import as_word, client_in, require_fit
from bulletproof.cli.words import tell_error
from bulletproof.domain.errand import CLIENT, GREETING, Errand, read_errand
from bulletproof.domain.keys import read_rights
from bulletproof.domain.origin import KEY
from bulletproof.effects.audit import asked_line, audit_log, note
from bulletproof.effects.process import become
from bulletproof.effects.surroundings import peer_address
from bulletproof.errors import BulletproofError

_NOT_PASSED_ON = ("BULLETPROOF_", "PYTHON", "LD_", "SSH_ORIGINAL_COMMAND")
"""What sshd may have let a client set, and what would change which code we run."""


@click.command("serve", hidden=True)
@click.option("--key", "name", required=True)
@click.option("--app", required=True)
@click.option("--can", "rights", required=True)
@click.pass_obj
def serve_command(root: Path, *, name: str, app: str, rights: str) -> None:
    """Do what SSH_ORIGINAL_COMMAND asks for, if this key may; sshd starts it, and no person."""
    asked = asked_line()
    if asked == GREETING:
        return
    try:
        errand = read_errand(asked, read_rights(rights), app)
        require_fit(client_in(errand.client))
    except BulletproofError as error:
        _note(root, "refused", name, error.message, asked)
        tell_error(error, as_json=b" --json" in asked)
        sys.exit(error.exit_code)
    _note(root, "served", name, "", asked)
    _do(root, name, errand)


def _do(root: Path, name: str, errand: Errand) -> NoReturn:
    """Become the verb, as if its words had been typed here."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_NOT_PASSED_ON)}
    environment = {**kept, CLIENT: as_word(client_in(errand.client)), KEY: name}
    become((sys.executable, "-P", "-m", "bulletproof", "--root", str(root), *errand.words), environment)


def _note(root: Path, verdict: str, name: str, why: str, asked: bytes) -> None:
    facts = {"key": name, "from": peer_address() or "unknown", **({"why": why} if why else {})}
    try:
        note(audit_log(root), verdict, facts, asked)
    except OSError as error:
        # A full disk must not keep anybody from looking, or from rolling back; the system's journal has it.
        click.echo(f"warning: the log of the keys could not be written: {error}", err=True)
